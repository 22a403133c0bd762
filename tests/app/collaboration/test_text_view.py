"""A notebook as text, edited beside those who have it open as a notebook."""

import asyncio
import json

import pytest
from pycrdt import Map

from app.collaboration import text_view
from tests.app.documents.conftest import read
from tests.rooms import RoomPeer, session


@pytest.fixture
async def views(server, notebook):
    """A window with the notebook, and one with its text."""
    shown = await session(server.http, "a.ipynb")
    text = await session(server.http, "a.ipynb", form="text", kind="file")
    assert text["fileId"] == shown["fileId"]
    async with RoomPeer(server, shown) as cells, RoomPeer(server, text) as typist:
        yield cells, typist


async def replace(typist, old, new):
    """Type something else for a piece of the text."""
    text = str(typist.source)
    place = len(text[: text.index(old)].encode())
    with typist.doc.transaction():
        del typist.source[place : place + len(old.encode())]
        typist.source.insert(place, new)
    await typist.flush()


async def test_text_and_cells_follow_each_other(server, views, notebook):
    cells, typist = views
    assert json.loads(str(typist.source)) == json.loads(notebook.read_text())
    await cells.type("typed ")
    await typist.until(lambda: "typed one" in str(typist.source))
    await replace(typist, "two", "too, by hand")
    await cells.until(lambda: cells.text(1) == "too, by hand")
    # At once on both sides.
    await replace(typist, "too", "TOO")
    await cells.type("more ")
    await cells.until(lambda: (cells.text(0), cells.text(1)) == ("more typed one", "TOO, by hand"))
    await typist.until(lambda: "more typed one" in str(typist.source))
    assert await typist.save() == "success"
    assert [cell["source"] for cell in read(notebook)["cells"]] == [
        "more typed one",
        "TOO, by hand",
    ]
    await typist.until(lambda: json.loads(str(typist.source)) == json.loads(notebook.read_text()))
    await typist.until(lambda: typist.state.get("dirty") is False)
    assert typist.state["path"] == "a.ipynb"
    history = await server.http.get(f"/api/documents/{typist.found['fileId']}/history")
    assert {entry["user"] for entry in history.json()["changes"] if entry["cells"]} == {"ada"}


async def test_half_a_notebook_stays_in_the_text(server, views, notebook, monkeypatch):
    monkeypatch.setattr(text_view, "_PATIENCE_SECONDS", 0.1)
    cells, typist = views
    before = [cell["source"] for cell in read(notebook)["cells"]]
    for old, new in (("}", "} oops"), ('"cells"', '"cell"'), ('"nbformat": 4', '"nbformat": 3')):
        await replace(typist, old, new)
        await typist.until(lambda: "datastore" in typist.state)
        assert "no valid notebook" in typist.state["datastore"]["problem"]
        assert await typist.save() == "failed"
        assert cells.ids() == ["c1", "c2"]
        assert [cell["source"] for cell in read(notebook)["cells"]] == before
        # Others go on meanwhile; the text has it once it is a notebook again.
        await cells.type("x")
        await replace(typist, new, old)
        await typist.until(lambda: "datastore" not in typist.state)
        await typist.until(lambda: f'"{cells.text()}"' in str(typist.source))
        assert await typist.save(2) == "success"
        before = [cell["source"] for cell in read(notebook)["cells"]]
        typist.raw.clear()


async def test_the_text_of_a_notebook_that_nobody_has_open(server, notebook, root_dir):
    found = await session(server.http, "a.ipynb", form="text", kind="file")
    async with RoomPeer(server, found) as typist:
        await replace(typist, "one", "first")
        assert await typist.save() == "success"
    assert read(notebook)["cells"][0]["source"] == "first"
    shown = await session(server.http, "a.ipynb")
    assert shown["fileId"] == found["fileId"]
    # A text does not outlive its session: what a window still has would come twice.
    stale = RoomPeer(server, {**found, "sessionId": "00000000-0000-0000-0000-000000000000"})
    await stale.connect()
    assert (await stale.ended())[0] == 1003
    await stale.disconnect()
    viewers = RoomPeer(server, found)

    async def rights(identity, document_id):
        return "read"

    server.app.state.rooms.rights = rights
    async with viewers:
        viewers.source.insert(0, "!")
        viewers.state["x"] = Map({})
        await viewers.flush()
        assert await viewers.save() == "failed"
    assert "!" not in str(server.app.state.rooms.views.open_rooms().popitem()[1].source)


async def test_what_cannot_be_opened_is_refused_by_its_room(server, root_dir):
    (root_dir / "broken.ipynb").write_text("{")
    (root_dir / "latin.txt").write_bytes(b"\xe4")
    for path, form, kind in (("broken.ipynb", "json", "notebook"), ("latin.txt", "text", "file")):
        found = await session(server.http, path, form=form, kind=kind)
        assert path in found["message"]
        peer = RoomPeer(server, found)
        await peer.connect()
        assert (await peer.ended())[0] == 4400
        await peer.disconnect()
    # As text it can be repaired.
    found = await session(server.http, "broken.ipynb", form="text", kind="file")
    async with RoomPeer(server, found) as typist:
        assert str(typist.source) == "{"
        await replace(
            typist, "{", '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}'
        )
        assert await typist.save() == "success"
        refused = await session(server.http, "broken.ipynb")
        assert "open as text" in refused["message"]
    shown = await opened(server, "broken.ipynb")
    async with RoomPeer(server, shown) as cells:
        assert len(cells.cells) == 1


async def opened(server, path):
    """Open a notebook once its room has noted that the last peer of the text has left."""
    async with asyncio.timeout(30):
        while "message" in (found := await session(server.http, path)):
            await asyncio.sleep(0.05)
    return found
