"""Clients that read slowly: bounded memory, merged state, and an end with a reason."""

import asyncio
import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app.changes.changes import Changes
from app.changes.events import EventStream, events_of
from app.changes.feed import Feed, UnreadError
from app.changes.log import TooLargeError, read_rows
from app.changes.tables import TABLES
from app.db.doorbell import asyncpg_url
from app.limits import websocket_options
from app.settings import Settings
from tests.conftest import TOKEN
from tests.feed import Follower, following
from tests.live import live

QUEUE_BYTES = 256 * 1024


@pytest.fixture
def settings(root_dir: Path) -> Settings:
    return Settings(
        root_dir=root_dir,
        owner="ada",
        feed_queue_bytes=QUEUE_BYTES,
        feed_lag_seconds=1.5,
        feed_heartbeat_seconds=1,
        watch_files=False,
    )


async def write_much(sql: Any, rounds: int = 40) -> None:
    """Many times the queue's limit, on a few records."""
    await sql.execute(
        "INSERT INTO users (id, name) SELECT gen_random_uuid(), 'slow' || n"
        " FROM generate_series(1, 20) n ON CONFLICT DO NOTHING"
    )
    for number in range(rounds):
        await sql.execute(
            "UPDATE users SET full_name = repeat('x', 2000) || $1 WHERE name LIKE 'slow%'",
            str(number),
        )


def memory_of(feed: Feed) -> int:
    return sum(len(made.text) for made in feed._queue) + sum(
        piece.size for delivery in feed._held or [] for piece, _ in delivery.pieces
    )


async def test_who_does_not_read_is_told_merged_state_later(
    settings: Settings, database_url: str, tmp_path: Path
):
    async with live(settings, database_url, tmp_path / "data") as server:
        changes: Changes = server.app.state.changes
        owner = await server.app.state.authenticator.identify(TOKEN)
        sql = await asyncpg.connect(asyncpg_url(database_url))
        follower = Follower(lambda: None, {"u": {"table": "users"}})
        async with changes.open(owner) as feed:
            feed.handle({"type": "subscribe", "id": "u", "table": "users"})

            async def read_until(check) -> None:
                async with asyncio.timeout(20):
                    while not check():
                        made = await feed.take(0.1)
                        if made is not None:
                            feed.sent(made)
                            follower.take(json.loads(made.text))

            await read_until(lambda: "u" in follower.complete)
            most = 0

            async def watch() -> None:
                nonlocal most
                while True:
                    most = max(most, memory_of(feed))
                    await asyncio.sleep(0.001)

            watching = asyncio.create_task(watch())
            await write_much(sql)
            async with asyncio.timeout(30):
                while not feed._lost:  # a busy machine merges what it reads late
                    await write_much(sql, 2)
                    await asyncio.sleep(0.05)
            await write_much(sql)
            table = {
                str(row["id"]): row["full_name"]
                for row in await sql.fetch("SELECT id, full_name FROM users")
            }

            def is_current() -> bool:
                return {
                    key: record["full_name"] for key, record in follower.records["u"].items()
                } == table

            await read_until(is_current)
            watching.cancel()
            assert follower.of_type("lagging")
            assert not follower.of_type("must_refetch")
            assert follower.cursor
            # What was written is over ten times what may wait.
            assert most <= QUEUE_BYTES
            # It goes on as before.
            await sql.execute("UPDATE users SET full_name = 'last' WHERE name = 'slow1'")
            await read_until(
                lambda: any(r["full_name"] == "last" for r in follower.records["u"].values())
            )
        await sql.close()


async def test_a_snapshot_waits_for_its_reader(
    settings: Settings, database_url: str, tmp_path: Path
):
    """A table of any size takes no more memory than the queue."""
    async with live(settings, database_url, tmp_path / "data") as server:
        changes: Changes = server.app.state.changes
        owner = await server.app.state.authenticator.identify(TOKEN)
        sql = await asyncpg.connect(asyncpg_url(database_url))
        await sql.execute(
            "INSERT INTO users (id, name, full_name) SELECT gen_random_uuid(), 'many' || n,"
            " repeat('y', 500) FROM generate_series(1, 5000) n"
        )
        follower = Follower(lambda: None, {"u": {"table": "users"}})
        async with changes.open(owner) as feed:
            feed.handle({"type": "subscribe", "id": "u", "table": "users"})
            most = 0
            async with asyncio.timeout(30):
                while "u" not in follower.complete:
                    made = await feed.take(1)
                    assert made is not None
                    most = max(most, feed.waiting_bytes)
                    feed.sent(made)
                    follower.take(json.loads(made.text))
        assert len(follower.records["u"]) == 5001
        # A page is put whole on what is at most half full.
        assert most <= QUEUE_BYTES / 2 + 1.5 * 512 * 1024
        await sql.close()


