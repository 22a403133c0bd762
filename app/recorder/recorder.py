"""One kernel's recorder: takes items in order, writes them in batches, never loses one.

It collects for a moment, or until an execution ends or asks something, and while a write is in
flight, so that short cells are one transaction and a slow database makes larger batches and not a
longer way. When the database is away it waits and goes on: nothing that
was received is dropped, and `recorded_batch` keeps an unclear commit from being repeated.
"""

import asyncio
import contextlib
import logging
import uuid
from collections import deque
from dataclasses import replace

from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.db.engine import Database, is_transient
from app.recorder.announced import Announced, Answered, Place, find_places
from app.recorder.backlog import Backlog
from app.recorder.messages import CommRequest, Message, Unreadable
from app.recorder.operations import (
    AppendOutput,
    ClearOutputs,
    ExecutionChange,
    KernelChange,
    NewExecution,
    NewInput,
    Operation,
)
from app.recorder.tracker import Item, Tracker, unknown_output
from app.recorder.waiters import Waiters
from app.recorder.writer import BatchWriter

log = logging.getLogger(__name__)

# A transaction takes at most this much: enough to make its cost small, little enough that readers
# see progress and a retry is cheap.
_BATCH_ITEMS = 2_000
_BATCH_BYTES = 8 * 1024 * 1024
# How long the first item of a batch waits for others, unless one comes that somebody waits for.
# Most cells begin and end within it: one transaction then tells all of them.
_COLLECT_SECONDS = 0.01
# The same where only a client runs code that is sent the messages itself: nobody waits for rows,
# and each transaction takes time from passing messages on.
_LINGER_SECONDS = 0.04
# Items planned before others have their turn.
_TURN_ITEMS = 50
# Other clients' executions, whose reply is not seen, are forgotten here when there are so many.
_HALF_ENDED = 1_000
_RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
# How often a message that is written alone may run into the database's statement timeout.
_TIMEOUTS = 5
# What a row keeps when the rest of a change is refused: values that the server made itself.
_ESSENTIAL = {
    "status",
    "reason",
    "started_at",
    "finished_at",
    "execution_count",
    "execution_state",
    "incarnation",
    "last_activity",
    "ended_at",
    "pid",
    "pid_started_at",
}


