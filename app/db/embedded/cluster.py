"""The files of one PostgreSQL cluster: making them, checking them and reading its pid file.

Layout of a data directory: `postgres-18/` is PGDATA, `run/` holds the socket, `postgres.log` what
PostgreSQL says. Names that begin with `.postgres-` or `.pgsql-` are work in progress that an
interrupted start left behind.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from app.db.embedded.account import Account
from app.db.embedded.errors import EmbeddedPostgresError, disk_is_full, explained, full_disk

SUPERUSER = "datastore"
PID_FILE = "postmaster.pid"
LOG_TAIL_LINES = 12


@dataclass(frozen=True)
class PidFile:
    """What a postmaster.pid says (miscadmin.h, LOCK_FILE_LINE_*); it may be stale."""

    pid: int
    port: int
    socket_dir: Path
    status: str


def read_pid_file(pgdata: Path) -> PidFile | None:
    """The cluster's pid file; None when there is none or it is not whole.

    Raises PermissionError when we may not read it.
    """
    try:
        lines = (pgdata / PID_FILE).read_bytes().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        pid, port = int(lines[0]), int(lines[3])
        socket_dir = Path(os.fsdecode(lines[4]))
        status = lines[7].decode().strip() if len(lines) > 7 else ""
    except (ValueError, IndexError):
        return None
    return PidFile(pid, port, socket_dir, status) if pid > 0 else None


def make_data_dir(data_dir: Path, account: Account) -> None:
    """Makes the data directory and its missing parents; says so if `account` cannot get there.

    Folders made here can be passed through by `account` but not listed by others. Existing
    folders keep their permissions.
    """
    if "\n" in os.fspath(data_dir):
        raise EmbeddedPostgresError("The path of the data directory may not have a line break.")
    _require_reachable(data_dir, account)
    with explained("make the data directory", data_dir):
        missing = [path for path in (data_dir, *data_dir.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir()
            path.chmod(0o711 if account.switch else 0o700)
    if not data_dir.is_dir():
        raise EmbeddedPostgresError(
            f"{data_dir} is not a directory: choose another place with --data-dir."
        )
    if (data_dir / "PG_VERSION").exists():
        raise EmbeddedPostgresError(
            f"{data_dir} is a PostgreSQL cluster of its own: choose another place with --data-dir, "
            "or start that cluster yourself and give the server --database-url."
        )


def _require_reachable(data_dir: Path, account: Account) -> None:
    blocked = account.first_unreachable(data_dir) if account.switch else None
    if blocked is not None and blocked.is_dir():
        raise EmbeddedPostgresError(
            f"PostgreSQL refuses root and runs as the account {account.name!r}, which may not "
            f"enter {blocked}: choose another place with --data-dir, or allow it with "
            f"'chmod o+x {blocked}'."
        )


def check_cluster(pgdata: Path, major: int) -> bool:
    """Whether a usable cluster of version `major` is there; False when one can be made."""
    with explained("read the data directory", pgdata):
        if not pgdata.exists():
            others = [path.parent for path in pgdata.parent.glob("postgres-*/PG_VERSION")]
            if others:
                raise EmbeddedPostgresError(
                    f"{pgdata.parent} holds data of another version of PostgreSQL ({others[0]}), "
                    f"not {major}: bring it over with pg_dump from the release that made it, or "
                    "choose another place with --data-dir."
                )
            return False
        version_file = pgdata / "PG_VERSION"
        if version_file.is_file():
            found = version_file.read_text().strip()
            if found == str(major):
                return True
            raise EmbeddedPostgresError(
                f"{pgdata} was made by PostgreSQL {found}, not {major}: bring it over with pg_dump "
                "from the release that made it, or choose another place with --data-dir."
            )
        if any(pgdata.iterdir()):
            raise EmbeddedPostgresError(
                f"{pgdata} is not empty and not a PostgreSQL cluster: move it away, or choose "
                "another place with --data-dir."
            )
        return False


def remove_unfinished(data_dir: Path) -> None:
    """Removes what interrupted starts left. Needs the data directory's lock."""
    for pattern in (".postgres-*", ".pgsql-*"):
        for left in data_dir.glob(pattern):
            shutil.rmtree(left, ignore_errors=True)


def make_cluster(pgdata: Path, major: int, programs: Path, account: Account) -> None:
    """Runs initdb beside `pgdata` and moves the result there whole. Needs the lock."""
    with explained("make a database in", pgdata.parent):
        new = Path(tempfile.mkdtemp(prefix=f".{pgdata.name}-", dir=pgdata.parent))
        try:
            if account.switch:
                os.chown(new, account.uid, account.gid)
            _initdb(new, major, programs, account)
            # An empty folder may stand there; rename replaces it.
            new.rename(pgdata)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        parent = os.open(pgdata.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


def _initdb(new: Path, major: int, programs: Path, account: Account) -> None:
    # PostgreSQL 16 has no builtin locale provider, and a libc may lack C.UTF-8.
    builtin = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    libc = [
        ["--locale=C.UTF-8", "--locale-provider=libc"],
        ["--locale=C", "--locale-provider=libc"],
    ]
    output = ""
    for locale in [builtin] if major >= 17 else libc:
        argv = [
            os.fspath(programs / "initdb"),
            *("-D", os.fspath(new)),
            *("-U", SUPERUSER),
            *("--encoding=UTF8", "--data-checksums"),
            *("--auth-local=trust", "--auth-host=reject"),
            *locale,
        ]
        result = subprocess.run(
            account.command(argv, parent=os.getpid(), death_signal=signal.SIGTERM),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            check=False,
        )
        if result.returncode == 0:
            return
        output = result.stdout.decode(errors="replace")
        if "invalid locale" not in output:
            break
    if disk_is_full(new.parent, output):
        raise full_disk("make a database in", new.parent)
    raise EmbeddedPostgresError(
        f"PostgreSQL could not make a database in {new.parent}; initdb said:\n{_last_lines(output)}"
    )


def failed_start(pgdata: Path, log: Path, offset: int) -> EmbeddedPostgresError:
    """Why PostgreSQL ended instead of starting: what it wrote to `log` after byte `offset`."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(offset, log.stat().st_size - 16_384))
            said = stream.read().decode(errors="replace")
    except OSError:
        said = ""
    if disk_is_full(pgdata, said):
        return full_disk("start PostgreSQL on", pgdata)
    return EmbeddedPostgresError(
        f"PostgreSQL could not start on {pgdata}; the end of its log {log} says:\n"
        f"{_last_lines(said) or '(nothing)'}"
    )


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-LOG_TAIL_LINES:])
