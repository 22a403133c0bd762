"""The queue of executions that this server sends to one kernel, one at a time.

Sending one at a time is what makes a queued execution cancellable. The next is sent as soon as
the reply to the one before is here; recording follows in its own time.
"""

import asyncio
import contextlib
import logging
import uuid
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.kernels.channels import Channels
from app.recorder.messages import Message
from app.recorder.operations import CellTarget
from app.recorder.recorder import Recorder
from app.recorder.tracker import Ended

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QueuedExecution:
    """What is needed to send an execution: `content` is an execute_request's."""

    id: uuid.UUID
    msg_id: str
    content: dict[str, Any]
    target: CellTarget | None
    metadata: dict[str, Any]


class ExecutionQueue:
    """Executions waiting for one kernel, and the one that was sent."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._waiting: deque[QueuedExecution] = deque()
        self._sent: QueuedExecution | None = None
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
            self._recorder.tracker.expect(execution.id, execution.msg_id, execution.target)
        self._waiting.extend(executions)
        self._changed.set()

    def cancel(self, execution_id: uuid.UUID, reason: str) -> bool:
        """Take a waiting execution out; False when it is not waiting (any more)."""
        for execution in self._waiting:
            if execution.id == execution_id:
                self._waiting.remove(execution)
                self._end([execution], "cancelled", reason)
                return True
        return False

    def connect(self, channels: Channels) -> None:
        """Begin to send: the kernel is ready."""
        self._channels = channels
        self._changed.set()

    def disconnect(self) -> None:
        """The kernel's process has ended: forget all. The recorder says how they ended."""
        self._channels = None
        self._waiting.clear()
        self._sent = None
        self._after_error = False
        self._replied.set()

    def on_reply(self, message: Message) -> None:
        """Note an execute_reply; an error takes down what waits, as `stop_on_error` asks."""
        sent = self._sent
        if sent is None or message.parent_id != sent.msg_id:
            return
        if message.content.get("status") == "error" and sent.content["stop_on_error"]:
            waiting = list(self._waiting)
            self._waiting.clear()
            self._end(waiting, "aborted", "an earlier execution failed")
            self._after_error = True
        self._sent = None
        self._replied.set()

    async def close(self) -> None:
        """Stop sending."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

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
        self._replied.clear()
        await channels.send(
            "shell",
            "execute_request",
            execution.content,
            msg_id=execution.msg_id,
            metadata=execution.metadata,
        )
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
