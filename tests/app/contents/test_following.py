"""Rows follow the disk: what is listed, refreshed and watched, and what other programs renamed."""

import os
import shutil
from datetime import timedelta

import pytest
from sqlalchemy import func, text, update

from app.contents.following import Following
from models import Content
from tests.app.contents.conftest import sources, write
from tests.conftest import serving
from tests.kernels import until


async def refresh(client, path=None):
    body = {} if path is None else {"path": path}
    answer = await client.post("/api/contents/refresh", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def versions(client):
    async with client.app.state.database.read() as tx:
        return dict((await tx.execute(text("SELECT path, xmin::text FROM contents"))).all())


async def test_a_listing_is_recorded_once(client, root_dir, rows):
    (root_dir / "t.txt").write_text("text")
    (root_dir / "sub").mkdir()
    (root_dir / ".hidden").write_text("x")
    model = (await client.get("/api/contents")).json()
    found = await rows()
    assert set(found) == {"", "t.txt", "sub"}
    row, entry = found["t.txt"], next(e for e in model["content"] if e["name"] == "t.txt")
    assert (row.name, row.type, row.size, row.mimetype) == ("t.txt", "file", 4, "text/plain")
    assert row.last_modified.isoformat().replace("+00:00", "Z") == entry["last_modified"]
    assert row.parent_id == found[""].id
    assert found["sub"].type == "directory"
    before = await versions(client)
    await client.get("/api/contents")
    assert await versions(client) == before
    (root_dir / "t.txt").write_text("longer")
    await client.get("/api/contents")
    after = await versions(client)
    assert {path for path in after if after[path] != before[path]} == {"t.txt"}
    assert (await rows())["t.txt"].size == 6


async def test_names_that_are_no_text_are_listed_but_have_no_row(client, root_dir, rows):
    with open(os.fsencode(root_dir) + b"/\xff", "w") as file:  # noqa: PTH123 (bytes)
        file.write("x")
    model = (await client.get("/api/contents")).json()
    assert [entry["name"] for entry in model["content"]] == ["\udcff"]
    assert set(await rows()) <= {""}


async def test_what_vanished_is_marked_then_forgotten(client, root_dir, rows, documents):
    (root_dir / "t.txt").write_text("text")
    write(root_dir / "n.ipynb", "1")
    await client.get("/api/contents/n.ipynb")
    await client.get("/api/contents")
    ids = {path: row.id for path, row in (await rows()).items()}
    (root_dir / "t.txt").unlink()
    (root_dir / "n.ipynb").unlink()
    await client.get("/api/contents")
    assert set(await rows()) == {""}
    assert set(await rows(missing=True)) == {"", "t.txt", "n.ipynb"}
    async with client.app.state.database.transaction() as tx:
        long_ago = func.now() - timedelta(hours=1)
        await tx.execute(update(Content).where(Content.path != "").values(missing_since=long_ago))
    await client.app.state.following.forget_vanished()
    # The notebook was opened: its document waits for it, and knows it again.
    assert set(await rows(missing=True)) == {"", "n.ipynb"}
    before = await documents()
    write(root_dir / "n.ipynb", "1", "2")
    assert (await client.get("/api/contents/n.ipynb")).status_code == 200
    await client.get("/api/contents")
    assert (await rows())["n.ipynb"].id == ids["n.ipynb"]
    assert await documents() == before


async def test_refresh_says_what_it_found(client, root_dir, rows):
    (root_dir / "a" / "b").mkdir(parents=True)
    (root_dir / "a" / "b" / "deep.txt").write_text("x")
    (root_dir / "old.txt").write_text("old")
    (root_dir / "sub").symlink_to("a")
    found = await refresh(client)
    assert found["added"] == ["a", "old.txt", "sub", "a/b", "a/b/deep.txt"] or set(
        found["added"]
    ) == {"a", "old.txt", "sub", "a/b", "a/b/deep.txt"}
    assert (found["folders"], found["truncated"]) == (3, False)
    assert await refresh(client) == {
        "folders": 3, "added": [], "changed": [], "removed": [], "renamed": [], "merged": [],
        "unreadable": [], "truncated": False,
    }  # fmt: skip
    (root_dir / "a" / "b" / "deep.txt").write_text("longer")
    (root_dir / "old.txt").rename(root_dir / "a" / "new.txt")
    shutil.rmtree(root_dir / "a" / "b")
    found = await refresh(client, "")
    assert found["renamed"] == [{"from": "old.txt", "to": "a/new.txt"}]
    assert found["removed"] == ["a/b"]
    assert set(await rows()) == {"", "a", "sub", "a/new.txt"}
    assert (await client.post("/api/contents/refresh", json={"path": "none"})).status_code == 404
    for path in ("../x", ".git"):
        answer = await client.post("/api/contents/refresh", json={"path": path})
        assert answer.status_code == 404
    assert (await client.post("/api/contents/refresh", json={"path": 5})).status_code == 400
    assert (await refresh(client, "a/new.txt"))["folders"] == 1
    (root_dir / "refresh").mkdir()
    made = await client.post("/api/contents/refresh", json={"type": "file"})
    assert (made.status_code, made.json()["path"]) == (201, "refresh/untitled")


async def test_a_refresh_ends_at_its_limit(settings, database_url, tmp_path, root_dir):
    for n in range(5):
        (root_dir / f"d{n}").mkdir()
    limited = settings.model_copy(update={"watch_folder_limit": 3})
    async with serving(limited, database_url, tmp_path / "data") as client:
        found = await refresh(client)
        assert (found["folders"], found["truncated"]) == (3, True)


async def test_open_notebooks_take_over_what_others_wrote(client, root_dir, documents):
    write(root_dir / "n.ipynb", "1")
    await client.get("/api/contents/n.ipynb")
    write(root_dir / "n.ipynb", "1", "2")
    assert (await refresh(client))["merged"] == ["n.ipynb"]
    cells = await client.get(f"/api/documents/{(await documents())['n.ipynb']}/cells")
    assert [cell["source"] for cell in cells.json()["cells"]] == ["1", "2"]
    (root_dir / "n.ipynb").write_text("{")
    assert (await refresh(client))["unreadable"] == ["n.ipynb"]


@pytest.mark.parametrize("how", ["inode", "hash", "listing only", "opened first"])
async def test_a_notebook_renamed_by_another_program_keeps_its_ids(
    client, root_dir, rows, documents, how
):
    write(root_dir / "n.ipynb", "1")
    (root_dir / "sub").mkdir()
    await client.get("/api/contents/n.ipynb")
    await refresh(client)
    before, opened = (await rows())["n.ipynb"].id, (await documents())["n.ipynb"]
    if how == "hash":
        (root_dir / "sub" / "m.ipynb").write_bytes((root_dir / "n.ipynb").read_bytes())
        (root_dir / "n.ipynb").unlink()
    else:
        (root_dir / "n.ipynb").rename(root_dir / "sub" / "m.ipynb")
    if how == "listing only":
        await client.get("/api/contents/sub")
    elif how == "opened first":
        await client.get("/api/contents/sub/m.ipynb")
    else:
        found = await refresh(client)
        assert found["renamed"] == [{"from": "n.ipynb", "to": "sub/m.ipynb"}]
    await client.get("/api/contents")
    assert (await rows())["sub/m.ipynb"].id == before
    assert await documents() == {"sub/m.ipynb": opened}
    content = (await client.get("/api/contents/sub/m.ipynb")).json()["content"]
    assert sources(content) == ["1"]


async def test_a_folder_renamed_by_another_program_carries_all(client, root_dir, rows, documents):
    (root_dir / "a" / "b").mkdir(parents=True)
    write(root_dir / "a" / "b" / "n.ipynb", "1")
    (root_dir / "a_b").mkdir()  # `_` is no wildcard
    (root_dir / "a_b" / "t.txt").write_text("x")
    await client.get("/api/contents/a/b/n.ipynb")
    await refresh(client)
    before, opened = await rows(), await documents()
    (root_dir / "a" / "more.txt").write_text("the folder's own time changes too")
    (root_dir / "a").rename(root_dir / "c")
    found = await refresh(client)
    assert found["renamed"] == [{"from": "a", "to": "c"}]
    after = await rows()
    assert set(after) == {"", "a_b", "a_b/t.txt", "c", "c/b", "c/b/n.ipynb", "c/more.txt"}
    for old, new in (("a", "c"), ("a/b", "c/b"), ("a/b/n.ipynb", "c/b/n.ipynb")):
        assert after[new].id == before[old].id
    assert await documents() == {"c/b/n.ipynb": opened["a/b/n.ipynb"]}


async def test_an_inode_used_again_is_no_rename(client, root_dir, rows):
    (root_dir / "a.txt").write_text("one")
    await refresh(client)
    before = (await rows())["a.txt"]
    # What a file system that gives the freed inode to the next file would show.
    (root_dir / "a.txt").rename(root_dir / "b.txt")
    (root_dir / "b.txt").write_text("another")
    found = await refresh(client)
    assert (found["renamed"], found["added"], found["removed"]) == ([], ["b.txt"], ["a.txt"])
    assert (await rows())["b.txt"].id != before.id


async def test_a_hard_link_is_a_file_of_its_own(client, root_dir, rows):
    (root_dir / "a.txt").write_text("one")
    await refresh(client)
    before = (await rows())["a.txt"].id
    (root_dir / "b.txt").hardlink_to(root_dir / "a.txt")
    assert (await refresh(client))["added"] == ["b.txt"]
    assert (await rows())["a.txt"].id == before


async def test_a_listing_is_answered_while_others_hold_the_lock(
    client, root_dir, rows, monkeypatch
):
    from app.contents import following
    from app.contents import rows as queries

    monkeypatch.setattr(following, "_WAIT_SECONDS", 1)
    (root_dir / "t.txt").write_text("x")
    async with client.app.state.database.transaction() as tx:
        await queries.lock(tx)
        model = (await client.get("/api/contents")).json()
        assert [entry["name"] for entry in model["content"]] == ["t.txt"]
        assert await rows() == {}
    await client.get("/api/contents")
    assert set(await rows()) == {"", "t.txt"}


@pytest.fixture
async def watched(settings, database_url, tmp_path, root_dir):
    """A client of a server that watches a root with a folder and a file."""
    (root_dir / "sub").mkdir()
    write(root_dir / "n.ipynb", "1")
    settings = settings.model_copy(update={"watch_files": True})
    async with serving(settings, database_url, tmp_path / "data") as client:
        await client.app.state.watcher.watching.wait()
        await client.get("/api/contents/n.ipynb")
        await client.get("/api/contents")
        yield client


async def test_a_watcher_brings_changes_into_the_tables(watched, root_dir):
    client = watched
    following: Following = client.app.state.following
    database = client.app.state.database

    async def known():
        async with database.read() as tx:
            query = text("SELECT path, id FROM contents WHERE missing_since IS NULL")
            return dict((await tx.execute(query)).all())

    async def appears(*paths):
        async def there():
            return set(paths) <= set(await known())

        await until(there)

    # Many at once, as a checkout makes them; hidden ones are nobody's business.
    (root_dir / ".git").mkdir()
    for n in range(300):
        (root_dir / "sub" / f"f{n}.txt").write_text("x")
        (root_dir / ".git" / f"o{n}").write_text("x")
    await appears(*(f"sub/f{n}.txt" for n in range(300)))
    # A folder in a new folder, and what is put there when it is watched.
    (root_dir / "new" / "deep").mkdir(parents=True)
    (root_dir / "new" / "deep" / "at once.txt").write_text("x")
    await appears("new/deep/at once.txt")
    (root_dir / "new" / "deep" / "later.txt").write_text("x")
    await appears("new/deep/later.txt")
    # A renamed folder is watched where it is now.
    before = await known()
    (root_dir / "new").rename(root_dir / "renamed")
    await appears("renamed/deep/later.txt")
    (root_dir / "renamed" / "deep" / "last.txt").write_text("x")
    await appears("renamed/deep/last.txt")
    after = await known()
    assert after["renamed/deep/later.txt"] == before["new/deep/later.txt"]
    assert not [path for path in after if path.startswith(("new", ".git"))]
    # An open notebook takes the change over without being asked for.
    write(root_dir / "n.ipynb", "1", "2")

    async def merged():
        async with database.read() as tx:
            query = text("SELECT source FROM cells ORDER BY position")
            return [row[0] for row in await tx.execute(query)] in (["1", "2"], [["1"], ["2"]])

    await until(merged)
    shutil.rmtree(root_dir / "sub")

    async def gone():
        return not [path for path in await known() if path.startswith("sub")]

    await until(gone)
    assert await following.known_folders()


async def test_a_server_that_was_away_catches_up(settings, database_url, tmp_path, root_dir):
    (root_dir / "a.txt").write_text("x")
    async with serving(settings, database_url, tmp_path / "data") as client:
        await client.get("/api/contents")
    (root_dir / "b.txt").write_text("x")
    watching = settings.model_copy(update={"watch_files": True})
    async with serving(watching, database_url, tmp_path / "data") as client:
        await client.app.state.watcher.watching.wait()
        async with client.app.state.database.read() as tx:
            paths = (await tx.execute(text("SELECT path FROM contents"))).scalars().all()
        assert "b.txt" in paths


async def test_only_so_many_folders_are_watched(settings, database_url, tmp_path, root_dir, caplog):
    for n in range(5):
        (root_dir / f"d{n}").mkdir()
    update = {"watch_files": True, "watch_folder_limit": 3}
    async with serving(
        settings.model_copy(update=update), database_url, tmp_path / "data"
    ) as client:
        await client.app.state.watcher.watching.wait()
        assert client.app.state.watcher._folders == {"", "d0", "d1"}
    assert "only the 3 folders nearest to the root are watched" in caplog.text


async def test_watching_can_be_switched_off(client):
    assert client.app.state.watcher._task is None
