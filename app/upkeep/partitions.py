"""Partitions made ahead of time, and dropped when what is in them need not be kept any longer.

Nobody is locked out: partitions are attached and detached (CONCURRENTLY) beside readers and
writers, and whatever needs a lock waits for it a fraction of a second at most, so that nothing
queues up behind it, and tries again. What could not be done is left for the next time.
"""

import asyncio
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import TextClause
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from models import partitions as statements

_ATTEMPTS = 8
_ROWS = 5_000
_HIGHEST = uuid.UUID(int=2**128 - 1)
_EVER = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Partition:
    """A partition; `low` and `high` are None where it has no beginning or end in time."""

    parent: str
    name: str
    low: datetime | None
    high: datetime | None
    low_bound: str | None
    high_bound: str | None
    detaching: bool

    @property
    def is_period(self) -> bool:
        """Whether it holds what is of a time, all of it and nothing else."""
        return self.low is not None and self.high is not None

    @property
    def bounds(self) -> dict[str, Any]:
        """The ids that it holds, as parameters; of a table whose key is an id."""
        # The lowest of all is of outputs that are kept, and of no execution.
        lowest = uuid.UUID(int=0 if self.parent == "outputs" else 1)
        low = uuid.UUID(self.low_bound) if self.low_bound else lowest
        return {"low": low, "high": uuid.UUID(self.high_bound) if self.high_bound else _HIGHEST}


@dataclass
class Done:
    """What was done, for logs and the command line."""

    made: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    rolled_up: int = 0
    outputs_kept: int = 0
    rows_deleted: int = 0
    postponed: dict[str, str] = field(default_factory=dict)


async def existing(connection: AsyncConnection) -> list[Partition]:
    """Return all partitions, of each table in the order of time."""
    rows = (await connection.execute(statements.PARTITIONS)).mappings()
    return [Partition(**row) for row in rows]


async def make_ahead(
    connection: AsyncConnection,
    now: datetime,
    *,
    unit: str,
    ahead: int,
    done: Done,
    units: Mapping[str, str] | None = None,
) -> None:
    """Make partitions until each table has `ahead` of them that begin after `now`.

    They are of a `unit` of time; `units` has those of tables with another one.
    """
    found = await existing(connection)
    # A table's partitions of outputs are made with those of executions.
    for parent in sorted({partition.parent for partition in found} - {"outputs"}):
        later = sum(1 for p in found if p.parent == parent and p.low and p.low > now and p.high)
        highs = [p.high for p in found if p.parent == parent and p.is_period and p.high]
        end = max(highs, default=None)
        while later < ahead or end is None or end <= now:
            values = {"parent": parent, "unit": (units or {}).get(parent, unit), "at": now}
            try:
                made = await _patiently(connection, statements.MAKE_NEXT, values)
            except DBAPIError as error:
                done.postponed[parent] = f"no new partition: {error.orig}"
                break
            later += end is not None and end > now
            end = made.scalar_one()
            done.made.append(f"{parent} until {end:%Y-%m-%d %H:%M}".removesuffix(" 00:00"))


async def drop_expired(
    database: Database,
    connection: AsyncConnection,
    now: datetime,
    *,
    keep: dict[str, timedelta],
    done: Done,
) -> None:
    """Drop what is older than its table's time in `keep`; tables that are not in it keep all.

    Outputs never outlive their executions. `connection` commits each statement by itself.
    """
    await _finish_detaching(connection, done)
    keep = dict(keep)
    if "executions" in keep:
        keep["outputs"] = min(keep["executions"], keep.get("outputs", keep["executions"]))
    found = await existing(connection)
    # Outputs before the executions that they refer to.
    for partition in sorted(found, key=lambda p: (p.parent == "executions", p.high or _EVER)):
        if partition.parent not in keep:
            continue
        before = now - keep[partition.parent]
        try:
            if not partition.is_period:
                await _delete_rows(database, partition, before, done)
            elif partition.high is not None and partition.high <= before:
                await _drop(database, connection, partition, done)
        except DBAPIError as error:
            done.postponed[partition.name] = str(error.orig)


async def _finish_detaching(connection: AsyncConnection, done: Done) -> None:
    """Finish what an earlier attempt could not."""
    try:
        for partition in await existing(connection):
            if partition.detaching:
                await _detach(connection, partition)
        for name in (await connection.execute(statements.DETACHED)).scalars().all():
            await _drop_detached(connection, name)
            done.dropped.append(name)
    except DBAPIError as error:
        done.postponed["detached partitions"] = str(error.orig)


