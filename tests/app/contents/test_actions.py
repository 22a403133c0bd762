"""What people do to files, with the documents, sessions and history that belong to them."""

import asyncio
import base64
import errno
import json
import os

import pytest
from sqlalchemy import text

from app.documents.store import DocumentStore
from tests.app.contents.conftest import notebook, sources, write
from tests.conftest import serving
from tests.kernels import finished, until

C = "/api/contents"


async def edit(client, document_id, *new):
    """Change an open notebook without its file being saved yet."""
    store: DocumentStore = client.app.state.documents
    async with client.app.state.database.transaction() as tx:
        editor = await store.edit(tx, document_id, origin="api")
        editor.replace(notebook(*new))


def visible(folder):
    """Names in a folder, but for the one that jupyter_server keeps checkpoints in."""
    return sorted(place.name for place in folder.iterdir() if place.name[0] != ".")


async def opened(client, path):
    assert (await client.get(f"{C}/{path}")).status_code == 200
    store: DocumentStore = client.app.state.documents
    return (await store.open_notebook(path, actor_id=None)).id


async def test_all_that_belongs_to_a_notebook_follows_its_rename(client, root_dir, rows, documents):
    (root_dir / "dir").mkdir()
    write(root_dir / "dir" / "n.ipynb", "6 * 7")
    body = {"path": "dir/n.ipynb", "type": "notebook", "name": "n.ipynb", "kernel": {}}
    session = (await client.post("/api/sessions", json=body)).json()
    queued = await client.post(f"/api/sessions/{session['id']}/run", json={"cells": "all"})
    execution = await finished(client, queued.json()["executions"][0])
    await client.get(f"{C}/dir")
    before = {path: row.id for path, row in (await rows()).items()}

    answer = await client.patch(f"{C}/dir/n.ipynb", json={"path": "dir/m.ipynb"})
    assert (answer.status_code, answer.json()["path"]) == (200, "dir/m.ipynb")
    answer = await client.patch(f"{C}/dir", json={"path": "moved to"})
    assert answer.status_code == 200
    after = {path: row.id for path, row in (await rows()).items()}
    assert after == {
        "": before[""], "moved to": before["dir"], "moved to/m.ipynb": before["dir/n.ipynb"]
    }  # fmt: skip
    assert await documents() == {"moved to/m.ipynb": next(iter((await documents()).values()))}
    found = (await client.get(f"/api/sessions/{session['id']}")).json()
    assert (found["path"], found["name"]) == ("moved to/m.ipynb", "m.ipynb")
    # History says where it was, and whose it is.
    record = (await client.get(f"/api/executions/{execution['id']}")).json()
    assert record["path"] == "dir/n.ipynb"
    assert record["document_id"] == str((await documents())["moved to/m.ipynb"])

    # What runs now is saved where the file is now.
    queued = await client.post(f"/api/sessions/{session['id']}/run", json={"cells": "all"})
    assert (await finished(client, queued.json()["executions"][0]))["path"] == "moved to/m.ipynb"
    place = root_dir / "moved to" / "m.ipynb"
    await until(lambda: json.loads(place.read_text())["cells"][0]["execution_count"] == 2)
    assert not (root_dir / "dir").exists()

    # Deleting takes the document; what ran stays, and what runs then is recorded all the same.
    queued = await client.post(f"/api/sessions/{session['id']}/run", json={"cells": "all"})
    assert (await client.delete(f"{C}/moved%20to/m.ipynb")).status_code == 204
    record = await finished(client, queued.json()["executions"][0])
    assert record["status"] in ("ok", "aborted", "cancelled")
    assert (record["document_id"], record["path"]) == (None, "moved to/m.ipynb")
    assert await documents() == {}
    assert not place.exists()
    history = (await client.get("/api/executions", params={"path": "dir/n.ipynb"})).json()
    assert [one["id"] for one in history["executions"]] == [execution["id"]]
    assert (await client.delete(f"/api/sessions/{session['id']}")).status_code == 204


async def test_unsaved_edits_go_with_a_rename_and_do_not_bring_the_old_file_back(
    settings, database_url, tmp_path, root_dir
):
    write(root_dir / "n.ipynb", "old")
    slow = settings.model_copy(update={"save_delay_seconds": 30})
    async with serving(slow, database_url, tmp_path / "data") as client:
        document_id = await opened(client, "n.ipynb")
        await edit(client, document_id, "new")
        assert (await client.patch(f"{C}/n.ipynb", json={"path": "m.ipynb"})).status_code == 200
        await edit(client, document_id, "newest")
    assert [path.name for path in root_dir.glob("*.ipynb")] == ["m.ipynb"]
    assert sources(json.loads((root_dir / "m.ipynb").read_text())) == ["newest"]


