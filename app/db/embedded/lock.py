"""The lock that gives a data directory one server at a time.

An flock, which the kernel releases however its process ends. The file holds two lines for people
and for recovery: the server's process id and that of the PostgreSQL it started last.
"""

import fcntl
import os
from pathlib import Path

from app.db.embedded.errors import EmbeddedPostgresError, explained

NAME = "server.lock"


class DataDirLock:
    """Held from its making to `release`; a second holder gets an error that names the first."""

    def __init__(self, data_dir: Path) -> None:
        path = data_dir / NAME
        with explained("write to the data directory", data_dir):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(path, flags, 0o644)
        try:
            with explained("lock the data directory", data_dir):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except EmbeddedPostgresError as error:
            holder = self._numbers()[:1]
            os.close(self._file)
            if not isinstance(error.__cause__, BlockingIOError):
                raise
            who = f"process {holder[0]}" if holder else "another process"
            raise EmbeddedPostgresError(
                f"The data directory {data_dir} is in use by {who}: stop that server first, or "
                "choose another place with --data-dir."
            ) from None
        # The pid of the PostgreSQL that the lock's previous holder started, if it got that far.
        self.previous_postmaster = next(iter(self._numbers()[1:2]), None)
        try:
            with explained("write to the data directory", data_dir):
                self._write(os.getpid(), self.previous_postmaster)
        except EmbeddedPostgresError:
            os.close(self._file)
            raise

    def record(self, postmaster: int) -> None:
        """Notes which PostgreSQL is ours, for whoever recovers after us."""
        self._write(os.getpid(), postmaster)
        self.previous_postmaster = postmaster

    def release(self) -> None:
        """Lets another server in. The file stays: removing it would let two hold "the" lock."""
        # Explicit, because a forked child may still have the file open.
        fcntl.flock(self._file, fcntl.LOCK_UN)
        os.close(self._file)

    def _numbers(self) -> list[int]:
        return [int(word) for word in os.pread(self._file, 100, 0).split() if word.isdigit()]

    def _write(self, server: int, postmaster: int | None) -> None:
        text = f"{server}\n{postmaster or ''}\n".encode()
        os.pwrite(self._file, text, 0)
        os.ftruncate(self._file, len(text))
