"""A keep-alive HTTP/1.1 connection with as little of its own as asyncio allows.

Only what a benchmark of this server needs: one request at a time, JSON, answers with a
Content-Length. `overhead` measures what it costs, so that the figures can state it.
"""

import asyncio
import json
import time
from typing import Any, Self

_LIMIT_BYTES = 64 * 1024 * 1024
# Below uvicorn's default of five.
_IDLE_SECONDS = 4.0


class HttpError(RuntimeError):
    """The server answered with an error, or not as HTTP says."""


class Connection:
    """One connection to the server, with a token."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._address = (host, port)
        self._head = f" HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: token {token}\r\n"
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, host: str, port: int, token: str) -> Self:
        """Connect; Nagle's algorithm is off, as asyncio has it by default."""
        connection = cls(host, port, token)
        await connection._connect()
        return connection

    async def _connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(
            *self._address, limit=_LIMIT_BYTES
        )
        self._last_used = time.monotonic()

    async def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the answer's JSON, None for an empty one; HttpError for a status from 400.

        A connection that has been idle is opened anew first, as the server closes such ones.
        """
        if self._reader.at_eof() or time.monotonic() - self._last_used > _IDLE_SECONDS:
            await self.close()
            await self._connect()
        try:
            return await self._request(method, path, body)
        except EOFError as error:
            raise HttpError(f"{method} {path}: the server closed the connection") from error

    async def _request(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path}{self._head}Content-Length: {len(data)}\r\n\r\n"
        self._writer.write(head.encode() + data)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        status = int(lines[0].split(b" ", 2)[1])
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        content = await self._reader.readexactly(length) if length else b""
        self._last_used = time.monotonic()
        if status >= 400:
            raise HttpError(f"{method} {path}: {status} {content[:500]!r}")
        return json.loads(content) if content else None

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)


async def overhead_seconds(body: dict[str, Any], rounds: int = 500) -> float:
    """Return the median time of one request whose answer is a constant of this very process.

    It contains the client, both ends of the loopback and the event loop: an upper bound on what
    the client adds to each request.
    """
    content = json.dumps(body).encode()
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(content) + content

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(answer)
        except asyncio.IncompleteReadError:
            writer.close()

    responder = await asyncio.start_server(respond, "127.0.0.1", 0)
    port = responder.sockets[0].getsockname()[1]
    connection = await Connection.open("127.0.0.1", port, "t")
    try:
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            await connection.request("GET", "/")
            times.append(time.perf_counter() - start)
        return sorted(times)[rounds // 2]
    finally:
        await connection.close()
        responder.close()
