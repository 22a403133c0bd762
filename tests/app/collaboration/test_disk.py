"""Open files that another program changes, deletes, renames and replaces: nothing gets lost."""

import shutil
import subprocess

from tests.app.documents.conftest import code, read, write
from tests.rooms import RoomPeer, session


async def refresh(server, path=""):
    answer = await server.http.post("/api/contents/refresh", json={"path": path})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_newer_file_reaches_open_windows_and_an_older_base_keeps_both(server, notebook):
    found = await session(server.http, "a.ipynb")
    old = notebook.read_bytes()
    async with RoomPeer(server, found) as peer:
        changed = read(notebook)
        changed["cells"][1]["source"] = "by the editor"
        write(notebook, *[code(cell["source"], id=cell["id"]) for cell in changed["cells"]])
        await refresh(server)
        await peer.until(lambda: peer.text(1) == "by the editor")
        # Another program that had read the file before writes what it made of it.
        await peer.type("typed ", place=0)
        assert await peer.save() == "success"
        notebook.write_bytes(old.replace(b'"one"', b'"one of theirs"'))
        await refresh(server)
        await peer.until(lambda: len(peer.cells) == 3)
        assert peer.text(0) == "typed one"
        assert peer.text(1) == "one of theirs"
        assert peer.cells[1]["metadata"].to_py()["datastore"]["conflict"]["cell_id"] == "c1"
        assert await peer.save(2) == "success"
        assert [cell["source"] for cell in read(notebook)["cells"]][:2] == [
            "typed one",
            "one of theirs",
        ]


async def test_a_deleted_file_comes_back_with_what_was_typed(server, notebook):
    found = await session(server.http, "a.ipynb")
    async with RoomPeer(server, found) as peer:
        notebook.unlink()
        await refresh(server)
        assert peer.closed is None
        await peer.type("kept ")
        assert await peer.save() == "success"
        assert read(notebook)["cells"][0]["source"] == "kept one"
    assert await session(server.http, "a.ipynb") == found


async def test_a_file_renamed_by_another_program_keeps_its_room(server, notebook):
    found = await session(server.http, "a.ipynb")
    async with RoomPeer(server, found) as peer:
        renamed = notebook.with_name("moved.ipynb")
        notebook.rename(renamed)
        await refresh(server)
        await peer.until(lambda: peer.state["path"] == "moved.ipynb")
        await peer.type("there ")
        assert await peer.save() == "success"
        assert read(renamed)["cells"][0]["source"] == "there one"
        assert not notebook.exists()


async def test_a_file_replaced_by_another_notebook_becomes_it(server, notebook, root_dir):
    found = await session(server.http, "a.ipynb")
    async with RoomPeer(server, found) as peer:
        write(root_dir / "other.ipynb", code("quite", id="x1"), code("other", id="x2"))
        shutil.copy(root_dir / "other.ipynb", notebook)
        await refresh(server)
        await peer.until(lambda: peer.ids() == ["x1", "x2"])
        # And one with what was typed and not saved yet keeps that.
        await peer.type("typed ", place=1)
        write(root_dir / "other.ipynb", code("again", id="y1"))
        shutil.copy(root_dir / "other.ipynb", notebook)
        await refresh(server)
        await peer.until(lambda: "y1" in peer.ids())
        texts = [peer.text(place) for place in range(len(peer.cells))]
        assert "again" in texts
        assert await peer.save() == "success"


