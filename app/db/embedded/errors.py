"""The one error of the embedded PostgreSQL, and how an operating system error becomes it.

Messages are sentences for a person: what is wrong, where, and what to do. Nothing here starts or
looks at processes.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot be used; the message says why and what to do."""


@contextmanager
def explained(doing: str, path: Path) -> Iterator[None]:
    """Turns an OSError raised inside into an EmbeddedPostgresError about `doing` to `path`."""
    try:
        yield
    except OSError as error:
        raise EmbeddedPostgresError(_sentence(error, doing, path)) from error


def disk_is_full(path: Path, said: str) -> bool:
    """Whether PostgreSQL `said` so, or no WAL segment (16 MB) finds room where `path` lies.

    On a full disk its log may be empty, for it cannot be written either.
    """
    if any(words in said for words in ("No space left", "Check free disk space", "quota exceeded")):
        return True
    try:
        space = os.statvfs(path)
    except OSError:
        return False
    return space.f_bavail * space.f_frsize < 16 * 1024 * 1024


def full_disk(doing: str, path: Path) -> EmbeddedPostgresError:
    """The error for a disk without room, made in one place for all who notice it."""
    return EmbeddedPostgresError(
        f"Cannot {doing} {path}: the disk is full. Free some space there, or choose another "
        "place with --data-dir."
    )


def _sentence(error: OSError, doing: str, path: Path) -> str:
    where = Path(os.fsdecode(error.filename)) if error.filename else path
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return str(full_disk(doing, path))
    if error.errno == errno.EROFS:
        reason = f"{where} is on a read-only file system"
    elif error.errno in (errno.EACCES, errno.EPERM):
        reason = f"the user with id {os.geteuid()} has no permission for {where}"
    elif error.errno in (errno.ENOTDIR, errno.EEXIST):
        reason = f"{where} is not a directory"
    else:
        reason = f"{error.strerror or error} ({where})"
    return (
        f"Cannot {doing} {path}: {reason}. Correct that, or choose another place with --data-dir."
    )
