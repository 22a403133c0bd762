"""Rooms over real websockets: opening, editing together, saving, and how connections end."""

import contextlib
import json
import uuid

from pycrdt import Array, Map, Text

from app.collaboration import protocol
from tests.app.documents.conftest import check_invariant, read
from tests.live import live
from tests.rooms import RoomPeer, session


async def test_a_notebook_is_opened_edited_and_saved(server, notebook):
    found = await session(server.http, "a.ipynb")
    async with RoomPeer(server, found) as peer:
        assert peer.ids() == ["c1", "c2"]
        assert peer.state["path"] == "a.ipynb"
        await peer.type("zero ")
        assert await peer.save(7) == "success"
        assert read(notebook)["cells"][0]["source"] == "zero one"
        await peer.until(lambda: peer.state.get("dirty") is False)
        hash_now = server.app.state.disk
        assert peer.state["hash"] == (await hash_now.state("a.ipynb")).hash
    rows = (await server.http.get(f"/api/documents/{found['fileId']}/cells")).json()
    assert rows["cells"][0]["source"] == "zero one"
    assert (await session(server.http, "a.ipynb")) == found


async def test_edits_of_peers_rest_and_kernels_reach_all(server, notebook, settings):
    found = await session(server.http, "a.ipynb")
    async with RoomPeer(server, found) as ada, RoomPeer(server, found) as bob:
        await ada.type("A")
        await bob.until(lambda: bob.text() == "Aone")
        await bob.type("B", at=1)
        await ada.until(lambda: ada.text() == "ABone")
        model = read(notebook)
        model["cells"][1]["source"] = "2"
        answer = await server.http.put(
            "/api/contents/a.ipynb", json={"type": "notebook", "content": model}
        )
        assert answer.status_code == 200
        for peer in (ada, bob):
            await peer.until(lambda peer=peer: peer.text(1) == "2")


async def test_a_new_notebook_begins_with_a_cell(server):
    made = (await server.http.post("/api/contents", json={"type": "notebook"})).json()
    for _ in range(2):
        found = await session(server.http, made["path"])
        async with RoomPeer(server, found) as peer:
            (cell,) = peer.cells.to_py()
            assert (cell["cell_type"], cell["source"], cell["outputs"]) == ("code", "", [])
            assert cell["metadata"]["trusted"] is True


async def test_a_text_file_is_edited_together_and_merged_with_the_disk(server, root_dir):
    path = root_dir / "a.py"
    path.write_bytes(b"one\r\ntwo\r\nthree\r\n")
    found = await session(server.http, "a.py", form="text", kind="file")
    assert found["fileId"]
    async with RoomPeer(server, found) as ada, RoomPeer(server, found) as bob:
        assert str(ada.source) == "one\ntwo\nthree\n"
        ada.source.insert(0, "zero ")
        await ada.flush()
        await bob.until(lambda: str(bob.source).startswith("zero one"))
        assert await ada.save() == "success"
        assert path.read_bytes() == b"zero one\r\ntwo\r\nthree\r\n"
        path.write_bytes(b"zero one\r\ntwo\r\nTHREE\r\n")
        await server.http.post("/api/contents/refresh", json={"path": "a.py"})
        await bob.until(lambda: str(bob.source) == "zero one\ntwo\nTHREE\n")
        answer = await server.http.put(
            "/api/contents/a.py",
            json={"type": "file", "format": "text", "content": "zero one\n2\nTHREE\n"},
        )
        assert answer.status_code == 200, answer.text
        await bob.until(lambda: str(bob.source) == "zero one\n2\nTHREE\n")
        ada.source.insert(0, "!")
        await ada.flush()
        await bob.until(lambda: str(bob.source).startswith("!"))
        model = (await server.http.get("/api/contents/a.py")).json()
        assert model["content"].startswith("!zero one")


