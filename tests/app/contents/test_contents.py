"""`/api/contents` and `/api/documents`: answers as Jupyter Server gives them."""

import json

import pytest
from nbformat import v4

KEYS = {
    "name", "path", "type", "format", "mimetype", "content", "writable", "size",
    "created", "last_modified", "hash", "hash_algorithm",
}  # fmt: skip


def notebook(*sources):
    return json.loads(json.dumps(v4.new_notebook(cells=[v4.new_code_cell(s) for s in sources])))


@pytest.fixture
def saved(root_dir):
    found = notebook("1+1", "2")
    (root_dir / "a.ipynb").write_text(json.dumps(found))
    (root_dir / "t.txt").write_text("héllo")
    (root_dir / ".hidden").write_text("x")
    (root_dir / "sub").mkdir()
    return found


async def test_a_notebook(client, saved):
    answer = await client.get("/api/contents/a.ipynb?hash=1&1700000000")
    assert answer.status_code == 200
    model = answer.json()
    assert set(model) == KEYS
    assert (model["name"], model["path"], model["type"], model["format"]) == (
        "a.ipynb",
        "a.ipynb",
        "notebook",
        "json",
    )
    assert len(model["hash"]) == 64
    assert model["last_modified"].endswith("Z")
    assert len(model["last_modified"]) == len("2020-01-01T00:00:00.000000Z")
    for cell in model["content"]["cells"]:
        assert cell["metadata"].pop("trusted") in (True, False)
    assert model["content"] == saved
    bare = (await client.get("/api/contents/a.ipynb?content=0")).json()
    assert bare["content"] is None
    assert bare["format"] is None


async def test_folders_and_files(client, saved):
    model = (await client.get("/api/contents")).json()
    assert model["type"] == "directory"
    assert sorted(entry["name"] for entry in model["content"]) == ["a.ipynb", "sub", "t.txt"]
    text = (await client.get("/api/contents/t.txt")).json()
    assert (text["content"], text["format"], text["mimetype"]) == ("héllo", "text", "text/plain")
    assert (await client.get("/api/contents/t.txt?format=base64")).json()["content"] == "aMOpbGxv\n"
    assert (await client.get("/api/contents/a.ipynb?type=file&format=text")).json()[
        "type"
    ] == "file"


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("/api/contents/none.ipynb", 404),
        ("/api/contents/none.txt", 404),
        ("/api/contents/.hidden", 404),
        ("/api/contents/%2e%2e/%2e%2e/etc/passwd", 404),
        ("/api/contents/..%2f..%2fetc%2fpasswd", 404),
        ("/api/contents/a%00b", 404),
        ("/api/contents/%ff", 404),
        ("/api/contents/sub?type=file", 400),
        ("/api/contents/sub?type=notebook", 400),
        ("/api/contents/t.txt?type=directory", 400),
        ("/api/contents/t.txt?type=notebook", 400),
        ("/api/contents/sub?type=strange", 400),
        ("/api/contents/t.txt?format=strange", 400),
        ("/api/contents/t.txt?content=2", 400),
    ],
)
async def test_what_cannot_be_read(client, saved, url, status):
    answer = await client.get(url)
    assert answer.status_code == status
    assert answer.json()["message"]


async def test_saving_a_notebook(client, root_dir):
    wanted = notebook("new é")
    body = json.dumps({"type": "notebook", "format": "json", "content": wanted})
    headers = {"Content-Type": "text/plain;charset=UTF-8"}
    answer = await client.put("/api/contents/new%20é.ipynb", content=body, headers=headers)
    assert answer.status_code == 201
    assert answer.json()["content"] is None
    assert answer.json()["path"] == "new é.ipynb"
    answer = await client.put("/api/contents/new%20é.ipynb", content=body, headers=headers)
    assert answer.status_code == 200
    assert json.loads((root_dir / "new é.ipynb").read_text())["cells"][0]["source"] == ["new é"]


async def test_a_saved_notebook_stays_trusted_until_it_changes(client, root_dir):
    wanted = notebook("1")
    wanted["cells"][0]["outputs"] = [
        {"output_type": "display_data", "data": {"text/html": "<b>x</b>"}, "metadata": {}}
    ]
    for trusted in (True, False):
        wanted["cells"][0]["metadata"]["trusted"] = trusted
        body = {"type": "notebook", "content": wanted}
        await client.put(f"/api/contents/{trusted}.ipynb", json=body)
    cell = (await client.get("/api/contents/True.ipynb")).json()["content"]["cells"][0]
    assert cell["metadata"]["trusted"] is True
    wanted["cells"][0]["outputs"][0]["data"] = {"text/html": "<script>"}
    await client.put("/api/contents/True.ipynb", json={"type": "notebook", "content": wanted})
    cell = (await client.get("/api/contents/True.ipynb")).json()["content"]["cells"][0]
    assert cell["metadata"]["trusted"] is False
    assert "trusted" not in (root_dir / "True.ipynb").read_text()


