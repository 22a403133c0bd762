"""Listings equal jupyter_server's own, field for field and in its order, over odd files."""

import os
import socket

import pytest
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

from app.contents.disk import Disk
from app.contents.listing import entry_at, folders_below
from app.settings import Settings


@pytest.fixture
def odd(root_dir, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "there.txt").write_text("x")
    for name in (
        "a.txt", "b.PY", "n.ipynb", "N.IPYNB", "x.tar.gz", "noext", "new\nline", "ünï 端.csv",
        " space ", "50%", ".hidden", "back~", "c.pyc", ".DS_Store", "x.svg", "y.wasm", "..txt",
        "q?'\"", "-dash", "é.txt",
    ):  # fmt: skip
        (root_dir / name).write_text(name)
    for name in ("dir", "dir.ipynb", ".dir", "__pycache__", "empty", "data:x"):
        (root_dir / name).mkdir()
    (root_dir / "dir" / "in.txt").write_text("x")
    (root_dir / "dir" / "deep").mkdir()
    (root_dir / "link").symlink_to("a.txt")
    (root_dir / "dead").symlink_to("nowhere")
    (root_dir / "loop").symlink_to("loop")
    (root_dir / "out").symlink_to(outside)
    (root_dir / "out.txt").symlink_to(outside / "there.txt")
    (root_dir / "self").symlink_to(".")
    (root_dir / "hardlink").hardlink_to(root_dir / "a.txt")
    (root_dir / "read only").write_text("x")
    (root_dir / "read only").chmod(0o444)
    os.mkfifo(root_dir / "fifo")
    with socket.socket(socket.AF_UNIX) as made:
        before = os.getcwd()  # noqa: PTH109
        os.chdir(root_dir)  # a socket's name is short
        made.bind("socket")
        os.chdir(before)
    for name, when in (("past", -5.5), ("whole", 1_000_000_000), ("future", 4e9 + 0.25)):
        (root_dir / name).write_text("x")
        os.utime(root_dir / name, (when, when))
    (os.fsencode(root_dir) + b"/\xff\xfe.txt").decode("utf-8", "surrogateescape")
    with open(os.fsencode(root_dir) + b"/\xff\xfe.txt", "w") as file:  # noqa: PTH123 (bytes)
        file.write("x")
    return root_dir


@pytest.mark.parametrize("allow_hidden", [False, True])
@pytest.mark.parametrize("path", ["", "dir", "out", "self", "empty", "self/dir"])
async def test_a_listing_is_jupyter_servers(odd, path, allow_hidden):
    stock = AsyncLargeFileManager(root_dir=str(odd), allow_hidden=allow_hidden)
    disk = Disk(odd, Settings(allow_hidden=allow_hidden))
    expected = await stock.get(path)
    model, entries = await disk.listing(path)
    assert model == expected
    if path == "":
        # The test would be worth nothing if these were left out by both.
        names = {entry["name"] for entry in expected["content"]}
        assert {"dead", "new\nline", "out", "past", "dir.ipynb"} <= names
        assert (".hidden" in names) is ("loop" in names) is allow_hidden
    for entry in entries:
        found = entry.model["path"]
        assert entry_at(disk.manager, str(odd / found), found) == entry


async def test_a_manager_of_ones_own_lists_in_its_own_way(odd):
    options = {"contents_manager_class": f"{__name__}.Shouting"}
    disk = Disk(odd, Settings(**options))
    model, _ = await disk.listing("dir")
    assert [entry["name"] for entry in model["content"]] == ["DEEP", "IN.TXT"]


class Shouting(AsyncLargeFileManager):
    async def get(self, path, **options):
        model = await super().get(path, **options)
        if model["type"] == "directory" and model["content"]:
            entries = [{**e, "name": e["name"].upper()} for e in model["content"]]
            model["content"] = sorted(entries, key=lambda e: e["name"])
        return model


def test_folders_are_followed_up_to_a_limit_and_never_in_circles(odd):
    disk = Disk(odd)
    found, more = folders_below(disk.manager, str(odd), "", 100)
    assert found == ["", "data:x", "dir", "dir.ipynb", "empty", "dir/deep"]
    assert not more
    assert folders_below(disk.manager, str(odd), "", 3) == (["", "data:x", "dir"], True)