async def _drop(
    database: Database, connection: AsyncConnection, partition: Partition, done: Done
) -> None:
    if partition.parent == "outputs":
        done.outputs_kept += await _keep_shown(database, partition.bounds, _EVER)
    elif partition.parent == "executions":
        if reason := await _is_needed(connection, partition):
            done.postponed[partition.name] = reason
            return
        async with database.transaction(recorder=True) as tx:
            await tx.execute(statements.FORGET_QUESTIONS, partition.bounds)
            await tx.execute(statements.FORGET_KEYS, partition.bounds)
    await _detach(connection, partition)
    await _drop_detached(connection, partition.name)
    done.dropped.append(partition.name)


async def _is_needed(connection: AsyncConnection, partition: Partition) -> str | None:
    """Return why a partition of executions must stay for now."""
    unfinished = await connection.execute(statements.ANY_UNFINISHED, partition.bounds)
    if unfinished.scalar_one():
        return "an execution has not finished"
    outputs = partition.name.replace("executions", "outputs", 1)
    if any(other.name == outputs for other in await existing(connection)):
        return f"{outputs} is still there"
    return None


async def _keep_shown(database: Database, bounds: dict[str, Any], before: datetime) -> int:
    """Move outputs that cells show to where no period's end removes them; return how many."""
    values = {**bounds, "before": before}
    async with database.transaction(recorder=True) as tx:
        documents = (await tx.execute(statements.SHOWING, values)).scalars().all()
    kept = 0
    for document_id in documents:
        async with database.transaction(recorder=True) as tx:
            await tx.execute(statements.LOCK_DOCUMENT, {"document_id": document_id})
            moved: Any = await tx.execute(
                statements.KEEP_SHOWN, {**values, "document_id": document_id}
            )
            kept += moved.rowcount
    return kept


async def _delete_rows(
    database: Database, partition: Partition, before: datetime, done: Done
) -> None:
    """Delete what is older than `before` from a partition of no period, some rows at a time."""
    if partition.parent == "outputs":
        statement, kept = statements.DELETE_OUTPUTS, partition.name == "outputs_kept"
        if not kept:
            done.outputs_kept += await _keep_shown(database, partition.bounds, before)
    elif partition.parent == "executions":
        statement = statements.DELETE_EXECUTIONS
        # Their outputs go with them, but those that are shown.
        done.outputs_kept += await _keep_shown(database, partition.bounds, before)
    else:
        return
    values = {**partition.bounds, "before": before, "rows": _ROWS}
    deleted = _ROWS
    while deleted == _ROWS:
        async with database.transaction(recorder=True) as tx:
            result: Any = await tx.execute(statement, values)
            deleted = result.scalar_one() if result.returns_rows else result.rowcount
        done.rows_deleted += deleted


async def _detach(connection: AsyncConnection, partition: Partition) -> None:
    """Detach a partition, or finish an interrupted attempt to."""
    pending = partition.detaching
    for attempt in _attempts():
        statement = statements.detach(partition.parent, partition.name, finalize=pending)
        try:
            await connection.execute(statement)
        except DBAPIError as error:
            if not _waited_in_vain(error) or attempt == _ATTEMPTS:
                raise
            await asyncio.sleep(0.1 * attempt)
            # The first of its two steps may have been committed.
            left = [p for p in await existing(connection) if p.name == partition.name]
            if not left:
                return
            pending = left[0].detaching
        else:
            return


async def _drop_detached(connection: AsyncConnection, name: str) -> None:
    """Drop it; locks what its foreign keys refer to for a moment."""
    await _patiently(connection, statements.DROP, {"parent": name.partition("_")[0], "name": name})


async def _patiently(
    connection: AsyncConnection, statement: TextClause, values: dict[str, Any] | None = None
) -> Any:
    """Execute a statement again until it gets its locks; raises when it never does."""
    for attempt in _attempts():
        try:
            return await connection.execute(statement, values)
        except DBAPIError as error:
            if not _waited_in_vain(error) or attempt == _ATTEMPTS:
                raise
            await asyncio.sleep(0.1 * attempt)
    raise AssertionError("unreachable")


def _attempts() -> Iterable[int]:
    return range(1, _ATTEMPTS + 1)


def _waited_in_vain(error: DBAPIError) -> bool:
    """Tell whether a lock was not to be had in time: lock_not_available, or a deadlock."""
    return getattr(error.orig, "sqlstate", None) in ("55P03", "40P01")
