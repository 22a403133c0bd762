"""The measure of all things: jupyter_client alone, which starts the kernel and reads its sockets.

AsyncKernelManager, its session (signatures are checked) and pyzmq's asyncio sockets, without a
high-water mark or any rate limit. Every message is read and parsed; nothing is kept but what the
completeness check needs.
"""

import asyncio
import subprocess
from typing import Any, Self, cast

import zmq
import zmq.asyncio
from jupyter_client.manager import AsyncKernelManager

from benchmarks import workloads


class BareKernel:
    """A kernel of this process's own and its two sockets."""

    def __init__(self, manager: AsyncKernelManager, context: zmq.asyncio.Context) -> None:
        self._manager = manager
        self._context = context
        # The context makes asyncio sockets, which jupyter_client's annotations do not say.
        self._shell = cast("zmq.asyncio.Socket", manager.connect_shell())
        self._iopub = cast("zmq.asyncio.Socket", manager.connect_iopub())

    @classmethod
    async def start(cls, env: dict[str, str], cwd: str) -> Self:
        """Start a kernel and wait until both sockets hear it."""
        context = zmq.asyncio.Context()
        context.setsockopt(zmq.RCVHWM, 0)
        manager = AsyncKernelManager(kernel_name="python3", context=context)
        await manager.start_kernel(
            env=env, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        kernel = cls(manager, context)
        try:
            async with asyncio.timeout(60):
                while not await kernel._answers():
                    pass
        except BaseException:
            await kernel.stop()
            raise
        return kernel

    async def _answers(self) -> bool:
        """Ask for the kernel's info; True once iopub is heard too."""
        session = self._manager.session
        session.send(self._shell, session.msg("kernel_info_request", {}))
        if not await self._shell.poll(5_000):
            return False
        await self._receive(self._shell)
        heard = False
        while await self._iopub.poll(200):
            await self._receive(self._iopub)
            heard = True
        return heard

    async def run(self, code: str) -> tuple[list[str], list[str]]:
        """Run code until reply and `idle`; return the stream's pieces and the displays' HTML."""
        session = self._manager.session
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": True,
            "stop_on_error": True,
        }
        message = session.msg("execute_request", content)
        await self._shell.send_multipart(session.serialize(message))
        msg_id = message["header"]["msg_id"]
        pieces: list[str] = []
        html: list[str] = []
        reply = asyncio.ensure_future(self._reply(msg_id))
        try:
            while True:
                heard = await self._receive(self._iopub)
                if heard["parent_header"].get("msg_id") != msg_id:
                    continue
                match heard["msg_type"]:
                    case "stream":
                        pieces.append(heard["content"]["text"])
                    case "display_data":
                        html.append(heard["content"]["data"]["text/html"])
                    case "error":
                        raise RuntimeError(heard["content"]["evalue"])
                    case "status" if heard["content"]["execution_state"] == "idle":
                        break
            await reply
        finally:
            reply.cancel()
        return pieces, html

    async def _reply(self, msg_id: str) -> None:
        while (await self._receive(self._shell))["parent_header"].get("msg_id") != msg_id:
            pass

    async def _receive(self, socket: zmq.asyncio.Socket) -> dict[str, Any]:
        session = self._manager.session
        _, frames = session.feed_identities(await socket.recv_multipart())
        message: dict[str, Any] = session.deserialize(frames)
        return message

    async def round_trip(self) -> None:
        """Run `1+1`."""
        await self.run(workloads.ROUND_TRIP)

    async def lines(self, count: int) -> None:
        """Print lines until all are received."""
        pieces, _ = await self.run(workloads.lines_code(count))
        workloads.require_lines("".join(pieces), count, "bare")

    async def displays(self, count: int) -> None:
        """Show displays until all are received."""
        _, html = await self.run(workloads.displays_code(count))
        workloads.require_displays(html, count, "bare")

    async def stop(self) -> None:
        """End the kernel and close the sockets."""
        for socket in (self._shell, self._iopub):
            socket.close(linger=0)
        await self._manager.shutdown_kernel(now=True)
        self._context.destroy(linger=0)
