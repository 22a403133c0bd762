"""The leak matrix of the feed: every published table, for every kind of person.

Records of Olga's are looked for in plain reads, in snapshots, in changes and in deletes, as the
table of the policies says (`test_leaks.TABLES`); where the feed differs, it is said here.
"""

import asyncio
import contextlib
import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from sqlalchemy import text

from app.changes.tables import TABLES as FEED_TABLES
from tests.access.test_leaks import MADE, TABLES
from tests.access.world import EVERYONE, FOLDER, KINDS, NOBODIES, NOTEBOOK, READERS, World
from tests.feed import Follower, following

pytestmark = pytest.mark.asyncio(loop_scope="module")

OLGA = {"olga"}
# Who is told of Olga's records where this is not who may select them.
DIFFERENT = {
    "presence": ("WHERE client = 'olgas'", OLGA),
    "terminals": ("", OLGA),  # administrators end them by their name
    "group_members": ("", {"member"}),
}
RULES = {name: DIFFERENT.get(name) or TABLES.get(name) for name in FEED_TABLES}

# A change of a record of each table.
CHANGES = {
    "cells": "metadata = '{{\"changed\": 1}}'",
    "checkpoints": "last_modified = now()",
    "comm_messages": "metadata = '{{\"changed\": 1}}'",
    "comms": "target_module = 'changed'",
    "config_sections": "data = '{{\"changed\": 1}}'",
    "contents": "size = coalesce(size, 0) + 1",
    "document_forks": "title = 'changed'",
    "document_versions": "name = 'changed'",
    "documents": "saved_at = now()",
    "executions": "output_bytes = output_bytes + 1",
    "group_members": "created_at = now()",
    "groups": "name = 'changed'",
    "input_requests": "prompt = 'changed'",
    "kernels": "reason = 'changed'",
    "kernelspecs": 'resources = \'{{"changed": "1"}}\'',
    "lab_settings": "raw = 'changed'",
    "lab_workspaces": "data = '{{\"changed\": 1}}'",
    "notebooks": "metadata = '{{\"changed\": 1}}'",
    "outputs": "updated_at = now()",
    "presence": "data = '{{\"changed\": 1}}'",
    "server_status": "version = 'changed'",
    "sessions": "name = 'changed'",
    "terminals": "last_activity = now()",
    "text_contents": "text = 'changed'",
    "users": "color = 'changed'",
}
# In an order that foreign keys allow. Of what others depend on too, passing rows are deleted.
DELETED = (
    *("presence", "outputs", "input_requests", "comm_messages", "comms", "executions", "sessions"),
    *("kernels", "checkpoints", "cells", "notebooks", "text_contents", "document_versions"),
    *("document_forks", "documents", "contents", "terminals", "config_sections", "lab_settings"),
    *("lab_workspaces", "group_members"),
)
PASSING = {
    "users": ("INSERT INTO users (id, name) VALUES ('{passing}', 'passing')", "id"),
    "groups": ("INSERT INTO groups (id, name) VALUES ('{passing}', 'passing')", "id"),
    "kernelspecs": (
        "INSERT INTO kernelspecs (id, name, resources) VALUES ('{passing}', 'passing', '{{}}')",
        "id",
    ),
    "server_status": (
        "INSERT INTO server_status (id, hostname, pid, process_started_at, version, stopped_at)"
        " VALUES ('{passing}', 'passing', 1, now(), '0', now())",
        "id",
    ),
}
# A run on the shared kernel that is of no shared document, and what it said.
PRIVATE = (
    "INSERT INTO executions (id, kernel_id, incarnation, actor_id, run_as_id, client, msg_id, code,"
    " source_hash) SELECT '{private}', '{kernel_id}', 1, id, id, 'api', 'private', 'private code',"
    " '' FROM users WHERE name = 'olga'",
    "INSERT INTO outputs (execution_id, partition_id, seq, kernel_id, output_type, name, text)"
    " VALUES ('{private}', '{private}', 0, '{kernel_id}', 'stream', 'stdout', 'private output')",
)
PRESENCE = (
    "INSERT INTO presence (id, user_id, server_id, client) SELECT gen_random_uuid(), u.id, s.id,"
    " 'olgas' FROM users u, server_status s WHERE u.name = 'olga'"
)


