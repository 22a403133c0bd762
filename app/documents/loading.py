"""Making the document of a notebook that has none.

A notebook of 50 MB keeps this process and PostgreSQL busy for as long each. So they work at the
same time: rows are made from the notebook, and written while the Yjs document is built.
"""

import asyncio
import time
import uuid
from typing import Any

from app.db.engine import Transaction
from app.documents import project, updates
from app.documents.memory import NotebookMemory, new_ycell
from app.documents.merge import Base, base_of
from app.documents.replace import keep_exact, replace_meta

# Others are served in between: building 50 MB takes longer than they should wait.
_SLICE_SECONDS = 0.005


async def load(
    tx: Transaction,
    memory: NotebookMemory,
    notebook: dict[str, Any],
    nbformat: int,
    *,
    actor_id: uuid.UUID | None,
    opened: tuple[str, str] | None = None,
) -> Base:
    """Fill an empty document, and store it with its rows; return the base of later merges.

    Cells have ids (`replace.identify`); `nbformat` is the format of the file. Needs the document's
    lock. With `opened`, a path and a hash, the document says what its file is, and keeps its state
    for the room that is about to be made (`MergeState.whole_state`).
    """
    memory.unwatch()
    memory.expect(notebook)
    keep_exact(memory, notebook)
    content = memory.content()
    writing = asyncio.create_task(project.write_rows(tx, memory, is_new=True))
    try:
        await _build(memory, notebook, opened)
    finally:
        await writing
    memory.updates.append(memory.hold())
    memory.watch()
    memory.displays_known = False
    # In a thread, and while PostgreSQL works: of a large notebook it takes long.
    base = asyncio.create_task(asyncio.to_thread(base_of, content, nbformat))
    try:
        await updates.append(
            tx, memory, origin="load", actor_id=actor_id, keep_whole=opened is not None
        )
        await tx.write_now()
        await updates.write_snapshot(tx, memory)
    finally:
        await base
    return base.result()


def as_trusted(cell: dict[str, Any]) -> dict[str, Any]:
    """Return a code cell that says that its outputs are trusted; another one as it is."""
    if cell["cell_type"] != "code":
        return cell
    return {**cell, "metadata": {**cell["metadata"], "trusted": True}}


async def _build(
    memory: NotebookMemory, notebook: dict[str, Any], opened: tuple[str, str] | None
) -> None:
    """Put a notebook into an empty document that nobody watches."""
    with memory.doc.transaction():
        if opened is not None:
            memory.tell_opened(*opened)
        replace_meta(memory, notebook)
        since = time.monotonic()
        for cell in notebook["cells"]:
            memory.cells.append(new_ycell(cell))
            if time.monotonic() - since > _SLICE_SECONDS:
                await asyncio.sleep(0)
                since = time.monotonic()
