"""terminado's terminals on this process's asyncio loop.

terminado starts shells, keeps them by name and reads them; here its parts that block or assume
tornado are replaced. Nothing here knows HTTP, websockets or the database.
"""

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from terminado.management import NamedTermManager, PtyWithClients

log = logging.getLogger(__name__)

# What a client that connects is shown of the past, in characters.
_SCROLLBACK_CHARACTERS = 512 * 1024


class Scrollback(deque[str]):
    """The recent output: terminado appends to it; its oldest pieces go when it is too long."""

    def __init__(self, limit: int = _SCROLLBACK_CHARACTERS) -> None:
        super().__init__()
        self._limit = limit
        self._size = 0

    def append(self, piece: str) -> None:
        """Add a piece of output."""
        super().append(piece)
        self._size += len(piece)
        while self._size > self._limit:
            self._size -= len(self.popleft())

    def text(self) -> str:
        """Return all of it."""
        return "".join(self)


class Pty(PtyWithClients):
    """A shell and its pseudo-terminal, written to without blocking."""

    def __init__(self, argv: list[str], env: dict[str, str], cwd: str) -> None:
        super().__init__(argv, env, cwd)
        self.read_buffer: Scrollback = Scrollback()
        self.last_activity = datetime.now(UTC)
        self.ended = False
        self._writing = asyncio.Lock()
        self._closing = asyncio.Lock()
        self._writable: asyncio.Future[None] | None = None
        os.set_blocking(self.ptyproc.fd, False)

    async def write(self, text: str) -> None:
        """Type `text`; waits while the program does not read, without holding anything else up."""
        data = text.encode("utf-8", "surrogatepass")
        async with self._writing:
            while data and not self.ended:
                try:
                    data = data[os.write(self.ptyproc.fd, data) :]
                except BlockingIOError:
                    await self._wait_writable()
                except OSError:
                    return  # the shell has gone; reading tells

    @contextlib.contextmanager
    def joined(self, client: Any) -> Iterator[None]:
        """Have `client` told of output for as long as the context lasts."""
        self.clients.append(client)
        try:
            yield
        finally:
            self.clients.remove(client)
            self.resize()

    def resize(self) -> None:
        """Make the terminal as large as the smallest of its clients."""
        if not self.ended:
            self.resize_to_smallest()

    async def _wait_writable(self) -> None:
        loop = asyncio.get_running_loop()
        fd = self.ptyproc.fd
        self._writable = waiter = loop.create_future()

        def ready() -> None:
            if not waiter.done():
                waiter.set_result(None)

        loop.add_writer(fd, ready)
        try:
            await waiter
        finally:
            self._writable = None
            if not self.ended:
                loop.remove_writer(fd)

    def detach(self) -> None:
        """Stop reading and writing: the terminal has ended."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.ptyproc.fd)
        loop.remove_writer(self.ptyproc.fd)
        self.ended = True
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    async def end(self) -> None:
        """Hang up: end the shell, by force if need be, and close the terminal."""
        async with self._closing:
            if not self.ended:
                # Asked politely first; jobs of the shell are told by it.
                await self.terminate(force=True)
                await asyncio.sleep(0)

    async def close(self) -> None:
        """Close an ended terminal and reap its shell."""
        async with self._closing:
            # Set at the end of output, it makes ptyprocess wait for a shell that lives on.
            self.ptyproc.flag_eof = False
            with contextlib.suppress(Exception):
                await asyncio.to_thread(self.ptyproc.close)


class PtyManager(NamedTermManager):
    """terminado's terminals by name, read by asyncio; tells `on_ended` when one is gone."""

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str | None],
        on_active: Callable[[Pty], None],
        on_ended: Callable[[Pty], None],
    ) -> None:
        super().__init__(
            shell_command=command,
            extra_env=environment,
            # terminado's own thread for writing is not used, nor started.
            blocking_io_executor=object(),
        )
        self._on_active = on_active
        self._on_ended = on_ended
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, name: str, cwd: Path) -> Pty:
        """Start a shell; OSError when its command cannot be started."""
        # Forking a large process takes a while.
        env = self.make_term_env()
        pty = await asyncio.to_thread(Pty, list(self.shell_command), env, str(cwd))
        pty.term_name = name
        self.terminals[name] = pty
        self.start_reading(pty)
        return pty

    def start_reading(self, ptywclients: Any) -> None:
        """Read the terminal whenever it has something."""
        fd = ptywclients.ptyproc.fd
        self.ptys_by_fd[fd] = ptywclients
        asyncio.get_running_loop().add_reader(fd, self.pty_read, fd)

    def pre_pty_read_hook(self, ptywclients: Any) -> None:
        """Note the activity."""
        ptywclients.last_activity = datetime.now(UTC)
        self._on_active(ptywclients)

    def on_eof(self, ptywclients: Any) -> None:
        """Forget a terminal that has ended, and reap its shell in the background."""
        if self.ptys_by_fd.pop(ptywclients.ptyproc.fd, None) is None:
            return
        ptywclients.detach()
        name = str(ptywclients.term_name)
        if self.terminals.get(name) is ptywclients:
            del self.terminals[name]
        task = asyncio.create_task(ptywclients.close(), name=f"close {ptywclients.term_name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._on_ended(ptywclients)

    async def end(self, pty: Pty) -> None:
        """End a terminal; when this returns it has ended and its clients know."""
        await pty.end()
        if not pty.ended:
            # What still holds the terminal open does not keep it: closing it hangs up on that.
            self.on_eof(pty)
            for client in pty.clients:
                client.on_pty_died()

    def hosted(self) -> list[Pty]:
        """Return the terminals that run."""
        return [pty for pty in self.terminals.values() if isinstance(pty, Pty)]

    async def close(self) -> None:
        """End all terminals and wait for their shells."""
        await asyncio.gather(*(self.end(pty) for pty in self.hosted()))
        if self._tasks:
            await asyncio.wait(self._tasks)