class Recorder:
    """The single writer of what one kernel says and of how its executions end."""

    def __init__(
        self,
        database: Database,
        tracker: Tracker,
        writer: BatchWriter,
        waiters: Waiters,
        backlog: Backlog | None = None,
    ) -> None:
        self.tracker = tracker
        self._database = database
        self._writer = writer
        self._waiters = waiters
        self._items = Backlog() if backlog is None else backlog
        self._half_ended: set[str] = set()
        self._arrived = asyncio.Event()
        self._urgent = asyncio.Event()
        self._may_linger = False
        self._taken = 0
        self._recorded = 0
        self._drains: deque[tuple[int, asyncio.Future[None]]] = deque()
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
        if isinstance(item, Announced):
            self._may_linger = True
        elif not isinstance(item, Message | Answered | CommRequest):
            self._may_linger = False
        if not self._lingers() and self._is_awaited(item):
            self._urgent.set()

    def _lingers(self) -> bool:
        return self._may_linger and not self._drains and not self._waiters.watched

    def _is_awaited(self, message: Item) -> bool:
        """Tell whether somebody may be waiting for this: an execution's end, or a question.

        An execution has ended when both its reply and `idle` are here, whichever comes last. What
        clients say on comms comes as fast as a slider moves: who waits for that drains.
        """
        if not isinstance(message, Message):
            return not isinstance(message, CommRequest)
        if message.type == "input_request":
            return True
        idle = message.type == "status" and message.content.get("execution_state") == "idle"
        ends = message.type == "execute_reply" or (
            idle and message.parent_type == "execute_request"
        )
        if not ends or message.parent_id is None:
            return False
        if message.parent_id in self._half_ended:
            self._half_ended.discard(message.parent_id)
            return True
        if len(self._half_ended) >= _HALF_ENDED:
            self._half_ended.clear()
        self._half_ended.add(message.parent_id)
        return False

    @property
    def backlog(self) -> int:
        """How many items wait to be written."""
        return len(self._items)

    async def drain(self) -> None:
        """Wait until everything taken so far is committed; what comes later is not waited for."""
        if self._recorded < self._taken and not self._closed:
            drained: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._drains.append((self._taken, drained))
            self._urgent.set()
            await drained

    async def close(self, patience_seconds: float | None = None) -> None:
        """Write what was taken, then end.

        With `patience_seconds` it gives up when nothing could be written for so long: a server
        that is told to end must, even if the database is away.
        """
        if self._task is None:
            return
        while self._recorded < self._taken:
            before = self._recorded
            drained = asyncio.create_task(self.drain())
            await asyncio.wait({drained}, timeout=patience_seconds)
            drained.cancel()
            if self._recorded == before:
                lost = self._taken - before
                log.error("kernel %s: %d messages not recorded", self.tracker.kernel_id, lost)
                break
        self._closed = True
        self._release(self._taken)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._items.close()

    def _release(self, recorded: int) -> None:
        """Let those go on who wait until this many items are committed."""
        while self._drains and self._drains[0][0] <= recorded:
            drained = self._drains.popleft()[1]
            if not drained.done():
                drained.set_result(None)

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._items:
                if not self._urgent.is_set():
                    with contextlib.suppress(TimeoutError):
                        lingers = self._lingers()
                        async with asyncio.timeout(
                            _LINGER_SECONDS if lingers else _COLLECT_SECONDS
                        ):
                            await self._urgent.wait()
                self._urgent.clear()
                planned = await self._take()
                if self._items:
                    self._urgent.set()
                try:
                    await self._record(planned)
                except Exception:
                    # Whatever it is, what comes after it must still be recorded.
                    log.exception("kernel %s: a batch is lost", self.tracker.kernel_id)
                self._recorded += len(planned)
                self._release(self._recorded)

    async def _take(self) -> list[list[Operation]]:
        """Plan the next items, up to a batch's size; one list of operations an item."""
        announced = [
            item for item in self._items.in_memory(_BATCH_ITEMS) if isinstance(item, Announced)
        ]
        if announced:
            await self._find_places(announced)
        planned: list[list[Operation]] = []
        size = 0
        while self._items and len(planned) < _BATCH_ITEMS and size < _BATCH_BYTES:
            first = self._items.first()
            if isinstance(first, Announced) and first.place is None:
                break  # it came meanwhile
            item = self._items.popleft()
            size += item.size_bytes if isinstance(item, Message) else 0
            planned.append(self._plan(item))
            if len(planned) % _TURN_ITEMS == 0:
                await asyncio.sleep(0)  # messages are passed on to clients meanwhile
        return planned

    async def _find_places(self, announced: list[Announced]) -> None:
        """Find sessions and cells of executions, however long the database is away."""
        attempt = 0
        while True:
            try:
                async with self._database.transaction(recorder=True) as tx:
                    await find_places(tx, self.tracker.kernel_id, announced)
                return
            except Exception as error:
                if not (_may_pass(error) or _took_too_long(error)):
                    log.exception("kernel %s: looking for cells", self.tracker.kernel_id)
                    for item in announced:
                        item.place = Place()
                    return
                await asyncio.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
                attempt += 1

    def _plan(self, item: Item) -> list[Operation]:
        try:
            return self.tracker.plan(item)
        except Exception:
            kind = item.type if isinstance(item, Message) else type(item).__name__
            log.exception("kernel %s: cannot make sense of %s", self.tracker.kernel_id, kind)
            if not isinstance(item, Message):
                return []
            kept = Unreadable(item.channel, f"unexpected {kind}", [], item.received_at)
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

    async def _store(self, operations: list[Operation], *, timeouts: int = 0) -> None:
        """Commit a batch, however long the database is away; raises what will not go away.

        A statement that took too long is tried again `timeouts` times.
        """
        self._number += 1
        alone = await self._writer.alone(self._number, operations)
        attempt = 0
        while True:
            try:
                if alone is None:
                    await self._write(operations, again=attempt > 0)
                elif not attempt or not await self._was_committed():
                    await self._database.write_alone(*alone, recorder=True)
                return
            except Exception as error:
                if _took_too_long(error):
                    timeouts -= 1
                    if timeouts < 0:
                        raise
                elif not _may_pass(error):
                    raise
                if attempt == 0:
                    kernel_id = self.tracker.kernel_id
                    log.warning("kernel %s: waiting for the database: %s", kernel_id, error)
                await asyncio.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
                attempt += 1

    async def _write(self, operations: list[Operation], *, again: bool) -> None:
        async with self._database.transaction(recorder=True) as tx:
            if not again or not await self._writer.was_committed(tx, self._number):
                await self._writer.write(tx, self._number, operations)
        self._waiters.comms.publish(self._writer.comm_records)

    async def _was_committed(self) -> bool:
        async with self._database.read(recorder=True) as tx:
            return await self._writer.was_committed(tx, self._number)

    async def _store_alone(self, operations: list[Operation]) -> None:
        """Commit one item's operations; what the database refuses leaves a note in its place."""
        if not operations:
            return
        try:
            await self._store(operations, timeouts=_TIMEOUTS)
        except Exception as error:
            log.exception("kernel %s: a message was refused", self.tracker.kernel_id)
            for operation in operations:
                await self._store_reduced(operation, error)

    async def _store_reduced(self, operation: Operation, error: Exception) -> None:
        """Commit what can be kept of an operation that may be the one refused.

        How an execution ended must reach its row, or it would seem to run for ever.
        """
        for reduced in (operation, *_reductions(operation, error)):
            try:
                await self._store([reduced], timeouts=_TIMEOUTS)
            except Exception as again:  # noqa: BLE001 (the next one keeps less)
                log.warning("kernel %s: refused too: %s", self.tracker.kernel_id, again)
            else:
                return


