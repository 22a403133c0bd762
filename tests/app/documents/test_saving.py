"""Between document and file: saves, changes by other programs, failing disks, ending servers."""

import asyncio
import errno
import json
import subprocess

import pytest
from nbformat import v4

from app.contents import disk as disk_module
from app.documents.saver import Saver
from app.errors import NotFoundError, StorageError
from models import Document, DocumentUpdate
from tests.app.documents.conftest import check_invariant, code, count, plain, read, stream, write


async def set_source(store, database, document, place, source):
    async with database.transaction() as tx:
        editor = await store.edit(tx, document.id, origin="api")
        notebook = plain(editor.notebook())
        notebook["cells"][place]["source"] = source
        editor.replace(notebook)


async def document_row(database, document):
    async with database.read() as session:
        return await session.get(Document, document.id)


def sources(notebook):
    return [cell["source"] for cell in notebook["cells"]]


@pytest.fixture
async def opened(store, root, database):
    write(root / "a.ipynb", code("a\nb\nc\n", id="a"), code("2", id="b"), code("3", id="c"))
    return await store.open_notebook("a.ipynb", actor_id=None)


async def test_a_change_is_saved_by_itself(database, root):
    from app.contents.disk import Disk
    from app.documents.store import DocumentStore
    from app.settings import Settings

    store = DocumentStore(database, Disk(root), Settings(save_delay_seconds=0.01))
    write(root / "a.ipynb", code("1", id="a"))
    document = await store.open_notebook("a.ipynb", actor_id=None)
    await set_source(store, database, document, 0, "new")
    async with asyncio.timeout(20):
        while sources(read(root / "a.ipynb")) != ["new"]:
            await asyncio.sleep(0.01)
    await store.close()
    row = await document_row(database, document)
    assert row.saved_version == row.version == 2


async def test_closing_saves(store, root, database, opened):
    await set_source(store, database, opened, 0, "new")
    assert sources(read(root / "a.ipynb"))[0] == "a\nb\nc\n"
    await store.close()
    assert sources(read(root / "a.ipynb"))[0] == "new"


async def test_different_cells_changed_on_both_sides_merge(store, root, database, opened):
    await set_source(store, database, opened, 1, "document")
    on_disk = read(root / "a.ipynb")
    on_disk["cells"][0]["source"] = "disk"
    on_disk["cells"][2]["outputs"] = [plain(stream("by nbconvert"))]
    on_disk["cells"].append(plain(code("added", id="d")))
    (root / "a.ipynb").write_text(json.dumps(on_disk))
    await store.save_now(opened.id)
    merged = read(root / "a.ipynb")
    assert sources(merged) == ["disk", "document", "3", "added"]
    assert merged["cells"][2]["outputs"][0]["text"] == "by nbconvert"
    assert merged == await store.notebook(opened.id)
    await check_invariant(database, store, opened.id)


async def test_one_cell_changed_on_both_sides_keeps_both(store, root, database, opened):
    await set_source(store, database, opened, 1, "document")
    on_disk = read(root / "a.ipynb")
    on_disk["cells"][1]["source"] = "disk"
    (root / "a.ipynb").write_text(json.dumps(on_disk))
    await store.open_notebook("a.ipynb", actor_id=None)
    await store.save_now(opened.id)
    merged = read(root / "a.ipynb")
    assert sources(merged) == ["a\nb\nc\n", "document", "disk", "3"]
    assert merged["cells"][2]["metadata"]["datastore"]["conflict"]["cell_id"] == "b"
    await check_invariant(database, store, opened.id)


async def test_a_cell_deleted_here_and_changed_there_comes_back_marked(
    store, root, database, opened
):
    notebook = await store.notebook(opened.id)
    del notebook["cells"][1]
    async with database.transaction() as tx:
        (await store.edit(tx, opened.id, origin="api")).replace(notebook)
    on_disk = read(root / "a.ipynb")
    on_disk["cells"][1]["source"] = "changed"
    (root / "a.ipynb").write_text(json.dumps(on_disk))
    await store.save_now(opened.id)
    assert sources(read(root / "a.ipynb")) == ["a\nb\nc\n", "changed", "3"]


async def test_cells_deleted_and_moved_on_disk_follow(store, root, database, opened):
    on_disk = read(root / "a.ipynb")
    on_disk["cells"] = [on_disk["cells"][2], on_disk["cells"][0]]
    (root / "a.ipynb").write_text(json.dumps(on_disk))
    document = await store.open_notebook("a.ipynb", actor_id=None)
    assert sources(await store.notebook(opened.id)) == ["3", "a\nb\nc\n"]
    assert document.saved_version == document.version == 2
    await check_invariant(database, store, opened.id)


