"""The feed as server-sent events, for scripts and `EventSource` (docs/feed.md).

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
from collections.abc import AsyncIterator

from app.changes.changes import Changes
from app.changes.feed import Feed
from app.changes.messages import Frame
from app.changes.websocket import hello


def event_of(made: Frame, *, whole: bool) -> bytes:
    """Return a message as an event; its cursor is the event's id once everything is whole."""
    head = f"id: {made.cursor}\n" if made.cursor is not None and whole else ""
    # JSON has no line break but within strings, where it is escaped.
    return f"{head}event: {made.type}\ndata: {made.text}\n\n".encode()


async def events_of(changes: Changes, feed: Feed, revoked: asyncio.Event) -> AsyncIterator[bytes]:
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