async def do(made: World, *statements: str, **values: str) -> None:
    """Change tables as any SQL client might, each statement in a transaction of its own."""
    for statement in statements:
        async with made.database.transaction(as_server=True) as tx:
            await tx.execute(text(statement.format(**made.ids, **values)))


async def ids_of(made: World, table: str) -> set[str]:
    """Return the ids, as the feed has them, of the records to look for."""
    rule = RULES[table]
    assert rule is not None
    key = " || '/' || ".join(f"{name}::text" for name in FEED_TABLES[table].published.id)
    query = text(f"SELECT {key} FROM {table} {rule[0].format(**made.ids)}")
    async with made.database.read(as_server=True) as tx:
        return set((await tx.execute(query)).scalars())


def id_in(table: str, record: dict) -> str:
    return "/".join(str(record[name]) for name in FEED_TABLES[table].published.id)


async def told(made: World, followers: dict[str, Follower]) -> None:
    """Wait until every follower has been told all that was committed before."""
    marker = str(uuid.uuid4())
    await do(made, "INSERT INTO users (id, name) VALUES ('{m}', '{m}')", m=marker)
    for follower in followers.values():
        await follower.until(lambda follower=follower: marker in follower.records["users"])


@contextlib.asynccontextmanager
async def all_following(made: World, people: set[str], tables: set[str]):
    """Yield a follower of the tables for each person."""
    subscriptions = {name: {"table": name} for name in tables}
    async with contextlib.AsyncExitStack() as stack:
        yield {
            person: await stack.enter_async_context(
                following(made.server, subscriptions, token=made.tokens[person])
            )
            for person in sorted(people)
        }


def said(follower: Follower) -> str:
    return json.dumps(follower.messages)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled(made: World) -> World:
    """The world with a record of Olga's in every table."""
    private = (
        "SELECT (left(datastore_id_at(now())::text, 14) || substr(gen_random_uuid()::text, 15))"
    )
    async with made.database.read(as_server=True) as tx:
        made.ids["private"] = (await tx.execute(text(private))).scalar_one()
    await do(made, *MADE, *PRIVATE, PRESENCE)
    return made


async def test_every_published_table_is_in_the_tables() -> None:
    assert None not in RULES.values()
    assert set(CHANGES) == set(FEED_TABLES)
    assert set(DELETED) | set(PASSING) == set(FEED_TABLES)


async def test_plain_reads(filled: World) -> None:
    """Records, and the id at which a page ends, are those that one may see."""
    wrong = []
    for table, rule in RULES.items():
        assert rule is not None
        wanted = await ids_of(filled, table)
        assert wanted, table
        for person in KINDS:
            path = f"/api/datastore/tables/{table}"
            answer = await filled.ask(person, "GET", f"{path}?limit=10000")
            if person in NOBODIES:
                assert answer.status_code == 403
                continue
            found = {id_in(table, record) for record in answer.json()["records"]}
            expected = wanted if person in rule[1] else set()
            if found & wanted != expected:
                wrong.append((table, person, len(found & wanted), len(expected)))
            if person not in ("admin", "olga", "viewer", "stranger"):
                continue
            pages, after = set(), ""
            while after is not None and len(pages) < 3:
                more = f"&after={after}" if after else ""
                page = (await filled.ask(person, "GET", f"{path}?limit=1{more}")).json()
                pages |= {id_in(table, record) for record in page["records"]}
                after = page["next"]
                if after is not None and after not in found:
                    wrong.append((table, person, "next", after))
            if len(pages) != min(len(found), 3):
                wrong.append((table, person, "pages", len(pages), len(found)))
    assert wrong == []


