"""Contents managers other than the default one, also without any files."""

import base64
import json
from datetime import UTC, datetime

import pytest
from jupyter_server.services.contents.checkpoints import Checkpoints
from jupyter_server.services.contents.filemanager import FileContentsManager
from jupyter_server.services.contents.manager import ContentsManager
from tornado.web import HTTPError
from traitlets import Unicode, default

from app.contents.disk import Disk
from app.contents.manager import ManagerError, make_manager
from app.settings import Settings
from tests.app.contents.conftest import notebook, sources
from tests.conftest import serving

NOW = datetime(2026, 1, 2, tzinfo=UTC)
C = "/api/contents"


class NoCheckpoints(Checkpoints):
    def list_checkpoints(self, path):
        return []

    def create_checkpoint(self, contents_mgr, path):
        return {"id": "none", "last_modified": NOW}


class InMemory(ContentsManager):
    """A synchronous manager that keeps everything in a dictionary, as one on a bucket would."""

    prefix = Unicode("", config=True)

    def __init__(self, **options):
        super().__init__(**options)
        self.entries = {"": None}

    @default("checkpoints_class")
    def _one_that_keeps_nothing(self):
        return NoCheckpoints

    def dir_exists(self, path):
        return self.entries.get(path.strip("/"), "") is None

    def file_exists(self, path):
        return self.entries.get(path.strip("/")) is not None

    def is_hidden(self, path):
        return path.strip("/").startswith(".")

    def get(self, path, content=True, type=None, format=None):  # noqa: A002
        path = path.strip("/")
        if path not in self.entries:
            raise HTTPError(404, f"nothing at {path}")
        stored = self.entries[path]
        found = {
            "name": path.rpartition("/")[2], "path": path, "writable": True, "created": NOW,
            "last_modified": NOW, "mimetype": None, "content": None, "format": None, "size": None,
        }  # fmt: skip
        if stored is None:
            found["type"] = "directory"
            if content:
                below = [p for p in self.entries if p and p.rpartition("/")[0] == path]
                found |= {"content": [self.get(p, content=False) for p in below], "format": "json"}
        elif type == "notebook" or (type is None and path.endswith(".ipynb")):
            found["type"] = "notebook"
            if content:
                found |= {"content": json.loads(stored), "format": "json"}
        else:
            found |= {"type": "file", "mimetype": "text/plain", "size": len(stored)}
            if content and format == "base64":
                data = base64.b64encode(stored.encode()).decode()
                found |= {"content": data, "format": "base64"}
            elif content:
                found |= {"content": stored, "format": "text"}
        return found

    def save(self, model, path):
        path = path.strip("/")
        if model["type"] == "directory":
            self.entries[path] = None
        elif model["type"] == "notebook":
            self.entries[path] = json.dumps(model["content"])
        else:
            self.entries[path] = model["content"]
        return self.get(path, content=False)

    def delete_file(self, path):
        if path not in self.entries:
            raise HTTPError(404, f"nothing at {path}")
        for place in [p for p in self.entries if p == path or p.startswith(f"{path}/")]:
            del self.entries[place]

    def rename_file(self, old_path, new_path):
        for place in [p for p in self.entries if p == old_path or p.startswith(f"{old_path}/")]:
            self.entries[new_path + place[len(old_path) :]] = self.entries.pop(place)


