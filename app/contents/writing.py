"""Writing a file so that it is either the old one or the new one, whole, whatever happens.

Nothing here knows what is in a file.
"""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: Path, mode: str = "wb", **options: Any) -> Iterator[Any]:
    """Yield a file to write to; it takes the place of the file at `path` once it is on the disk.

    jupyter_server copies the old file away and overwrites it, which leaves a broken file when the
    process ends in between, and nothing when a new file does not fit. Mode, and the owner where
    allowed, stay the old file's; a symlink's target is replaced, not the link. A writable file in a
    folder that is not can only be overwritten in place, as jupyter_server does. `options` are
    those of `open`. Raises OSError; the old file is whole then.
    """
    if path.is_symlink():
        path = path.resolve()
    if path.exists():
        if not os.access(path, os.W_OK):
            raise PermissionError(13, "Permission denied", str(path))
        if not os.access(path.parent, os.W_OK):
            with path.open(mode, **options) as file:
                yield file
            return
    temporary = path.with_name(f".~{secrets.token_hex(8)}")
    try:
        with temporary.open(mode.replace("w", "x"), **options) as file:
            yield file
            file.flush()
            with contextlib.suppress(FileNotFoundError):
                old = path.stat()
                os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fileno(), old.st_uid, old.st_gid)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
