"""Waking requests that wait for an execution to change, within this process.

`comms` has those who follow comms.

A wake-up is a hint: who is woken reads the row again. A change made by another process is found
by the waiter's own slow poll.
"""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from app.recorder.followers import CommFollowers


class Waiters:
    """Events of those who wait, by execution id."""

    def __init__(self) -> None:
        self._events: dict[uuid.UUID, set[asyncio.Event]] = defaultdict(set)
        self.closed = False
        self.comms = CommFollowers()

    @property
    def watched(self) -> bool:
        """Whether anybody waits."""
        return bool(self._events)

    @contextmanager
    def watch(self, execution_id: uuid.UUID) -> Iterator[asyncio.Event]:
        """Yield an event that is set whenever the execution may have changed.

        Enter before reading the row, so that no change falls between reading and waiting.
        """
        event = asyncio.Event()
        self._events[execution_id].add(event)
        try:
            yield event
        finally:
            events = self._events[execution_id]
            events.discard(event)
            if not events:
                del self._events[execution_id]

    def wake(self, execution_ids: Iterable[uuid.UUID]) -> None:
        """Wake all who watch any of these executions."""
        for execution_id in execution_ids:
            for event in self._events.get(execution_id, ()):
                event.set()

    def close(self) -> None:
        """Wake all for good: the server is shutting down."""
        self.closed = True
        self.wake(list(self._events))
        self.comms.close()