async def test_a_session_outlives_the_server(settings, database_url, tmp_path, notebook):
    async with live(settings, database_url, tmp_path / "data") as server:
        found = await session(server.http, "a.ipynb")
        peer = RoomPeer(server, found)
        await peer.connect()
        await peer.type("1")
        await peer.disconnect()
    peer.cells.append(
        Map(
            {
                "id": "new",
                "cell_type": "code",
                "source": Text("away"),
                "metadata": Map({}),
                "outputs": Array([]),
            }
        )
    )
    peer.cells[0]["source"].insert(0, "night ")
    async with live(settings, database_url, tmp_path / "data") as server:
        assert await session(server.http, "a.ipynb") == found
        peer.server = server
        async with peer, RoomPeer(server, found) as other:
            await other.until(lambda: other.ids() == ["c1", "c2", "new"])
            assert other.text() == "night 1one"
            assert peer.ids() == other.ids()


async def test_who_may_not_enter_is_told(server, notebook):
    found = await session(server.http, "a.ipynb")
    stranger = RoomPeer(server, found)
    await stranger.connect(session_id="another")
    code, reason = await stranger.ended()
    assert code == 1003
    assert json.loads(reason) == {
        "reason": "unknown_session",
        "sessionId": "another",
        "reloadable": True,
    }
    lost = RoomPeer(server, {**found, "fileId": "0" * 32})
    await lost.connect()
    assert (await lost.ended())[0] == 4404
    other = RoomPeer(server, {**found, "format": "text", "type": "file"})
    await other.connect()
    assert (await other.ended())[0] == 4400
    for one in (stranger, lost, other):
        await one.disconnect()
    assert (
        await server.http.put(
            "/api/collaboration/session/no.ipynb", json={"format": "json", "type": "notebook"}
        )
    ).status_code == 404


async def test_awareness_is_echoed_told_to_joiners_and_kept_to_oneself(server, notebook):
    found = await session(server.http, "a.ipynb")
    async with RoomPeer(server, found) as ada:
        me = ada.doc.client_id
        await ada.announce({"user": "ada"})
        await ada.until(lambda: me in ada.awareness)
        async with RoomPeer(server, found) as bob:
            await bob.until(lambda: me in bob.awareness)
            await bob.announce({"user": "bob"})
            await ada.until(lambda: bob.doc.client_id in ada.awareness)
            await bob.announce({"user": "bob as ada"}, client_id=me, clock=9)
            await bob.announce({"user": "bob"}, clock=2)
            await ada.until(lambda: ada.awareness[bob.doc.client_id].clock == 2)
            assert json.loads(ada.awareness[me].state) == {"user": "ada"}
        await ada.until(lambda: ada.awareness[bob.doc.client_id].state == "null")
        # Who comes back with the same clock learns that others saw it go.
        async with bob:
            await bob.announce({"user": "bob"}, clock=2)
            await bob.until(lambda: bob.awareness[bob.doc.client_id].state == "null")
            await bob.announce({"user": "bob"}, clock=3)
            await ada.until(lambda: "bob" in ada.awareness[bob.doc.client_id].state)


async def test_what_is_no_message_closes_its_sender_alone(server, notebook):
    found = await session(server.http, "a.ipynb")
    rubbish = [
        b"",
        b"\x00",
        b"\x63",
        b"\x00\x02\x05abc",
        b"\x00\x02\x03\xff\xff\xff",
        b"\x01\x01",
        b"\x00\x00\x02\xff\xff",
        b"\x02\xff",
        protocol.sync(9, b""),
    ]
    async with RoomPeer(server, found) as peer:
        for frame in rubbish:
            async with RoomPeer(server, found) as bad:
                with contextlib.suppress(Exception):
                    await bad._websocket.send(frame)
                code, reason = await bad.ended()
                assert code == 1003, frame
                assert json.loads(reason)["reason"] == "bad_message"
        assert peer.closed is None
        await peer.type("x")
        assert await peer.save() == "success"


