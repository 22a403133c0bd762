"""One client of a terminal: terminado's protocol over a websocket.

Messages are JSON lists (https://github.com/jupyter/terminado, `websocket.py`): the server sends
`["setup", {}]`, `["stdout", text]`, `["disconnect", 1]`; the client sends `["stdin", text]` and
`["set_size", rows, columns, height, width]`.
"""

import asyncio
import json
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from app.auth.revocations import CLOSE_CODE, CLOSE_REASON, Watch
from app.terminals.pty import Pty

# What may wait for one client, in characters, before it is shown the present instead of all.
_PENDING_CHARACTERS = 1024 * 1024
# ECMA-48 RIS: the screen is made new before the recent output is shown again.
_RESET = "\x1bc"
_LARGEST = 10_000
# What may wait to be typed, in characters, while the program does not read.
_TYPED_CHARACTERS = 8 * 1024 * 1024


class ClientError(Exception):
    """A client did what ends its connection; `code` is the websocket's close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class TerminalClient:
    """Passes output to one websocket and what it types to the terminal.

    A slow client never holds up the program or other clients: when too much waits for it, it gets
    the recent output afresh as soon as it can take more.
    """

    def __init__(self, websocket: WebSocket, pty: Pty, access: Watch) -> None:
        self.size: tuple[int | None, int | None] = (None, None)
        self._websocket = websocket
        self._pty = pty
        self._access = access
        self._pending: list[str] = []
        self._pending_size = 0
        self._lags = False
        self._died = False
        self._wake = asyncio.Event()
        self._typed: asyncio.Queue[str] = asyncio.Queue()
        self._typed_size = 0

    # terminado's side

    def on_pty_read(self, text: str) -> None:
        """Take output; returns at once."""
        if not self._lags:
            self._pending.append(text)
            self._pending_size += len(text)
            if self._pending_size > _PENDING_CHARACTERS:
                self._lags = True
                self._pending.clear()
        self._wake.set()

    def on_pty_died(self) -> None:
        """Take note of the terminal's end."""
        self._died = True
        self._wake.set()

    # the websocket's side

    async def serve(self) -> None:
        """Pass messages both ways until the terminal ends or the client leaves."""
        await self._send(["setup", {}])
        if past := self._pty.read_buffer.text():
            self.on_pty_read(past)
        with self._pty.joined(self):
            parts = (self._receive(), self._type(), self._pass_on(), self._end_with_access())
            tasks = [asyncio.create_task(part) for part in parts]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
        for error in results:
            if isinstance(error, ClientError):
                await self._websocket.close(error.code, error.reason)
                return
        if self._died:
            await self._websocket.close()

    async def _end_with_access(self) -> None:
        await self._access.ended.wait()
        raise ClientError(CLOSE_CODE, CLOSE_REASON)

    async def _pass_on(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if text := self._take():
                await self._send(["stdout", text])
            if self._died and not self._pending:
                await self._send(["disconnect", 1])
                return

    def _take(self) -> str:
        text = _RESET + self._pty.read_buffer.text() if self._lags else "".join(self._pending)
        self._pending.clear()
        self._pending_size = 0
        self._lags = False
        return text

    async def _receive(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            self._obey(message.get("text") or message.get("bytes") or "")

    async def _type(self) -> None:
        while True:
            text = await self._typed.get()
            await self._pty.write(text)
            self._typed_size -= len(text)

    def _obey(self, raw: str | bytes) -> None:
        try:
            message = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise _bad_message() from error
        match message:
            case ["stdin", str(text), *_]:
                if self._typed_size > _TYPED_CHARACTERS:
                    raise ClientError(1008, "the program does not read what is typed")
                self._typed.put_nowait(text)
                self._typed_size += len(text)
            case ["set_size", rows, columns, *_] if _is_size(rows) and _is_size(columns):
                self.size = (rows, columns)
                self._pty.resize()
            case [str(kind), *_] if kind not in ("stdin", "set_size"):
                pass  # a later protocol's
            case _:
                raise _bad_message()

    async def _send(self, message: list[Any]) -> None:
        await self._websocket.send_text(json.dumps(message))


def _bad_message() -> ClientError:
    return ClientError(1003, "not a message of a terminal")


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value <= _LARGEST


async def serve_client(websocket: WebSocket, pty: Pty, access: Watch) -> None:
    """Serve a client of a terminal on an accepted websocket."""
    try:
        await TerminalClient(websocket, pty, access).serve()
    except (WebSocketDisconnect, RuntimeError):
        return  # it has left