async def test_a_notebook_that_is_no_document_can_be_read(client, root_dir):
    """Jupyter shows what it can, and says what is wrong."""
    cell = {"cell_type": "wrong", "metadata": {}}
    raw = {"nbformat": 4, "nbformat_minor": 2, "metadata": {}, "cells": [cell]}
    (root_dir / "n.ipynb").write_text(json.dumps(raw))
    answer = await client.get("/api/contents/n.ipynb")
    assert answer.status_code == 200
    assert answer.json()["content"]["cells"][0]["cell_type"] == "wrong"
    assert "validation failed" in answer.json()["message"]
    for text in ("", "{", "[]"):
        (root_dir / "n.ipynb").write_text(text)
        answer = await client.get("/api/contents/n.ipynb")
        assert (answer.status_code, "Unreadable" in answer.json()["message"]) == (400, True)


async def test_an_invalid_notebook_is_saved_with_a_message(client, root_dir):
    wanted = notebook("1")
    wanted["cells"][0]["metadata"] = {"tags": 5}
    answer = await client.put("/api/contents/n.ipynb", json={"type": "notebook", "content": wanted})
    assert answer.status_code == 201
    assert "validation failed" in answer.json()["message"]
    assert "validation failed" in (await client.get("/api/contents/n.ipynb")).json()["message"]


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "[]",
        '{"type":"notebook","content":null}',
        '{"type":"notebook","content":"text"}',
        '{"type":["notebook"],"content":{}}',
        '{"type":"file","format":"text","content":"x","chunk":"1"}',
        '{"type":"zebra","content":1}',
        '{"type":"notebook","content":[]}',
        '{"type":"notebook","content":{"nbformat":4,"cells":[{}]}}',
        '{"type":"file","content":"x"}',
    ],
)
async def test_what_cannot_be_saved(client, root_dir, body):
    answer = await client.put("/api/contents/x.ipynb", content=body)
    assert answer.status_code == 400
    assert answer.json()["message"]
    assert not (root_dir / "x.ipynb").exists()


async def test_files_and_folders_are_saved(client, root_dir):
    body = {"type": "file", "format": "text", "content": "hi"}
    assert (await client.put("/api/contents/n.txt", json=body)).status_code == 201
    assert (await client.put("/api/contents/n.txt", json=body)).status_code == 200
    assert (root_dir / "n.txt").read_text() == "hi"
    assert (await client.put("/api/contents/d", json={"type": "directory"})).status_code == 201
    # As in Jupyter, what is new need not say what it is.
    made = await client.put("/api/contents/new.ipynb", json={"type": "notebook"})
    assert (made.status_code, made.json()["type"]) == (201, "notebook")
    assert json.loads((root_dir / "new.ipynb").read_text())["cells"] == []
    assert (await client.put("/api/contents/new.ipynb", content="{}")).status_code == 404


async def test_the_cells_of_a_document(client, saved):
    from app.documents.store import DocumentStore

    documents: DocumentStore = client.app.state.documents
    document = await documents.open_notebook("a.ipynb", actor_id=None)
    for form in (f"{document.id}", f"json:notebook:{document.id}"):
        answer = (await client.get(f"/api/documents/{form}/cells")).json()
        assert answer["document_id"] == str(document.id)
        assert (answer["path"], answer["version"]) == ("a.ipynb", 1)
        assert [cell["source"] for cell in answer["cells"]] == ["1+1", "2"]
        assert answer["cells"][0] == {
            "id": saved["cells"][0]["id"],
            "type": "code",
            "source": "1+1",
            "version": 1,
            "metadata": {},
            "execution_count": None,
            "execution_state": "idle",
            "execution_id": None,
        }
    assert (await client.get("/api/documents/none/cells")).status_code == 404


async def test_a_token_is_needed(client, saved):
    for url in ("/api/contents", "/api/contents/a.ipynb", "/api/documents/x/cells"):
        assert (await client.get(url, headers={"Authorization": "token wrong"})).status_code == 403
    headers = {"Authorization": "token wrong"}
    assert (await client.put("/api/contents/x", json={}, headers=headers)).status_code == 403
