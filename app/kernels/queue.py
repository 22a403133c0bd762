"""The queue of executions that this server sends to one kernel, one at a time.

Sending one at a time is what makes a queued execution cancellable. The next is sent as soon as
the reply to the one before is here; recording follows in its own time.
"""

import asyncio
import contextlib
import logging
import uuid
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from app.kernels.channels import Channels
from app.recorder.messages import Message
from app.recorder.operations import CellTarget
from app.recorder.recorder import Recorder
from app.recorder.tracker import Concluded, Ended, Expected

log = logging.getLogger(__name__)

# The reply and `idle` come together; when one is missing for so long, the kernel is asked.
_PATIENCE_SECONDS = 1.0
_ASK_SECONDS = 5.0


@dataclass(frozen=True)
class QueuedExecution:
    """What is needed to send an execution: `content` is an execute_request's."""

    id: uuid.UUID
    msg_id: str
    content: dict[str, Any]
    target: CellTarget | None
    metadata: dict[str, Any]


@dataclass
class _Sent:
    """An execution that was sent, until the kernel has said its last two words about it."""

    execution: QueuedExecution
    channels: Channels
    last_words: set[str] = field(default_factory=set)
    check: asyncio.Task[None] | None = None


class ExecutionQueue:
    """Executions waiting for one kernel, and the one that was sent."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._waiting: deque[QueuedExecution] = deque()
        self._sent: QueuedExecution | None = None
        self._open: dict[str, _Sent] = {}
        self._changed = asyncio.Event()
        self._replied = asyncio.Event()
        self._channels: Channels | None = None
        self._after_error = False
        self._task = asyncio.create_task(self._run())

    @property
    def length(self) -> int:
        """How many executions are waiting or sent."""
        return len(self._waiting) + (self._sent is not None)

    def submit(self, executions: list[QueuedExecution]) -> None:
        """Append executions, in order; they must be committed already."""
        for execution in executions:
            self._recorder.put(Expected(execution.id, execution.msg_id, execution.target))
        self._waiting.extend(executions)
        self._changed.set()

    def withdraw(self, executions: list[QueuedExecution]) -> None:
        """Have executions end on record, if they are there, that are never sent."""
        for execution in executions:
            self._recorder.put(Expected(execution.id, execution.msg_id, execution.target))
        self._end(executions, "interrupted", "the database failed while it was being stored")

    def cancel(self, execution_id: uuid.UUID, reason: str) -> bool:
        """Take a waiting execution out; False when it is not waiting (any more)."""
        for execution in self._waiting:
            if execution.id == execution_id:
                self._waiting.remove(execution)
                self._end([execution], "cancelled", reason)
                return True
        return False

    def was_sent(self, msg_id: str) -> bool:
        """Tell whether an execution is with the kernel, which has not replied yet."""
        return self._sent is not None and self._sent.msg_id == msg_id

    def is_silent(self, msg_id: str) -> bool:
        """Tell whether this is the execution with the kernel and a silent one."""
        return self.was_sent(msg_id) and bool(self._sent and self._sent.content["silent"])

    def follow(self, execution_id: uuid.UUID, msg_id: str, channels: Channels) -> None:
        """See to it that an execution which a client sends past the queue is ended on record."""
        followed = QueuedExecution(execution_id, msg_id, {}, None, {})
        self._open.setdefault(msg_id, _Sent(followed, channels))

    def connect(self, channels: Channels) -> None:
        """Begin to send: the kernel is ready."""
        self._channels = channels
        self._changed.set()

    def disconnect(self) -> None:
        """Send nothing more: the sockets are about to be closed. What waits goes on waiting."""
        self._channels = None
        self._sent = None
        self._after_error = False
        for sent in self._open.values():
            if sent.check is not None:
                sent.check.cancel()
        self._open.clear()
        self._replied.set()

    def drop(self) -> None:
        """Forget all: the kernel's process ends. The caller has the recorder say how they ended."""
        self._waiting.clear()
        self.disconnect()

    def on_reply(self, message: Message) -> None:
        """Note an execute_reply; an error takes down what waits, as `stop_on_error` asks."""
        msg_id = message.parent_id or ""
        self._on_last_word(msg_id, "reply")
        if self.was_sent(msg_id):
            self._next(failed=message.content.get("status") == "error")

    def on_idle(self, msg_id: str) -> None:
        """Note that the kernel is done with a request."""
        self._on_last_word(msg_id, "idle")

    async def close(self) -> None:
        """Stop sending."""
        self.drop()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def _next(self, *, failed: bool) -> None:
        assert self._sent is not None
        if failed and self._sent.content["stop_on_error"]:
            waiting = list(self._waiting)
            self._waiting.clear()
            self._end(waiting, "aborted", "an earlier execution failed")
            self._after_error = True
        self._sent = None
        self._replied.set()

    def _end(self, executions: list[QueuedExecution], status: str, reason: str) -> None:
        now = datetime.now(UTC)
        for execution in executions:
            self._recorder.put(Ended(execution.id, status, reason, now))

    async def _run(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._waiting and self._channels is not None:
                try:
                    await self._send_next(self._channels)
                except Exception:
                    log.exception("cannot send an execution")
                    await asyncio.sleep(0.1)

    async def _send_next(self, channels: Channels) -> None:
        if self._after_error:
            await self._wait_for_abort(channels)
            if self._channels is not channels or not self._waiting:
                return
        execution = self._waiting.popleft()
        self._sent = execution
        self._open[execution.msg_id] = _Sent(execution, channels)
        self._replied.clear()
        try:
            await channels.send(
                "shell",
                "execute_request",
                execution.content,
                msg_id=execution.msg_id,
                metadata=execution.metadata,
            )
        except Exception as error:
            if self.was_sent(execution.msg_id):
                self._end([execution], "interrupted", f"it could not be sent: {error}")
                self._open.pop(execution.msg_id, None)
                self._next(failed=True)
            raise
        await self._replied.wait()

    async def _wait_for_abort(self, channels: Channels) -> None:
        """Wait until the kernel no longer aborts what it is sent.

        After an error a kernel aborts every request already in its socket, and cannot tell those
        from one that was asked for after the error was known.
        """
        while self._channels is channels:
            reply = await channels.request("kernel_info_request", {}, timeout_seconds=5)
            if reply is not None and reply.content.get("status") != "aborted":
                break
        self._after_error = False

    # a reply or `idle` that never comes

    def _on_last_word(self, msg_id: str, word: str) -> None:
        sent = self._open.get(msg_id)
        if sent is None:
            return
        sent.last_words.add(word)
        if len(sent.last_words) > 1:
            del self._open[msg_id]
            if sent.check is not None:
                sent.check.cancel()
        elif sent.check is None:
            sent.check = asyncio.create_task(self._check(sent), name=f"check {msg_id}")

    async def _check(self, sent: _Sent) -> None:
        """End an execution of which the kernel has said only one of the two last words.

        ipykernel sends no reply when an interrupt or an error hits its own code around the run.
        Without this the execution would seem to run, and all that wait would wait, for ever.
        """
        msg_id = sent.execution.msg_id
        await asyncio.sleep(_PATIENCE_SECONDS)
        settled = False
        while not settled:
            settled = await sent.channels.settled(timeout_seconds=_ASK_SECONDS)
        sent.check = None
        self._open.pop(msg_id, None)
        self._recorder.put(Concluded(sent.execution.id, datetime.now(UTC)))
        if self.was_sent(msg_id):
            self._next(failed=True)
