"""The feed's websocket: kept open, opened again with growing pauses, given up when refused."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Literal

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from jupyter_datastore_client.backoff import Backoff
from jupyter_datastore_client.errors import FeedError, NotAllowedError
from jupyter_datastore_client.feed import Feed

Status = Literal["idle", "connecting", "live", "stale", "waiting", "closed"]

_OPEN_SECONDS = 20.0
_SILENCE_SECONDS = 45.0


class Connection:
    """Feeds `Feed` from the server for as long as `run` runs.

    `status` is what a user may want to see: `live`; `stale` when the server cannot reach its
    database; `waiting` between attempts.
    """

    def __init__(self, url: str, headers: dict[str, str], say: Callable[[Status], None]) -> None:
        self.feed = Feed(self._wake)
        self.status: Status = "idle"
        self._url = url
        self._headers = headers
        self._say = say
        self._some = asyncio.Event()

    def _wake(self) -> None:
        self._some.set()

    def _show(self, status: Status) -> None:
        if status != self.status:
            self.status = status
            self._say(status)

    async def run(self) -> None:
        """Stay connected until cancelled; return when the server refuses us for good."""
        backoff = Backoff()
        try:
            while True:
                self._show("connecting")
                refused = await self._attempt(backoff)
                if refused is not None:
                    self.feed.fail(refused)
                    return
                self.feed.lost()
                self._show("waiting")
                await asyncio.sleep(backoff.pause())
        finally:
            self.feed.lost()
            self._show("closed")

    async def _attempt(self, backoff: Backoff) -> FeedError | None:
        """Connect and follow until the connection ends; return why it makes no sense to go on."""
        try:
            async with connect(
                self._url,
                additional_headers=self._headers,
                max_size=None,
                open_timeout=_OPEN_SECONDS,
                close_timeout=1,
                ping_interval=None,  # the server's heartbeat tells more
            ) as websocket:
                await self._follow(websocket, backoff)
        except InvalidStatus as error:
            status = error.response.status_code
            if status in (401, 403):
                return NotAllowedError(f"The feed answered {status}: no valid token")
            if status == 404:
                return FeedError("This server has no feed (404)")
        except ConnectionClosed as error:
            if error.rcvd is not None and error.rcvd.code == 1008:
                return NotAllowedError(f"The feed was closed: {error.rcvd.reason or 'not allowed'}")
        except (OSError, TimeoutError, WebSocketException):
            pass  # whatever it was, the next attempt will tell
        return None

    async def _follow(self, websocket: ClientConnection, backoff: Backoff) -> None:
        """Pass messages both ways; raises when the connection ends or falls silent."""
        sending = asyncio.create_task(self._send(websocket))
        try:
            while True:
                heartbeat = self.feed.heartbeat_seconds
                limit = _SILENCE_SECONDS if heartbeat is None else 3 * heartbeat
                async with asyncio.timeout(limit):
                    frame = await websocket.recv()
                message = json.loads(frame)
                self.feed.received(message)
                if message.get("type") == "hello":
                    backoff.reset()
                if self.feed.connection is not None:
                    self._show("live" if self.feed.reachable else "stale")
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketException):
                await sending

    async def _send(self, websocket: ClientConnection) -> None:
        while True:
            self._some.clear()
            while self.feed.outbox:
                await websocket.send(json.dumps(self.feed.outbox.popleft()))
            await self._some.wait()
