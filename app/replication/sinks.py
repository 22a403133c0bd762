"""Where the stream's lines go, and how far their reader is known to have them.

A mark is (position of the transaction, number of the line in it): marks are ordered as lines are.
"""

import array
import contextlib
import fcntl
import os
import queue
import stat
import termios
import threading
from collections import deque
from pathlib import Path
from typing import Protocol

Mark = tuple[int, int]

QUEUE_LINES = 2_000
BATCH_LINES = 200


class ReaderGoneError(Exception):
    """Nobody reads the lines any more."""


class Place(Protocol):
    """What lines are written to. `received` is the last mark that its reader has."""

    def write(self, lines: list[bytes], last: Mark) -> None:
        """Write whole lines, the last of which has the mark `last`."""

    def received(self) -> Mark | None:
        """Return the mark up to which lines are safe with the reader."""


class FilePlace:
    """A file that grows; lines are safe once they are on disk.

    A line that a killed process left half written is cut off first: it comes again.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        end = os.fstat(self._file).st_size
        kept = end
        while kept and os.pread(self._file, 1, kept - 1) != b"\n":
            kept -= 1
        if kept != end:
            os.ftruncate(self._file, kept)
        self._mark: Mark | None = None

    def write(self, lines: list[bytes], last: Mark) -> None:
        """Write lines and have them on disk."""
        _write_all(self._file, b"".join(lines))
        os.fsync(self._file)
        self._mark = last

    def received(self) -> Mark | None:
        """Return the last line's mark."""
        return self._mark


class PipePlace:
    """Standard output. What a pipe's reader has not taken out of the pipe is not received."""

    def __init__(self, descriptor: int = 1) -> None:
        self._file = descriptor
        self._is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        self._written = 0
        self._sent: deque[tuple[int, Mark]] = deque()
        self._mark: Mark | None = None

    def write(self, lines: list[bytes], last: Mark) -> None:
        """Write lines; waits for a slow reader."""
        data = b"".join(lines)
        _write_all(self._file, data)
        self._written += len(data)
        self._sent.append((self._written, last))

    def received(self) -> Mark | None:
        """Return the mark of the last lines that the reader has taken."""
        taken = self._written - self._waiting_bytes()
        while self._sent and self._sent[0][0] <= taken:
            self._mark = self._sent.popleft()[1]
        return self._mark

    def _waiting_bytes(self) -> int:
        if not self._is_pipe:
            return 0
        waiting = array.array("i", [0])
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._file, termios.FIONREAD, waiting)
        return waiting[0]


class AcknowledgedPlace:
    """Standard output whose reader says on our standard input what it is done with.

    It writes the `position` of a line, as a line: that line and all before it are then safe.
    """

    def __init__(self, descriptor: int = 1, answers: int = 0) -> None:
        self._file = descriptor
        self._answers = answers
        self._last: Mark | None = None
        self._mark: Mark | None = None
        self._gone = False
        threading.Thread(target=self._listen, name="acknowledgements", daemon=True).start()

    def write(self, lines: list[bytes], last: Mark) -> None:
        """Write lines; waits for a slow reader."""
        # Before they are written: the answer may be quicker than our return.
        self._last = last
        _write_all(self._file, b"".join(lines))

    def received(self) -> Mark | None:
        """Return the last mark acknowledged; raises ReaderGoneError when no more will come."""
        if self._gone:
            raise ReaderGoneError("the reader has closed its acknowledgements")
        return self._mark

    def _listen(self) -> None:
        with os.fdopen(self._answers, "rb", closefd=False) as answers:
            for line in answers:
                mark = parse_mark(line.decode("ascii", "replace").strip())
                # A position that was never sent would let what comes later pass as read.
                if mark is not None and self._last is not None and mark <= self._last:
                    self._mark = max(mark, self._mark or mark)
        self._gone = True


class Writer:
    """Writes lines in a thread of its own, so that a slow reader does not keep the server waiting.

    The queue between is bounded: `offer` says when it is full.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._queue: queue.Queue[tuple[bytes, Mark] | None] = queue.Queue(QUEUE_LINES)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
        self._thread.start()

    def offer(self, line: bytes, mark: Mark, timeout_seconds: float) -> bool:
        """Queue a line; False when there was no room in time. Raises what writing raised."""
        self._raise()
        try:
            self._queue.put((line, mark), timeout=timeout_seconds)
        except queue.Full:
            return False
        return True

    def received(self) -> Mark | None:
        """Return the mark up to which lines are safe with the reader; raises what writing did."""
        self._raise()
        return self._place.received()

    def last_received(self) -> Mark | None:
        """Return the same at the end, whatever has happened."""
        with contextlib.suppress(ReaderGoneError):
            return self._place.received()
        return None

    def close(self, timeout_seconds: float) -> None:
        """Write what is queued, as far as there is time."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=timeout_seconds)
        self._thread.join(timeout_seconds)

    def _raise(self) -> None:
        if isinstance(self._error, BrokenPipeError):
            raise ReaderGoneError("the reader has gone") from self._error
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while (item := self._queue.get()) is not None:
                lines, mark = [item[0]], item[1]
                while len(lines) < BATCH_LINES and not self._queue.empty():
                    following = self._queue.get()
                    if following is None:
                        self._place.write(lines, mark)
                        return
                    lines.append(following[0])
                    mark = following[1]
                self._place.write(lines, mark)
        except BaseException as error:  # noqa: BLE001 (raised where lines are offered)
            self._error = error


def format_mark(mark: Mark) -> str:
    """Return a line's `position`: the transaction's in PostgreSQL's form, and the line's number."""
    lsn, index = mark
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}:{index}"


def parse_mark(text: str) -> Mark | None:
    """Return the mark that is written so, None for anything else."""
    position, _, index = text.strip('"').partition(":")
    high, _, low = position.partition("/")
    try:
        return (int(high, 16) << 32) | int(low, 16), int(index)
    except ValueError:
        return None


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
