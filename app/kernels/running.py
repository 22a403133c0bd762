"""A kernel that this server hosts: its process, sockets, recorder and queue, kept in step.

One task watches the process. What becomes of it (ready, dead, restarted) goes through the
recorder like every message, so that rows tell events in the order they happened.
"""

import asyncio
import contextlib
import logging
import uuid
from datetime import UTC, datetime
from typing import Any

import psutil

from app.errors import ConflictError, UnavailableError
from app.kernels.channels import Channels
from app.kernels.process import KernelProcess, wait_until_dead
from app.kernels.queue import ExecutionQueue, QueuedExecution
from app.recorder.messages import CONTROL_REQUESTS, CommRequest, Message, Unreadable
from app.recorder.recorder import Recorder
from app.recorder.tracker import KernelEvent
from app.settings import Settings

log = logging.getLogger(__name__)

# A kernel alive for this long has recovered: earlier deaths no longer count.
_STABLE_SECONDS = 10.0
# So many messages of comms' clients may wait for a busy kernel.
_WAITING_COMM_MESSAGES = 10_000


class RunningKernel:
    """A hosted kernel. `state` is what the server knows ahead of the rows."""

    def __init__(
        self, process: KernelProcess, recorder: Recorder, owner_id: uuid.UUID, settings: Settings
    ) -> None:
        self.id = str(process.manager.kernel_id)
        self.process = process
        self.recorder = recorder
        self.owner_id = owner_id
        self.queue = ExecutionQueue(recorder)
        self.incarnation = 1
        self.state = "starting"
        self.reason: str | None = None
        self.stopped = False
        self._settings = settings
        self._channels: Channels | None = None
        self._ready = asyncio.Event()
        self._turning = asyncio.Lock()
        self._input_parents: dict[str, dict[str, Any]] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._deaths = 0
        self._became_ready_at = 0.0

    # starting

    def begin(self) -> None:
        """Take up a kernel whose process has just been started."""
        self.recorder.start()
        self._watcher = asyncio.create_task(self._live(), name=f"watcher {self.id}")

    async def wait_ready(self) -> None:
        """Wait until the kernel answers; raises ConflictError with the reason if it died."""
        await self._ready.wait()
        self.require_alive()

    async def connected(self) -> Channels:
        """Wait until the kernel answers and return its sockets; ConflictError if it died."""
        await self.wait_ready()
        if self._channels is None:
            raise ConflictError("The kernel is not connected", reason=self.reason)
        return self._channels

    def require_alive(self) -> None:
        """Raise ConflictError when the kernel is dead."""
        if self.state == "dead":
            raise ConflictError("The kernel is dead", reason=self.reason)

    async def _live(self) -> None:
        """Watch the process through its incarnations until it is dead for good."""
        while True:
            try:
                if await self._become_ready():
                    await wait_until_dead(self.process, self._settings.kernel_poll_seconds)
                async with self._turning:
                    if await self.process.is_alive() and self._ready.is_set():
                        continue  # restarted on request while this task looked
                    if not await self._restart_after_death():
                        return
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("kernel %s: watching", self.id)
                await asyncio.sleep(self._settings.kernel_poll_seconds)

    async def _become_ready(self) -> bool:
        """Connect and wait for the first answer; False when the process died or never answered."""
        if self._ready.is_set():
            return True
        channels = self._channels = Channels(self.process.manager, self._on_message)
        limit = asyncio.get_running_loop().time() + self._settings.kernel_start_timeout_seconds
        info: Message | None = None
        while info is None or not channels.heard.is_set():
            if not await self.process.is_alive():
                return False
            if asyncio.get_running_loop().time() > limit:
                seconds = self._settings.kernel_start_timeout_seconds
                self.reason = f"the kernel did not answer within {seconds:g} seconds"
                return False
            # iopub subscriptions take effect in their own time: ask until iopub is heard too.
            answer = await channels.request("kernel_info_request", {}, timeout_seconds=0.5)
            info = answer or info
        await channels.wait_stdin()
        self.state, self.reason = "idle", None
        self._became_ready_at = asyncio.get_running_loop().time()
        self._event(
            execution_state="idle",
            kernel_info=info.content,
            connection_info=self.process.connection_info(),
            pid=self.process.pid,
            pid_started_at=process_started_at(self.process.pid),
        )
        self._ready.set()
        self.queue.connect(channels)
        return True

    # dying

    async def _restart_after_death(self) -> bool:
        """Report a death and start the kernel again; False when it is dead for good.

        A kernel that never became ready is not tried again: it would fail the same way.
        """
        why = self.reason or self.process.why()
        was_ready = self._ready.is_set()
        lived = asyncio.get_running_loop().time() - self._became_ready_at
        self._deaths = 1 if lived > _STABLE_SECONDS else self._deaths + 1
        await self._disconnect()
        if not was_ready or self._deaths > self._settings.kernel_restart_limit:
            await self._give_up(why)
            return False
        self.incarnation += 1
        self._event(
            ended=why,
            execution_state="autorestarting",
            reason=f"{why}; it was restarted",
            incarnation=self.incarnation,
        )
        log.warning("kernel %s: %s; restarting", self.id, why)
        try:
            await self.process.restart(now=True)
        except Exception as error:
            log.exception("kernel %s: restarting", self.id)
            await self._give_up(f"{why}; restarting it failed: {error}")
            return False
        return True

    async def _give_up(self, why: str) -> None:
        self.state, self.reason = "dead", why
        self._event(ended=why, execution_state="dead", reason=why)
        log.warning("kernel %s: %s", self.id, why)
        self._ready.set()  # whoever waits is told by `require_alive`

    async def _disconnect(self) -> None:
        """Let what the ended process had sent be read, then close the sockets."""
        self._ready.clear()
        self.queue.disconnect()
        self._input_parents.clear()
        channels, self._channels = self._channels, None
        if channels is not None:
            await channels.settle()
            await channels.close()

    def _event(self, *, ended: str | None = None, **values: Any) -> None:
        self.recorder.put(KernelEvent(values, datetime.now(UTC), ended))

    # actions

    def submit(self, executions: list[QueuedExecution]) -> None:
        """Queue committed executions; on a kernel that has died meanwhile they are interrupted."""
        self.queue.submit(executions)
        if self.state == "dead":
            self.queue.disconnect()
            self._event(ended=self.reason)

    async def interrupt(self) -> None:
        """Interrupt what runs."""
        await self.wait_ready()
        await self.process.interrupt()

    async def restart(self) -> None:
        """Restart on request; returns when the new incarnation answers.

        Raises ConflictError with the reason when it does not come up.
        """
        async with self._turning:
            await self._stop_watching()
            was_dead = self.state == "dead"
            self.state, self.reason = "restarting", None
            # Ended first: shutting down interrupts what runs, which must not look like its error.
            self.queue.disconnect()
            self._event(ended="the kernel was restarted", execution_state="restarting", reason=None)
            await self.process.restart(now=was_dead)
            await self._disconnect()
            self.incarnation += 1
            self._deaths = 0
            self._event(execution_state="restarting", incarnation=self.incarnation)
            self._watcher = asyncio.create_task(self._live(), name=f"watcher {self.id}")
        await self.wait_ready()

    async def stop(self, reason: str) -> None:
        """End the kernel: process, sockets, and every unfinished execution, with the reason."""
        async with self._turning:
            await self._stop_watching()
            self.queue.disconnect()
            self._event(ended=reason, execution_state="terminating")
            await self.process.stop()
            await self._disconnect()
            self.state, self.reason = "dead", reason
            self._event(execution_state="dead", reason=reason, ended_at=datetime.now(UTC))
            self._ready.set()
        self.stopped = True
        await self.queue.close()
        await self.recorder.close()

    async def answer(self, msg_id: str, value: str) -> None:
        """Send the answer to the input request with this message id."""
        parent = self._input_parents.pop(msg_id, None)
        if parent is None or self._channels is None:
            raise ConflictError("The kernel no longer waits for this input")
        await self._channels.send("stdin", "input_reply", {"value": value}, parent=parent)

    async def send_comm(self, request: CommRequest) -> None:
        """Send a client's comm message; opening and closing a comm is committed before it is sent.

        Raises ConflictError when the kernel is dead, UnavailableError when it has taken up none of
        many messages for long.
        """
        channels = await self.connected()
        if self.recorder.tracker.comms.waiting >= _WAITING_COMM_MESSAGES:
            raise UnavailableError("The kernel is busy: too many messages wait for it")
        self.recorder.put(request)
        if request.msg_type != "comm_msg":
            await self.recorder.drain()
        if channels.closed:
            raise ConflictError("The kernel was restarted", reason=self.reason)
        await channels.send(
            "shell",
            request.msg_type,
            request.content,
            msg_id=request.msg_id,
            metadata=request.metadata,
            buffers=request.buffers,
        )

    async def _stop_watching(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
            self._watcher = None

    # receiving

    def _on_message(self, message: Message | Unreadable) -> None:
        if isinstance(message, Message):
            match message.type:
                case "status" if message.parent_type not in CONTROL_REQUESTS:
                    if (state := message.content.get("execution_state")) in ("busy", "idle"):
                        self.state = state
                case "input_request":
                    self._input_parents[str(message.header["msg_id"])] = message.header
        self.recorder.put(message)
        if isinstance(message, Message) and message.type == "execute_reply":
            self.queue.on_reply(message)


def process_started_at(pid: int | None) -> datetime | None:
    """Return when a process of this machine started, which tells it from a later one's pid."""
    if pid is None:
        return None
    try:
        return datetime.fromtimestamp(psutil.Process(pid).create_time(), UTC)
    except psutil.Error:
        return None
