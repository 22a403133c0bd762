"""Whether a notebook's outputs may do all that outputs can, in rooms.

A code cell's metadata says so (`trusted`), as in JupyterLab: no file has it, and the notary keeps
signatures of whole notebooks instead. Who opens a room gets cells marked as the signature says,
who saves in one signs what is trusted wholly.
"""

import uuid
from typing import Any

from app.contents.disk import Disk
from app.documents.editor import NotebookEditor
from app.documents.replace import set_metadata
from app.documents.saving import as_file
from app.documents.store import DocumentStore


async def mark_if_signed(store: DocumentStore, disk: Disk, document_id: uuid.UUID) -> bool:
    """Mark a notebook's code cells as trusted if it is signed as it is; tell whether it did."""
    if await store.is_trusted(document_id):
        return False
    version, notebook = await store.snapshot(document_id)
    if not await disk.is_signed(as_file((version, notebook))[1]):
        return False
    async with store.editing(document_id, origin="load", actor_id=None) as (_, editor):
        assert isinstance(editor, NotebookEditor)
        if editor.version != version:
            return False  # what was signed is not what it is now
        memory = editor.memory
        with memory.edit():
            for state in memory.states.values():
                if state.row.cell_type == "code":
                    set_metadata(state.ymap, {**state.row.metadata_, "trusted": True})
    return True


async def sign_if_trusted(store: DocumentStore, disk: Disk, document_id: uuid.UUID) -> None:
    """Sign a notebook all of whose code cells are trusted, or have no output to distrust."""
    notebook = await store.notebook(document_id)
    if any(cell["outputs"] and not _is_trusted(cell) for cell in _code_cells(notebook)):
        return
    await disk.sign(str(document_id), notebook)


def _code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def _is_trusted(cell: dict[str, Any]) -> bool:
    return bool(cell["metadata"].get("trusted"))