async def test_a_checkout_of_forty_files_reaches_all_that_are_open(server, root_dir):
    def git(*arguments):
        subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments],
            cwd=root_dir,
            check=True,
            capture_output=True,
        )

    git("init", "-q", "-b", "main")
    for number in range(20):
        write(root_dir / f"n{number}.ipynb", code(f"old {number}", id=f"c{number}"))
        (root_dir / f"t{number}.py").write_text(f"old {number}\nsame\n")
    git("add", "-A")
    git("commit", "-qm", "old")
    git("checkout", "-qb", "new")
    for number in range(20):
        write(root_dir / f"n{number}.ipynb", code(f"new {number}", id=f"c{number}"))
        (root_dir / f"t{number}.py").write_text(f"new {number}\nsame\n")
    git("commit", "-qam", "new")
    git("checkout", "-q", "main")
    notebooks = [await session(server.http, f"n{number}.ipynb") for number in range(20)]
    texts = [
        await session(server.http, f"t{number}.py", form="text", kind="file")
        for number in range(20)
    ]
    async with RoomPeer(server, notebooks[7]) as one, RoomPeer(server, texts[3]) as two:
        two.source.insert(len(str(two.source)), "typed\n")
        await two.flush()
        git("checkout", "-q", "-f", "new")
        await refresh(server)
        await one.until(lambda: one.text() == "new 7")
        await two.until(lambda: str(two.source).startswith("new 3"))
        assert str(two.source) == "new 3\nsame\ntyped\n"
    for number, found in enumerate(notebooks):
        answer = await server.http.get(f"/api/documents/{found['fileId']}/cells")
        assert [cell["source"] for cell in answer.json()["cells"]] == [f"new {number}"]


async def test_lines_of_a_text_that_both_sides_changed_are_both_kept(server, root_dir):
    path = root_dir / "a.txt"
    path.write_text("one\ntwo\nthree\n")
    found = await session(server.http, "a.txt", form="text", kind="file")
    async with RoomPeer(server, found) as peer:
        server.app.state.documents.autosaves = lambda _: False
        del peer.source[4:7]
        peer.source.insert(4, "ours")
        await peer.flush()
        await server.http.get(f"/api/documents/{found['fileId']}/undo")
        path.write_text("one\ntheirs\nthree\nfour\n")
        await refresh(server)
        wanted = "one\n<<<<<<< document\nours\n=======\ntheirs\n>>>>>>> disk\nthree\nfour\n"
        await peer.until(lambda: str(peer.source) == wanted)
        assert await peer.save() == "success"
        assert path.read_text() == wanted


async def test_a_file_made_unreadable_is_told_kept_and_overwritten_on_demand(server, notebook):
    found = await session(server.http, "a.ipynb")
    good = notebook.read_bytes()
    document = f"/api/documents/{found['fileId']}"
    async with RoomPeer(server, found) as peer:
        notebook.write_text("{ no notebook")
        assert (await refresh(server))["unreadable"] == ["a.ipynb"]
        await peer.until(lambda: "datastore" in peer.state)
        assert peer.state["datastore"]["unreadable"] is True
        # As it was before: told, too.
        notebook.write_bytes(good)
        await refresh(server)
        await peer.until(lambda: "datastore" not in peer.state)
        notebook.write_text("{ no notebook")
        await peer.type("typed ")
        assert await peer.save() == "failed"
        await peer.until(lambda: "datastore" in peer.state)
        assert notebook.read_text() == "{ no notebook"
        # Who comes now sees what is typed, and that.
        later = await session(server.http, "a.ipynb")
        assert later["fileId"] == found["fileId"]
        async with RoomPeer(server, later) as other:
            await other.until(lambda: other.text() == "typed one" and "datastore" in other.state)
        # Repaired, with a change: merged, and saved at once.
        notebook.write_bytes(good.replace(b"two", b"too"))
        await refresh(server)
        await peer.until(lambda: "datastore" not in peer.state and peer.text(1) == "too")
        assert await peer.save(2) == "success"
        notebook.write_text("{ broken again")
        answer = await server.http.post(f"{document}/overwrite")
        assert answer.json() == {"kept": "a-unreadable.ipynb"}
        assert notebook.with_name("a-unreadable.ipynb").read_text() == "{ broken again"
        assert [cell["source"] for cell in read(notebook)["cells"]] == ["typed one", "too"]
        assert "datastore" not in peer.state
        # Nothing in the way: it is merged as ever.
        notebook.write_bytes(notebook.read_bytes().replace(b"too", b"two"))
        assert (await server.http.post(f"{document}/overwrite")).json() == {"kept": None}
        await peer.until(lambda: peer.text(1) == "two")
