"""Passing comm messages on, once they are committed, to who follows the comm in this process.

Each follower has a bounded queue. One that does not keep up is cut off: it may come back and read
on from the tables.
"""

import asyncio
import uuid
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

# Several of the recorder's batches, which arrive at once: only who does not read falls behind.
_QUEUE_MESSAGES = 10_000
_QUEUE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CommRecord:
    """A recorded message of the comm with row id `comm`; `id` is the message's row.

    A comm_close has no row of its own; its `reason` is there when the comm did not end by itself.
    """

    comm: uuid.UUID
    id: int
    msg_type: str
    direction: str
    msg_id: str | None
    data: dict[str, Any]
    metadata: dict[str, Any]
    buffers: list[bytes] = field(repr=False)
    size_bytes: int
    reason: str | None = None


class Follower:
    """Who follows one comm: `take` waits for the next records, in order."""

    def __init__(self, kernel_id: str) -> None:
        self.kernel_id = kernel_id
        self.cut_off = asyncio.Event()
        self.is_over = False
        self._records: deque[CommRecord] = deque()
        self._size = 0
        self._arrived = asyncio.Event()

    def put(self, record: CommRecord) -> None:
        """Queue a record, or cut this follower off when it is too far behind."""
        if self.cut_off.is_set():
            return
        over = len(self._records) >= _QUEUE_MESSAGES or (
            bool(self._records) and self._size + record.size_bytes > _QUEUE_BYTES
        )
        if over:
            self._records.clear()
            self.cut_off.set()
        else:
            self._records.append(record)
            self._size += record.size_bytes
        self._arrived.set()

    def end(self) -> None:
        """Let `take` return nothing: the server is shutting down."""
        self.is_over = True
        self._arrived.set()

    async def take(self) -> list[CommRecord]:
        """Return what has arrived, waiting for it; nothing when cut off or over."""
        while not self._records and not self.cut_off.is_set() and not self.is_over:
            self._arrived.clear()
            await self._arrived.wait()
        records = list(self._records)
        self._records.clear()
        self._size = 0
        return records


class CommFollowers:
    """The followers in this process, by the comm's row id."""

    def __init__(self) -> None:
        self._followers: dict[uuid.UUID, set[Follower]] = defaultdict(set)
        self._closed = False

    @contextmanager
    def follow(self, comm: uuid.UUID, kernel_id: str) -> Iterator[Follower]:
        """Yield a follower that gets every record committed from now on.

        Enter before reading the tables, so that nothing falls between reading and waiting.
        """
        follower = Follower(kernel_id)
        follower.is_over = self._closed
        self._followers[comm].add(follower)
        try:
            yield follower
        finally:
            followers = self._followers[comm]
            followers.discard(follower)
            if not followers:
                del self._followers[comm]

    def publish(self, records: Iterable[CommRecord]) -> None:
        """Pass committed records on, in order."""
        for record in records:
            for follower in self._followers.get(record.comm, ()):
                follower.put(record)

    def kernels(self) -> set[str]:
        """Return the ids of kernels with a comm that someone follows."""
        return {f.kernel_id for followers in self._followers.values() for f in followers}

    def close(self) -> None:
        """End all followers: the server is shutting down."""
        self._closed = True
        for followers in self._followers.values():
            for follower in followers:
                follower.end()