async def test_a_server_that_ended_before_saving_is_made_up_for(
    make_store, root, database, opened, store
):
    await set_source(store, database, opened, 0, "unsaved")
    later = make_store()
    await later.start()
    assert sources(read(root / "a.ipynb"))[0] == "unsaved"


async def test_a_server_that_ended_between_file_and_row_finds_its_own_file(  # noqa: PLR0917
    make_store, root, database, opened, store, monkeypatch
):
    await set_source(store, database, opened, 0, "written")

    async def die(*args):
        raise ConnectionError

    monkeypatch.setattr(store._saving, "_store_saved", die)
    with pytest.raises(ConnectionError):
        await store.save_now(opened.id)
    assert sources(read(root / "a.ipynb"))[0] == "written"
    later = make_store()
    await set_source(later, database, opened, 0, "and changed again")
    await later.start()
    monkeypatch.undo()
    assert sources(read(root / "a.ipynb")) == ["and changed again", "2", "3"]


async def test_a_file_deleted_meanwhile_is_written_again_only_with_changes(
    store, root, database, opened
):
    path = root / "a.ipynb"
    path.unlink()
    await store.save_now(opened.id)
    assert not path.exists()
    with pytest.raises(NotFoundError):
        await store.open_notebook("a.ipynb", actor_id=None)
    await set_source(store, database, opened, 0, "still here")
    assert (await store.open_notebook("a.ipynb", actor_id=None)).id == opened.id
    await store.save_now(opened.id)
    assert sources(read(path))[0] == "still here"


async def test_a_failing_disk_keeps_the_old_file_and_the_document(
    store, root, database, opened, monkeypatch
):
    before = (root / "a.ipynb").read_bytes()
    await set_source(store, database, opened, 0, "new")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk_module.os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        await store.save_now(opened.id)
    assert (root / "a.ipynb").read_bytes() == before
    assert list(root.glob(".~*")) == []
    assert "No space left" in (await document_row(database, opened)).save_error
    monkeypatch.undo()
    await store.save_now(opened.id)
    assert (await document_row(database, opened)).save_error is None
    assert sources(read(root / "a.ipynb"))[0] == "new"


async def test_a_really_full_disk(store, root, database, tmp_path):
    mounted = root / "small"
    mounted.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mounted], check=False
    ).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        write(mounted / "a.ipynb", code("1", id="a"))
        before = (mounted / "a.ipynb").read_bytes()
        document = await store.open_notebook("small/a.ipynb", actor_id=None)
        await set_source(store, database, document, 0, "x" * 200_000)
        with pytest.raises(StorageError):
            await store.save_now(document.id)
        assert (mounted / "a.ipynb").read_bytes() == before
        await set_source(store, database, document, 0, "short")
        await store.save_now(document.id)
        assert sources(read(mounted / "a.ipynb")) == ["short"]
    finally:
        subprocess.run(["umount", "-l", mounted], check=True)


async def test_a_file_broken_by_another_program_is_not_overwritten(store, root, database, opened):
    await set_source(store, database, opened, 0, "new")
    (root / "a.ipynb").write_text("half of a")
    with pytest.raises(Exception, match="Unreadable"):
        await store.save_now(opened.id)
    assert (root / "a.ipynb").read_text() == "half of a"


async def test_put_creates_and_replaces(store, root, database):
    notebook = plain(v4.new_notebook(cells=[code("1", id="a")]))
    document = await store.put_notebook("new.ipynb", notebook, actor_id=None)
    assert read(root / "new.ipynb") == notebook
    again = await store.put_notebook("new.ipynb", notebook, actor_id=None)
    assert (again.id, again.version) == (document.id, 1)
    assert await count(database, DocumentUpdate) == 1
    with pytest.raises(NotFoundError):
        await store.put_notebook("no/such/new.ipynb", notebook, actor_id=None)
    with pytest.raises(NotFoundError):
        await store.put_notebook("../new.ipynb", notebook, actor_id=None)


async def test_a_failed_save_is_tried_again(monkeypatch):
    from app.documents import saver as module

    monkeypatch.setattr(module, "_RETRY_SECONDS", (0.001,))
    calls, done = [], asyncio.Event()

    async def save(document_id):
        calls.append(document_id)
        if len(calls) < 4:
            raise StorageError("full")
        done.set()

    saver = Saver(save, delay_seconds=0.001, interval_seconds=0.01)
    saver.touch("one")
    async with asyncio.timeout(10):
        await done.wait()
    await saver.close()
    assert len(calls) in (4, 5)  # the last may be closing's own