async def test_a_deleted_notebook_is_not_written_again(
    settings, database_url, tmp_path, root_dir, caplog
):
    (root_dir / "dir").mkdir()
    write(root_dir / "dir" / "n.ipynb", "old")
    slow = settings.model_copy(update={"save_delay_seconds": 30, "always_delete_dir": True})
    async with serving(slow, database_url, tmp_path / "data") as client:
        await edit(client, await opened(client, "dir/n.ipynb"), "new")
        assert (await client.delete(f"{C}/dir")).status_code == 204
    assert visible(root_dir) == []
    assert "not saved" not in caplog.text


async def test_a_rename_waits_for_a_save_that_has_begun(client, root_dir, monkeypatch):
    write(root_dir / "n.ipynb", "old")
    document_id = await opened(client, "n.ipynb")
    store: DocumentStore = client.app.state.documents
    disk, writing, go = client.app.state.disk, asyncio.Event(), asyncio.Event()
    write_file = disk.write

    async def slowly(path, content, expected_hash, **known):
        writing.set()
        await go.wait()
        return await write_file(path, content, expected_hash, **known)

    monkeypatch.setattr(disk, "write", slowly)
    await edit(client, document_id, "new")
    saving = asyncio.create_task(store.save_now(document_id))
    await writing.wait()
    renaming = asyncio.create_task(client.patch(f"{C}/n.ipynb", json={"path": "m.ipynb"}))
    await asyncio.wait([renaming], timeout=0.3)
    assert not renaming.done()
    assert (root_dir / "n.ipynb").exists()
    go.set()
    await saving
    assert (await renaming).status_code == 200
    assert [path.name for path in root_dir.glob("*.ipynb")] == ["m.ipynb"]
    assert sources(json.loads((root_dir / "m.ipynb").read_text())) == ["new"]


@pytest.mark.parametrize("of_another_process", [False, True])
async def test_nothing_is_saved_while_a_rename_is_under_way(
    client, root_dir, settings, of_another_process
):
    write(root_dir / "n.ipynb", "old")
    document_id = await opened(client, "n.ipynb")
    state = client.app.state
    store: DocumentStore = state.documents
    other = DocumentStore(state.database, state.disk, settings) if of_another_process else store
    async with store.holding("n.ipynb"):
        await edit(client, document_id, "new")
        saving = asyncio.create_task(other.save_now(document_id))
        await asyncio.wait([saving], timeout=0.3)
        assert sources(json.loads((root_dir / "n.ipynb").read_text())) == ["old"]
    await saving
    assert sources(json.loads((root_dir / "n.ipynb").read_text())) == ["new"]


async def test_a_rename_that_the_disk_refuses_leaves_the_rows(client, root_dir, rows, documents):
    write(root_dir / "n.ipynb", "1")
    (root_dir / "t.txt").write_text("x")
    await opened(client, "n.ipynb")
    await client.get(C)
    before, known = {path: row.id for path, row in (await rows()).items()}, await documents()
    for new, status in (("t.txt", 409), ("none/m.ipynb", 404), (".m", 400), ("a\x00", 400)):
        answer = await client.patch(f"{C}/n.ipynb", json={"path": new})
        assert answer.status_code == status, new
    long = await client.patch(f"{C}/n.ipynb", json={"path": "x" * 300})
    assert long.status_code == 400
    assert (await client.patch(f"{C}/n.ipynb", json={"path": 5})).status_code == 400
    assert {path: row.id for path, row in (await rows()).items()} == before
    assert await documents() == known


async def test_a_rename_that_the_database_refuses_is_undone(client, root_dir, monkeypatch):
    from app.db.engine import Transaction

    write(root_dir / "n.ipynb", "1")
    await opened(client, "n.ipynb")
    manager = client.app.state.disk.manager
    rename, commit = type(manager).rename, Transaction.commit

    async def fail(self):
        monkeypatch.setattr(Transaction, "commit", commit)
        raise ConnectionError("gone")

    async def then_fail(self, old, new):
        await rename(self, old, new)
        monkeypatch.setattr(Transaction, "commit", fail)

    monkeypatch.setattr(type(manager), "rename", then_fail)
    answer = await client.patch(f"{C}/n.ipynb", json={"path": "m.ipynb"})
    assert answer.status_code == 503
    assert [path.name for path in root_dir.glob("*.ipynb")] == ["n.ipynb"]


