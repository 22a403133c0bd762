"""ZeroMQ sockets on the event loop, without a future for each message.

A reader takes all that has arrived whenever the socket's file descriptor says so. Receiving never
waits for anything but the socket, and its buffers have no high-water mark: a kernel drops iopub
messages for a subscriber that is slow, so this one must not be.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

import zmq
from jupyter_client.manager import AsyncKernelManager

from app.errors import ConflictError

log = logging.getLogger(__name__)

OnFrames = Callable[[list[bytes]], None]

# Messages and bytes taken at once; then who passes them on has a turn.
_AT_ONCE = 64
_BYTES_AT_ONCE = 512 * 1024
_FULL_SECONDS = 0.01


class Reader:
    """Calls back with each message of a socket, in order, until it is closed."""

    def __init__(self, socket: zmq.Socket[bytes], on_frames: OnFrames) -> None:
        self._socket = socket
        self._on_frames = on_frames
        self._loop = asyncio.get_running_loop()
        self._fd = int(socket.getsockopt(zmq.FD))
        self._soon: asyncio.Handle | None = None
        self._loop.add_reader(self._fd, self._read)
        self.look()

    def look(self) -> None:
        """Look for messages soon.

        The descriptor only tells of changes, and sending on the socket may have consumed one.
        """
        if self._soon is None:
            self._soon = self._loop.call_soon(self._read)

    def _read(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        size = 0
        for _ in range(_AT_ONCE):
            if self._socket.closed:
                return
            if size > _BYTES_AT_ONCE:
                break
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            size += sum(map(len, frames))
            try:
                self._on_frames(frames)
            except Exception:
                # Nothing that a kernel sends may end the reading of what it sends later.
                log.exception("a message could not be taken")
        self.look()

    def close(self) -> None:
        """Take what has arrived, then stop reading."""
        self._loop.remove_reader(self._fd)
        self.look()
        while self._soon is not None:
            self._read()


class KernelSocket:
    """One connected channel of a kernel.

    With `watched`, `connected` is set once the kernel's side knows the socket.
    """

    def __init__(
        self,
        manager: AsyncKernelManager,
        channel: str,
        identity: bytes,
        on_frames: OnFrames,
        *,
        watched: bool = False,
    ) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.shadow(manager.context.underlying)
        socket = context.socket(zmq.SUB if channel == "iopub" else zmq.DEALER)
        socket.rcvhwm = 0
        # Connected before the kernel listens: look again soon.
        socket.reconnect_ivl = 20
        if channel == "iopub":
            socket.subscribe(b"")
        else:
            socket.identity = identity
        if (public_key := getattr(manager, "curve_publickey", None)) is not None:
            socket.curve_secretkey = manager.curve_secretkey
            socket.curve_publickey = socket.curve_serverkey = public_key
        self._socket = socket
        self._monitor: zmq.Socket[bytes] | None = None
        self._monitor_reader: Reader | None = None
        self.connected = asyncio.Event()
        if watched:
            self._watch_connection()
        separator = ":" if manager.transport == "tcp" else "-"
        port = getattr(manager, f"{channel}_port")
        socket.connect(f"{manager.transport}://{manager.ip}{separator}{port}")
        self._reader = Reader(socket, on_frames)

    def _watch_connection(self) -> None:
        # Before it connects: a monitor attached later may miss it.
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._monitor_reader = Reader(self._monitor, lambda _: self.connected.set())

    async def send(self, frames: list[bytes]) -> None:
        """Send a message; waits while the kernel does not read. ConflictError when closed."""
        while True:
            try:
                self._socket.send_multipart(frames, zmq.NOBLOCK)
            except zmq.Again:
                await asyncio.sleep(_FULL_SECONDS)
            except zmq.ZMQError as error:
                raise ConflictError("The kernel has ended") from error
            else:
                break
        self._reader.look()

    def close(self) -> None:
        """Take what has arrived, then close."""
        self._reader.close()
        if self._monitor is not None and self._monitor_reader is not None:
            self._monitor_reader.close()
            with contextlib.suppress(zmq.ZMQError):
                self._socket.disable_monitor()
            self._monitor.close(linger=0)
        self._socket.close(linger=0)
