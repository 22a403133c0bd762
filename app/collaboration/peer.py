"""One websocket of a room, and the frames that it has not been sent yet."""

import asyncio
import itertools
from collections import deque

from app.auth.identity import Identity

_numbers = itertools.count(1)


class Peer:
    """A peer of a room. `may_write` is what its user may do; it can change while it is here."""

    def __init__(self, identity: Identity, *, may_write: bool, limit_bytes: int) -> None:
        self.identity = identity
        self.may_write = may_write
        self.number = next(_numbers)
        self.announced = False
        self.ended = asyncio.Event()
        self.ending: tuple[int, str] = (1000, "")
        self._limit = limit_bytes
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    def put(self, frame: bytes) -> None:
        """Queue a frame; a peer that does not read for too long is closed, and comes back.

        One frame fits always: a large document is one.
        """
        if self._queue and self._queued_bytes + len(frame) > self._limit:
            self.end(1013, "too slow: connect again")
            return
        self._queue.append(frame)
        self._queued_bytes += len(frame)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> bytes:
        """Return the next frame, once there is one; `sent` takes it out of the queue."""
        while not self._queue:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._queue[0]

    def sent(self) -> None:
        """Take out the frame that was sent."""
        self._queued_bytes -= len(self._queue.popleft())

    def end(self, code: int, reason: str) -> None:
        """Have the websocket closed; nothing more is sent. The first reason stands."""
        if not self.ended.is_set():
            self.ending = code, reason
            self.ended.set()
