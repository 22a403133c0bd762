"""Waiting for processes that are not our children, and ending them.

A process is a (process id, creation time) pair, so that a recycled id is never mistaken for it.
"""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

Process = tuple[int, float]
POLL_SECONDS = 0.02


def is_alive(process: Process) -> bool:
    """Whether it still runs; a zombie does not, and is reaped if it is a child of ours.

    It can be one that we adopted: in a container the server may be process 1.
    """
    pid, created = process
    try:
        found = psutil.Process(pid)
        if abs(found.create_time() - created) > 1:
            return False
        if found.status() != psutil.STATUS_ZOMBIE:
            return True
    except psutil.Error:
        return False
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return False


def wait_for_end(processes: Iterable[Process], timeout_seconds: float) -> list[Process]:
    """Waits until all have ended; returns those that have not in time."""
    deadline = time.monotonic() + timeout_seconds
    alive = list(processes)
    while (alive := [process for process in alive if is_alive(process)]) and (
        time.monotonic() < deadline
    ):
        time.sleep(POLL_SECONDS)
    return alive


def end(
    processes: Iterable[Process], steps: Iterable[tuple[signal.Signals, float]]
) -> list[Process]:
    """Sends each signal in turn and waits as many seconds; returns those that still run."""
    alive = [process for process in processes if is_alive(process)]
    for number, timeout_seconds in steps:
        for pid, _ in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        alive = wait_for_end(alive, timeout_seconds)
        if not alive:
            break
    return alive
