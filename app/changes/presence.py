"""The rows that say who is connected and what they look at.

What changes is written in batches, so that a thousand clients that connect at once are a few
transactions. When a server dies another one removes its rows.
"""

import asyncio
import json
import logging
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, or_, select
from sqlalchemy.dialects.postgresql import insert

from app.db.engine import Database
from models import Presence, ServerProcess

if TYPE_CHECKING:
    from app.changes.feed import Feed

log = logging.getLogger(__name__)

_DATA_BYTES = 16 * 1024
_CLIENT_CHARACTERS = 100
_GATHER_SECONDS = 0.02
_RETRY_SECONDS = 1.0
_ROWS = 500
# A server that has not been heard of for so long is dead; it says so every few seconds.
_SILENT = timedelta(seconds=90)


@dataclass(slots=True)
class _Shown:
    user_id: uuid.UUID
    client: str | None
    data: dict[str, Any] | None
    connected_at: datetime
    updated_at: datetime


class PresenceRows:
    """The presence of this process's connections."""

    def __init__(self, database: Database, server_id: uuid.UUID) -> None:
        self._database = database
        self._server_id = server_id
        self._shown: dict[uuid.UUID, _Shown] = {}
        self._unwritten: dict[uuid.UUID, None] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name="presence")

    async def close(self) -> None:
        """Remove all of this process's rows, if the database is there."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._shown.clear()
        try:
            async with asyncio.timeout(2), self._database.transaction(recorder=True) as tx:
                await tx.execute(delete(Presence).where(Presence.server_id == self._server_id))
        except Exception as error:  # noqa: BLE001 (another server removes them)
            log.warning("presence: %s", error)

    def connect(self, feed: "Feed", client: str | None) -> None:
        """Show a connection."""
        now = datetime.now(UTC)
        name = client[:_CLIENT_CHARACTERS] if client else None
        self._shown[feed.id] = _Shown(feed.identity.id, name, None, now, now)
        self._write(feed.id)

    def show(self, feed: "Feed", data: dict[str, Any] | None) -> bool:
        """Show what a connection looks at; False when it is too long."""
        if len(json.dumps(data)) > _DATA_BYTES:
            return False
        shown = self._shown.get(feed.id)
        if shown is not None and shown.data != data:
            shown.data = data
            shown.updated_at = datetime.now(UTC)
            self._write(feed.id)
        return True

    def disconnect(self, feed: "Feed") -> None:
        """Show a connection no more."""
        if self._shown.pop(feed.id, None) is not None:
            self._write(feed.id)

    def write_again(self) -> None:
        """Write all rows anew: a crash of PostgreSQL has emptied the table."""
        for feed_id in self._shown:
            self._write(feed_id)

    def _write(self, feed_id: uuid.UUID) -> None:
        self._unwritten[feed_id] = None
        self._changed.set()

    async def _run(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            self._changed.clear()
            while self._unwritten:
                part = list(self._unwritten)[:_ROWS]
                for feed_id in part:
                    del self._unwritten[feed_id]
                try:
                    await self._store(part)
                except Exception as error:  # noqa: BLE001 (tried again)
                    log.warning("presence: %s", error)
                    self._unwritten.update(dict.fromkeys(part))
                    await asyncio.sleep(_RETRY_SECONDS)

    async def _store(self, ids: list[uuid.UUID]) -> None:
        rows = [
            {
                "id": feed_id,
                "user_id": shown.user_id,
                "server_id": self._server_id,
                "client": shown.client,
                "data": shown.data,
                "connected_at": shown.connected_at,
                "updated_at": shown.updated_at,
            }
            for feed_id in sorted(ids)
            if (shown := self._shown.get(feed_id)) is not None
        ]
        gone = [feed_id for feed_id in ids if feed_id not in self._shown]
        async with self._database.transaction(recorder=True) as tx:
            if gone:
                await tx.execute(delete(Presence).where(Presence.id.in_(gone)))
            if rows:
                made = insert(Presence).values(rows)
                await tx.execute(
                    made.on_conflict_do_update(
                        index_elements=[Presence.id],
                        set_={"data": made.excluded.data, "updated_at": made.excluded.updated_at},
                    )
                )

    async def remove_orphans(self) -> None:
        """Remove the rows of servers that have ended or not been heard of for long."""
        dead = select(ServerProcess.id).where(
            ServerProcess.id != self._server_id,
            or_(
                ServerProcess.stopped_at.is_not(None),
                ServerProcess.heartbeat_at < datetime.now(UTC) - _SILENT,
            ),
        )
        async with self._database.transaction(recorder=True) as tx:
            await tx.execute(
                delete(Presence)
                .where(Presence.server_id.in_(dead))
                .execution_options(synchronize_session=False)
            )
