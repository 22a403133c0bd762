"""`/api/datastore/feed`: a client's feed over a websocket (docs/feed.md)."""

import asyncio
import contextlib
import json
import logging
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from app.auth.identity import Identity
from app.auth.revocations import Revocations
from app.changes.changes import Changes
from app.changes.feed import Feed, UnreadError
from app.changes.messages import Frame, frame

log = logging.getLogger(__name__)

_MESSAGE_BYTES = 1024 * 1024
_CLOSE_SECONDS = 2.0
_GOING_AWAY, _BAD_FRAME, _FORBIDDEN, _TOO_LONG, _FAILED, _LATER = 1001, 1007, 1008, 1009, 1011, 1013

# What sending ends with when the other side has gone.
_GONE = (OSError, WebSocketDisconnect)


class EndedError(Exception):
    """The connection is over, with this close code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def _refuse_constant(name: str) -> None:
    """Refuse NaN and infinity, which Python takes for JSON and would give back in answers."""
    raise ValueError(name)


def hello(changes: Changes, feed: Feed) -> Frame:
    """Return the first message of a connection."""
    return frame(
        "hello",
        connection=str(feed.id),
        user={"id": str(feed.identity.id), "name": feed.identity.name},
        heartbeat_seconds=changes.settings.feed_heartbeat_seconds,
        server_id=str(changes.server_id),
    )


class FeedSocket:
    """One websocket and its feed."""

    def __init__(self, websocket: WebSocket, changes: Changes, identity: Identity) -> None:
        self._websocket = websocket
        self._changes = changes
        self._identity = identity

    async def run(self) -> None:
        """Serve the connection until either side ends it."""
        await self._websocket.accept()
        async with self._changes.open(self._identity) as feed:
            feed.put(hello(self._changes, feed))
            self._changes.presence.connect(feed, self._websocket.query_params.get("client"))
            try:
                await self._serve(feed)
            finally:
                self._changes.presence.disconnect(feed)

    async def _serve(self, feed: Feed) -> None:
        tasks = [
            asyncio.create_task(self._send(feed)),
            asyncio.create_task(self._receive(feed)),
            asyncio.create_task(self._watch()),
        ]
        try:
            await asyncio.wait([*tasks, feed.worker], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        failed = feed.worker.exception() if feed.worker.done() else None
        await self._end([*ends, failed])

    async def _end(self, ends: list[Any]) -> None:
        """Close with the reason of what ended first, if it was not the client."""
        ended = next((end for end in ends if isinstance(end, EndedError)), None)
        for end in ends:
            if isinstance(end, UnreadError):
                ended = ended or EndedError(_LATER, "answers are not read")
            elif isinstance(end, Exception) and not isinstance(end, (EndedError, *_GONE)):
                log.error("feed of %s", self._identity.name, exc_info=end)
                ended = ended or EndedError(_FAILED, "the server failed")
        if ended is not None:
            with contextlib.suppress(RuntimeError, *_GONE):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._websocket.close(ended.code, ended.reason[:120])

    async def _send(self, feed: Feed) -> None:
        """Send what is queued; a heartbeat when there is nothing for some time."""
        settings = self._changes.settings
        while True:
            made = await feed.take(settings.feed_heartbeat_seconds) or feed.heartbeat()
            try:
                async with asyncio.timeout(settings.feed_lag_seconds):
                    await self._websocket.send_text(made.text)
            except TimeoutError as error:
                raise EndedError(
                    _LATER, "lagging: nothing was read for too long; resume with the last cursor"
                ) from error
            feed.sent(made)

    async def _receive(self, feed: Feed) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            if text is None:
                raise EndedError(_BAD_FRAME, "a message is a text frame")
            if len(text.encode()) > _MESSAGE_BYTES:
                raise EndedError(_TOO_LONG, "the message is too long")
            try:
                found = json.loads(text, parse_constant=_refuse_constant)
            except (ValueError, RecursionError) as error:
                raise EndedError(_BAD_FRAME, "a message is a JSON object") from error
            if not isinstance(found, dict):
                raise EndedError(_BAD_FRAME, "a message is a JSON object")
            feed.handle(found)

    async def _watch(self) -> None:
        """End the connection when the server goes, or its user may be here no longer."""
        revocations: Revocations = self._websocket.app.state.revocations
        with revocations.watch(self._identity, "read", "api") as watch:
            ended = asyncio.ensure_future(watch.ended.wait())
            closed = asyncio.ensure_future(self._changes.closed.wait())
            try:
                await asyncio.wait({ended, closed}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                ended.cancel()
                closed.cancel()
        if watch.ended.is_set():
            raise EndedError(_FORBIDDEN, "the token or login is no longer valid")
        raise EndedError(_GOING_AWAY, "the server is shutting down")
