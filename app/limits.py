"""What no request may do to the server: fill its memory, outlive it, or cost it a connection."""

import asyncio
import json
import logging
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.settings import Settings

log = logging.getLogger(__name__)


def websocket_options(settings: Settings) -> dict[str, Any]:
    """Return how uvicorn is to treat websockets.

    Nothing is compressed: it costs more time than it saves on the networks that kernels' messages
    cross. Pings are as rare, and patience with them as long, as Jupyter Server's: a browser that
    is busy for half a minute is not gone.
    """
    return {
        "ws": "websockets-sansio",
        "ws_max_size": settings.websocket_max_message_bytes,
        "ws_per_message_deflate": False,
        "ws_ping_interval": 30,
        "ws_ping_timeout": 90,
    }


class BodyLimit:
    """ASGI middleware: answers 413 in Jupyter's shape when a body is longer than `limit_bytes`.

    A declared length is refused at once; an undeclared one when it has grown over the limit.
    """

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app = app
        self._limit = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, unless its body is too long."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._limit:
            await self._too_long(send)
            return
        received = 0
        started = False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise _TooLong
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except _TooLong:
            if not started:
                await self._too_long(send)
        except asyncio.CancelledError:
            # uvicorn cancels what has not ended when a shutdown has waited long enough; left
            # alone, it would answer 500 and log a traceback.
            waiters = getattr(scope["app"].state, "waiters", None)
            if started or waiters is None or not waiters.closed:
                raise
            await _refuse(send, 503, "The server is shutting down")

    async def _too_long(self, send: Send) -> None:
        await _refuse(send, 413, f"The body of the request is longer than {self._limit} bytes")


class LastResort:
    """ASGI middleware: answers 500 in Jupyter's shape to an error that nothing else answered.

    Starlette's own handler of every Exception raises it again after the answer, and the HTTP
    server then closes the connection, which the client may have used for its next request.
    An answer that has begun cannot be mended: its connection is closed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and answer what it raises."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            if started:
                raise
            log.error("%s %s", scope["method"], scope["path"], exc_info=error)
            await _refuse(send, 500, "Internal server error", close=False)


async def _refuse(send: Send, status: int, message: str, *, close: bool = True) -> None:
    body = json.dumps({"message": message, "reason": None}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *([(b"connection", b"close")] if close else []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _TooLong(BaseException):
    """Passes through handlers that catch every Exception."""