async def test_a_name_taken_by_what_vanished_is_free(client, root_dir, rows, documents):
    write(root_dir / "n.ipynb", "1")
    write(root_dir / "m.ipynb", "2")
    kept, _ = await opened(client, "n.ipynb"), await opened(client, "m.ipynb")
    (root_dir / "m.ipynb").unlink()
    assert (await client.patch(f"{C}/n.ipynb", json={"path": "m.ipynb"})).status_code == 200
    assert await documents() == {"m.ipynb": kept}


async def test_a_copy_has_what_its_notebook_shows(client, root_dir, monkeypatch):
    write(root_dir / "n.ipynb", "old")
    await edit(client, await opened(client, "n.ipynb"), "unsaved")
    answer = await client.post(C, json={"copy_from": "n.ipynb"})
    assert (answer.status_code, answer.json()["path"]) == (201, "n-Copy1.ipynb")
    assert answer.headers["location"] == "/api/contents/n-Copy1.ipynb"
    assert sources(json.loads((root_dir / "n-Copy1.ipynb").read_text())) == ["unsaved"]


async def test_checkpoints_are_rows_and_open_notebooks_take_them_over(client, root_dir):
    async def stored():
        async with client.app.state.database.read() as tx:
            query = (
                "SELECT path, checkpoint_id FROM checkpoints JOIN contents c ON c.id = content_id"
            )
            return (await tx.execute(text(query))).all()

    write(root_dir / "n.ipynb", "old")
    document_id = await opened(client, "n.ipynb")
    await edit(client, document_id, "kept")
    made = await client.post(f"{C}/n.ipynb/checkpoints")
    assert (made.status_code, made.json()["id"]) == (201, "checkpoint")
    assert made.headers["location"] == "/api/contents/n.ipynb/checkpoints/checkpoint"
    assert await stored() == [("n.ipynb", "checkpoint")]
    await edit(client, document_id, "lost")
    assert (await client.patch(f"{C}/n.ipynb", json={"path": "m.ipynb"})).status_code == 200
    assert await stored() == [("m.ipynb", "checkpoint")]
    assert (await client.post(f"{C}/m.ipynb/checkpoints/checkpoint")).status_code == 204
    store: DocumentStore = client.app.state.documents
    assert sources(await store.notebook(document_id)) == ["kept"]
    assert (await client.delete(f"{C}/m.ipynb/checkpoints/checkpoint")).status_code == 204
    assert await stored() == []
    assert (await client.get(f"{C}/m.ipynb/checkpoints")).json() == []
    (root_dir / "d").mkdir()
    assert (await client.post(f"{C}/d/checkpoints")).status_code == 400
    # Asking makes nothing, as jupyter_server would.
    assert (await client.get(f"{C}/none/x.txt/checkpoints")).json() == []
    assert not (root_dir / "none").exists()


async def test_a_folder_goes_only_where_settings_allow(settings, database_url, tmp_path, root_dir):
    for name in ("full", "empty"):
        (root_dir / name).mkdir()
    (root_dir / "full" / "t.txt").write_text("x")
    (root_dir / "empty" / ".ipynb_checkpoints").mkdir()
    async with serving(settings, database_url, tmp_path / "data") as client:
        answer = await client.delete(f"{C}/full")
        assert answer.status_code == 400
        assert "not empty" in answer.json()["message"]
        assert (await client.delete(f"{C}/empty")).status_code == 204
    allowed = settings.model_copy(update={"always_delete_dir": True})
    async with serving(allowed, database_url, tmp_path / "data") as client:
        assert (await client.delete(f"{C}/full")).status_code == 204
    assert visible(root_dir) == []


async def test_deleted_files_go_to_the_trash(
    settings, database_url, tmp_path, root_dir, monkeypatch
):
    from jupyter_server.services.contents import filemanager

    trash = []

    def send(path):
        trash.append(path)
        os.rename(path, tmp_path / "trashed")  # noqa: PTH104

    monkeypatch.setattr(filemanager, "send2trash", send)
    (root_dir / "full").mkdir()
    (root_dir / "full" / "t.txt").write_text("x")
    with_trash = settings.model_copy(update={"delete_to_trash": True})
    async with serving(with_trash, database_url, tmp_path / "data") as client:
        assert (await client.delete(f"{C}/full")).status_code == 204
        assert trash == [str(root_dir / "full")]
        (root_dir / "t.txt").write_text("x")

        def refuse(path):
            raise OSError("no trash here")

        monkeypatch.setattr(filemanager, "send2trash", refuse)
        await client.get(C)
        assert (await client.delete(f"{C}/t.txt")).status_code == 400
        async with client.app.state.database.read() as tx:
            paths = (await tx.execute(text("SELECT path FROM contents"))).scalars().all()
        assert "t.txt" in paths
    assert (root_dir / "t.txt").exists()


