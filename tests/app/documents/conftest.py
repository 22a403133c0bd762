"""Notebooks on disk, stores as if of separate processes, and a stand-in for the recorder."""

import json
import uuid
from pathlib import Path

import nbformat
import pytest
from nbformat import v4
from sqlalchemy import func, insert, select, update

from app.contents.disk import Disk
from app.documents.merge import base_of
from app.documents.outputs import as_shown, columns_of
from app.documents.store import DocumentStore
from app.settings import Settings
from models import Cell, Document, Execution, Kernel, Output, User
from models.base import uuid7


def code(source="", outputs=(), **extra):
    return v4.new_code_cell(source, outputs=list(outputs), **extra)


def stream(text, name="stdout"):
    return v4.new_output("stream", name=name, text=text)


def write(path: Path, *cells, minor=5, **metadata):
    notebook = v4.new_notebook(cells=list(cells), metadata=metadata)
    notebook["nbformat_minor"] = minor
    if minor < 5:
        for cell in notebook["cells"]:
            cell.pop("id", None)
    path.write_text(v4.writes_json(notebook) + "\n", encoding="utf-8")
    return plain(notebook)


def read(path: Path):
    return plain(nbformat.reads(path.read_text(encoding="utf-8"), 4))


def plain(value):
    return json.loads(json.dumps(value))


def as_in_file(notebook):
    """A notebook without what the document alone says: that the server has run a cell."""
    found = plain(notebook)
    for cell in found["cells"]:
        cell["metadata"].pop("trusted", None)
    return found


class Recorder:
    """Writes executions and output rows as the recorder does."""

    def __init__(self, database, kernel_id):
        self.database = database
        self.kernel_id = kernel_id
        self.user_id = None
        self.seq = 0

    async def begin(self):
        async with self.database.transaction() as tx:
            user = User(id=uuid.uuid4(), name=f"u{uuid.uuid4().hex}")
            tx.add(user)
            await tx.flush()
            tx.add(Kernel(id=self.kernel_id, name="python3", owner_id=user.id))
            self.user_id = user.id

    async def execution(self, tx, document_id, cell_id):
        execution_id = uuid7()
        await tx.execute(
            insert(Execution).values(
                id=execution_id,
                kernel_id=self.kernel_id,
                incarnation=1,
                document_id=document_id,
                cell_id=cell_id,
                run_as_id=self.user_id,
                client="test",
                msg_id=uuid.uuid4().hex,
                code="",
                source_hash="",
            )
        )
        return execution_id

    async def output(  # noqa: PLR0917
        self, tx, editor, cell_id, execution_id, output, display_id=None
    ):
        shown = editor.append_output(
            cell_id, execution_id, output, kernel_id=self.kernel_id, display_id=display_id
        )
        self.seq += 1
        row = editor.row(cell_id)
        await tx.write_now()
        await tx.execute(
            insert(Output).values(
                execution_id=execution_id,
                seq=self.seq,
                kernel_id=self.kernel_id,
                display_id=display_id,
                cell_id=row.id if shown else None,
                **columns_of(output),
            )
        )
        return shown

    async def update_display(self, tx, editor, display_id, data):
        await tx.execute(
            update(Output)
            .where(Output.kernel_id == self.kernel_id, Output.display_id == display_id)
            .values(data=data, metadata_={})
        )
        return await editor.update_display(self.kernel_id, display_id, data, {})


async def check_invariant(database, store, document_id):
    """The rows are what the document says: cells in order, their fields, and their outputs.

    So is what saving remembers of each cell.
    """
    version, (notebook, stamps) = await store.stamped_snapshot(document_id)
    assert base_of(notebook, stamps=stamps, known=store._saving._known) == base_of(notebook)
    async with database.read() as session:
        assert (await session.get(Document, document_id)).version == version
        rows = (
            (
                await session.execute(
                    select(Cell).where(Cell.notebook_id == document_id).order_by(Cell.position)
                )
            )
            .scalars()
            .all()
        )
        assert [row.position for row in rows] == list(range(len(rows)))
        assert [row.cell_id for row in rows] == [cell["id"] for cell in notebook["cells"]]
        for row, cell in zip(rows, notebook["cells"], strict=True):
            assert row.source == cell["source"]
            assert row.cell_type == cell["cell_type"]
            assert row.metadata_ == cell["metadata"]
            assert row.attachments == cell.get("attachments")
            query = select(Output).where(Output.cell_id == row.id).order_by(Output.id)
            outputs = (await session.execute(query)).scalars().all()
            assert as_shown(outputs) == cell.get("outputs", [])
            assert row.execution_count == cell.get("execution_count")


async def count(database, model):
    async with database.read() as session:
        return (await session.execute(select(func.count()).select_from(model))).scalar_one()


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


@pytest.fixture
async def make_store(database, root):
    """Make stores as separate processes have them, on one database and disk."""
    made = []

    def make(**settings):
        store = DocumentStore(database, Disk(root), Settings(save_delay_seconds=60, **settings))
        made.append(store)
        return store

    yield make
    for store in made:
        await store.close()


@pytest.fixture
def store(make_store):
    return make_store()


@pytest.fixture
async def recorder(database):
    recorder = Recorder(database, "kernel-1")
    await recorder.begin()
    return recorder
