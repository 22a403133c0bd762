"""The server's ZeroMQ sockets to one kernel: shell, control, stdin, iopub.

There is one set for each kernel, whoever talks to it: this server's own queue and every websocket
(docs/decisions/0008). What arrives is passed on to the websockets first, and parsed for the
recorder after that.
"""

import asyncio
import itertools
import json
import logging
import uuid
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from jupyter_client.jsonutil import json_default
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.session import DELIM

from app.kernels.sockets import KernelSocket
from app.kernels.wire import CHANNELS, Outgoing, key_of
from app.recorder.messages import KernelClock, Message, Unreadable, read, unreadable, verified

log = logging.getLogger(__name__)

OnMessage = Callable[[Message | Unreadable], None]
Key = tuple[str, str]
Reply = Message | Unreadable | None

# How long parsing may keep the event loop from passing on what comes next.
_TURN_SECONDS = 0.003
_REPLY_CHANNELS = ("shell", "control")


class Forward(Protocol):
    """Where the messages for websockets go."""

    def publish(self, message: Outgoing) -> None:
        """Pass an iopub message on to every client."""

    def deliver(self, key: Key | None, message: Outgoing) -> None:
        """Pass a reply or question on to the client whose message has this key."""


class Channels:
    """Connected sockets; made anew for each incarnation."""

    def __init__(
        self, manager: AsyncKernelManager, on_message: OnMessage, forward: Forward
    ) -> None:
        # One identity: the kernel asks for input on the stdin socket of whoever sent the request.
        identity = uuid.uuid4().hex.encode()
        self.session = manager.session
        self.session.pack = _pack
        self._on_message = on_message
        self._forward = forward
        self._loop = asyncio.get_running_loop()
        self._last_received = self._loop.time()
        self._unread: deque[tuple[str, list[bytes], datetime]] = deque()
        self._reading: asyncio.Handle | None = None
        self._replies: dict[str, asyncio.Future[Reply]] = {}
        self._echoes: dict[str, asyncio.Event] = {}
        self._clock = KernelClock()
        self.heard = asyncio.Event()
        self.closed = False
        # The debug adapter's messages are numbered by their sender.
        self.debug_numbers = itertools.count(1)
        self._sockets = {
            channel: KernelSocket(
                manager,
                channel,
                identity,
                partial(self._received, channel),
                watched=channel == "stdin",
            )
            for channel in CHANNELS
        }

    async def wait_stdin(self) -> None:
        """Wait until the kernel knows the stdin socket.

        Until then its questions vanish: a ROUTER socket drops what it sends to an unknown peer.
        """
        await self._sockets["stdin"].connected.wait()

    # receiving

    def _received(self, channel: str, frames: list[bytes]) -> None:
        self._last_received = self._loop.time()
        now = datetime.now(UTC)
        try:
            parts = verified(self.session, frames)
        except ValueError as error:
            log.warning("%s: not a message of the kernel: %s", channel, error)
            self._on_message(unreadable(channel, frames, error, now))
            return
        if channel == "iopub":
            self.heard.set()
            self._forward.publish(Outgoing(channel, parts))
        else:
            key = key_of(parts[1])
            if key is None or channel not in _REPLY_CHANNELS or key[1] not in self._replies:
                self._forward.deliver(key, Outgoing(channel, parts))
        # All channels in one line: what was printed before a question is recorded before it.
        self._unread.append((channel, parts, now))
        self._read_soon()

    def _read_soon(self) -> None:
        """Parse when those that have been given the message have had their turn."""
        if self._reading is None:
            self._reading = self._loop.call_soon(self._read)

    def _read(self) -> None:
        self._reading = None
        end = self._loop.time() + _TURN_SECONDS
        while self._unread:
            self._take(*self._unread.popleft())
            if self._loop.time() > end:
                break
        if self._unread:
            self._read_soon()

    def _take(self, channel: str, parts: list[bytes], received_at: datetime) -> None:
        try:
            message = read(channel, parts, received_at, self._clock)
            if self._is_awaited(message):
                return
            self._on_message(message)
        except Exception:
            # Nothing that a kernel sends may end the reading of what it sends later.
            log.exception("%s: a message could not be taken", channel)

    def _is_awaited(self, message: Message | Unreadable) -> bool:
        """Give a reply, readable or not, to the request of the server's own that waits for it."""
        parent_id = message.parent_id or ""
        if message.channel not in _REPLY_CHANNELS:
            echo = self._echoes.get(parent_id)
            if (
                echo is not None
                and isinstance(message, Message)
                and message.content.get("execution_state") == "idle"
            ):
                echo.set()
            return False
        future = self._replies.pop(parent_id, None)
        if future is None or future.done():
            return False
        future.set_result(message)
        return True

    # sending

    async def forward(self, channel: str, parts: list[bytes]) -> None:
        """Send a client's message, signed; ConflictError when the sockets are closed."""
        signature = self.session.sign(parts[:4])
        await self._sockets[channel].send([DELIM, signature, *parts])

    async def send(
        self,
        channel: str,
        msg_type: str,
        content: dict[str, Any],
        *,
        msg_id: str | None = None,
        parent: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        buffers: list[bytes] | None = None,
    ) -> str:
        """Send a message and return its id, `msg_id` if given."""
        message = self.session.msg(msg_type, content, parent=parent, metadata=metadata)
        if msg_id is not None:
            message["header"]["msg_id"] = message["msg_id"] = msg_id
        message["header"]["date"] = datetime.now(UTC)
        frames = self.session.serialize(message)
        await self._sockets[channel].send([*frames, *(buffers or [])])
        return str(message["header"]["msg_id"])

    async def request(
        self, msg_type: str, content: dict[str, Any], *, timeout_seconds: float
    ) -> Message | None:
        """Send a shell request and return its reply, or None when none came in time."""
        reply = await self.ask("shell", msg_type, content, timeout_seconds=timeout_seconds)
        return reply if isinstance(reply, Message) else None

    async def ask(
        self, channel: str, msg_type: str, content: dict[str, Any], *, timeout_seconds: float
    ) -> Reply:
        """Send a request on shell or control and return its reply, readable or not.

        Returns None when none came in time or the sockets were closed meanwhile (`closed`).
        """
        return await self._ask(uuid.uuid4().hex, channel, msg_type, content, timeout_seconds)

    @property
    def awaited(self) -> int:
        """How many replies are waited for."""
        return len(self._replies)

    async def settled(self, *, timeout_seconds: float) -> bool:
        """Tell whether the kernel has answered a new request, on shell and on iopub, in time.

        Both channels keep their order, so what has not come of earlier requests never comes.
        """
        msg_id = uuid.uuid4().hex
        echo = self._echoes[msg_id] = asyncio.Event()
        try:
            async with asyncio.timeout(timeout_seconds):
                reply = await self._ask(msg_id, "shell", "kernel_info_request", {}, timeout_seconds)
                await echo.wait()
        except TimeoutError:
            return False
        finally:
            del self._echoes[msg_id]
        return reply is not None

    async def _ask(
        self,
        msg_id: str,
        channel: str,
        msg_type: str,
        content: dict[str, Any],
        timeout_seconds: float,
    ) -> Reply:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._replies[msg_id] = future
        try:
            await self.send(channel, msg_type, content, msg_id=msg_id)
            async with asyncio.timeout(timeout_seconds):
                return await future
        except TimeoutError:
            return None
        finally:
            self._replies.pop(msg_id, None)

    async def settle(self, quiet_seconds: float = 0.1, limit_seconds: float = 2.0) -> None:
        """Wait until nothing more arrives: what an ended kernel had sent has then been read."""
        loop = asyncio.get_running_loop()
        end = loop.time() + limit_seconds
        start = loop.time()
        while (now := loop.time()) < end:
            quiet = now - max(self._last_received, start)
            if quiet >= quiet_seconds:
                break
            await asyncio.sleep(quiet_seconds - quiet)

    def close(self) -> None:
        """Take what has arrived, then close the sockets; who waits for a reply gets none."""
        self.closed = True
        for socket in self._sockets.values():
            socket.close()
        if self._reading is not None:
            self._reading.cancel()
        while self._unread:
            self._take(*self._unread.popleft())
        for future in self._replies.values():
            if not future.done():
                future.set_result(None)


def _pack(content: Any) -> bytes:
    """Return JSON as ASCII: lone surrogates in code have an escape there, but no UTF-8."""
    return json.dumps(content, default=json_default).encode("ascii")
