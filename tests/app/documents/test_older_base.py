"""A program that had read a notebook before its last saves: what was typed since stays."""

import pytest

from app.documents.merge import base_of, merge, remember, text_hash, wanted_texts
from app.documents.text_merge import merge_apart
from tests.app.documents.conftest import code, plain, read, write


@pytest.mark.parametrize(
    ("base", "document", "disk", "merged"),
    [
        ("a\nb\nc", "a\nb\nc\nd", "A\nb\nc", "A\nb\nc\nd"),
        ("a", "a\nb", "A", "A\nb"),
        ("a\nb", "b", "a\nb\nc", "b\nc"),
        ("a\nb\nc", "a\nX\nc", "a\nY\nc", None),
        ("a", "a\nb", "a\nc", None),
        ("", "typed", "written", None),
    ],
)
def test_lines_are_merged_if_no_line_was_changed_by_both(base, document, disk, merged):
    assert merge_apart(base, document, disk) == merged


def notebook(*sources):
    cells = [plain(code(text, id=f"c{place}")) for place, text in enumerate(sources)]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def merged(saved, disk, document=None):
    """Merge a file after the document was saved as each of `saved`; return sources."""
    base = None
    for version, sources in enumerate(saved, start=1):
        base = remember({**base_of(notebook(*sources)), "version": version}, base)
    disk = notebook(*disk)
    texts = {}
    for cell_id, hashes in wanted_texts(base, disk).items():
        known = texts[cell_id] = {}
        for digest, version in hashes.items():
            known[digest] = saved[version - 1][int(cell_id[1:])]
            assert text_hash("code", known[digest]) == digest
    found = merge(base, notebook(*(document or saved[-1])), disk, (), texts)
    return [cell["source"] for cell in found["cells"]]


def test_what_was_typed_since_an_older_base_stays():
    saved = [["x = 1\nprint(x)"], ["x = 1\nprint(x)\ny"], ["x = 1\nprint(x)\ny = 2"]]
    assert merged(saved, ["x = 5\nprint(x)"]) == ["x = 5\nprint(x)\ny = 2"]
    # Also what is not saved yet.
    document = ["x = 1\nprint(x)\ny = 2\nz"]
    assert merged(saved, ["x = 5\nprint(x)"], document) == ["x = 5\nprint(x)\ny = 2\nz"]


def test_a_newer_file_is_the_newer():
    saved = [["x = "], ["x = 1"], ["x = 1\ny"], ["x = 1\ny = 2"]]
    for text in ("x = 1\ny = 3", "x = 5\ny = 2", "x = 5\ny = 3", "something else", "x = 1", ""):
        assert merged(saved, [text]) == [text]
    # It has what was saved last, in another cell: it is no older than that.
    saved = [["a\nb", "one"], ["a\nb\nc", "one"], ["a\nb\nc", "two"]]
    assert merged(saved, ["A\nb", "two"]) == ["A\nb", "two"]
    assert merged(saved, ["A\nb", "two more"]) == ["A\nb\nc", "two more"]


def test_both_sides_lines_are_merged_if_the_base_is_known():
    saved = [["a\nb\nc"]]
    assert merged(saved, ["A\nb\nc"], ["a\nb\nc\nd"]) == ["A\nb\nc\nd"]
    assert merged(saved, ["a\nB\nc"], ["a\nX\nc"]) == ["a\nX\nc", "a\nB\nc"]


async def test_in_a_notebook_of_one_cell(store, root):
    path = root / "one.ipynb"
    write(path, code("import os\nx = 1", id="c1"))
    opened = await store.open_notebook("one.ipynb", actor_id=None)

    async def type_and_save(text):
        async with store.editing(opened.id, origin="room", actor_id=None) as (_, editor):
            (cell,) = editor.notebook()["cells"]
            editor.replace({**editor.notebook(), "cells": [{**cell, "source": text}]})
        await store.save_now(opened.id)

    for typed in ("y", "y = 2", "y = 2\nz = 3"):
        await type_and_save(f"import os\nx = 1\n{typed}")
    # Another program had read it at the beginning.
    write(path, code("import sys\nx = 1", id="c1"))
    await store.open_notebook("one.ipynb", actor_id=None)
    await store.save_now(opened.id)
    assert [cell["source"] for cell in read(path)["cells"]] == ["import sys\nx = 1\ny = 2\nz = 3"]
    # What takes a line back and changes no other is newer, and so is what was there before.
    for text in ("import sys\nx = 1\ny = 2", "import os\nx = 1"):
        write(path, code(text, id="c1"))
        await store.open_notebook("one.ipynb", actor_id=None)
        (cell,) = (await store.notebook(opened.id))["cells"]
        assert cell["source"] == text
