"""The account that PostgreSQL runs under, and running programs as it.

initdb and postgres refuse root, so root runs them under an unprivileged account that exists. The
commands made here go through `child.py`, which gives up root and ties the program to our life.
"""

import os
import pwd
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from app.db.embedded.errors import EmbeddedPostgresError

CHILD = Path(__file__).with_name("child.py")


@dataclass(frozen=True)
class Account:
    """`switch` is true when we are root and must become this account."""

    name: str
    uid: int
    gid: int
    switch: bool

    def command(
        self, argv: list[str], *, parent: int, death_signal: int, watch: int = -1
    ) -> list[str]:
        """The command line that runs `argv` as this account and ends it with process `parent`."""
        return self._child("run", str(parent), str(int(death_signal)), str(watch), *argv)

    def first_unreachable(self, path: Path) -> Path | None:
        """The topmost folder on the way to `path` (or itself) that this account may not enter.

        Asked of the kernel as that account, so access control lists and the like count.
        """
        found = self._answer("reach", os.fspath(path))
        return Path(os.fsdecode(found)) if found else None

    def postgres_processes(self, pgdata: Path) -> list[tuple[int, float]]:
        """(process id, creation time) of this account's postgres processes working in `pgdata`.

        Looked up as that account: in a container root lacks the right to see the working
        directory of another account's process.
        """
        lines = self._answer("processes", os.fspath(pgdata)).splitlines()
        return [(int(pid), float(created)) for pid, created in (line.split() for line in lines)]

    def _child(self, action: str, *arguments: str) -> list[str]:
        uid = self.uid if self.switch else -1
        account = (str(uid), str(self.gid), self.name)
        return [sys.executable, "-P", os.fspath(CHILD), action, *account, *arguments]

    def _answer(self, action: str, *arguments: str) -> bytes:
        result = subprocess.run(
            self._child(action, *arguments),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if result.returncode != 0:
            last = result.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no output"]
            raise EmbeddedPostgresError(
                f"Could not become the account {self.name!r}, which PostgreSQL should run under "
                f"({last[0]}): start the server as an ordinary user, or give it --database-url."
            )
        return result.stdout


def account_for(pgdata: Path) -> Account:
    """The account to run under: ours, or as root the owner of `pgdata`, else postgres or nobody."""
    uid = os.geteuid()
    if uid != 0:
        return _ordinary(uid)
    for candidate in (_owner(pgdata), "postgres", "nobody"):
        try:
            entry = pwd.getpwnam(candidate) if candidate else None
        except KeyError:
            continue
        if entry is not None and entry.pw_uid != 0:
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, switch=True)
    raise EmbeddedPostgresError(
        "PostgreSQL refuses to run as root, and this machine has neither an account named "
        "'postgres' nor one named 'nobody': add one (useradd --system postgres), start the server "
        "as an ordinary user, or give it --database-url."
    )


def _ordinary(uid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedPostgresError(
            f"The user id {uid} has no name on this machine, and PostgreSQL needs one: add it to "
            "/etc/passwd, or give the server --database-url."
        ) from None
    return Account(entry.pw_name, uid, os.getegid(), switch=False)


def _owner(path: Path) -> str | None:
    try:
        return pwd.getpwuid(path.stat().st_uid).pw_name
    except (OSError, KeyError):
        return None
