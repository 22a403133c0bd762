"""The private folder of the unix socket, and whether somebody listens there."""

import contextlib
import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path

from app.db.embedded.account import Account
from app.db.embedded.errors import EmbeddedPostgresError, explained

# sun_path holds 108 bytes on Linux and 104 on macOS, the closing NUL among them.
LONGEST_SOCKET_PATH = 103
RECORD = "socket-dir"


def socket_path(directory: Path, port: int) -> Path:
    """The socket's path, as PostgreSQL names it for `port`."""
    return directory / f".s.PGSQL.{port}"


def make_socket_dir(data_dir: Path, account: Account, port: int) -> Path:
    """An empty folder that only `account` may enter: `run` in the data directory if that will do.

    It will not when the path is too long for a socket, or has a comma, which separates hosts for
    libpq. Then it is a short temporary folder whose path stands in the file `socket-dir`. Needs the
    data directory's lock and that no PostgreSQL runs there.
    """
    inside = data_dir / "run"
    record = data_dir / RECORD
    with explained("make the socket's folder in", data_dir):
        remove_socket_dir(data_dir, account)
        if _fits(inside, port):
            inside.mkdir(mode=0o700, exist_ok=True)
            directory = inside
        else:
            directory = _temporary(account, port)
            record.write_bytes(os.fsencode(directory))
        if account.switch:
            os.chown(directory, account.uid, account.gid, follow_symlinks=False)
        directory.chmod(0o700)
        # What a killed PostgreSQL left; its lock file would count if its pid was recycled.
        for left in (socket_path(directory, port), Path(f"{socket_path(directory, port)}.lock")):
            left.unlink(missing_ok=True)
    return directory


def remove_socket_dir(data_dir: Path, account: Account) -> None:
    """Removes the temporary socket folder that is on record, if it is still ours."""
    record = data_dir / RECORD
    try:
        directory = Path(os.fsdecode(record.read_bytes()))
        found = directory.lstat()
    except OSError:
        record.unlink(missing_ok=True)
        return
    # Somebody else may have made a folder of that name after ours was cleaned away.
    if stat.S_ISDIR(found.st_mode) and found.st_uid == account.uid:
        shutil.rmtree(directory, ignore_errors=True)
    record.unlink(missing_ok=True)


def is_listening(directory: Path, port: int) -> bool:
    """Whether a server accepts connections on the socket; raises PermissionError if not allowed."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(2)
        try:
            probe.connect(os.fspath(socket_path(directory, port)))
        except PermissionError:
            raise
        except OSError:
            return False
    return True


def _fits(directory: Path, port: int) -> bool:
    path = os.fsencode(socket_path(directory, port))
    return len(path) <= LONGEST_SOCKET_PATH and b"," not in path


def _temporary(account: Account, port: int) -> Path:
    own = None if account.switch else os.environ.get("XDG_RUNTIME_DIR")
    for parent in (own, "/tmp", tempfile.gettempdir()):
        if not parent or not _fits(Path(parent) / "datastore-12345678", port):
            continue
        if account.first_unreachable(Path(parent)) is not None:
            continue
        with contextlib.suppress(OSError):
            return Path(tempfile.mkdtemp(prefix="datastore-", dir=parent))
    raise EmbeddedPostgresError(
        "The path of the data directory is too long for a socket, and no short folder can be made "
        "under /tmp: choose a shorter place with --data-dir."
    )
