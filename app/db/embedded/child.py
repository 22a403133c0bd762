"""The few steps between our process and a PostgreSQL program, run as a script of its own.

`python -P child.py run|reach|processes UID GID USER ...`: it gives up root for the account (UID -1
keeps the present one) and then becomes the program, asks the kernel what the account can reach, or
looks for processes. A script and not a `preexec_fn`: after a fork of a process with threads, Python
code X
"""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG = 1
PASSED_ON = ("PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def environment() -> dict[str, str]:
    """What PostgreSQL's programs get of our environment: no PG* settings, locales or secrets."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ} | {"LC_ALL": "C"}


def become(uid: int, gid: int, user: str) -> None:
    """Gives up root for the account, or with uid -1 stays what we are."""
    if uid == -1:
        return
    os.initgroups(user, gid)
    os.setgid(gid)
    os.setuid(uid)


def run(
    account: tuple[int, int, str], parent: int, death_signal: int, watch: int, argv: list[str]
) -> NoReturn:
    """Becomes `argv`, which gets `death_signal` when `parent` ends.

    The order matters: a change of credentials clears the parent death signal (prctl(2),
    PR_SET_PDEATHSIG), so it is set last; a parent that ended before that is noticed afterwards.
    `watch` is a pipe whose other end only the parent holds, or -1 where Linux does this for us.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if watch != -1:
        fork_watcher(watch, death_signal)
    become(*account)
    if watch == -1 and libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        sys.exit("the parent process ended before PostgreSQL was started")
    os.execve(argv[0], argv, environment())


def fork_watcher(watch: int, death_signal: int) -> None:
    """Leaves behind a process that signals this one when the other end of pipe `watch` closes.

    For systems without parent death signals (macOS). Forked twice, so that PostgreSQL does not have
    a child that it does not know.
    """
    import psutil  # noqa: PLC0415

    program = psutil.Process()
    middle = os.fork()
    if middle:
        os.waitpid(middle, 0)
        os.close(watch)
        return
    if os.fork():
        os._exit(0)
    os.setsid()
    while os.read(watch, 1):
        pass
    # send_signal compares creation times first: a recycled process id is left alone.
    with contextlib.suppress(psutil.Error):
        program.send_signal(death_signal)
    os._exit(0)


def first_unreachable(path: Path) -> Path | None:
    """The topmost existing folder on the way to `path`, or `path`, that may not be entered."""
    for step in [*reversed(path.parents), path]:
        if not os.access(step, os.F_OK):
            return None
        if not os.access(step, os.X_OK):
            return step
    return None


def postgres_processes(account: tuple[int, int, str], pgdata: str) -> list[tuple[int, float]]:
    """(process id, creation time) of the account's postgres processes working in `pgdata`."""
    import psutil  # noqa: PLC0415

    become(*account)
    found = []
    directory = os.path.realpath(pgdata)
    for process in psutil.process_iter():
        try:
            if process.uids().effective != os.geteuid():
                continue
            if process.cwd() != directory:
                continue
            program = Path(process.exe().removesuffix(" (deleted)")).name
            if program == "postgres":
                found.append((process.pid, process.create_time()))
        except (psutil.Error, OSError):
            continue
    return found


def main() -> None:
    """Does what the command line asks; answers go to standard output."""
    action, uid, gid, user, *rest = sys.argv[1:]
    account = (int(uid), int(gid), user)
    if action == "run":
        parent, death_signal, watch, *argv = rest
        run(account, int(parent), int(death_signal), int(watch), argv)
    elif action == "reach":
        become(*account)
        blocked = first_unreachable(Path(rest[0]))
        sys.stdout.buffer.write(os.fsencode(blocked) if blocked else b"")
    elif action == "processes":
        for pid, created in postgres_processes(account, rest[0]):
            sys.stdout.write(f"{pid} {created!r}\n")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    main()
