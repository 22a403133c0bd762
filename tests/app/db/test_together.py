"""Writes that go together in one statement, and what an execution costs with them."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event, select

from app.db.engine import Database
from app.db.together import parameters, row_insert, row_update, rows_insert
from models import Change, Group, Output, User
from models.executions import KEPT
from tests.kernels import execute, run, start_kernel, until

USERS: Any = User.__table__
GROUPS: Any = Group.__table__
NEW_USER = row_insert(USERS, ["id", "name", "admin"])
NEW_GROUP = row_insert(GROUPS, ["id", "name"])
RENAMED = row_update(GROUPS, ["name"])


def user(name: str) -> dict[str, Any]:
    return parameters(USERS, {"id": uuid.uuid4(), "name": name, "admin": False})


@contextmanager
def statements(database: Database, about: str = "") -> Iterator[list[str]]:
    """Yield a list that gets the first words of each statement with a word, of all pools.

    The driver tells of those that it is given itself, SQLAlchemy of its own.
    """
    noted: list[str] = []
    drivers = set()

    def note(statement):
        if about in statement:
            noted.append(" ".join(statement.split()[:2]))

    def told_by_sqlalchemy(connection, cursor, statement, *rest):
        note(statement)

    def told_by_driver(query):
        note(query.query)

    def watch(connection, *rest):
        connection.driver_connection.add_query_logger(told_by_driver)
        drivers.add(connection.driver_connection)

    engines = [
        engine.sync_engine for engine in (database._requests, database._server, database._recorders)
    ]
    for engine in engines:
        event.listen(engine, "before_cursor_execute", told_by_sqlalchemy)
        event.listen(engine, "checkout", watch)
    yield noted
    for engine in engines:
        event.remove(engine, "before_cursor_execute", told_by_sqlalchemy)
        event.remove(engine, "checkout", watch)
    for driver in drivers:
        driver.remove_query_logger(told_by_driver)


async def names(database: Database, table: Any) -> list[str]:
    async with database.read(as_server=True) as tx:
        return list(await tx.scalars(select(table.c.name).order_by(table.c.name)))


async def test_rows_of_several_tables_are_written_with_one_statement(database):
    with statements(database, about="groups") as noted:
        async with database.transaction(as_server=True) as tx:
            await tx.write_with_others(NEW_USER, user("ada"))
            group = parameters(GROUPS, {"id": uuid.uuid4(), "name": "staff"})
            await tx.write_with_others(NEW_GROUP, group)
            assert noted == []
    assert noted == ["WITH part_0"]
    assert "ada" in await names(database, USERS)
    assert await names(database, GROUPS) == ["staff"]


async def test_two_rows_of_one_table_are_written_in_their_order(database):
    group_id = uuid.uuid4()
    async with database.transaction(as_server=True) as tx:
        for write, name in ((NEW_GROUP, "first"), (RENAMED, "second"), (RENAMED, "third")):
            await tx.write_with_others(write, parameters(GROUPS, {"id": group_id, "name": name}))
    assert await names(database, GROUPS) == ["third"]


async def test_nothing_stays_when_the_transaction_fails(database):
    group = parameters(GROUPS, {"id": uuid.uuid4(), "name": "staff"})
    try:
        async with database.transaction(as_server=True) as tx:
            await tx.write_with_others(NEW_GROUP, group)
            await tx.write_now()
            raise LookupError
    except LookupError:
        pass
    assert await names(database, GROUPS) == []


async def test_a_short_execution_is_written_with_two_statements(client):
    """The first is what asks for it, the second what it said and how it ended."""
    kernel = await start_kernel(client)
    await run(client, kernel, "1+1")
    with statements(client.app.state.database, about="executions") as noted:
        await execute(client, kernel, "1+1")
        await until(lambda: len(noted) > 1)
        await client.app.state.kernels.get(kernel).recorder.drain()
    # A slow machine's execution is told in parts: that it has begun, and what came of it.
    assert noted in (["INSERT INTO", *["WITH part_0"] * parts] for parts in (1, 2))


async def test_many_rows_are_one_statement_in_order_and_as_they_were(database):
    """Lists whose first element is a list, nothing, and text that PostgreSQL cannot hold."""
    outputs: Any = Output.__table__
    names = ("partition_id", "seq", "output_type", "text", "data", "traceback", "size_bytes")
    rows = [
        (KEPT, 0, "error", text, data, traceback, n)
        for n, (text, data, traceback) in enumerate(
            [
                ("a\0b", {"x": ["\0", 1.5]}, [["a"], "b"]),
                (None, None, None),
                ("\ud800", {}, []),
                *[("c", None, None)] * 60,
            ]
        )
    ]
    many = rows_insert(outputs, names)
    given = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    async with database.transaction(as_server=True) as tx:
        await (await tx.connection()).execute(many, given)
    query = select(*(outputs.c[name] for name in names)).order_by(outputs.c.id)
    async with database.read(as_server=True) as tx:
        assert [tuple(row) for row in await tx.execute(query)] == rows
        logged = await tx.scalars(select(Change.record_ids).where(Change.table_name == "outputs"))
        ids = await tx.scalars(select(outputs.c.id).order_by(outputs.c.id))
        assert logged.all() == [[str(number) for number in ids]]
