"""One kernel's recorder: takes items in order, writes them in batches, never loses one.

It writes at once when idle and collects while a write is in flight, so that a slow database makes
larger batches and not a longer way. When the database is away it waits and goes on: nothing that
was received is dropped, and `recorded_batch` keeps an unclear commit from being repeated.
"""

import asyncio
import logging
import uuid
from collections import deque

from app.db.engine import Database, is_transient
from app.recorder.messages import Message, Unreadable
from app.recorder.operations import (
    AppendOutput,
    ClearOutputs,
    ExecutionChange,
    NewInput,
    Operation,
)
from app.recorder.tracker import Item, Tracker
from app.recorder.waiters import Waiters
from app.recorder.writer import BatchWriter

log = logging.getLogger(__name__)

# A transaction takes at most this much: enough to make its cost small, little enough that readers
# see progress and a retry is cheap.
_BATCH_ITEMS = 2_000
_BATCH_BYTES = 8 * 1024 * 1024
_RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Recorder:
    """The single writer of what one kernel says and of how its executions end."""

    def __init__(
        self, database: Database, tracker: Tracker, writer: BatchWriter, waiters: Waiters
    ) -> None:
        self.tracker = tracker
        self._database = database
        self._writer = writer
        self._waiters = waiters
        self._items: deque[Item] = deque()
        self._arrived = asyncio.Event()
        self._taken = 0
        self._recorded = 0
        self._draining: deque[tuple[int, asyncio.Event]] = deque()
        self._closed = False
        self._number = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin writing."""
        self._task = asyncio.create_task(self._run(), name=f"recorder {self.tracker.kernel_id}")

    def put(self, item: Item) -> None:
        """Take the next item; returns at once."""
        self._items.append(item)
        self._taken += 1
        self._arrived.set()

    async def drain(self) -> None:
        """Wait until everything taken so far is committed."""
        if self._recorded < self._taken and not self._closed:
            done = asyncio.Event()
            self._draining.append((self._taken, done))
            await done.wait()

    async def close(self) -> None:
        """Write what was taken, then end."""
        if self._task is None:
            return
        while self._recorded < self._taken:
            await self.drain()
        self._closed = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._items:
                planned = self._take()
                await self._record(planned)
                self._recorded += len(planned)
                while self._draining and self._draining[0][0] <= self._recorded:
                    self._draining.popleft()[1].set()

    def _take(self) -> list[list[Operation]]:
        """Plan the next items, up to a batch's size; one list of operations an item."""
        planned: list[list[Operation]] = []
        size = 0
        while self._items and len(planned) < _BATCH_ITEMS and size < _BATCH_BYTES:
            item = self._items.popleft()
            size += item.size_bytes if isinstance(item, Message) else 0
            planned.append(self._plan(item))
        return planned

    def _plan(self, item: Item) -> list[Operation]:
        try:
            return self.tracker.plan(item)
        except Exception:
            log.exception("kernel %s: cannot make sense of %r", self.tracker.kernel_id, item)
            if not isinstance(item, Message):
                raise
            kept = Unreadable(item.channel, f"unexpected {item.type}", [], item.received_at)
            return self.tracker.plan(kept)

    async def _record(self, planned: list[list[Operation]]) -> None:
        operations = [operation for item in planned for operation in item]
        if not operations:
            return
        try:
            await self._store(operations)
        except Exception:
            log.exception("kernel %s: a batch was refused", self.tracker.kernel_id)
            for item in planned:
                await self._store_alone(item)
        self._waiters.wake(_touched(operations))

    async def _store(self, operations: list[Operation]) -> None:
        """Commit a batch, however long the database is away; raises what will not go away."""
        self._number += 1
        attempt = 0
        while True:
            try:
                async with self._database.transaction(recorder=True) as tx:
                    if not attempt or not await self._writer.was_committed(tx, self._number):
                        await self._writer.write(tx, self._number, operations)
                self._waiters.comms.publish(self._writer.comm_records)
                return
            except Exception as error:
                if not is_transient(error):
                    raise
                if attempt == 0:
                    kernel_id = self.tracker.kernel_id
                    log.warning("kernel %s: waiting for the database: %s", kernel_id, error)
                await asyncio.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
                attempt += 1

    async def _store_alone(self, operations: list[Operation]) -> None:
        """Commit one item's operations; what the database refuses leaves a note in its place."""
        if not operations:
            return
        try:
            await self._store(operations)
        except Exception as error:
            log.exception("kernel %s: a message was refused", self.tracker.kernel_id)
            notes: list[Operation] = [
                _note(operation, error)
                for operation in operations
                if isinstance(operation, AppendOutput)
            ]
            if notes:
                await self._store(notes)


def _note(refused: AppendOutput, error: Exception) -> AppendOutput:
    reason = f"{type(error).__name__}: {error}"[:2_000]
    extra = {"reason": reason, "refused": repr(refused)[:100_000]}
    return AppendOutput(
        refused.execution_id,
        refused.seq,
        None,
        {"output_type": "unknown", "extra": extra},
        None,
        refused.size_bytes,
        refused.created_at,
    )


def _touched(operations: list[Operation]) -> set[uuid.UUID]:
    return {
        operation.execution_id
        for operation in operations
        if isinstance(operation, AppendOutput | ClearOutputs | ExecutionChange | NewInput)
        and operation.execution_id is not None
    }
