"""What happens when somebody begins to follow while the log is being read."""

from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from app.changes.cursor import Position
from app.changes.log import Reading, read_position, read_since, resolve
from app.changes.reader import Reader
from app.changes.router import Router, Subscription
from app.changes.tables import TABLES, Where
from app.db.doorbell import Doorbell, asyncpg_url


class Anybody:
    """Stands for a feed, and for the sight of its user, who may see everything."""

    @property
    def sight(self) -> "Anybody":
        """Return itself."""
        return self

    async def learn(self, scopes: Any) -> None:
        """Know already."""

    def sees(self, table: Any, values: Any) -> bool:
        """Tell that it may be seen."""
        return True


def subscription(table: str, *columns: str) -> Subscription:
    """A subscription to a table with some columns."""
    return Subscription(
        Anybody(),  # type: ignore[arg-type]
        "s",
        TABLES[table],
        Where(),
        columns or TABLES[table].default_columns,
    )


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[Any]:
    made = await asyncpg.connect(asyncpg_url(database_url))
    await made.execute("SELECT datastore_feed_epoch()")
    yield made
    await made.close()


async def add(sql: Any) -> str:
    return await sql.fetchval(
        "INSERT INTO contents (id, path, name, type)"
        " VALUES (gen_random_uuid(), 'a', 'a', 'file') RETURNING id::text"
    )


async def test_a_table_that_is_followed_meanwhile_is_read_with_the_same_eyes(sql, database_url):
    """Its snapshot may be older than this reading, which must then tell what lies between."""
    router = Router()
    router.add(subscription("kernels"))
    told: list[Reading] = []
    receiver = SimpleNamespace(take=lambda reading, *_: told.append(reading))
    reader = Reader(database_url, router, receiver, Doorbell(database_url), 60)  # type: ignore[arg-type]
    start = await read_position(sql)
    other = await asyncpg.connect(asyncpg_url(database_url))
    asked = []

    async def read(connection: Any, previous: Position, tables: Sequence[str]) -> Reading:
        asked.append(list(tables))
        if len(asked) == 1:
            router.add(subscription("contents"))
            await add(other)
        return await read_since(sql, previous, tables)

    reader.read_since = read
    await reader._read_since(sql, start)
    await other.close()
    assert asked == [["kernels"], ["contents", "kernels"]]
    assert [delta.table for delta in told[0].deltas] == ["contents"]


async def test_who_begins_while_records_are_read_is_not_told_of_them(sql):
    """Their snapshot is newer; and what they want of the record was not read."""
    start = await read_position(sql)
    content = await add(sql)
    reading = await read_since(sql, start, ["contents"])
    router = Router()
    first, late = subscription("contents"), subscription("contents", "id", "path")
    router.add(first)

    class Connection:
        async def fetch(self, *query: Any) -> Any:
            router.add(late)
            return await sql.fetch(*query)

    found = await resolve(Connection(), reading.deltas, router)
    assert list(found) == [first.feed]
    ((piece, told),) = found[first.feed]
    assert told == (first,)
    assert content in piece.head


async def test_a_reading_that_finds_nothing_is_one_statement(sql, database_url):
    router = Router()
    router.add(subscription("kernels"))
    receiver = SimpleNamespace(take=lambda *_: None)
    reader = Reader(database_url, router, receiver, Doorbell(database_url), 60)  # type: ignore[arg-type]
    statements: list[str] = []

    class Connection:
        async def execute(self, query: str, **_: Any) -> None:
            statements.append(query)
            await sql.execute(query)

        async def fetch(self, *query: Any) -> Any:
            statements.append(query[0])
            return await sql.fetch(*query)

    position = await read_position(sql)
    for _ in range(12):
        statements.clear()
        await reader._read_since(Connection(), position)
    assert len(statements) == 1
    router.add(subscription("contents"))
    await add(sql)
    statements.clear()
    await reader._read_since(Connection(), position)
    assert len(statements) == 5  # looked, then BEGIN, the log, the records, COMMIT
    statements.clear()
    await reader._read_since(Connection(), await read_position(sql))
    assert len(statements) == 3