async def test_who_reads_nothing_for_long_is_dropped_and_resumes(
    settings: Settings, database_url: str, tmp_path: Path
):
    options = {"send_buffer": 16 * 1024, **websocket_options(settings)}
    async with live(settings, database_url, tmp_path / "data", **options) as server:
        sql = await asyncpg.connect(asyncpg_url(database_url))

        def connect():
            return server.connect(
                "/api/datastore/feed",
                sock=server.slow_socket(),
                max_queue=1,
                close_timeout=0.5,
            )

        follower = Follower(connect, {"u": {"table": "users"}})
        running = asyncio.create_task(follower.run())
        await follower.until(lambda: "u" in follower.complete)
        running.cancel()  # nobody reads, and the connection stays open
        changes: Changes = server.app.state.changes
        async with connect() as socket:
            await socket.send(json.dumps({"type": "subscribe", "id": "u", "table": "users"}))
            async with asyncio.timeout(10):
                while not any(s.arrived for f in changes._feeds for s in f.subscriptions()):
                    await asyncio.sleep(0.01)
            writing = asyncio.create_task(write_much(sql, 80))
            async with asyncio.timeout(20):
                while changes._feeds:
                    await asyncio.sleep(0.05)
            await writing
        assert not changes._feeds
        running = asyncio.create_task(follower.run())
        want = dict(await sql.fetch("SELECT id::text, full_name FROM users"))
        await follower.until(
            lambda: {k: r["full_name"] for k, r in follower.records["u"].items()} == want
        )
        running.cancel()
        await sql.close()


async def test_events_that_nobody_takes_end(settings: Settings, database_url: str, tmp_path: Path):
    options = {"send_buffer": 16 * 1024, **websocket_options(settings)}
    async with live(settings, database_url, tmp_path / "data", **options) as server:
        changes: Changes = server.app.state.changes
        sql = await asyncpg.connect(asyncpg_url(database_url))
        with server.slow_socket() as taken:
            request = (
                f"GET /api/datastore/events?table=users HTTP/1.1\r\nHost: {server.address}\r\n"
                f"Authorization: token {TOKEN}\r\n\r\n"
            )
            await asyncio.get_running_loop().sock_sendall(taken, request.encode())
            async with asyncio.timeout(10):
                while not any(s.arrived for f in changes._feeds for s in f.subscriptions()):
                    await asyncio.sleep(0.01)
            writing = asyncio.create_task(write_much(sql, 80))
            async with asyncio.timeout(20):
                while changes._feeds:
                    await asyncio.sleep(0.05)
            await writing
        await sql.close()


async def test_events_whose_client_has_gone_before_they_begin(
    settings: Settings, database_url: str, tmp_path: Path
):
    async with live(settings, database_url, tmp_path / "data") as server:
        changes: Changes = server.app.state.changes
        identity = await server.app.state.authenticator.identify(TOKEN)
        opened = changes.open(identity)
        feed = await opened.__aenter__()
        stream = EventStream(events_of(changes, feed, asyncio.Event()), opened, 60)

        async def receive() -> dict[str, str]:
            return {"type": "http.disconnect"}

        async def send(_: Any) -> None:
            pass

        async with asyncio.timeout(10):
            await stream({"type": "http"}, receive, send)
        assert not changes._feeds


async def test_a_client_that_asks_and_never_reads_is_ended(
    settings: Settings, database_url: str, tmp_path: Path
):
    async with live(settings, database_url, tmp_path / "data") as server:
        changes: Changes = server.app.state.changes
        owner = await server.app.state.authenticator.identify(TOKEN)
        async with changes.open(owner) as feed:

            def ask_much() -> None:
                for _ in range(1000):
                    feed.handle({"type": "ping", "value": "x" * 10_000})

            with pytest.raises(UnreadError):
                ask_much()
            assert memory_of(feed) <= QUEUE_BYTES


async def test_one_reading_takes_so_many_bytes_and_no_more(
    settings: Settings, database_url: str, tmp_path: Path
):
    """Few changes may be of large records: what is more than can be held is read page by page."""
    async with live(settings, database_url, tmp_path / "data") as server:
        changes: Changes = server.app.state.changes
        changes.reader.room_bytes = 100_000
        sql = await asyncpg.connect(asyncpg_url(database_url))
        await sql.execute(
            "INSERT INTO users (id, name) SELECT gen_random_uuid(), 'large' || n"
            " FROM generate_series(1, 8) n"
        )
        async with following(server, {"u": {"table": "users"}}) as follower:

            async def write(size: int, names: str) -> None:
                await sql.execute(
                    "UPDATE users SET full_name = repeat('x', $1) WHERE name LIKE $2", size, names
                )
                want = await sql.fetchval("SELECT sum(length(full_name)) FROM users")
                await follower.until(
                    lambda: (
                        want
                        == sum(len(r["full_name"] or "") for r in follower.records["u"].values())
                    )
                )

            # One record is told however large it is, and several of which all but the last fit.
            await write(150_000, "large1")
            await write(10_000, "large%")
            assert not follower.of_type("must_refetch")
            await write(40_000, "large%")
            (told,) = follower.of_type("must_refetch")
            assert told["reason"] == "too_many_changes"
            assert "u" in follower.complete
            await write(30, "large%")
        user = TABLES["users"]
        ids = [str(row["id"]) for row in await sql.fetch("SELECT id FROM users")]
        with pytest.raises(TooLargeError):
            await read_rows(sql, "users", ids, (user.default_columns,), 100)
        rows, room = await read_rows(sql, "users", ids, (user.default_columns, ("id",)), 100_000)
        size = sum(len(text) for row in rows.values() for text in row.texts)
        assert (len(rows), room) == (len(ids), 100_000 - size)
        await sql.close()
