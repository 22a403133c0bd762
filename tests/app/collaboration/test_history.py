"""Cells, undo, history and versions over HTTP; timelines, forks and compaction; all in rooms."""

import json
import uuid
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from sqlalchemy import func, select, text

from app.documents.compaction import Compaction
from models import DocumentUpdate
from tests.app.documents.conftest import check_invariant
from tests.rooms import RoomPeer, session


@pytest.fixture
async def found(server, notebook):
    return await session(server.http, "a.ipynb")


def url(found, rest):
    return f"/api/documents/{found['fileId']}/{rest}"


async def test_cells_are_edited_over_http_while_others_type(server, found):
    http = server.http
    async with RoomPeer(server, found) as peer:
        made = await http.post(
            url(found, "cells"),
            json={"type": "markdown", "source": "# new", "id": "new", "before": "c2"},
        )
        assert made.status_code == 201, made.text
        assert made.json()["position"] == 1
        await peer.until(lambda: peer.ids() == ["c1", "new", "c2"])
        await peer.type("typed ", place=0)
        changed = await http.patch(
            url(found, "cells/c1"),
            json={"source": "one more", "base": "one", "metadata": {"tags": ["x"]}},
        )
        assert changed.json()["source"] == "typed one more"
        await peer.until(lambda: peer.text() == "typed one more")
        spliced = await http.patch(
            url(found, "cells/c1"), json={"splices": [{"offset": 0, "delete": 5, "insert": "got"}]}
        )
        assert spliced.json()["source"] == "got one more"
        stale = await http.patch(url(found, "cells/c1"), json={"source": "x", "version": 1})
        assert stale.status_code == 409
        moved = await http.post(url(found, "cells/c2/move"), json={"index": 0})
        assert moved.json()["position"] == 0
        await peer.until(lambda: peer.ids() == ["c2", "c1", "new"])
        kind = await http.patch(url(found, "cells/new"), json={"type": "code"})
        assert kind.json()["type"] == "code"
        assert (await http.delete(url(found, "cells/new"))).status_code == 204
        await peer.until(lambda: peer.ids() == ["c2", "c1"])
    for method, rest, body, status in (
        ("POST", "cells", {"type": "what"}, 400),
        ("POST", "cells", {"id": "c1"}, 409),
        ("POST", "cells", {"after": "no"}, 404),
        ("POST", "cells", {"before": ["c1"]}, 404),
        ("POST", "cells", {"index": 99}, 400),
        ("POST", "cells", {"attachments": {"a.png": "text"}}, 400),
        ("PATCH", "cells/no", {"source": ""}, 404),
        ("PATCH", "cells/c1", {"splices": [{"offset": 99}]}, 400),
        ("PATCH", "cells/c1", {"outputs": ["x"]}, 400),
        ("POST", "cells/c1/move", {}, 400),
        ("DELETE", "cells/no", None, 404),
        ("POST", "undo", {"steps": 0}, 400),
        ("POST", "restore", {}, 400),
        ("GET", "content?version=999", None, 404),
    ):
        answer = await http.request(method, url(found, rest), json=body)
        assert answer.status_code == status, (method, rest, answer.text)
    nobody = await http.get(url(found, "undo"), headers={"Authorization": "token no"})
    assert nobody.status_code == 403
    assert (await http.get(f"/api/documents/{uuid.uuid4()}/history")).status_code == 404


async def test_what_was_typed_in_a_room_is_undone_over_http(server, found):
    async with RoomPeer(server, found) as peer:
        await peer.type("hello ")
        answer = await server.http.post(url(found, "undo"))
        assert answer.json()["done"] == 1, answer.text
        await peer.until(lambda: peer.text() == "one")
        assert (await server.http.get(url(found, "undo"))).json() == {"undo": 0, "redo": 1}
        await server.http.post(url(found, "redo"), json={"steps": 1})
        await peer.until(lambda: peer.text() == "hello one")


async def test_history_versions_and_restoring(server, found, database):
    http = server.http
    async with RoomPeer(server, found) as peer:
        named = await http.post(url(found, "versions"), json={"name": "first"})
        assert named.status_code == 201, named.text
        again = await http.post(url(found, "versions"), json={"name": "first"})
        assert again.status_code == 409
        time = datetime.now(UTC)
        changed = await http.patch(url(found, "cells/c1"), json={"source": "changed"})
        await http.delete(url(found, "cells/c2"))
        history = (await http.get(url(found, "history"))).json()
        newest, before = history["changes"][:2]
        assert newest["cells"] == {"c2": ["deleted"]}
        assert (before["user"], before["cells"]) == ("ada", {"c1": ["text"]})
        assert newest["origin"] == "api"
        older = await http.get(url(found, f"history?before={newest['version']}&limit=1"))
        assert [one["version"] for one in older.json()["changes"]] == [before["version"]]
        version = changed.json()["document_version"]
        then = (await http.get(url(found, f"content?version={version}"))).json()
        assert [c["source"] for c in then["content"]["cells"]] == ["changed", "two"]
        at = quote(time.isoformat())
        then = (await http.get(url(found, f"content?at={at}"))).json()
        assert [c["source"] for c in then["content"]["cells"]] == ["one", "two"]
        restored = await http.post(url(found, "restore"), json={"name": "first"})
        assert restored.status_code == 200, restored.text
        await peer.until(lambda: peer.ids() == ["c1", "c2"] and peer.text() == "one")
        # Restoring is an edit: it can be undone.
        await http.post(url(found, "undo"))
        await peer.until(lambda: peer.ids() == ["c1"] and peer.text() == "changed")
        versions = (await http.get(url(found, "versions"))).json()["versions"]
        assert [(one["name"], one["user"]) for one in versions] == [("first", "ada")]
        assert (await http.delete(url(found, "versions/first"))).status_code == 204
        assert (await http.delete(url(found, "versions/first"))).status_code == 404
    await check_invariant(database, server.app.state.documents, uuid.UUID(found["fileId"]))


