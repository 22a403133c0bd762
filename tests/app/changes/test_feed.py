"""The feed over a websocket, as docs/feed.md has it, on a real server and real commits."""

import asyncio
import contextlib
import itertools
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from app.changes import feed as feed_module
from app.changes.feed import Feed
from app.db.doorbell import asyncpg_url
from app.db.engine import Database
from app.settings import Settings
from app.upkeep.upkeep import Upkeep
from models import codec
from tests.feed import following
from tests.live import LiveServer, live, receive_json, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def module_database(postgres_url: str, template: str):
    import psycopg

    from tests.conftest import database_named

    name = f"feed_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        yield database_named(postgres_url, name)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(
    module_database: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LiveServer]:
    folder: Path = tmp_path_factory.mktemp("feed")
    (folder / "root").mkdir()
    settings = Settings(
        root_dir=folder / "root", owner="ada", feed_heartbeat_seconds=0.5, watch_files=False
    )
    async with live(settings, module_database, folder / "data") as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sql(module_database: str) -> AsyncIterator[asyncpg.Connection]:
    """Another program that writes to the database: nothing tells the server of it but triggers."""
    made = await asyncpg.connect(asyncpg_url(module_database))
    yield made
    await made.close()


async def add_content(sql: asyncpg.Connection, path: str) -> str:
    found = await sql.fetchval(
        "INSERT INTO contents (id, path, name, type) VALUES (gen_random_uuid(), $1, $1, 'file')"
        " RETURNING id",
        path,
    )
    return str(found)


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex}"


async def test_what_another_program_writes_arrives(server, sql):
    folder = unique("d")
    async with following(
        server, {"c": {"table": "contents", "where": {"path_prefix": folder}}}
    ) as follower:
        assert follower.records["c"] == {}
        content = await add_content(sql, f"{folder}/a.txt")
        await add_content(sql, f"{folder}x/a.txt")
        await follower.until(lambda: content in follower.records["c"])
        record = follower.records["c"][content]
        assert record["path"] == f"{folder}/a.txt"
        assert record["writable"] is True
        assert "file_key" not in record
        (change,) = follower.of_type("changes")[-1]["transactions"][0]["changes"]
        assert (change["op"], change["changed"], change["subs"]) == ("upsert", None, ["c"])
        await sql.execute("UPDATE contents SET size = 7, file_key = 'x' WHERE id = $1", content)
        await follower.until(lambda: follower.records["c"][content]["size"] == 7)
        (change,) = follower.of_type("changes")[-1]["transactions"][0]["changes"]
        assert change["changed"] == ["size"]
        # Nothing that is published changes: nothing is said. Then it leaves the filter.
        await sql.execute("UPDATE contents SET file_key = 'y' WHERE id = $1", content)
        await sql.execute("UPDATE contents SET path = $2 WHERE id = $1", content, unique("z"))
        await follower.until(lambda: content not in follower.records["c"])
        assert len(follower.of_type("changes")) == 3
        # And comes back, and is deleted.
        await sql.execute("UPDATE contents SET path = $2 WHERE id = $1", content, folder)
        await follower.until(lambda: content in follower.records["c"])
        (change,) = follower.of_type("changes")[-1]["transactions"][0]["changes"]
        assert change["changed"] is None
        await sql.execute("DELETE FROM contents WHERE id = $1", content)
        await follower.until(lambda: content not in follower.records["c"])


async def test_a_message_tells_whole_transactions(server, sql):
    folder = unique("d")
    where = {"path_prefix": folder}
    async with following(server, {"c": {"table": "contents", "where": where}}) as follower:
        async with sql.transaction():
            first = await add_content(sql, f"{folder}/a")
            await add_content(sql, f"{folder}/b")
            await sql.execute("UPDATE contents SET size = 1 WHERE id = $1", first)
        await follower.until(lambda: len(follower.records["c"]) == 2)
        (message,) = follower.of_type("changes")
        (transaction,) = message["transactions"]
        assert [change["record"]["name"] for change in transaction["changes"]] == [
            f"{folder}/a",
            f"{folder}/b",
        ]
        async with sql.transaction():
            await add_content(sql, f"{folder}/c")
            async with contextlib.AsyncExitStack():
                inner = sql.transaction()
                await inner.start()
                await add_content(sql, f"{folder}/never")
                await inner.rollback()
        await follower.until(lambda: len(follower.records["c"]) == 3)


