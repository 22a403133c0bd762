"""A file's rows are written while its document is built: both say the same, whatever it holds."""

import json
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Doc, Map
from sqlalchemy import select

from app.contents.notebook_format import read_json
from app.documents import values
from app.documents.memory import NotebookMemory, new_ycell
from app.documents.merge import base_of
from app.documents.replace import keep_exact, replace_meta
from models import Document, DocumentUpdate, Output
from tests.app.documents.conftest import check_invariant, code, stream, write

TEXT = st.text(st.characters(codec=None), max_size=8) | st.sampled_from(["a\rb\n", "\ud800", "\0"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)
OUTPUT = st.one_of(
    st.fixed_dictionaries({"output_type": st.just("stream"), "name": TEXT, "text": TEXT}),
    st.fixed_dictionaries(
        {"output_type": st.just("display_data"), "data": OBJECT, "metadata": OBJECT}
    ),
    st.fixed_dictionaries({"output_type": TEXT, "kept": JSON}),
)
CELL = st.one_of(
    st.fixed_dictionaries(
        {
            "cell_type": st.sampled_from(["markdown", "raw"]),
            "source": TEXT,
            "metadata": OBJECT,
        },
        optional={"attachments": JSON, "more": JSON, "outputs": JSON, "execution_count": JSON},
    ),
    st.fixed_dictionaries(
        {
            "cell_type": st.just("code"),
            "source": TEXT,
            "metadata": OBJECT,
            "execution_count": st.none() | st.integers() | st.floats(),
            "outputs": st.lists(OUTPUT, max_size=3),
        },
        optional={"more": JSON},
    ),
)
NOTEBOOK = st.fixed_dictionaries(
    {
        "nbformat": st.just(4),
        "nbformat_minor": st.integers(0, 9),
        "metadata": OBJECT,
        "cells": st.lists(CELL, max_size=4),
    },
    optional={"more": JSON},
)
COLUMNS = [
    "cell_type",
    "source",
    "metadata_",
    "attachments",
    "extra",
    "execution_count",
    "execution_state",
    "cell_id",
]


@settings(max_examples=150, deadline=None)
@given(NOTEBOOK)
def test_rows_made_ahead_are_those_that_the_document_says(notebook):
    for number, cell in enumerate(notebook["cells"]):
        cell["id"] = f"c{number}"
    memory = NotebookMemory(uuid.uuid4())
    memory.expect(notebook)
    keep_exact(memory, notebook)
    content = memory.content()
    replace_meta(memory, notebook)
    for cell in notebook["cells"]:
        memory.cells.append(new_ycell(cell))
    state = memory.hold()

    read = NotebookMemory(uuid.uuid4())
    read.doc.apply_update(state)
    read.adopt_all()
    assert memory.order == read.order
    for cell_id in memory.order:
        mine, its = memory.states[cell_id], read.states[cell_id]
        for name in COLUMNS:
            row = getattr(mine.row, name)
            shown = values.shown(row) if name == "metadata_" else row
            assert values.same(shown, getattr(its.row, name)), name
        assert values.same(memory.outputs(mine), read.outputs(its))
    for name in ("nbformat", "nbformat_minor", "metadata_", "extra"):
        assert values.same(values.shown(getattr(memory.row, name)), getattr(read.row, name)), name
    assert base_of(content) == base_of(memory.content()) == base_of(read.content())


async def test_a_notebook_is_loaded_for_a_room_as_one_update(store, root, database):
    write(
        root / "a.ipynb", code("one", [stream("a\n"), stream("b\n")], id="c1"), code("2", id="c2")
    )
    document, is_new = await store.open_for_room("a.ipynb", "notebook", actor_id=None)
    assert is_new
    again, is_new = await store.open_for_room("a.ipynb", "notebook", actor_id=None)
    assert (again.id, is_new) == (document.id, False)
    async with database.read() as session:
        query = select(DocumentUpdate.update).where(DocumentUpdate.document_id == document.id)
        (update,) = (await session.execute(query)).scalars()
    # The room gets what was stored, as it was: making it again takes long of a large notebook.
    version, (state, vector) = await store.state_for_room(document.id)
    assert (version, state) == (1, update)
    doc = Doc()
    doc.apply_update(state)
    assert vector == doc.get_state()
    assert doc.get("state", type=Map).to_py() == {
        "dirty": False,
        "path": "a.ipynb",
        "hash": document.disk_hash,
    }
    # To say again what it says is no edit.
    await store.tell_opened(document.id)
    _, (again, _) = await store.state_for_room(document.id)
    async with database.read() as session:
        found = await session.get(Document, document.id)
        assert (found.version, found.saved_version) == (1, 1)
    other = Doc()
    other.apply_update(again)
    assert other.get_state() == vector
    await check_invariant(database, store, document.id)


async def test_cells_with_ids_that_rows_cannot_hold_get_others(store, root, database):
    (root / "a.ipynb").write_text(
        json.dumps(
            {
                "nbformat": 4,
                "nbformat_minor": 5,
                "metadata": {},
                "cells": [
                    {"id": cell_id, "cell_type": "code", "source": cell_id[:1], "metadata": {}}
                    for cell_id in ("x" * 600, "a\0b", "fine")
                ],
            }
        )
    )
    document, _ = await store.open_for_room("a.ipynb", "notebook", actor_id=None)
    _, notebook = await store.snapshot(document.id)
    assert [cell["source"] for cell in notebook["cells"]] == ["x", "a", "f"]
    assert notebook["cells"][2]["id"] == "fine"
    await check_invariant(database, store, document.id)


async def test_a_failed_load_leaves_nothing(store, root, database, monkeypatch):
    write(root / "a.ipynb", code("one", [stream("a\n")], id="c1"))

    def refuse(*_):
        raise RuntimeError("no more memory")

    with monkeypatch.context() as patched:
        patched.setattr("app.documents.loading.new_ycell", refuse)
        with pytest.raises(RuntimeError, match="no more memory"):
            await store.open_notebook("a.ipynb", actor_id=None)
    async with database.read() as session:
        assert (await session.execute(select(Output))).first() is None
    document = await store.open_notebook("a.ipynb", actor_id=None)
    await check_invariant(database, store, document.id)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "\\ud800", "b": NaN}',
        "\ufeff[1]",
        "[" * 300 + "]" * 300,
        '[1.0, 1e400, "\\ud83d\\ude00"]',
    ],
)
def test_files_are_read_as_python_reads_them(text):
    found = read_json(text.encode())
    assert json.dumps(found) == json.dumps(json.loads(text.removeprefix("\ufeff")))


@pytest.mark.parametrize("content", [b"\xff{}", b'["\xff"]', b"{", b"", b"[1] 2"])
def test_what_is_no_json_is_refused(content):
    with pytest.raises(ValueError, match=r"."):
        read_json(content)