async def test_a_move_shows_and_hides_at_once(filled: World) -> None:
    """What is moved out of a shared folder leaves those who follow it, and comes back to them."""
    made, tables = filled, {"contents", "documents", "cells", "executions", "kernels", "users"}
    private = "home/olga/moved.ipynb"
    async with all_following(made, {"viewer", "admin"}, tables) as followers:
        viewer, admin = followers["viewer"], followers["admin"]
        document, content = made.ids["document_id"], (await ids_of(made, "contents")).pop()
        cells = await ids_of(made, "cells")
        assert cells <= set(viewer.records["cells"])

        def sees() -> list[bool]:
            return [
                content in viewer.records["contents"],
                document in viewer.records["documents"],
                cells <= set(viewer.records["cells"]),
                made.ids["execution_id"] in viewer.records["executions"],
                made.ids["kernel_id"] in viewer.records["kernels"],
            ]

        assert all(sees())
        for path, to, seen in ((NOTEBOOK, private, False), (private, NOTEBOOK, True)):
            moved = await made.ask("olga", "PATCH", f"/api/contents/{path}", json={"path": to})
            assert moved.status_code == 200, moved.text
            await viewer.until(lambda seen=seen: sees() == [seen] * 5)
            await admin.until(lambda to=to: admin.records["contents"][content]["path"] == to)
            answer = await made.ask("viewer", "GET", f"/api/datastore/tables/cells?id={min(cells)}")
            assert bool(answer.json()["records"]) == seen
        assert private not in said(viewer)
        # A record whose own path was followed is deleted there, also without any new permission.
        await do(made, "UPDATE contents SET path = '{p}', name = 'x' WHERE path = '{n}'",
                 p="home/olga/x.txt", n=f"{FOLDER}/text.txt")  # fmt: skip
        await told(made, followers)
        await viewer.until(
            lambda: "text.txt" not in {r["name"] for r in viewer.records["contents"].values()}
        )
        assert "home/olga/x.txt" not in said(viewer)
        await do(made, "UPDATE contents SET path = '{p}', name = 'text.txt' WHERE path = '{n}'",
                 n="home/olga/x.txt", p=f"{FOLDER}/text.txt")  # fmt: skip
        await viewer.until(
            lambda: "text.txt" in {r["name"] for r in viewer.records["contents"].values()}
        )


async def test_a_session_shows_its_kernel(filled: World) -> None:
    kernel = str(uuid.uuid4())
    async with all_following(filled, {"viewer"}, {"kernels", "users"}) as followers:
        await do(
            filled,
            "INSERT INTO kernels (id, name, owner_id) SELECT '{k}', 'python3', id FROM users"
            " WHERE name = 'olga'",
            k=kernel,
        )
        await told(filled, followers)
        viewer = followers["viewer"]
        assert kernel not in said(viewer)
        await do(
            filled,
            "INSERT INTO sessions (id, path, type, kernel_id, document_id, owner_id) SELECT '{k}',"
            " 'x', 'notebook', '{k}', '{document_id}', id FROM users WHERE name = 'olga'",
            k=kernel,
        )
        await viewer.until(lambda: kernel in viewer.records["kernels"])
    await do(
        filled,
        "DELETE FROM sessions WHERE id = '{k}'",
        "DELETE FROM kernels WHERE id = '{k}'",
        k=kernel,
    )


async def test_an_expiry_hides_what_it_showed(filled: World) -> None:
    async with all_following(filled, {"stranger"}, {"cells", "users"}) as followers:
        stranger = followers["stranger"]
        expires_at = (datetime.now(UTC) + timedelta(seconds=4)).isoformat()
        body = {"user": "stranger", "role": "viewer", "path": NOTEBOOK, "expires_at": expires_at}
        granted = await filled.ask("olga", "POST", "/api/permissions", json=body)
        assert granted.status_code == 201
        await stranger.until(lambda: stranger.records["cells"])
        await stranger.until(lambda: not stranger.records["cells"])