async def test_a_manager_without_files(settings, database_url, tmp_path, root_dir):
    chosen = settings.model_copy(
        update={
            "contents_manager_class": f"{__name__}.InMemory",
            "contents_manager_options": {"prefix": "x"},
            "watch_files": True,
        }
    )
    async with serving(chosen, database_url, tmp_path / "data") as client:
        manager = client.app.state.disk.manager
        assert manager.prefix == "x"
        assert client.app.state.watcher._task is None
        assert (await client.put(f"{C}/d", json={"type": "directory"})).status_code == 201
        body = {"type": "file", "format": "text", "content": "hello"}
        assert (await client.put(f"{C}/d/t.txt", json=body)).status_code == 201
        assert (await client.get(f"{C}/d/t.txt")).json()["content"] == "hello"
        body = {"type": "notebook", "content": notebook("1")}
        for status in (201, 200):
            assert (await client.put(f"{C}/d/n.ipynb", json=body)).status_code == status
        entries = (await client.get(f"{C}/d")).json()["content"]
        assert sorted(entry["name"] for entry in entries) == ["n.ipynb", "t.txt"]
        # An open notebook is merged with what others stored, and saved where it is.
        stored = json.loads(manager.entries["d/n.ipynb"])
        stored["cells"][0]["source"] = "2"
        manager.entries["d/n.ipynb"] = json.dumps(stored)
        answer = (await client.get(f"{C}/d/n.ipynb")).json()
        assert sources(answer["content"]) == ["2"]
        store = client.app.state.documents
        document = await store.open_notebook("d/n.ipynb", actor_id=None)
        async with client.app.state.database.transaction() as tx:
            (await store.edit(tx, document.id, origin="api")).replace(notebook("3"))
        assert (await client.patch(f"{C}/d", json={"path": "e"})).status_code == 200
        assert sources(json.loads(manager.entries["e/n.ipynb"])) == ["3"]
        assert (await store.find(path="e/n.ipynb")).id == document.id
        assert (await client.post(C, json={"copy_from": "e/t.txt"})).status_code == 201
        assert (await client.post(f"{C}/e/n.ipynb/trust")).status_code == 201
        found = (await client.post(f"{C}/refresh", json={})).json()
        assert (found["folders"], found["removed"]) == (2, [])
        part = await client.get("/files/e/t.txt", headers={"Range": "bytes=1-2"})
        assert (part.status_code, part.text) == (206, "el")
        assert (await client.get("/files/e/t.txt")).text == "hello"
        assert (await client.get("/files/.x")).status_code == 404
        assert (await client.delete(f"{C}/e")).status_code == 204
        assert set(manager.entries) == {"", "t.txt"}
    assert list(root_dir.iterdir()) == []


async def test_a_manager_without_checkpoints(settings, database_url, tmp_path):
    chosen = settings.model_copy(
        update={"contents_manager_class": f"{__name__}.{WithoutCheckpoints.__name__}"}
    )
    async with serving(chosen, database_url, tmp_path / "data") as client:
        body = {"type": "notebook", "content": notebook("1")}
        assert (await client.put(f"{C}/n.ipynb", json=body)).status_code == 201
        answer = await client.post(f"{C}/n.ipynb/checkpoints")
        assert (answer.status_code, bool(answer.json()["message"])) == (501, True)


class WithoutCheckpoints(InMemory):
    @default("checkpoints_class")
    def _none(self):
        return Checkpoints


async def test_a_synchronous_file_manager(settings, database_url, tmp_path, root_dir):
    name = "jupyter_server.services.contents.largefilemanager.LargeFileManager"
    chosen = settings.model_copy(update={"contents_manager_class": name})
    async with serving(chosen, database_url, tmp_path / "data") as client:
        body = {"type": "file", "format": "text", "content": "x"}
        assert (await client.put(f"{C}/t.txt", json=body)).status_code == 201
        assert (await client.post(C, json={"type": "notebook"})).status_code == 201
        assert len((await client.get(C)).json()["content"]) == 2
        assert (await client.patch(f"{C}/t.txt", json={"path": "u.txt"})).status_code == 200
        assert (await client.post(f"{C}/u.txt/checkpoints")).status_code == 201
        assert (await client.delete(f"{C}/u.txt")).status_code == 204
    assert [p.name for p in root_dir.iterdir() if p.is_file()] == ["Untitled.ipynb"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"contents_manager_class": "nothing"}, "nothing cannot be imported"),
        ({"contents_manager_class": "no.such.Manager"}, "cannot be imported"),
        ({"contents_manager_class": "pathlib.Path"}, "pathlib.Path is not a contents manager"),
        ({"contents_manager_options": {"colour": 1}}, "has no option colour"),
        ({"contents_manager_options": {"hide_globs": 5}}, "hide_globs"),
    ],
)
def test_a_manager_that_cannot_be_used_says_why(root_dir, options, why):
    with pytest.raises(ManagerError, match=why):
        make_manager(Settings(root_dir=root_dir, **options))


def test_files_are_written_whole(root_dir):
    disk = Disk(root_dir)
    assert isinstance(disk.manager, FileContentsManager)
    target = root_dir / "a.txt"
    target.write_text("old")
    target.chmod(0o640)
    (root_dir / "link").symlink_to("a.txt")

    def write(path, text):
        with disk.manager.atomic_writing(str(path)) as file:
            file.write(text)
            if text == "broken":
                raise RuntimeError

    inode = target.stat().st_ino
    write(root_dir / "link", "new\nline")
    assert (target.read_bytes(), target.stat().st_mode & 0o777) == (b"new\nline", 0o640)
    assert target.stat().st_ino != inode
    assert (root_dir / "link").is_symlink()
    for path in (target, root_dir / "none.txt"):
        with pytest.raises(RuntimeError):
            write(path, "broken")
    assert sorted(place.name for place in root_dir.iterdir()) == ["a.txt", "link"]
    assert target.read_text() == "new\nline"
