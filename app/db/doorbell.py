"""Telling whoever follows the change log that a transaction was committed.

A NOTIFY inside of a transaction makes commits queue up behind each other, so this server's
connections tell the triggers to leave it (`datastore.doorbell`), and after the commit one
coalesced NOTIFY goes out on a connection of its own. It is a hint that may be lost: readers poll
slowly too.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Any

import asyncpg

log = logging.getLogger(__name__)

CHANNEL = "datastore_changes"
# What tells the triggers that this connection's server rings.
SETTINGS = {"datastore.doorbell": "server"}
# What a query of asyncpg ends with when its connection is lost or frozen.
LOST = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
# Commits in this time are one ring, at its end: who waits for a commit in this process goes first.
_PAUSE_SECONDS = 0.003
_RETRY_SECONDS = 1.0
_TIMEOUT_SECONDS = 10.0
_RING = "SELECT pg_notify('datastore_changes', $1)"


def asyncpg_url(url: str) -> str:
    """Return a libpq or SQLAlchemy URL as asyncpg takes it."""
    return "postgresql:" + url.partition(":")[2]


class Doorbell:
    """Rings for other processes, at most every few milliseconds, and calls this process's own.

    `mark` is the payload of this process's rings, by which its reader knows them.
    """

    def __init__(self, url: str) -> None:
        self.mark = uuid.uuid4().hex
        self._url = asyncpg_url(url)
        self._listeners: list[Callable[[], None]] = []
        self._rung = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def listen(self, listener: Callable[[], None]) -> None:
        """Have `listener` called at each ring of this process, at once."""
        self._listeners.append(listener)

    def ring(self) -> None:
        """Say that something was committed; returns at once."""
        for listener in self._listeners:
            listener()
        self._rung.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="doorbell")

    async def close(self) -> None:
        """Stop ringing; what was rung a moment ago still goes out."""
        if self._task is None:
            return
        # A ring that is waiting goes out within the pause, if the database is there.
        await asyncio.sleep(2 * _PAUSE_SECONDS)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._ring_while_connected()
            except LOST as error:
                log.debug("doorbell: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _ring_while_connected(self) -> None:
        connection: Any = await asyncpg.connect(
            self._url,
            timeout=_TIMEOUT_SECONDS,
            command_timeout=_TIMEOUT_SECONDS,
            server_settings={
                "application_name": "jupyter-datastore doorbell",
                # Nothing is written: a NOTIFY need not wait for the disk.
                "synchronous_commit": "off",
            },
        )
        try:
            ring = await connection.prepare(_RING)
            while True:
                await self._rung.wait()
                await asyncio.sleep(_PAUSE_SECONDS)
                self._rung.clear()
                try:
                    await ring.fetch(self.mark)
                except BaseException:
                    self._rung.set()
                    raise
        finally:
            connection.terminate()