async def test_what_is_no_cell_does_not_hurt(server, notebook, database):
    found = await session(server.http, "a.ipynb")
    async with RoomPeer(server, found) as peer:
        with peer.doc.transaction():
            peer.cells.append("a string")
            peer.cells.append(Map({"cell_type": 3.0}))
            peer.cells.append(Map({"id": "c1", "cell_type": "code", "source": "plain"}))
            peer.cells.append(Map({"id": "x\0y", "outputs": Array(["?", 1.0, Map({})])}))
            peer.cells[0]["id"] = "other"
            peer.cells[0]["attachments"] = Map({"no file": "a string", "a.png": Map({})})
            peer.meta["nbformat"] = 1e300
            peer.meta["metadata"] = "none"
        await peer.flush()
        await peer.until(lambda: all(isinstance(cell, Map) for cell in peer.cells))
        await peer.until(lambda: peer.cells[0]["id"] == "c1" and len(set(peer.ids())) == 5)
        assert await peer.save() == "success"
    store = server.app.state.documents
    await check_invariant(database, store, uuid.UUID(found["fileId"]))


async def test_a_deleted_document_ends_its_room(server, notebook):
    found = await session(server.http, "a.ipynb")
    async with RoomPeer(server, found) as peer:
        assert (await server.http.delete("/api/contents/a.ipynb")).status_code == 204
        code, reason = await peer.ended()
        assert code == 1003
        assert json.loads(reason)["reason"] == "document_deleted"


async def test_a_renamed_file_is_told(server, notebook):
    found = await session(server.http, "a.ipynb")
    async with RoomPeer(server, found) as peer:
        await server.http.patch("/api/contents/a.ipynb", json={"path": "b.ipynb"})
        await peer.until(lambda: peer.state["path"] == "b.ipynb")
        await peer.type("x")
        assert await peer.save() == "success"
        assert not notebook.exists()
    assert (await session(server.http, "b.ipynb"))["fileId"] == found["fileId"]


async def test_a_viewer_follows_and_changes_nothing(server, notebook):
    rooms = server.app.state.rooms
    found = await session(server.http, "a.ipynb")
    async with RoomPeer(server, found) as writer:

        async def viewers(identity, document_id):
            return "read"

        rooms.rights = viewers
        viewer = RoomPeer(server, found)
        viewer.cells.append(Map({"id": "evil"}))
        async with viewer:
            viewer.cells.append(Map({"id": "evil2"}))
            await viewer.flush()
            await viewer._websocket.send(protocol.sync(protocol.STEP2, viewer.doc.get_update()))
            await viewer.announce({"user": "viewer"})
            await writer.until(lambda: viewer.doc.client_id in writer.awareness)
            assert await viewer.save() == "failed"
            assert writer.ids() == ["c1", "c2"]
    cells = (await server.http.get(f"/api/documents/{found['fileId']}/cells")).json()["cells"]
    assert [cell["id"] for cell in cells] == ["c1", "c2"]


async def test_a_right_that_changes_is_told_and_nothing_typed_is_stuck(server, notebook):
    rooms = server.app.state.rooms
    found = await session(server.http, "a.ipynb")
    right = "write"

    async def rights(identity, document_id):
        return right

    rooms.rights = rights
    async with RoomPeer(server, found) as eve, RoomPeer(server, found) as other:
        await eve.type("1")
        await other.until(lambda: other.text() == "1one")
        right = "read"
        await eve.until(lambda: {"type": "rights", "write": False} in eve.raw)
        await eve.type("2")  # before the window knows
        await eve.announce({"user": "eve"})
        await other.until(lambda: eve.doc.client_id in other.awareness)
        assert other.text() == "1one"
        right = "write"
        await eve.until(lambda: {"type": "rights", "write": True} in eve.raw)
        await eve.type("3")
        await other.until(lambda: "3" in other.text())
        assert other.text() == eve.text()
        assert sorted(other.text()) == sorted("123one")


async def test_edits_of_another_process_reach_a_room(settings, database_url, tmp_path, notebook):
    async with (
        live(settings, database_url, tmp_path / "one") as one,
        live(settings, database_url, tmp_path / "two") as two,
    ):
        found = await session(one.http, "a.ipynb")
        assert await session(two.http, "a.ipynb") == found
        async with RoomPeer(one, found) as ada, RoomPeer(two, found) as bob:
            await ada.type("A")
            await bob.until(lambda: bob.text() == "Aone")
            await bob.type("B")
            await ada.until(lambda: ada.text() == "BAone")
            await ada.announce({"user": "ada"})
            await bob.until(lambda: ada.doc.client_id in bob.awareness)
        await ada.disconnect()
