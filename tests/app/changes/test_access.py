"""Who is told what: snapshots, upserts and deletes, and what happens when access changes."""

import asyncio
from pathlib import Path

import asyncpg

from app.db.doorbell import asyncpg_url
from app.settings import Settings
from tests.feed import following
from tests.live import live, receive_json


async def test_a_person_is_told_of_what_they_may_read_and_when_that_changes(
    settings: Settings, database_url: str, tmp_path: Path
):
    settings.watch_files = False
    async with live(settings, database_url, tmp_path / "data") as server:
        sql = await asyncpg.connect(asyncpg_url(database_url))
        bob = await sql.fetchval(
            "INSERT INTO users (id, name) VALUES (gen_random_uuid(), 'bob') RETURNING id"
        )
        await sql.execute(
            "INSERT INTO tokens (id, user_id, name, prefix, hash)"
            " VALUES (gen_random_uuid(), $1, 't', 'p', sha256('bobs-token'::bytea))",
            bob,
        )
        ids = await sql.fetch(
            "INSERT INTO contents (id, path, name, type) SELECT gen_random_uuid(), n, n, 'file'"
            " FROM unnest(ARRAY['shown', 'hidden', 'opened', 'closed']) n RETURNING id::text"
        )
        shown, hidden, opened, closed = (row["id"] for row in ids)

        async def grant(content: str) -> None:
            await sql.execute(
                "INSERT INTO permissions (id, subject, user_id, resource, content_id, actions)"
                " VALUES (gen_random_uuid(), 'user', $1, 'contents', $2, '{read}')",
                bob,
                content,
            )

        await grant(shown)
        await grant(closed)
        subscriptions = {"c": {"table": "contents"}, "p": {"table": "config_sections"}}
        made = following(server, subscriptions, token="bobs-token")
        async with made as follower, following(server, subscriptions) as owner:

            def seen() -> set[str]:
                return {key for key, record in follower.records["c"].items() if record["path"]}

            assert seen() == {shown, closed}
            assert set(owner.records["c"]) >= {shown, hidden, opened, closed}
            page = await server.http.get(
                "/api/datastore/tables/contents", headers={"Authorization": "token bobs-token"}
            )
            assert {r["id"] for r in page.json()["records"] if r["path"]} == {shown, closed}
            await sql.execute("UPDATE contents SET size = 1 WHERE path <> ''")
            await follower.until(lambda: follower.records["c"][shown]["size"] == 1)
            await sql.execute("DELETE FROM contents WHERE id = $1", hidden)
            await sql.execute("UPDATE contents SET size = 2 WHERE path <> ''")
            await follower.until(lambda: follower.records["c"][shown]["size"] == 2)
            told = {
                change["id"]
                for message in follower.of_type("changes")
                for transaction in message["transactions"]
                for change in transaction["changes"]
            }
            assert told == {shown, closed}
            # Another's settings are theirs alone, also for administrators.
            await sql.execute(
                "INSERT INTO config_sections (user_id, name, data) VALUES ($1, 'n', '{}')", bob
            )
            await follower.until(lambda: len(follower.records["p"]) == 1)
            # Visible now and not before; visible before and not now.
            await grant(opened)
            await sql.execute("DELETE FROM permissions WHERE content_id = $1", closed)
            await follower.until(lambda: seen() == {shown, opened})
            assert ("c", "access") in [
                (m["id"], m["reason"]) for m in follower.of_type("must_refetch")
            ]
            assert not owner.records["p"]
            assert not owner.of_type("must_refetch")
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


async def test_many_people_begin_at_once(settings: Settings, database_url: str, tmp_path: Path):
    """Snapshots hold connections while it is asked who sees what: that must not wait for them."""
    settings.watch_files = False
    async with live(settings, database_url, tmp_path / "data") as server:
        sql = await asyncpg.connect(asyncpg_url(database_url))
        names = [f"person{n}" for n in range(12)]
        await sql.execute(
            "WITH person AS (INSERT INTO users (id, name)"
            " SELECT gen_random_uuid(), n FROM unnest($1::text[]) n RETURNING id, name)"
            " INSERT INTO tokens (id, user_id, name, prefix, hash)"
            " SELECT gen_random_uuid(), id, 't', name, sha256(name::bytea) FROM person",
            names,
        )
        await sql.execute(
            "INSERT INTO contents (id, path, name, type)"
            " VALUES (gen_random_uuid(), 'n', 'n', 'file')"
        )
        await sql.close()

        async def begin(name: str) -> dict[str, dict]:
            async with following(server, {"c": {"table": "contents"}}, token=name) as follower:
                return follower.records["c"]

        async with asyncio.timeout(30):
            found = await asyncio.gather(*(begin(name) for name in names))
        assert found == [{}] * len(names)