def _took_too_long(error: Exception) -> bool:
    return _sqlstate(error) == "57014"


def _may_pass(error: Exception) -> bool:
    """Tell whether waiting helps: the database or a connection is away, or a lock is held."""
    if isinstance(error, PoolTimeoutError):
        return True
    return is_transient(error) or _sqlstate(error) in ("55P03", "25P03", "25P04")


def _sqlstate(error: Exception) -> str | None:
    cause = getattr(error, "orig", None)
    return getattr(cause, "sqlstate", None) or getattr(
        getattr(cause, "__cause__", None), "sqlstate", None
    )


def _reductions(operation: Operation, error: Exception) -> list[Operation]:
    """Return what to store instead of a refused operation, the fullest first."""
    match operation:
        case AppendOutput():
            note = _note(operation, error)
            return [note, replace(note, execution_id=None, seq=0)]
        case ExecutionChange(execution_id, values):
            kept = {key: value for key, value in values.items() if key in _ESSENTIAL}
            return [ExecutionChange(execution_id, kept)] if kept else []
        case NewExecution(values):
            # Its session or document may have gone since they were looked up.
            return [NewExecution({**values, "session_id": None, "document_id": None})]
        case KernelChange(values):
            kept = {key: value for key, value in values.items() if key in _ESSENTIAL}
            return [KernelChange(kept)] if kept else []
        case _:
            return []


def _note(refused: AppendOutput, error: Exception) -> AppendOutput:
    reason = f"{type(error).__name__}: {error}"[:2_000]
    output = unknown_output({"reason": reason, "refused": repr(refused)[:100_000]})
    return replace(refused, target=None, output=output, display_id=None)


def _touched(operations: list[Operation]) -> set[uuid.UUID]:
    return {
        operation.execution_id
        for operation in operations
        if isinstance(operation, AppendOutput | ClearOutputs | ExecutionChange | NewInput)
        and operation.execution_id is not None
    }
