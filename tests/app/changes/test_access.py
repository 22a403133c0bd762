"""The seam at which access is decided: for snapshots, upserts, deletes, and when it changes.

The rule here is the test's own; what it stands for is asked at the same place.
"""

import asyncio
import json
from collections.abc import Set
from pathlib import Path

import asyncpg

from app.auth.identity import Identity
from app.changes.changes import Changes
from app.changes.visibility import ScopeKey
from app.db.doorbell import asyncpg_url
from app.settings import Settings
from tests.feed import following
from tests.live import live, receive_json


class OnlySome:
    """Contents whose id is in a set may be seen; a change of `users` may change it."""

    rests_on = frozenset({"users"})
    everyone_sees_all = False

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.welcome = True

    async def readable(self, identity: Identity, scopes: Set[ScopeKey]) -> set[ScopeKey]:
        await asyncio.sleep(0)
        return {scope for scope in scopes if scope[0] != "content" or scope[1] in self.seen}

    async def may_follow(self, identity: Identity) -> bool:
        return self.welcome


async def test_nothing_is_told_of_what_may_not_be_seen(
    settings: Settings, database_url: str, tmp_path: Path
):
    settings.feed_heartbeat_seconds = 0.5
    settings.watch_files = False
    async with live(settings, database_url, tmp_path / "data") as server:
        changes: Changes = server.app.state.changes
        rule = changes.visibility = OnlySome()
        sql = await asyncpg.connect(asyncpg_url(database_url))
        ids = await sql.fetch(
            "INSERT INTO contents (id, path, name, type) SELECT gen_random_uuid(), n, n, 'file'"
            " FROM generate_series(1, 4) n RETURNING id::text"
        )
        shown, hidden, opened, closed = (row["id"] for row in ids)
        rule.seen = {shown, closed}
        subscriptions = {"c": {"table": "contents"}, "u": {"table": "users"}}
        async with following(server, subscriptions) as follower:
            assert set(follower.records["c"]) == {shown, closed}
            page = (await server.http.get("/api/datastore/tables/contents")).json()
            assert {record["id"] for record in page["records"]} == {shown, closed}
            await sql.execute("UPDATE contents SET size = 1")
            await follower.until(lambda: follower.records["c"][shown]["size"] == 1)
            await sql.execute("DELETE FROM contents WHERE id = $1", hidden)
            await sql.execute("UPDATE contents SET size = 2")
            await follower.until(lambda: follower.records["c"][shown]["size"] == 2)
            told = {
                change["id"]
                for message in follower.of_type("changes")
                for transaction in message["transactions"]
                for change in transaction["changes"]
            }
            assert told == {shown, closed}
            # Visible now and not before; visible before and not now.
            rule.seen = {shown, opened}
            await sql.execute("UPDATE users SET color = 'red'")
            await follower.until(lambda: set(follower.records["c"]) == {shown, opened})
            assert ("c", "access") in [
                (m["id"], m["reason"]) for m in follower.of_type("must_refetch")
            ]
        # Who may no longer follow at all is disconnected.
        async with server.connect("/api/datastore/feed") as socket:
            assert (await receive_json(socket))["type"] == "hello"
            rule.welcome = False
            await socket.send(json.dumps({"type": "ping"}))
            async with asyncio.timeout(10):
                await socket.wait_closed()
            assert socket.close_code == 1008
        await sql.close()


async def test_a_revoked_token_ends_its_feed(settings: Settings, database_url: str, tmp_path: Path):
    settings.feed_heartbeat_seconds = 0.3
    async with live(settings, database_url, tmp_path / "data") as server:
        sql = await asyncpg.connect(asyncpg_url(database_url))
        await sql.execute(
            "INSERT INTO tokens (id, user_id, name, prefix, hash)"
            " SELECT gen_random_uuid(), id, 't', 'p', sha256('another-token'::bytea) FROM users"
        )
        async with server.connect("/api/datastore/feed", token="another-token") as socket:
            assert (await receive_json(socket))["type"] == "hello"
            await sql.execute("UPDATE tokens SET revoked_at = now()")
            async with asyncio.timeout(10):
                await socket.wait_closed()
            assert socket.close_code == 1008
        await sql.close()
