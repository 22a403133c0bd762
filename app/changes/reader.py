"""The process's one reader of the change log: woken by NOTIFY, it passes on what is new.

One connection listens and reads, so that a connection that is frozen shows by the first query that
does not come back. After a loss it listens first and then goes on from its position; nothing is
missed in between. While nobody follows anything it reads nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import asyncpg

from app.changes.cursor import Position, encode
from app.changes.log import (
    MAX_BYTES,
    Pieces,
    Reading,
    TooLargeError,
    cursor_state,
    read_position,
    read_since,
    resolve,
)
from app.changes.router import Router
from app.db.doorbell import CHANNEL, LOST, Doorbell, asyncpg_url

log = logging.getLogger(__name__)

# An answer that takes longer never comes: the log is read by its index.
_HEARTBEAT_SECONDS = 10.0
_READ_SECONDS = 60.0
# Records may be many and large.
_RECORDS_PATIENCE = 6
# After so many readings in a row that found nothing for anybody, others write and nobody follows:
# each reading is then a statement without a transaction around it, and the next one waits a moment.
_FRUITLESS = 10
_FRUITLESS_PAUSE_SECONDS = 0.01
# So many readings in a row that fail are not the connection's fault.
_FAILURES = 10
_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)


class Receiver(Protocol):
    """Who is told what was read."""

    def take(self, reading: Reading, found: dict[Any, Pieces], before: str, after: str) -> None:
        """Pass on what was read; before and after are cursors."""

    def void(self, tables: set[str] | None, reason: str) -> None:
        """Have snapshots of these tables sent again, of all when None."""

    async def connected(self, *, again: bool) -> None:
        """Do what follows each new connection; `again` when there was one before."""


class Reader:
    """Reads for all subscriptions of a process. `live` tells whether the database is there."""

    def __init__(
        self, url: str, router: Router, receiver: Receiver, doorbell: Doorbell, poll_seconds: float
    ) -> None:
        self.live = False
        self.epoch = ""
        self.cursor = ""
        self._url = asyncpg_url(url)
        self._router = router
        self._receiver = receiver
        self._mark = doorbell.mark
        self._poll_seconds = poll_seconds
        self._position: Position | None = None
        self._positioned = asyncio.Event()
        self._woken = asyncio.Event()
        self._turn: asyncio.Future[None] | None = None
        self._was_connected = False
        self._failures = 0  # of readings in a row, on connections that were good
        self._fruitless = 0
        self.patience_seconds = _HEARTBEAT_SECONDS
        self.room_bytes = MAX_BYTES
        # What finds the changes since a position; a test replaces it by a wrong one.
        self.read_since: Callable[[Any, Position, Sequence[str]], Awaitable[Reading]] = read_since
        doorbell.listen(self.wake)

    def wake(self) -> None:
        """Have the log read soon."""
        self._woken.set()

    async def positioned(self) -> None:
        """Wait until there is a position from which changes are passed on."""
        while not self._positioned.is_set():
            self.wake()
            await self._positioned.wait()

    async def barrier(self) -> None:
        """Wait for the end of a reading that has begun; later ones see what is visible now."""
        if self._turn is not None:
            await asyncio.shield(self._turn)

    async def run(self) -> None:
        """Read until cancelled, however often the connection is lost."""
        attempt = 0
        while True:
            try:
                await self._follow()
            except LOST as error:
                attempt = 0 if self.live else attempt + 1
                (log.warning if self.live else log.debug)("change reader: %r", error)
                self._failures += self.live
                if self._failures > _FAILURES:
                    self._skip()
            except Exception:
                log.exception("change reader")
                attempt = len(_RETRY_SECONDS)
                self._skip()
            self.live = False
            await asyncio.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])

    def _skip(self) -> None:
        """Pass over what cannot be read: it must not stop the reader for good."""
        self._failures = 0
        self._position = None
        self._positioned.clear()
        self._receiver.void(None, "too_many_changes")

    async def _follow(self) -> None:
        connection: Any = await asyncpg.connect(
            self._url,
            timeout=self.patience_seconds,
            command_timeout=_READ_SECONDS,
            server_settings={"application_name": "jupyter-datastore change reader"},
        )
        try:
            async with asyncio.timeout(self.patience_seconds):
                await connection.add_listener(CHANNEL, self._notified)
                epoch = await connection.fetchval("SELECT datastore_feed_epoch()")
                await self._check_position(connection, epoch)
            await self._receiver.connected(again=self._was_connected)
            self._was_connected = True
            self.live = True
            self.wake()
            while True:
                try:
                    async with asyncio.timeout(self._poll_seconds):
                        await self._woken.wait()
                except TimeoutError:
                    pass
                else:
                    self._woken.clear()
                    if not self._router and not self._positioned.is_set():
                        continue
                await self._read(connection)
                if self._fruitless > _FRUITLESS:
                    await asyncio.sleep(_FRUITLESS_PAUSE_SECONDS)
        finally:
            connection.terminate()

    def _notified(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        if payload != self._mark:
            self.wake()

    async def _check_position(self, connection: Any, epoch: str) -> None:
        """Go on from the position before the connection was lost, if this is the same past."""
        state = "ok" if self._position is None else await cursor_state(connection, self._position)
        if self.epoch and epoch != self.epoch:
            state = "epoch"
        self.epoch = epoch
        if self._position is None:
            return
        if state == "ok":
            self.cursor = encode(epoch, self._position)
            return
        await self._start_from_now(connection)
        self._receiver.void(None, state)

    async def _start_from_now(self, connection: Any) -> None:
        self._position = await read_position(connection)
        self.cursor = encode(self.epoch, self._position)
        self._positioned.set()

    async def _read(self, connection: Any) -> None:
        """Read and pass on what is new; without followers only see whether the database answers."""
        if not self._router:
            self._position = None
            self._positioned.clear()
            async with asyncio.timeout(self.patience_seconds):
                await read_position(connection)
            return
        if self._position is None:
            async with asyncio.timeout(self.patience_seconds):
                await self._start_from_now(connection)
            return
        self._turn = asyncio.get_running_loop().create_future()
        try:
            await self._read_since(connection, self._position)
        finally:
            self._turn.set_result(None)
            self._turn = None

    async def _read_since(self, connection: Any, previous: Position) -> None:
        reading: Reading | None = None
        if self._fruitless >= _FRUITLESS:
            reading = await self._read_log(connection, previous)
        if reading is None or reading.is_fruitful:
            reading, found = await self._read_all(connection, previous)
        else:
            found = {}
        self._fruitless = 0 if reading.is_fruitful else self._fruitless + 1
        await self._pass_on(connection, reading, found)

    async def _read_log(self, connection: Any, previous: Position) -> Reading:
        """Return what has changed of what is followed."""
        async with asyncio.timeout(self.patience_seconds):
            tables: set[str] = set()
            while True:
                # Who began to follow another table meanwhile may have a snapshot that is older than
                # this one, and is told the rest of it from here.
                tables |= self._router.tables()
                reading = await self.read_since(connection, previous, sorted(tables))
                if self._router.tables() <= tables:
                    return reading

    async def _read_all(
        self, connection: Any, previous: Position
    ) -> tuple[Reading, dict[Any, Pieces]]:
        """Return what has changed, and the records as they are now, read in one transaction."""
        # Not `connection.transaction()`, whose end would wait for a connection that is frozen.
        await connection.execute(_BEGIN, timeout=self.patience_seconds)
        reading = await self._read_log(connection, previous)
        found: dict[Any, Pieces] = {}
        if reading.deltas:
            async with asyncio.timeout(_RECORDS_PATIENCE * self.patience_seconds):
                try:
                    found = await resolve(connection, reading.deltas, self._router, self.room_bytes)
                except TooLargeError:
                    reading = replace(reading, too_many=True)
        await connection.execute("COMMIT", timeout=self.patience_seconds)
        return reading, found

    async def _pass_on(self, connection: Any, reading: Reading, found: dict[Any, Pieces]) -> None:
        self._failures = 0
        before = self.cursor
        renewed = "" in reading.emptied
        if renewed:
            self.epoch = await connection.fetchval("SELECT datastore_feed_epoch()")
        self._position = reading.position
        self.cursor = encode(self.epoch, reading.position)
        if renewed:
            self._receiver.void(None, "epoch")
        elif reading.too_many:
            self._receiver.void(reading.tables, "too_many_changes")
        else:
            if reading.emptied:
                self._receiver.void(reading.emptied, "truncated")
            self._receiver.take(reading, found, before, self.cursor)