async def test_resuming_tells_what_happened_meanwhile(server, sql):
    folder = unique("d")
    subscriptions = {"c": {"table": "contents", "where": {"path_prefix": folder}}}
    async with following(server, subscriptions) as first:
        gone = await add_content(sql, f"{folder}/gone")
        kept = await add_content(sql, f"{folder}/kept")
        await first.until(lambda: len(first.records["c"]) == 2)
    await sql.execute("DELETE FROM contents WHERE id = $1", gone)
    await sql.execute("UPDATE contents SET size = 5 WHERE id = $1", kept)
    new = await add_content(sql, f"{folder}/new")
    first.messages.clear()
    task = asyncio.create_task(first.run())
    await first.until(lambda: set(first.records["c"]) == {kept, new})
    assert first.records["c"][kept]["size"] == 5
    assert first.of_type("subscribed") == [{"type": "subscribed", "id": "c", "resumed": True}]
    assert not first.of_type("snapshot")
    task.cancel()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda cursor: "nonsense", "cursor"),
        (lambda cursor: cursor.rpartition("~")[0] + "~" + "9" * 18, "cursor"),
        (lambda cursor: "0" * 8 + cursor[8:], "epoch"),
        # A position in another past: its newest change is not one of this log.
        (lambda cursor: "~".join([*cursor.split("~")[:3], "999999999999", "1"]), "epoch"),
    ],
)
async def test_a_cursor_of_another_past_is_refused(server, sql, spoil, reason):
    folder = unique("d")
    subscriptions = {"c": {"table": "contents", "where": {"path_prefix": folder}}}
    content = await add_content(sql, folder)
    async with following(server, subscriptions) as first:
        pass
    assert first.cursor is not None
    first.cursor = spoil(first.cursor)
    first.records.clear()
    first.messages.clear()
    task = asyncio.create_task(first.run())
    await first.until(lambda: content in first.records["c"])
    assert [(m["id"], m["reason"]) for m in first.of_type("must_refetch")] == [("c", reason)]
    task.cancel()


async def test_truncate_has_clients_fetch_again(server, sql):
    async with following(server, {"c": {"table": "checkpoints"}}) as follower:
        content = await add_content(sql, unique("c"))
        await sql.execute(
            "INSERT INTO checkpoints VALUES (gen_random_uuid(), $1, 'c', now())", content
        )
        await follower.until(lambda: len(follower.records["c"]) == 1)
        await sql.execute("TRUNCATE checkpoints")
        await follower.until(lambda: not follower.records["c"])
        assert [m["reason"] for m in follower.of_type("must_refetch")] == ["truncated"]


