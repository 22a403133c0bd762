"""The server's own ZeroMQ sockets to one kernel: shell, control, stdin, iopub.

Receiving never waits for anything but the socket, and its buffers have no high-water mark: a
kernel drops iopub messages for a subscriber that is slow, so this one must not be.
"""

import asyncio
import contextlib
import itertools
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import zmq
import zmq.asyncio
from jupyter_client.manager import AsyncKernelManager
from zmq.utils.monitor import recv_monitor_message

from app.recorder.messages import Message, Unreadable, parse

OnMessage = Callable[[Message | Unreadable], None]


class Channels:
    """Connected sockets and a reading task for each; made anew for each incarnation."""

    def __init__(self, manager: AsyncKernelManager, on_message: OnMessage) -> None:
        # shell and stdin must share an identity: the kernel asks for input on the stdin socket of
        # whoever sent the request.
        identity = uuid.uuid4().hex.encode()
        self._session = manager.session
        self._on_message = on_message
        stdin, self._stdin_monitor = _connect_stdin(manager, identity)
        self._sockets: dict[str, zmq.asyncio.Socket] = {
            "shell": cast("zmq.asyncio.Socket", manager.connect_shell(identity=identity)),
            "control": cast("zmq.asyncio.Socket", manager.connect_control(identity=identity)),
            "stdin": stdin,
            "iopub": cast("zmq.asyncio.Socket", manager.connect_iopub()),
        }
        self._last_received = asyncio.get_running_loop().time()
        self._replies: dict[str, asyncio.Future[Message | Unreadable | None]] = {}
        self.heard = asyncio.Event()
        self.closed = False
        # The debug adapter's messages are numbered by their sender.
        self.debug_numbers = itertools.count(1)
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
            self._sockets["stdin"].disable_monitor()
            self._stdin_monitor = None

    async def _read(self, channel: str, socket: zmq.asyncio.Socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            frames = await socket.recv_multipart()
            message = parse(self._session, channel, frames)
            self._last_received = loop.time()
            if channel == "iopub":
                self.heard.set()
            if channel in ("shell", "control"):
                future = self._replies.pop(message.parent_id or "", None)
                if future is not None and not future.done():
                    future.set_result(message)
                    continue
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
        buffers: list[bytes] | None = None,
    ) -> str:
        """Send a message and return its id, `msg_id` if given."""
        message = self._session.msg(msg_type, content, parent=parent, metadata=metadata)
        if msg_id is not None:
            message["header"]["msg_id"] = message["msg_id"] = msg_id
        message["header"]["date"] = datetime.now(UTC)
        frames = self._serialize(message)
        await self._sockets[channel].send_multipart([*frames, *(buffers or [])])
        return str(message["header"]["msg_id"])

    def _serialize(self, message: dict[str, Any]) -> list[bytes]:
        """Return a message's signed frames; text that has no UTF-8 is sent as JSON escapes."""
        try:
            frames: list[bytes] = self._session.serialize(message)
        except ValueError:
            message["content"] = json.dumps(message["content"]).encode("ascii")
            message["metadata"] = _encodable(message["metadata"])
            frames = self._session.serialize(message)
        return frames

    async def request(
        self, msg_type: str, content: dict[str, Any], *, timeout_seconds: float
    ) -> Message | None:
        """Send a shell request and return its reply, or None when none came in time."""
        reply = await self.ask("shell", msg_type, content, timeout_seconds=timeout_seconds)
        return reply if isinstance(reply, Message) else None

    async def ask(
        self, channel: str, msg_type: str, content: dict[str, Any], *, timeout_seconds: float
    ) -> Message | Unreadable | None:
        """Send a request on shell or control and return its reply, readable or not.

        Returns None when none came in time or the sockets were closed meanwhile (`closed`).
        """
        msg_id = uuid.uuid4().hex
        future: asyncio.Future[Message | Unreadable | None]
        future = asyncio.get_running_loop().create_future()
        self._replies[msg_id] = future
        try:
            await self.send(channel, msg_type, content, msg_id=msg_id)
            async with asyncio.timeout(timeout_seconds):
                return await future
        except TimeoutError:
            return None
        finally:
            self._replies.pop(msg_id, None)

    @property
    def awaited(self) -> int:
        """How many replies are waited for."""
        return len(self._replies)

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
        """End the readers and close the sockets; who waits for a reply gets none."""
        self.closed = True
        for future in self._replies.values():
            if not future.done():
                future.set_result(None)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._stdin_monitor is not None:
            self._sockets["stdin"].disable_monitor()
            self._stdin_monitor = None
        for socket in self._sockets.values():
            with contextlib.suppress(zmq.ZMQError):
                socket.close(linger=0)


def _encodable(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata in which what has no UTF-8 is replaced: the session packs it itself."""
    text = json.dumps(metadata, ensure_ascii=False).encode("utf-8", "replace")
    cleaned: dict[str, Any] = json.loads(text, parse_constant=lambda _: None)
    return cleaned


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
