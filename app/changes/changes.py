"""The feed of one process: its reader, its clients, what both read with, and housekeeping."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg

from app.auth.identity import Identity
from app.changes.feed import Delivery, Feed
from app.changes.log import Pieces, Reading
from app.changes.presence import PresenceRows
from app.changes.reader import Reader
from app.changes.router import Router, Subscription
from app.changes.visibility import AskDatabase, Sight, Visibility
from app.db.doorbell import asyncpg_url
from app.db.engine import Database
from app.errors import UnavailableError
from app.settings import Settings
from models import Base
from models.published import Published

log = logging.getLogger(__name__)

# How many snapshots and catchings up are read at once; the others wait their turn.
_CONNECTIONS = 4
# For asking what users may see, in the middle of these: never the same connections, or all of them
# could be held by those who wait for one.
_ASKING_CONNECTIONS = 2
_COMMAND_SECONDS = 60.0
_CONNECT_SECONDS = 10.0
# Between attempts to prune, and to remove what dead servers left of presence.
_HOUSEKEEPING_SECONDS = 30.0
_PRUNE = "SELECT datastore_prune_changes($1)"

_CRASH_EMPTIES = {
    mapper.class_.__tablename__
    for mapper in Base.registry.mappers
    if isinstance(mapper.class_.__feed__, Published) and mapper.class_.__feed__.crash_empties
}


class Changes:
    """All that follows changes in this process."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        server_id: uuid.UUID,
        visibility: Visibility | None = None,
    ) -> None:
        self.settings = settings
        self.visibility: Visibility = visibility or AskDatabase(self._asking)
        self.presence = PresenceRows(database, server_id)
        self.server_id = server_id
        self.closed = asyncio.Event()
        self._router = Router()
        self.reader = Reader(
            database.url, self._router, self, database.doorbell, settings.feed_poll_seconds
        )
        self._url = asyncpg_url(database.url)
        self._pool: asyncpg.Pool[Any] | None = None
        self._asking_pool: asyncpg.Pool[Any] | None = None
        self._feeds: set[Feed] = set()
        self._sights: dict[uuid.UUID, tuple[Sight, int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # for as long as the server runs

    async def start(self) -> None:
        """Begin to read and to keep house; the database need not be there."""
        self._pool = await self._make_pool(_CONNECTIONS)
        self._asking_pool = await self._make_pool(_ASKING_CONNECTIONS)
        self._spawn(self.reader.run(), "change reader")
        self._spawn(self._keep_house(), "feed housekeeping")
        self.presence.start()

    async def _make_pool(self, size: int) -> "asyncpg.Pool[Any]":
        return await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=size,
            timeout=_CONNECT_SECONDS,
            command_timeout=_COMMAND_SECONDS,
            server_settings={"application_name": "jupyter-datastore feed"},
        )

    def _spawn(self, work: Any, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def end_feeds(self) -> None:
        """Have all connections end soon; clients are told that the server goes."""
        self.closed.set()

    async def close(self) -> None:
        """End all feeds, and what reads for them."""
        self.end_feeds()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.presence.close()
        for pool in (self._pool, self._asking_pool):
            if pool is not None:
                pool.terminate()

    async def _keep_house(self) -> None:
        while True:
            try:
                async with self.connection() as connection:
                    retention = timedelta(seconds=self.settings.feed_retention_seconds)
                    if dropped := await connection.fetchval(_PRUNE, retention):
                        log.info("partitions of the change log dropped: %s", dropped)
                await self.presence.remove_orphans()
            except Exception as error:  # noqa: BLE001 (the next time tries again)
                log.warning("keeping the change log: %s", error)
            await asyncio.sleep(
                min(_HOUSEKEEPING_SECONDS, self.settings.feed_retention_seconds / 20)
            )

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Yield a connection for reading, of the server's own role."""
        if self._pool is None:
            raise UnavailableError("The feed has not started")
        async with self._pool.acquire(timeout=_COMMAND_SECONDS) as connection:
            yield connection

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[Any]:
        if self._asking_pool is None:
            raise UnavailableError("The feed has not started")
        async with self._asking_pool.acquire(timeout=_COMMAND_SECONDS) as connection:
            yield connection

    # clients

    @property
    def live(self) -> bool:
        """Whether changes can be read now."""
        return self.reader.live

    @property
    def epoch(self) -> str:
        """Which past of which database cursors must be of."""
        return self.reader.epoch

    @property
    def cursor(self) -> str:
        """The position up to which all feeds have been told everything."""
        return self.reader.cursor

    async def positioned(self) -> None:
        """Wait until what follows is passed on to subscriptions already added."""
        await self.reader.positioned()

    async def barrier(self) -> None:
        """Wait until a reading in progress is passed on."""
        await self.reader.barrier()

    @asynccontextmanager
    async def open(self, identity: Identity) -> AsyncIterator[Feed]:
        """Yield a feed that works until the block is left."""
        sight, users = self._sights.get(identity.id, (Sight(self.visibility, identity), 0))
        self._sights[identity.id] = (sight, users + 1)
        feed = Feed(self, identity, sight)
        self._feeds.add(feed)
        task = asyncio.create_task(feed.work(), name=f"feed {feed.id}")
        feed.worker = task
        try:
            yield feed
        finally:
            task.cancel()
            self._feeds.discard(feed)
            feed.close()
            sight, users = self._sights.pop(identity.id)
            if users > 1:
                self._sights[identity.id] = (sight, users - 1)
            await asyncio.gather(task, return_exceptions=True)

    def sight(self, identity: Identity) -> Sight:
        """Return what a user may see, shared with the user's feeds when there are any."""
        known = self._sights.get(identity.id)
        return known[0] if known else Sight(self.visibility, identity)

    def add(self, subscription: Subscription) -> None:
        """Have changes passed on to a subscription from now on."""
        self._router.add(subscription)
        self.reader.wake()

    def remove(self, subscription: Subscription) -> None:
        """Have nothing passed on to it any more."""
        self._router.remove(subscription)

    # for the reader

    def take(self, reading: Reading, found: dict[Any, Pieces], before: str, after: str) -> None:
        """Pass on what was read to the feeds it concerns."""
        cache: dict[Any, Any] = {}
        for feed, pieces in found.items():
            feed.deliver(Delivery(reading.position, before, after, pieces, cache))

    def void(self, tables: set[str] | None, reason: str) -> None:
        """Have snapshots of these tables, or all, sent again."""
        for feed in list(self._feeds):
            feed.refetch(
                [s for s in feed.subscriptions() if tables is None or s.table.name in tables],
                reason,
            )

    async def connected(self, *, again: bool) -> None:
        """After a loss: a crash may have emptied unlogged tables without any change saying so."""
        if again:
            self.void(_CRASH_EMPTIES, "restarted")
            self.presence.write_again()

    async def see_again(self) -> None:
        """After a change of people or permissions: tell who gained or lost sight of anything."""
        for user_id, (sight, _) in list(self._sights.items()):
            resources = await sight.relearn()
            for feed in list(self._feeds):
                if feed.identity.id == user_id and resources != set():
                    feed.refetch(
                        [
                            s
                            for s in feed.subscriptions()
                            if resources is None
                            or resources & {scope.resource for scope in s.table.published.scopes}
                        ],
                        "access",
                    )