async def test_retention_has_clients_fetch_again(server, sql, module_database, tmp_path):
    """Rows that go with their partition go from who follows them, and from nobody else."""
    owner = await sql.fetchval("SELECT id FROM users WHERE name = 'ada'")
    kernel = unique("k")
    await sql.execute(
        "INSERT INTO kernels (id, name, owner_id) VALUES ($1, 'p', $2)", kernel, owner
    )
    later = datetime.now(UTC).replace(day=15) + timedelta(days=31)
    execution = uuid.UUID(int=int(later.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62)
    await sql.execute(
        "INSERT INTO executions (id, kernel_id, incarnation, run_as_id, client, msg_id, code,"
        " source_hash, status, queued_at, finished_at)"
        " VALUES ($1, $2, 1, $3, 'api', 'm', '', '', 'ok', $4, $4)",
        *(execution, kernel, owner, later),
    )
    await sql.execute(
        "INSERT INTO outputs (partition_id, execution_id, kernel_id, seq, output_type, text)"
        " VALUES ($1, $1, $2, 1, 'stream', 'x')",
        *(execution, kernel),
    )
    where = {"kernel_id": kernel}
    wanted = {table: {"table": table, "where": where} for table in ("executions", "outputs")}
    database = Database(module_database)
    try:
        async with following(server, wanted) as follower:
            assert len(follower.records["outputs"]) == 1
            keeping = Upkeep(database, Settings(root_dir=tmp_path, keep_outputs_days=40))
            done = await keeping.maintain(later + timedelta(days=75))
            assert len(done.dropped) >= 1
            await follower.until(lambda: not follower.records["outputs"])
            assert {(m["id"], m["reason"]) for m in follower.of_type("must_refetch")} == {
                ("outputs", "truncated")
            }
            assert len(follower.records["executions"]) == 1
    finally:
        await database.close()


async def test_a_snapshot_comes_in_pages_with_changes_between(server, sql):
    folder = unique("d")
    await sql.execute(
        "INSERT INTO contents (id, path, name, type)"
        " SELECT gen_random_uuid(), $1 || '/' || n, n, 'file' FROM generate_series(1, 2500) n",
        folder,
    )
    where = {"path_prefix": folder}
    async with following(server, {"c": {"table": "contents", "where": where}}) as follower:
        pages = follower.of_type("snapshot")
        assert [page["first"] for page in pages] == [True, False, False]
        assert [page["more"] for page in pages] == [True, True, False]
        assert [page["cursor"] is None for page in pages] == [True, True, False]
        assert len(follower.records["c"]) == 2500
    await sql.execute("DELETE FROM contents WHERE starts_with(path, $1)", folder)


async def test_unsubscribing_and_mistakes(server, sql):
    async with server.connect("/api/datastore/feed") as socket:
        hello = await receive_json(socket)
        assert (hello["type"], hello["user"]["name"]) == ("hello", "ada")

        async def ask(message) -> dict:
            await socket.send(json.dumps(message))
            while (answer := await receive_json(socket))["type"] in ("heartbeat", "changes"):
                pass
            return answer

        for message, reason in [
            ({"type": "subscribe", "id": "a", "table": "tokens"}, "unknown_table"),
            ({"type": "subscribe", "id": "a", "table": "changes"}, "unknown_table"),
            ({"type": "subscribe", "id": "a", "table": {}}, "unknown_table"),
            ({"type": "subscribe", "id": "", "table": "kernels"}, "bad_message"),
            ({"type": "subscribe", "id": "a", "table": "kernels", "cursor": 1}, "bad_message"),
            ({"type": "subscribe", "id": "a", "table": "kernels", "where": []}, "bad_message"),
            (
                {
                    "type": "subscribe",
                    "id": "a",
                    "table": "kernels",
                    "columns": ["connection_info"],
                },
                "unknown_column",
            ),
            (
                {"type": "subscribe", "id": "a", "table": "kernels", "where": {"pid": 1}},
                "unknown_filter",
            ),
            (
                {"type": "subscribe", "id": "a", "table": "cells", "where": {"id": "x"}},
                "bad_value",
            ),
            ({"type": "unsubscribe", "id": "a"}, "unknown_id"),
            ({"type": "dance"}, "bad_message"),
            ({"type": "presence", "data": {"x": "y" * 20_000}}, "bad_value"),
        ]:
            answer = await ask(message)
            assert (answer["type"], answer["reason"]) == ("error", reason), message
        subscribe = {"type": "subscribe", "id": "a", "table": "kernelspecs"}
        assert (await ask(subscribe)) == {"type": "subscribed", "id": "a", "resumed": False}
        assert (await receive_json(socket))["type"] == "snapshot"
        assert (await ask(subscribe))["reason"] == "duplicate_id"
        assert (await ask({"type": "unsubscribe", "id": "a"})) == {
            "type": "unsubscribed",
            "id": "a",
        }
        assert (await ask({"type": "ping", "value": [1]})) == {"type": "pong", "value": [1]}
        assert len((await ask({"type": "x" * 100_000}))["message"]) == 500


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("[1]", 1007),
        ("{", 1007),
        (b"{}", 1007),
        ('{"type": "ping", "value": NaN}', 1007),
        (json.dumps({"type": "ping", "value": "\u00e9" * 600_000}, ensure_ascii=False), 1009),
    ],
)
async def test_what_is_no_message_ends_the_connection_with_a_reason(server, frame, code):
    async with server.connect("/api/datastore/feed") as socket:
        await socket.send(frame)
        await socket.wait_closed()
        assert socket.close_code == code
        assert socket.close_reason