def chunk(number, content):
    data = base64.b64encode(content.encode()).decode()
    return {"type": "file", "format": "base64", "chunk": number, "content": data}


async def test_chunks_come_in_order(client, root_dir, rows):
    async def put(number, content):
        return (await client.put(f"{C}/big.txt", json=chunk(number, content))).status_code

    assert await put(2, "two") == 400
    assert not (root_dir / "big.txt").exists()
    assert [await put(1, "one "), await put(2, "two ")] == [201, 200]
    assert await put(2, "two ") == 400
    assert await put(4, "four ") == 400
    assert [await put(3, "three "), await put(-1, "end")] == [200, 200]
    assert (root_dir / "big.txt").read_text() == "one two three end"
    assert (await rows())["big.txt"].size == 17
    # From the start again.
    assert [await put(1, "new "), await put(-1, "end")] == [200, 200]
    assert (root_dir / "big.txt").read_text() == "new end"
    whole = {"type": "file", "format": "text", "content": json.dumps(notebook("1"))}
    assert (await client.put(f"{C}/n.ipynb", json=whole)).status_code == 201
    await opened(client, "n.ipynb")
    whole["content"] = "no notebook"
    assert (await client.put(f"{C}/n.ipynb", json=whole)).status_code == 200


class _Full:
    """A disk that is full from the moment something is forced to it."""

    def __init__(self, monkeypatch):
        def fsync(fd):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("app.contents.writing.os.fsync", fsync)


@pytest.mark.parametrize("path", ["t.txt", "n.ipynb", "new.txt", "new.ipynb"])
async def test_a_full_disk_leaves_the_old_file_and_is_told(client, root_dir, monkeypatch, path):
    write(root_dir / "n.ipynb", "old")
    (root_dir / "t.txt").write_text("old")
    before = {place.name: place.read_bytes() for place in root_dir.iterdir()}
    _Full(monkeypatch)
    body = {"type": "file", "format": "text", "content": "new"}
    if path.endswith(".ipynb"):
        body = {"type": "notebook", "content": notebook("new")}
    answer = await client.put(f"{C}/{path}", json=body)
    assert answer.status_code == 500
    assert "No space left on device" in answer.json()["message"]
    assert {p.name: p.read_bytes() for p in root_dir.iterdir() if p.is_file()} == before


BAD_REQUESTS = [
    ("GET", "x" * 300, None, 404),
    ("PUT", "x" * 300, {"type": "file", "format": "text", "content": ""}, 400),
    ("PUT", "x" * 300 + ".ipynb", {"type": "notebook", "content": notebook()}, 400),
    ("PUT", "d/" * 3000 + "x", {"type": "file", "format": "text", "content": ""}, 400),
    ("PUT", "a%00b", {"type": "file", "format": "text", "content": ""}, 404),
    ("PUT", "..%2fx", {"type": "file", "format": "text", "content": ""}, 404),
    ("PUT", "t.txt", {"type": "file", "format": "text", "content": "\udc80"}, 400),
    ("PUT", "t.txt", {"type": "file", "format": "text", "content": {"a": 1}}, 400),
    ("PUT", "t.txt", {"type": "file", "format": 5, "content": "x"}, 400),
    ("PUT", "t.txt", {"type": "file", "format": {}, "content": "x"}, 400),
    ("PUT", "t.txt", {"path": 5, "type": "file"}, 400),
    ("PUT", "t.txt/x", {"type": "file", "format": "text", "content": ""}, 400),
    ("PUT", "d", {"type": "notebook", "content": notebook()}, 400),
    ("PUT", "t.txt", {"type": "directory"}, 400),
    ("POST", "", {"type": "file", "ext": "/../../x"}, 400),
    ("POST", "", {"type": "file", "ext": "\x00"}, 400),
    ("POST", "", {"type": 5}, 400),
    ("POST", "", {"copy_from": "../x"}, 400),
    ("POST", "", {"copy_from": ["x"]}, 400),
    *(("POST", target, {"copy_from": "d"}, 400) for target in ("d", "d/e", "link")),
    *(("POST", target, {"copy_from": source}, 400) for target in ("", "d") for source in "./"),
    ("POST", ".hidden", {"type": "file"}, 404),
    ("POST", "a%00", {"type": "file"}, 404),
    ("DELETE", "", None, 400),
    ("DELETE", "none", None, 404),
    ("DELETE", ".hidden", None, 400),
    ("DELETE", "a%00", None, 404),
    ("DELETE", "x" * 300, None, 400),
    ("DELETE", "%2e%2e", None, 404),
    ("PATCH", "", {"path": "x"}, 400),
    ("PATCH", "d", {"path": "d/e"}, 400),
    ("PATCH", "none", {"path": "x"}, 404),
    ("PATCH", "t.txt", {"path": "../x"}, 400),
    ("POST", "none/checkpoints", None, 404),
    ("POST", "a%00/checkpoints", None, 404),
    ("POST", "t.txt/checkpoints/none", None, 404),
    ("DELETE", "t.txt/checkpoints/none", None, 404),
    ("POST", "none.ipynb/trust", None, 404),
    ("POST", "t.txt/trust", None, 400),
    ("POST", "d/trust", None, 400),
]


