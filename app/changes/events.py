"""The feed as server-sent events, for scripts and `EventSource` (docs/feed.md).

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager

from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from app.changes.changes import Changes
from app.changes.feed import Feed
from app.changes.messages import Frame
from app.changes.websocket import hello

log = logging.getLogger(__name__)


class EventStream(StreamingResponse):
    """Events to one client; it ends when the client takes nothing for `lag_seconds`.

    `opened` is what the events come from; it is left when the response is over, even one that never
    began since its client had gone.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        opened: AbstractAsyncContextManager[Feed],
        lag_seconds: float,
    ) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._events = events
        self._opened = opened
        self._lag_seconds = lag_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until either side ends it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()
            await self._opened.__aexit__(None, None, None)

    async def stream_response(self, send: Send) -> None:
        """Send the events; without an end to the response when they are not taken."""

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._lag_seconds):
                await send(message)

        try:
            await super().stream_response(send_in_time)
        except TimeoutError:
            log.info("events were not taken for %s seconds", self._lag_seconds)


def event_of(made: Frame, *, whole: bool) -> bytes:
    """Return a message as an event; its cursor is the event's id once everything is whole."""
    head = f"id: {made.cursor}\n" if made.cursor is not None and whole else ""
    # JSON has no line break but within strings, where it is escaped.
    return f"{head}event: {made.type}\ndata: {made.text}\n\n".encode()


async def events_of(changes: Changes, feed: Feed, revoked: asyncio.Event) -> AsyncGenerator[bytes]:
    """Yield events until the server closes or access ends; the client's going cancels it."""
    first = hello(changes, feed)
    yield event_of(first, whole=False)
    closing = asyncio.ensure_future(changes.closed.wait())
    ending = asyncio.ensure_future(revoked.wait())
    over = {closing, ending, feed.worker}
    try:
        while not any(one.done() for one in over):
            taking = asyncio.ensure_future(feed.take(changes.settings.feed_heartbeat_seconds))
            await asyncio.wait({taking, *over}, return_when=asyncio.FIRST_COMPLETED)
            if not taking.done():
                taking.cancel()
                return
            made = taking.result() or feed.heartbeat()
            feed.sent(made)
            whole = all(subscription.arrived for subscription in feed.subscriptions())
            yield event_of(made, whole=whole)
    finally:
        closing.cancel()
        ending.cancel()