@pytest.mark.parametrize("odd", ["a\0b", "a\ud800", "\ufdd0"])
async def test_a_filter_may_have_text_that_postgresql_cannot_hold(server, sql, odd):
    """It was tried again for ever, and the subscription's snapshot never came."""
    path = unique(codec.encode_text(odd))
    content = await add_content(sql, f"{path}/x")
    raw = codec.decode_text(path)
    wanted = {
        "one": {"table": "contents", "where": {"path": f"{raw}/x"}},
        "below": {"table": "contents", "where": {"path_prefix": raw}},
        "none": {"table": "contents", "where": {"path_prefix": raw + "0"}},
    }
    async with following(server, wanted) as follower:
        await sql.execute("UPDATE contents SET size = 7 WHERE id = $1", content)
        for name in ("one", "below"):
            await follower.until(lambda n=name: follower.records[n].get(content, {}).get("size"))
        assert not follower.records["none"]


async def test_who_may_connect(server):
    assert await refused(server, "/api/datastore/feed", token=None) == 403
    assert await refused(server, "/api/datastore/feed", token="wrong") == 403
    for path in ("tables", "tables/kernels", "events?table=kernels"):
        answer = await server.http.get(f"/api/datastore/{path}", headers={"Authorization": ""})
        assert answer.status_code == 403


async def test_columns_are_those_asked_for_and_never_withheld_ones(server, sql):
    async with following(
        server,
        {
            "all": {"table": "kernelspecs"},
            "some": {"table": "kernelspecs", "columns": ["name"]},
        },
    ) as follower:
        name = unique("spec")
        spec = await sql.fetchval(
            "INSERT INTO kernelspecs (id, name, spec, resources)"
            " VALUES (gen_random_uuid(), $1, '{\"a\": 1}', '{}') RETURNING id::text",
            name,
        )
        await follower.until(lambda: spec in follower.records["some"])
        assert follower.records["some"][spec] == {"id": spec, "name": name}
        await follower.until(lambda: spec in follower.records["all"])
        assert follower.records["all"][spec] == {
            "id": spec,
            "name": name,
            "is_default": False,
            "spec": {"a": 1},
            "resources": {},
        }


async def test_plain_reads_page_and_filter(server, sql):
    folder = unique("d")
    ids = sorted([await add_content(sql, f"{folder}/{n}") for n in range(5)])
    found: list[str] = []
    after = None
    while True:
        query = {"path_prefix": folder, "limit": 2, "columns": "path"}
        if after:
            query["after"] = after
        page = (await server.http.get("/api/datastore/tables/contents", params=query)).json()
        assert all(set(record) == {"id", "path"} for record in page["records"])
        found += [record["id"] for record in page["records"]]
        after = page["next"]
        if after is None:
            break
    assert found == ids
    one = await server.http.get(
        "/api/datastore/tables/contents", params={"path": f"{folder}/1", "parent_id": "null"}
    )
    assert [record["path"] for record in one.json()["records"]] == [f"{folder}/1"]
    for path, status in [
        ("nothing", 404),
        ("tokens", 404),
        ("contents?pid=1", 400),
        ("contents?columns=file_key", 400),
        ("contents?id=x", 400),
        ("contents?after=x", 400),
        ("contents?limit=0", 400),
        ("contents?limit=10001", 400),
        ("contents?limit=x", 400),
        ("contents?path=%00", 400),
        ("contents?path=a&path=b", 400),
        ("outputs?id=--5", 400),
        ("outputs?id=%C2%B2", 400),
        ("outputs?id=99999999999999999999", 400),
        ("outputs?after=99999999999999999999", 400),
        ("outputs?after=%D9%A1", 400),
        (f"config_sections?after={uuid.uuid4()}/\ufdd0", 200),
    ]:
        answer = await server.http.get(f"/api/datastore/tables/{path}")
        assert answer.status_code == status, path
    tables = (await server.http.get("/api/datastore/tables")).json()["tables"]
    assert {"table", "id", "columns", "announced", "filters"} == set(tables[0])