async def test_bad_requests_change_nothing(client, root_dir):
    (root_dir / "t.txt").write_text("x")
    (root_dir / "d" / "e").mkdir(parents=True)
    (root_dir / "link").symlink_to("d/e")
    (root_dir / ".hidden").mkdir()
    before = sorted(str(place) for place in root_dir.parent.rglob("*"))
    for method, path, body, status in BAD_REQUESTS:
        url = f"{C}/{path}".rstrip("/")
        answer = await client.request(method, url, content=json.dumps(body))
        assert answer.status_code == status, (method, path, body, answer.text)
        assert answer.json()["message"]
        after = [p for p in root_dir.parent.rglob("*") if p.name != ".ipynb_checkpoints"]
        assert sorted(map(str, after)) == before, (method, path, body)
    assert (root_dir / "t.txt").read_text() == "x"


async def test_a_body_over_the_limit(settings, database_url, tmp_path, root_dir):
    small = settings.model_copy(update={"max_body_bytes": 1000})
    async with serving(small, database_url, tmp_path / "data") as client:
        body = {"type": "file", "format": "text", "content": "x" * 2000}
        assert (await client.put(f"{C}/t.txt", json=body)).status_code == 413
    assert not (root_dir / "t.txt").exists()


async def test_a_file_that_vanishes_while_it_is_asked_for(client, root_dir, monkeypatch):
    (root_dir / "t.txt").write_text("x")
    manager = client.app.state.disk.manager
    read = type(manager)._read_file

    async def late(self, os_path, *args, **more):
        (root_dir / "t.txt").unlink(missing_ok=True)
        return await read(self, os_path, *args, **more)

    monkeypatch.setattr(type(manager), "_read_file", late)
    assert (await client.get(f"{C}/t.txt")).status_code in (400, 404)


async def test_names_with_line_ends_and_of_all_scripts(client, root_dir, rows):
    for name in ("two\nlines.txt", "端 ünï.txt", "50% #1?.txt", "e\u0301.txt"):
        url = f"{C}/" + "".join(f"%{byte:02x}" for byte in name.encode())
        body = {"type": "file", "format": "text", "content": name}
        assert (await client.put(url, json=body)).status_code == 201
        assert (await client.get(url)).json()["content"] == name
        assert (await client.get(url.replace("/api/contents", "/files"))).text == name
        assert name in await rows()
        assert (await client.delete(url)).status_code == 204
    assert visible(root_dir) == []


async def test_each_request_needs_a_token(client, root_dir):
    (root_dir / "t.txt").write_text("x")
    for method, path in (
        ("GET", C), ("GET", f"{C}/t.txt"), ("POST", C), ("PUT", f"{C}/t.txt"),
        ("PATCH", f"{C}/t.txt"), ("DELETE", f"{C}/t.txt"), ("GET", f"{C}/t.txt/checkpoints"),
        ("POST", f"{C}/t.txt/checkpoints"), ("POST", f"{C}/t.txt/checkpoints/c"),
        ("DELETE", f"{C}/t.txt/checkpoints/c"), ("POST", f"{C}/t.txt/trust"),
        ("POST", f"{C}/refresh"), ("GET", "/files/t.txt"), ("HEAD", "/files/t.txt"),
    ):  # fmt: skip
        answer = await client.request(method, path, headers={"Authorization": "token wrong"})
        # A page sends its reader to the login, as in Jupyter.
        expected = 302 if path.startswith("/files") else 403
        assert answer.status_code == expected, (method, path)
    assert visible(root_dir) == ["t.txt"]
