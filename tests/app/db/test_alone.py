"""Statements that are a transaction of their own: what they return, and how they fail."""

import asyncio
import uuid
from typing import Any

import psycopg
import pytest
from sqlalchemy import bindparam, insert, make_url, select
from sqlalchemy.exc import DBAPIError

from app.db import asker
from app.db.engine import Database, is_transient
from app.db.together import Together, parameter, parameters, row_insert, row_update
from models import Group, Output, User
from models.executions import KEPT

GROUPS: Any = Group.__table__
OUTPUTS: Any = Output.__table__
NEW_GROUP = row_insert(GROUPS, ["id", "name"]).returning(GROUPS.c.id, GROUPS.c.name)
RENAMED = row_update(GROUPS, ["name"])
KILL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = 'jupyter-datastore'"
)


@pytest.fixture(autouse=True)
def as_server():
    with asker.acting_for(asker.Server.ITSELF):
        yield


def group(name: str, group_id: uuid.UUID | None = None) -> dict[str, Any]:
    return parameters(GROUPS, {"id": group_id or uuid.uuid4(), "name": name})


async def names(database) -> list[str]:
    async with database.read(as_server=True) as tx:
        return list(await tx.scalars(select(GROUPS.c.name).order_by(GROUPS.c.name)))


def connect(database):
    return psycopg.AsyncConnection.connect(database.url.replace("+asyncpg", ""))


async def test_what_it_returns_and_what_is_told(database):
    told = []
    (row,) = await database.write_alone(NEW_GROUP, given := group("staff"), on_finish=told.append)
    assert row == {"id": given["groups__id"], "name": "staff"}
    assert told == [True]
    assert await names(database) == ["staff"]
    assert await database.write_alone(RENAMED, group("others", row["id"])) == []
    assert await names(database) == ["others"]


async def test_values_are_converted_as_by_a_session(database):
    columns = ("partition_id", "output_type", "text", "data", "traceback")
    values = {
        "partition_id": KEPT,
        "output_type": "error",
        "text": "a\0b\ud800",
        "data": {"x": ["\0", float("nan")]},
        "traceback": None,
    }
    write = row_insert(OUTPUTS, columns).returning(*(OUTPUTS.c[name] for name in columns))
    (row,) = await database.write_alone(write, parameters(OUTPUTS, values))
    assert repr(row) == repr(values)
    async with database.read(as_server=True) as tx:
        (read,) = (await tx.execute(select(*(OUTPUTS.c[name] for name in columns)))).mappings()
    assert repr(dict(read)) == repr(values)


async def test_several_writes_as_one(database):
    together = Together()
    users: Any = User.__table__
    person = {"id": uuid.uuid4(), "name": "ada", "admin": False}
    together.add(row_insert(users, person), parameters(users, person))
    together.add(NEW_GROUP, group("staff"))
    (row,) = await database.write_alone(*together.take())
    assert row["name"] == "staff"


async def test_rows_of_a_query(database):
    await database.write_alone(NEW_GROUP, given := group("staff"))
    query = select(Group).where(Group.name == bindparam("name"))
    (row,) = await database.read_alone(query, {"name": "staff"})
    assert Group(**row).id == given["groups__id"]
    assert await database.read_alone(query, {"name": "none"}) == []
    with asker.acting_for(uuid.uuid4()):  # whom the policies do not know
        assert await database.read_alone(query, {"name": "staff"}) == []
        assert len(await database.read_alone(query, {"name": "staff"}, as_server=True)) == 1


async def test_what_is_not_given_is_an_error_and_not_null(database):
    with pytest.raises(TypeError, match="groups__name"):
        await database.write_alone(NEW_GROUP, {"groups__id": uuid.uuid4()})
    added_by_python = insert(GROUPS).values(name=parameter(GROUPS, "name"))
    with pytest.raises(TypeError, match="Python"):
        await database.write_alone(added_by_python, {"groups__name": "staff"})
    assert await names(database) == []


async def test_a_refusal_is_told_and_costs_no_connection(database):
    told = []
    await database.write_alone(NEW_GROUP, given := group("staff"))
    with pytest.raises(DBAPIError) as refused:
        await database.write_alone(NEW_GROUP, given, on_finish=told.append)
    assert refused.value.orig.sqlstate == "23505"
    assert not refused.value.connection_invalidated
    assert not is_transient(refused.value)
    assert told == [False]
    assert database.connections_in_use()["server"] == 0


@pytest.mark.parametrize(
    "wrong",
    [{"data": {"x": object()}}, {"size_bytes": "many"}, {"size_bytes": 2**70}, {"seq": None}],
    ids=["conversion", "driver", "range", "constraint"],
)
async def test_a_value_that_cannot_be_stored_is_not_waited_for(database, wrong):
    """Whatever refuses it: a recorder waits for what may pass, and this does not."""
    values = {"partition_id": KEPT, "output_type": "error", "seq": 0, "size_bytes": 1, "data": {}}
    columns = tuple(values)
    with pytest.raises((DBAPIError, TypeError)) as refused:
        await database.write_alone(
            row_insert(OUTPUTS, columns), parameters(OUTPUTS, values | wrong)
        )
    assert not is_transient(refused.value)
    assert database.connections_in_use()["server"] == 0
    await database.write_alone(row_insert(OUTPUTS, columns), parameters(OUTPUTS, values))


async def test_the_policies_bind_it(database):
    with asker.acting_for(uuid.uuid4()), pytest.raises(DBAPIError) as refused:
        await database.write_alone(NEW_GROUP, group("staff"))
    assert refused.value.orig.sqlstate == "42501"
    assert await names(database) == []


async def test_after_lost_connections_the_next_write_has_a_new_one(database):
    await database.write_alone(NEW_GROUP, group("first"))
    async with await connect(database) as connection:
        await connection.execute(KILL)
    with pytest.raises(DBAPIError) as lost:
        await database.write_alone(NEW_GROUP, group("second"))
    assert lost.value.connection_invalidated
    assert is_transient(lost.value)
    await database.write_alone(NEW_GROUP, group("third"))
    assert await names(database) == ["first", "third"]
    assert database.connections_in_use()["server"] == 0


async def test_a_database_that_cannot_be_reached_is_told_as_by_a_session(database):
    """By what recorders know whether to wait: what they have must not be given up as refused."""
    url = make_url(database.url)
    for other, code, passes in (
        (url.set(database="nowhere"), "3D000", False),
        (url.set(host="127.0.0.1", port=1, query={}), None, True),
    ):
        unreachable = Database(other.render_as_string(hide_password=False))
        with pytest.raises((DBAPIError, OSError)) as error:
            await unreachable.write_alone(NEW_GROUP, group("staff"))
        assert getattr(getattr(error.value, "orig", None), "sqlstate", None) == code
        assert is_transient(error.value) is passes
        await unreachable.close()


async def test_the_answer_to_what_was_cancelled_goes_to_nobody_else(database):
    group_id = uuid.uuid4()
    await database.write_alone(NEW_GROUP, group("first", group_id))
    told = []
    async with await connect(database) as connection:
        await connection.execute("SELECT FROM groups FOR UPDATE")
        waiting = asyncio.create_task(
            database.write_alone(RENAMED, group("second", group_id), on_finish=told.append)
        )
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert told == [False]
    (row,) = await database.write_alone(NEW_GROUP, group("third"))
    assert row["name"] == "third"
    assert database.connections_in_use()["server"] == 0
