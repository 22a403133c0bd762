"""The server's own ZeroMQ sockets to one kernel: shell, stdin, iopub.

Receiving never waits for anything but the socket, and its buffers have no high-water mark: a
kernel drops iopub messages for a subscriber that is slow, so this one must not be.
"""

import asyncio
import contextlib
import json
import logging
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import zmq
import zmq.asyncio
from jupyter_client.jsonutil import json_default
from jupyter_client.manager import AsyncKernelManager
from zmq.utils.monitor import recv_monitor_message

from app.recorder.messages import KernelClock, Message, Unreadable, parse

log = logging.getLogger(__name__)

OnMessage = Callable[[Message | Unreadable], None]


class Channels:
    """Connected sockets and a reading task for each; made anew for each incarnation."""

    def __init__(self, manager: AsyncKernelManager, on_message: OnMessage) -> None:
        # shell and stdin must share an identity: the kernel asks for input on the stdin socket of
        # whoever sent the request.
        identity = uuid.uuid4().hex.encode()
        self._session = manager.session
        self._session.pack = _pack
        self._on_message = on_message
        stdin, self._stdin_monitor = _connect_stdin(manager, identity)
        self._sockets: dict[str, zmq.asyncio.Socket] = {
            "shell": cast("zmq.asyncio.Socket", manager.connect_shell(identity=identity)),
            "stdin": stdin,
            "iopub": cast("zmq.asyncio.Socket", manager.connect_iopub()),
        }
        self._last_received = asyncio.get_running_loop().time()
        self._replies: dict[str, asyncio.Future[Message | None]] = {}
        self._echoes: dict[str, asyncio.Event] = {}
        self._clock = KernelClock()
        self.heard = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._read(name, socket), name=f"{name} {manager.kernel_id}")
            for name, socket in self._sockets.items()
        ]

    async def wait_stdin(self) -> None:
        """Wait until the kernel knows the stdin socket.

        Until then its questions vanish: a ROUTER socket drops what it sends to an unknown peer.
        """
        if self._stdin_monitor is not None:
            await recv_monitor_message(self._stdin_monitor)
            self._end_monitor()

    def _end_monitor(self) -> None:
        if self._stdin_monitor is not None:
            self._sockets["stdin"].disable_monitor()
            self._stdin_monitor = None

    async def _read(self, channel: str, socket: zmq.asyncio.Socket) -> None:
        while True:
            frames = await socket.recv_multipart()
            try:
                self._receive(channel, parse(self._session, channel, frames, self._clock))
            except Exception:
                # Nothing that a kernel sends may end the reading of what it sends later.
                log.exception("%s: a message could not be taken", channel)

    def _receive(self, channel: str, message: Message | Unreadable) -> None:
        self._last_received = asyncio.get_running_loop().time()
        if channel == "iopub":
            self.heard.set()
        if isinstance(message, Message):
            if channel == "shell":
                future = self._replies.pop(message.parent_id or "", None)
                if future is not None and not future.done():
                    future.set_result(message)
                    return
            echo = self._echoes.get(message.parent_id or "")
            if echo is not None and message.content.get("execution_state") == "idle":
                echo.set()
        self._on_message(message)

    async def send(
        self,
        channel: str,
        msg_type: str,
        content: dict[str, Any],
        *,
        msg_id: str | None = None,
        parent: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> str:
        """Send a message and return its id, `msg_id` if given."""
        message = self._session.msg(msg_type, content, parent=parent, metadata=metadata)
        if msg_id is not None:
            message["header"]["msg_id"] = message["msg_id"] = msg_id
        message["header"]["date"] = datetime.now(UTC)
        await self._sockets[channel].send_multipart(self._session.serialize(message))
        return str(message["header"]["msg_id"])

    async def request(
        self, msg_type: str, content: dict[str, Any], *, timeout_seconds: float
    ) -> Message | None:
        """Send a shell request and return its reply, or None when none came in time."""
        return await self._request(uuid.uuid4().hex, msg_type, content, timeout_seconds)

    async def settled(self, *, timeout_seconds: float) -> bool:
        """Tell whether the kernel has answered a new request, on shell and on iopub, in time.

        Both channels keep their order, so what has not come of earlier requests never comes.
        """
        msg_id = uuid.uuid4().hex
        echo = self._echoes[msg_id] = asyncio.Event()
        try:
            async with asyncio.timeout(timeout_seconds):
                reply = await self._request(msg_id, "kernel_info_request", {}, timeout_seconds)
                await echo.wait()
        except TimeoutError:
            return False
        finally:
            del self._echoes[msg_id]
        return reply is not None

    async def _request(
        self, msg_id: str, msg_type: str, content: dict[str, Any], timeout_seconds: float
    ) -> Message | None:
        future: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()
        self._replies[msg_id] = future
        try:
            await self.send("shell", msg_type, content, msg_id=msg_id)
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

    async def close(self) -> None:
        """End the readers and close the sockets."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for future in self._replies.values():
            if not future.done():
                future.set_result(None)
        self._end_monitor()
        for socket in self._sockets.values():
            with contextlib.suppress(zmq.ZMQError):
                socket.close(linger=0)


def _pack(content: Any) -> bytes:
    """Return JSON as ASCII: lone surrogates in code have an escape there, but no UTF-8."""
    return json.dumps(content, default=json_default).encode("ascii")


def _connect_stdin(
    manager: AsyncKernelManager, identity: bytes
) -> tuple[zmq.asyncio.Socket, zmq.asyncio.Socket | None]:
    """Return the stdin socket and a monitor that tells when it is connected.

    `manager.connect_stdin` connects before a monitor could be attached.
    """
    socket = manager.context.socket(zmq.DEALER)
    socket.linger = 1000
    socket.identity = identity
    if (public_key := getattr(manager, "curve_publickey", None)) is not None:
        socket.curve_secretkey = manager.curve_secretkey
        socket.curve_publickey = socket.curve_serverkey = public_key
    monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    separator = ":" if manager.transport == "tcp" else "-"
    socket.connect(f"{manager.transport}://{manager.ip}{separator}{manager.stdin_port}")
    return socket, monitor