async def test_a_timeline_is_walked_in_a_room(server, found):
    http = server.http
    for source in ("second", "third"):
        await http.patch(url(found, "cells/c1"), json={"source": source})
        await http.patch(url(found, "cells/c2"), json={"metadata": {"a": source}})
    answer = await http.get("/api/collaboration/timeline/%2Fa.ipynb?format=json&&type=notebook")
    timeline = answer.json()
    assert timeline["roomId"] == f"json:notebook:{found['fileId']}"
    assert timeline["timestamps"] == sorted(timeline["timestamps"])
    assert timeline["sessionId"] == found["sessionId"]

    class Walker(RoomPeer):
        name = timeline["forkRoom"]

    walker = Walker(server, found)
    walk = "/api/collaboration/undo_redo/any?steps=99&&forkRoom=" + timeline["forkRoom"]
    async with walker:
        assert walker.text() == "third"
        assert (await http.put(f"{walk}&&action=undo")).json() == {"status": "undone"}
        await walker.until(lambda: walker.text() == "one")
        assert (await http.put(f"{walk}&&action=redo")).json() == {"status": "redone"}
        await walker.until(lambda: walker.text() == "third")
        await http.put(f"{walk}&&action=undo")
        await walker.until(lambda: walker.text() == "one")
        assert (await http.put(f"{walk}&&action=restore")).json()["code"] == 200
    # The front end goes back to the document's room with what it has now.
    back = RoomPeer(server, found)
    back.doc = walker.doc
    back.cells = walker.cells
    async with RoomPeer(server, found) as other, back:
        await other.until(lambda: other.text() == "one")
    assert (await http.put(f"{walk}&&action=undo")).status_code == 404


async def test_forks_are_edited_apart_and_merged(server, found):
    http = server.http
    room = f"/api/collaboration/fork/json:notebook:{found['fileId']}"
    async with server.connect("/api/events/subscribe") as events:
        made = await http.put(room, json={"title": "try", "synchronize": True})
        assert made.status_code == 201, made.text
        event = json.loads(await events.recv())
        assert event["schema_id"].endswith("jupyter_collaboration/fork/v1")
    fork = made.json()["fork_roomid"]
    assert (await http.get(room)).json()[fork]["title"] == "try"

    class Forked(RoomPeer):
        name = fork

    async with RoomPeer(server, found) as peer:
        async with Forked(server, found) as apart:
            await apart.type("apart ")
            await http.patch(url(found, "cells/c2"), json={"source": "in the document"})
            await apart.until(lambda: apart.text(1) == "in the document")
        assert peer.text() == "one"
        gone = await http.delete(f"/api/collaboration/fork/{fork}?merge=true")
        assert gone.status_code == 200, gone.text
        await peer.until(lambda: peer.text() == "apart one")
    assert (await http.get(room)).json() == {}
    assert (await http.delete(f"/api/collaboration/fork/{fork}")).status_code == 404


async def test_compaction_keeps_identity_versions_and_undo_of_what_is_recent(
    server, found, database
):
    http, key = server.http, uuid.UUID(found["fileId"])
    away = RoomPeer(server, found)
    await away.connect()
    for number in range(30):
        await away.type(f"{number} ")
        if number % 5 == 0:
            assert await away.save(100 + number) == "success"  # so that they are not one update
    await away.until(lambda: away.text().startswith("29 "))
    assert await away.save() == "success"
    await http.post(url(found, "versions"), json={"name": "before"})
    await away.disconnect()
    away.cells[1]["source"].insert(0, "away ")
    async with database.transaction() as tx:
        await tx.execute(text("UPDATE document_updates SET created_at = now() - interval '8 d'"))
    await http.patch(url(found, "cells/c2"), json={"source": "recent"})
    count = select(func.count()).where(DocumentUpdate.document_id == key)
    async with database.read() as tx:
        before = (await tx.execute(count)).scalar_one()
    compaction = Compaction(database, undo_days=7, history_days=90, worth=2)
    assert await compaction.run() == 1
    assert await compaction.run() == 0
    async with database.read() as tx:
        assert (await tx.execute(count)).scalar_one() < before
    for store in (server.app.state.documents,):
        await check_invariant(database, store, key)
        store._slots.clear()
        await check_invariant(database, store, key)
    then = (await http.get(url(found, "content?name=before"))).json()
    assert then["content"]["cells"][0]["source"].startswith("29 28")
    assert (await http.get(url(found, "undo"))).json() == {"undo": 1, "redo": 0}
    await http.post(url(found, "undo"))
    async with away, RoomPeer(server, found) as other:
        await other.until(lambda: other.text(1) == "away two")
        assert other.ids() == ["c1", "c2"] == away.ids()
    old = Compaction(database, undo_days=7, history_days=7)
    async with database.transaction() as tx:
        await tx.execute(text("UPDATE document_updates SET created_at = now() - interval '9 d'"))
    await old.run()
    server.app.state.documents._slots.clear()
    await check_invariant(database, server.app.state.documents, key)
    assert (await http.get(url(found, "history"))).status_code == 200
