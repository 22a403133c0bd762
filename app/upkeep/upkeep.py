"""The server's background task for upkeep; `jupyter-datastore db maintain` does the same once.

Any number of servers may run it: one does the work at a time, the others pass.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.settings import Settings
from app.upkeep import partitions
from app.upkeep.partitions import Done
from models import analytics
from models.partitions import lock_timeout

log = logging.getLogger(__name__)

# The advisory lock of whoever does the work. Arbitrary, as long as nobody else uses it: migrations,
# the list of files and the change log have the numbers beside it.
_LOCK = 7366470212
_LOCK_MILLISECONDS = 300
# Finished executions taken into the roll-ups in one transaction.
_ROWS = 5_000
# Changes that are kept for at least so long are in partitions of a day, others of an hour.
_DAYS_FROM_SECONDS = 6 * 3600.0
# How often what is too old is looked for.
_EXPIRE_SECONDS = 3600.0


class Upkeep:
    """Makes and drops partitions and brings roll-ups up to date, again and again."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._task: asyncio.Task[None] | None = None
        self._expired_at = -_EXPIRE_SECONDS

    async def start(self) -> None:
        """Make the partitions that are needed now, and go on in the background.

        Nothing can be recorded without them; where a lock is in the way, the task tries again.
        """
        await self._look(expire=False)
        self._task = asyncio.create_task(self._run(), name="upkeep")

    async def close(self) -> None:
        """Stop; what is half done is finished the next time."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._settings.upkeep_interval_seconds)
            now = asyncio.get_running_loop().time()
            expire = now >= self._expired_at + _EXPIRE_SECONDS
            await self._look(expire=expire)
            if expire:
                self._expired_at = now

    async def _look(self, *, expire: bool) -> None:
        try:
            done = await self.maintain(datetime.now(UTC), expire=expire)
        except Exception:
            log.exception("upkeep")
            return
        if done is None:
            return
        if done.made or done.dropped:
            log.info("partitions made: %s; dropped: %s", done.made, done.dropped)
        for name, reason in done.postponed.items():
            log.warning("upkeep of %s is postponed: %s", name, reason)

    async def maintain(self, now: datetime, *, expire: bool = True) -> Done | None:
        """Do all that is due at the time `now`; None when another server is at it."""
        settings, done = self._settings, Done()
        async with self._alone() as connection:
            if connection is None:
                return None
            await partitions.make_ahead(
                connection,
                now,
                unit=settings.partition_unit,
                ahead=settings.partitions_ahead,
                done=done,
                units={"changes": unit_of_changes(settings)},
            )
            # Before anything is dropped, so that it stays counted.
            done.rolled_up = await self._roll_up()
            if expire:
                await self._analyze(connection)
                await partitions.drop_expired(
                    self._database, connection, now, keep=kept_times(settings), done=done
                )
                if settings.keep_rollups_days is not None:
                    before = (now - timedelta(days=settings.keep_rollups_days)).date()
                    done.rows_deleted += await self._forget_roll_ups(before)
        return done

    async def _roll_up(self) -> int:
        """Add what has finished to the roll-ups, some at a time; return how many."""
        rolled_up, taken = 0, _ROWS
        while taken == _ROWS:
            async with self._database.transaction(recorder=True) as tx:
                taken = (await tx.execute(analytics.ROLL_UP, {"at_most": _ROWS})).scalar_one()
            rolled_up += taken
        return rolled_up

    async def _forget_roll_ups(self, before: date) -> int:
        """Delete the sums of days (UTC) before one, some at a time; return how many."""
        deleted = 0
        for name in analytics.ROLL_UPS:
            gone = _ROWS
            while gone == _ROWS:
                async with self._database.transaction(recorder=True) as tx:
                    result: Any = await tx.execute(analytics.delete_roll_ups(name, before, _ROWS))
                    gone = result.rowcount
                deleted += gone
        return deleted

    async def _analyze(self, connection: AsyncConnection) -> None:
        """Renew the statistics of partitioned tables once a day."""
        for table in (await connection.execute(analytics.UNANALYZED)).scalars().all():
            await connection.execute(analytics.ANALYZE[table])

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[AsyncConnection | None]:
        """Yield a connection if nobody else has the lock; each statement commits by itself."""
        async with self._database.autocommit() as connection:
            taken = await connection.execute(select(func.pg_try_advisory_lock(_LOCK)))
            if not taken.scalar_one():
                yield None
                return
            try:
                await connection.execute(lock_timeout(_LOCK_MILLISECONDS))
                yield connection
            finally:
                if not connection.closed and not connection.invalidated:
                    await connection.execute(lock_timeout(None))
                    await connection.execute(select(func.pg_advisory_unlock(_LOCK)))


def unit_of_changes(settings: Settings) -> str:
    """Return how long partitions of the change log are.

    What is read of it is looked for in each of them, so they are to be few; what is pruned goes
    when the whole partition is old, so they are not to be much longer than changes are kept.
    """
    return "day" if settings.feed_retention_seconds >= _DAYS_FROM_SECONDS else "hour"


def kept_times(settings: Settings) -> dict[str, timedelta]:
    """Return for how long each table's rows are kept; tables that keep all are not in it."""
    days = {"executions": settings.keep_executions_days, "outputs": settings.keep_outputs_days}
    return {table: timedelta(days=value) for table, value in days.items() if value is not None}
