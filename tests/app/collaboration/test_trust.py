"""Outputs are trusted in a room as far as the server's account has signed them."""

import asyncio

import nbformat
import pytest
from nbformat import v4
from nbformat.sign import NotebookNotary

from tests.app.documents.conftest import code, read, write
from tests.rooms import RoomPeer, session

HTML = v4.new_output("display_data", {"text/html": "<b>x</b>"})


@pytest.fixture
def server(monkeypatch, tmp_path, request):
    """A server whose account has signed nothing yet."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    return request.getfixturevalue("server")


def trusted(peer):
    return [cell["metadata"].to_py().get("trusted") for cell in peer.cells]


def is_signed(path):
    return NotebookNotary().check_signature(nbformat.read(path, 4))


async def test_what_was_signed_is_trusted_and_survives_others_edits(server, notebook):
    write(notebook, code("one", id="c1", outputs=[HTML]), code("two", id="c2", outputs=[HTML]))
    NotebookNotary().sign(nbformat.read(notebook, 4))
    async with RoomPeer(server, await session(server.http, "a.ipynb")) as peer:
        assert trusted(peer) == [True, True]
        await peer.type("typed ")
        assert await peer.save() == "success"
        assert all("trusted" not in cell["metadata"] for cell in read(notebook)["cells"])
        async with asyncio.timeout(30):  # it is signed after the answer
            while not is_signed(notebook):
                await asyncio.sleep(0.02)
        model = (await server.http.get("/api/contents/a.ipynb")).json()
        assert [c["metadata"]["trusted"] for c in model["content"]["cells"]] == [True, True]
        # Another program changes a text and another cell's outputs: the latter are not trusted.
        changed = nbformat.read(notebook, 4)
        changed["cells"][0]["source"] = "edited"
        changed["cells"][1]["outputs"][0]["data"]["text/html"] = "<i>theirs</i>"
        write(notebook, *changed["cells"])
        answer = await server.http.post("/api/contents/refresh", json={"path": ""})
        assert answer.status_code == 200
        await peer.until(lambda: peer.text(0) == "edited")
        assert trusted(peer) == [True, None]
        assert await peer.save(2) == "success"
    assert not is_signed(notebook)


async def test_what_nobody_signed_is_not_trusted(server, notebook):
    write(notebook, code("one", id="c1", outputs=[HTML]))
    async with RoomPeer(server, await session(server.http, "a.ipynb")) as peer:
        assert trusted(peer) == [None]
        assert await peer.save() == "success"
    model = (await server.http.get("/api/contents/a.ipynb")).json()
    assert [c["metadata"]["trusted"] for c in model["content"]["cells"]] == [False]