async def test_a_revoked_token_ends_events(filled: World) -> None:
    answer = await filled.ask("viewer", "POST", "/api/tokens", json={"name": "short"})
    filled.tokens["short"] = answer.json()["token"]
    http = filled.server.http
    async with http.stream(
        "GET", "/api/datastore/events?table=users", headers=filled.headers("short")
    ) as stream:
        lines = stream.aiter_lines()
        async with asyncio.timeout(20):
            assert await anext(lines)
            gone = await filled.ask("viewer", "DELETE", f"/api/tokens/{answer.json()['id']}")
            assert gone.status_code == 204
            async for _ in lines:
                pass


async def test_snapshots_changes_and_deletes(filled: World) -> None:
    """Whoever may see a record is told all three of it; nobody else is told anything of it."""
    made = filled
    wanted = {table: await ids_of(made, table) for table in FEED_TABLES}
    wrong = []
    async with all_following(made, EVERYONE, set(FEED_TABLES)) as followers:

        def expect(what: str, holds) -> None:
            for table, rule in RULES.items():
                assert rule is not None
                for person, follower in followers.items():
                    if person in rule[1] and not holds(table, follower):
                        wrong.append((table, person, what))

        expect("snapshot", lambda t, f: wanted[t] <= set(f.records[t]))
        counts = {person: len(follower.messages) for person, follower in followers.items()}
        for table, change in CHANGES.items():
            where = RULES[table][0]
            await do(made, f"UPDATE {table} SET {change} {where}")
        await told(made, followers)
        upserts = {
            person: {
                (change["table"], change["id"])
                for message in follower.messages[counts[person] :]
                if message["type"] == "changes"
                for transaction in message["transactions"]
                for change in transaction["changes"]
                if change["op"] == "upsert"
            }
            for person, follower in followers.items()
        }
        wrong += [
            (table, person, "change", record)
            for table, rule in RULES.items()
            for person in followers
            for record in wanted[table]
            if ((table, record) in upserts[person]) != (person in rule[1])
        ]
        passing = str(uuid.uuid4())
        await do(made, *(insert for insert, _ in PASSING.values()), passing=passing)
        await told(made, followers)
        for table in PASSING:
            wanted[table] = {passing}
        expect("insert", lambda t, f: t not in PASSING or passing in f.records[t])
        for table in DELETED:
            await do(made, "DELETE FROM idempotency_keys") if table == "executions" else None
            where = "" if table in ("executions", "outputs") else RULES[table][0]
            await do(made, f"DELETE FROM {table} {where}")
        for table in PASSING:
            await do(made, f"DELETE FROM {table} WHERE id = '{{passing}}'", passing=passing)
        await told(made, followers)
        for follower in followers.values():
            with contextlib.suppress(TimeoutError):
                await follower.until(
                    lambda follower=follower: (
                        not any(
                            wanted[table] & set(follower.records[table]) for table in FEED_TABLES
                        )
                    )
                )
        expect("delete", lambda t, f: not wanted[t] & set(f.records[t]))
        for person, follower in followers.items():
            for table, ids in named(follower).items():
                if person not in RULES[table][1] and ids & wanted[table]:
                    wrong.append((table, person, "told", ids & wanted[table]))
            hidden = ["private code", "private output"] if person not in {"olga", "admin"} else []
            if person not in READERS:
                hidden += [made.ids[f"{one}_id"] for one in ("kernel", "execution", "document")]
                hidden += ["n.ipynb", "secret"]
            text_said = said(follower)
            wrong += [(person, "said", one) for one in hidden if one in text_said]
    assert wrong == []


def named(follower: Follower) -> dict[str, set[str]]:
    """Return all ids that a follower was ever told, by table."""
    found: dict[str, set[str]] = {table: set() for table in FEED_TABLES}
    for message in follower.messages:
        if message["type"] == "snapshot":
            found[message["table"]] |= {id_in(message["table"], r) for r in message["records"]}
        elif message["type"] == "changes":
            for transaction in message["transactions"]:
                for change in transaction["changes"]:
                    found[change["table"]].add(change["id"])
    return found
