"""A kernel that this server hosts: its process, sockets, recorder and queue, kept in step.

One task watches the process. What becomes of it (ready, dead, restarted) goes through the
recorder like every message, so that rows tell events in the order they happened.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

import psutil

from app.errors import ConflictError, UnavailableError
from app.kernels.channels import Channels
from app.kernels.clients import Clients
from app.kernels.process import KernelProcess, wait_until_dead
from app.kernels.queue import ExecutionQueue, QueuedExecution
from app.recorder.messages import CONTROL_REQUESTS, CommRequest, Message, Unreadable
from app.recorder.recorder import Recorder
from app.recorder.tracker import KernelEvent
from app.settings import Settings

log = logging.getLogger(__name__)

# A kernel alive for this long has recovered: earlier deaths no longer count.
_STABLE_SECONDS = 10.0
# How long a kernel that answers may take to connect its stdin socket.
_STDIN_SECONDS = 5.0
# How long after `busy` the code of a silent request runs for certain.
_SILENT_SECONDS = 0.05


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
        self.clients = Clients(self.id, recorder, self.queue, settings)
        self.incarnation = 1
        self.state = "starting"
        self.reason: str | None = None
        self.stopped = False
        self._settings = settings
        self._channels: Channels | None = None
        self._ready = asyncio.Event()
        self._turning = asyncio.Lock()
        self.counting = asyncio.Lock()  # whose turn it is to store the number of clients
        self._running: set[str] = set()  # ids of the requests whose code runs
        self._unwanted: set[str] = set()  # of those to be interrupted as soon as their code runs
        self._watcher: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
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
        if self._channels is not None:
            self._channels.close()
        channels = self._channels = Channels(self.process.manager, self._on_message, self.clients)
        limit = asyncio.get_running_loop().time() + self._settings.kernel_start_timeout_seconds
        info: Message | None = None
        stdin = asyncio.create_task(channels.wait_stdin())
        stdin_limit = limit
        try:
            while info is None or not channels.heard.is_set() or not stdin.done():
                if info is not None and asyncio.get_running_loop().time() > stdin_limit:
                    break  # a kernel that never asks may have no such socket
                if not await self.process.is_alive():
                    return False
                if asyncio.get_running_loop().time() > limit:
                    seconds = self._settings.kernel_start_timeout_seconds
                    self.reason = f"the kernel did not answer within {seconds:g} seconds"
                    return False
                # iopub subscriptions take effect in their own time: ask until iopub is heard too.
                answer = await channels.request("kernel_info_request", {}, timeout_seconds=0.5)
                if info is None and answer is not None:
                    info = answer
                    stdin_limit = asyncio.get_running_loop().time() + _STDIN_SECONDS
                await asyncio.wait({stdin}, timeout=0.5)
        finally:
            stdin.cancel()
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
        self.clients.connect(channels)
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
            self._give_up(why)
            return False
        self.incarnation += 1
        self._end_all(
            why,
            execution_state="autorestarting",
            reason=f"{why}; it was restarted",
            incarnation=self.incarnation,
        )
        # What Jupyter Server sends: clients take it for a restart that nobody asked for.
        self.clients.status("restarting")
        log.warning("kernel %s: %s; restarting", self.id, why)
        try:
            await self.process.restart(now=True)
        except Exception as error:
            log.exception("kernel %s: restarting", self.id)
            self._give_up(f"{why}; restarting it failed: {error}")
            return False
        return True

    def _give_up(self, why: str) -> None:
        self.state, self.reason = "dead", why
        self._end_all(why, execution_state="dead", reason=why)
        self.clients.status("dead")
        self.clients.give_up()
        log.warning("kernel %s: %s", self.id, why)
        self._ready.set()  # whoever waits is told by `require_alive`

    async def _disconnect(self) -> None:
        """Let what the ended process had sent be read, then close the sockets.

        Executions asked for meanwhile wait in the queue.
        """
        self._ready.clear()
        self.queue.disconnect()
        self.clients.disconnect()
        channels, self._channels = self._channels, None
        if channels is not None:
            await channels.settle()
            channels.close()
        self.clients.end_requests()
        self._running.clear()
        self._unwanted.clear()

    def _end_all(self, why: str, **values: Any) -> None:
        """Interrupt every execution asked for so far, in the queue and on record at once.

        One that is asked for between the two would be sent though it is recorded as interrupted,
        or be forgotten without a word.
        """
        self.queue.drop()
        self._event(ended=why, **values)

    def _event(self, *, ended: str | None = None, **values: Any) -> None:
        self.recorder.put(KernelEvent(values, datetime.now(UTC), ended))

    # actions

    def submit(self, executions: list[QueuedExecution]) -> None:
        """Queue committed executions; on a kernel that has died meanwhile they are interrupted."""
        self.queue.submit(executions)
        if self.state == "dead":
            self._end_all(self.reason or "the kernel is dead")

    def withdraw(self, executions: list[QueuedExecution]) -> None:
        """Have executions that were not committed, as far as is known, not wait if they were."""
        if not self.stopped:
            self.queue.withdraw(executions)

    async def interrupt(self) -> None:
        """Interrupt what runs."""
        await self.wait_ready()
        await self.process.interrupt()

    async def stop_execution(self, execution_id: uuid.UUID, msg_id: str, reason: str) -> bool:
        """Cancel an execution that waits, interrupt one that runs; False when it has ended.

        Nothing else is interrupted. One that is with the kernel, behind another client's, is
        interrupted as soon as it begins.
        """
        if self.queue.cancel(execution_id, reason):
            await self.recorder.drain()
        elif msg_id in self._running:
            await self.process.interrupt()
        elif self.queue.was_sent(msg_id) or self.clients.is_asked(msg_id):
            self._unwanted.add(msg_id)
        else:
            await self.recorder.drain()
            return False
        return True

    async def restart(self) -> None:
        """Restart on request; returns when the new incarnation answers.

        Raises ConflictError with the reason when it does not come up.
        """
        async with self._turning:
            await self._stop_watching()
            was_dead = self.state == "dead"
            self.state, self.reason = "restarting", None
            self._ready.clear()
            self.clients.disconnect()  # what they send from now on is for the next incarnation
            # Ended first: shutting down interrupts what runs, which must not look like its error.
            self._end_all("the kernel was restarted", execution_state="restarting", reason=None)
            try:
                await self.process.restart(now=was_dead)
            except Exception as error:
                log.exception("kernel %s: restarting", self.id)
                await self._disconnect()
                self._give_up(f"restarting it failed: {error}")
                self.require_alive()
            await self._disconnect()
            self.incarnation += 1
            self._deaths = 0
            self._event(execution_state="restarting", incarnation=self.incarnation)
            self.clients.status("starting")
            self._watcher = asyncio.create_task(self._live(), name=f"watcher {self.id}")
        await self.wait_ready()

    async def stop(self, reason: str, *, patience_seconds: float | None = None) -> None:
        """End the kernel: process, sockets, and every unfinished execution, with the reason.

        With `patience_seconds` it does not wait for ever for a database that is away.
        """
        async with self._turning:
            await self._stop_watching()
            self.clients.disconnect()
            self._end_all(reason, execution_state="terminating")
            await self.process.stop()
            await self._disconnect()
            self.state, self.reason = "dead", reason
            self._end_all(reason, execution_state="dead", reason=reason, ended_at=datetime.now(UTC))
            self._ready.set()
            self.clients.status("dead")
            self.clients.give_up()
            self.clients.close(1000, reason)
        self.stopped = True
        await self.queue.close()
        await self.recorder.close(patience_seconds)

    async def answer(self, header: dict[str, Any], value: str) -> None:
        """Send the answer to the input request with this header, which `clients` gave away."""
        if self._channels is None:
            raise ConflictError("The kernel no longer waits for this input")
        await self._channels.send("stdin", "input_reply", {"value": value}, parent=header)

    async def send_comm(self, request: CommRequest) -> None:
        """Send a client's comm message; opening and closing a comm is committed before it is sent.

        Raises ConflictError when the kernel is dead, UnavailableError when it has taken up none of
        many messages for long.
        """
        channels = await self.connected()
        if self.recorder.tracker.comms.is_full:
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
        self.recorder.put(message)
        if not isinstance(message, Message):
            return
        match message.type:
            case "status":
                self._on_status(message)
            case "execute_input":
                self._begun(message.parent_id or "")
            case "execute_reply" if message.channel == "shell":
                self._running.discard(message.parent_id or "")
                self._unwanted.discard(message.parent_id or "")
                self.queue.on_reply(message)

    def _on_status(self, message: Message) -> None:
        state, parent_id = message.content.get("execution_state"), message.parent_id or ""
        if state in ("busy", "idle") and message.parent_type not in CONTROL_REQUESTS:
            self.state = state
        if state == "idle":
            self._running.discard(parent_id)
            self.queue.on_idle(parent_id)
        elif state == "busy" and self.queue.is_silent(parent_id):
            self._begun(parent_id)

    def _begun(self, msg_id: str) -> None:
        """Note that a request's code runs: from now on an interrupt reaches it, and it alone.

        `busy` alone comes a moment too early: ipykernel ignores interrupts until it has announced
        the code, which it does for all but silent requests.
        """
        self._running.add(msg_id)
        if msg_id in self._unwanted:
            self._unwanted.discard(msg_id)
            delay = _SILENT_SECONDS if self.queue.is_silent(msg_id) else 0.0
            self._background(self._interrupt_running(msg_id, delay))

    async def _interrupt_running(self, msg_id: str, delay_seconds: float) -> None:
        await asyncio.sleep(delay_seconds)
        if msg_id in self._running:
            await self.process.interrupt()

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def process_started_at(pid: int | None) -> datetime | None:
    """Return when a process of this machine started, which tells it from a later one's pid."""
    if pid is None:
        return None
    try:
        return datetime.fromtimestamp(psutil.Process(pid).create_time(), UTC)
    except psutil.Error:
        return None
