"""What waits to be recorded, in order; what does not fit into its memory waits on the disk.

While the database is away a kernel goes on talking, and nothing of it may be lost. Only what
kernels say is put away: it is the bulk, and refers to nothing in this process.
"""

import logging
import os
import pickle
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

from app.recorder.messages import Message, Unreadable
from app.recorder.tracker import Item

log = logging.getLogger(__name__)

# What a message takes in memory besides its content: headers, objects.
_MESSAGE_BYTES = 4_000


class _PutAway(NamedTuple):
    """Where an item is in the file."""

    start: int
    length: int


class Backlog:
    """A queue of items; `limit_bytes` of messages are in memory, the rest in a file.

    The file has no name, so that nothing is left of it however the process ends; it is emptied
    as soon as nothing in it waits. With `folder` None all stays in memory.
    """

    def __init__(self, folder: Path | None = None, limit_bytes: int = sys.maxsize) -> None:
        self._items: deque[Item | _PutAway] = deque()
        self._folder = folder
        self._limit = limit_bytes
        self._memory_bytes = 0
        self._file: IO[bytes] | None = None
        self._put_away = 0
        self._end = 0
        self._refused = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def put_away(self) -> int:
        """How many items wait on the disk."""
        return self._put_away

    def append(self, item: Item) -> None:
        """Add an item at the end."""
        if isinstance(item, Message | Unreadable):
            size = _size(item)
            if self._memory_bytes + size > self._limit and (place := self._put(item)):
                self._items.append(place)
                return
            self._memory_bytes += size
        self._items.append(item)

    def first(self) -> Item | None:
        """Return the first item if it is in memory."""
        item = self._items[0]
        return None if isinstance(item, _PutAway) else item

    def in_memory(self, count: int) -> Iterator[Item]:
        """Return those of the first items that are in memory."""
        return (item for item in islice(self._items, count) if not isinstance(item, _PutAway))

    def popleft(self) -> Item:
        """Take the first item out."""
        item = self._items.popleft()
        if isinstance(item, _PutAway):
            return self._fetch(item)
        if isinstance(item, Message | Unreadable):
            self._memory_bytes -= _size(item)
        return item

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _put(self, item: Message | Unreadable) -> _PutAway | None:
        """Write an item to the file; None where the disk does not take it."""
        if self._folder is None:
            return None
        try:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 (kept open)
            data = pickle.dumps(item, pickle.HIGHEST_PROTOCOL)
            written = 0
            while written < len(data):
                written += os.pwrite(self._file.fileno(), data[written:], self._end + written)
        except OSError as error:
            if not self._refused:
                log.warning("messages that wait for the database stay in memory: %s", error)
            self._refused = True
            return None
        if not self._put_away:
            log.warning("messages that wait for the database are put away in %s", self._folder)
        self._refused = False
        place = _PutAway(self._end, len(data))
        self._end += len(data)
        self._put_away += 1
        return place

    def _fetch(self, place: _PutAway) -> Item:
        assert self._file is not None
        try:
            data = os.pread(self._file.fileno(), place.length, place.start)
            item: Item = pickle.loads(data)  # noqa: S301 (written by this process, to a file without a name)
        except (OSError, pickle.UnpicklingError, EOFError) as error:
            log.exception("a message that was put away cannot be read")
            item = Unreadable("iopub", f"put away, but lost: {error}", [], datetime.now(UTC))
        self._put_away -= 1
        if not self._put_away:
            self._file.truncate(0)
            self._end = 0
        return item


def _size(item: Message | Unreadable) -> int:
    if isinstance(item, Message):
        return item.size_bytes + _MESSAGE_BYTES
    return sum(map(len, item.frames)) + _MESSAGE_BYTES