async def test_events_are_the_same_messages_and_resume(server, sql):
    folder = unique("d")

    async def read(headers: dict[str, str], until: str) -> tuple[list[dict], str]:
        events, last = [], ""
        async with server.http.stream(
            "GET",
            "/api/datastore/events",
            params={"table": "contents", "path_prefix": folder},
            headers=headers,
        ) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    last = line[4:]
                if line.startswith("data: "):
                    events.append(json.loads(line[6:]))
                    if events[-1]["type"] == until:
                        return events, last
        raise AssertionError("ended")

    async with asyncio.timeout(20):
        events, cursor = await read({}, "snapshot")
        assert [event["type"] for event in events] == ["hello", "subscribed", "snapshot"]
        assert cursor == events[-1]["cursor"]
        content = await add_content(sql, f"{folder}/a")
        events, cursor = await read({"Last-Event-ID": cursor}, "changes")
        assert events[1]["resumed"] is True
        (change,) = events[-1]["transactions"][0]["changes"]
        assert (change["id"], change["subs"]) == (content, ["events"])
        assert cursor
    assert (await server.http.get("/api/datastore/events?table=x")).status_code == 404
    assert (await server.http.get("/api/datastore/events?subscribe=x")).status_code == 400


async def test_presence_is_told_to_others(server, sql):
    async with following(server, {"p": {"table": "presence"}}) as follower:
        async with server.connect("/api/datastore/feed?client=lab") as socket:
            connection = (await receive_json(socket))["connection"]
            await follower.until(lambda: connection in follower.records["p"])
            assert follower.records["p"][connection]["client"] == "lab"
            await socket.send(json.dumps({"type": "presence", "data": {"path": "a.ipynb"}}))
            await follower.until(
                lambda: follower.records["p"][connection]["data"] == {"path": "a.ipynb"}
            )
        await follower.until(lambda: connection not in follower.records["p"])


async def test_a_heartbeat_comes_when_nothing_else_does(server):
    async with following(server, {"c": {"table": "checkpoints"}}) as follower:
        await follower.until(lambda: follower.of_type("heartbeat"))
        beat = follower.of_type("heartbeat")[-1]
        assert beat["live"] is True
        assert beat["cursor"]


async def test_text_that_postgresql_cannot_hold_arrives_as_it_was(server, sql):
    async with following(server, {"u": {"table": "users"}}) as follower:
        user = str(uuid.uuid4())
        stored = codec.encode_text("a\x00b\ud800")
        await sql.execute(
            "INSERT INTO users (id, name, full_name) VALUES ($1, $2, $3)",
            user,
            unique("u"),
            stored,
        )
        await follower.until(lambda: user in follower.records["u"])
        assert follower.records["u"][user]["full_name"] == "a\x00b\ud800"


async def test_a_snapshot_that_fails_is_tried_again_more_and_more_rarely(server, sql, monkeypatch):
    content = await add_content(sql, unique("again"))
    read_pages = Feed._pages
    times: list[float] = []

    async def fail(feed: Feed, places: Any) -> Any:
        times.append(asyncio.get_running_loop().time())
        if len(times) > 5:
            return await read_pages(feed, places)
        raise asyncpg.DataError("this cannot be read")

    assert feed_module._RETRY_SECONDS[0] < 1 < feed_module._RETRY_SECONDS[-1]
    monkeypatch.setattr(feed_module, "_RETRY_SECONDS", (0.02, 0.1, 0.3))
    monkeypatch.setattr(Feed, "_pages", fail)
    async with following(
        server, {"c": {"table": "contents", "where": {"id": content}}}
    ) as follower:
        assert content in follower.records["c"]
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert all(
        pause > wanted for pause, wanted in zip(pauses, (0.02, 0.1, 0.3, 0.3, 0.3), strict=True)
    )
