"""Building a document in memory from the database, and catching up with other processes."""

import uuid
from collections.abc import Collection

from pycrdt import Map, Text
from sqlalchemy import select

from app.db.engine import Transaction
from app.documents import queries, updates, values
from app.documents.memory import CellState, NotebookMemory, Tail
from app.documents.outputs import continues
from app.documents.stream import StreamText, cursor_after
from app.errors import NotFoundError
from models import Cell, Notebook

_PIECES_AT_ONCE = 200


async def build(tx: Transaction, document_id: uuid.UUID, version: int) -> NotebookMemory:
    """Return the document as it was stored at `version`; it need not be the latest."""
    memory = NotebookMemory(document_id)
    await updates.replay(tx, memory, version)
    if version == 0:
        memory.displays_known = True
        memory.watch()
        return memory
    await _read_notebook_row(tx, memory)
    rows = {row.cell_id: row for row in await _cell_rows(tx, document_id)}
    for ymap in memory.cells:
        cell_id = ymap["id"]
        if cell_id not in rows:
            raise NotFoundError(f"cell {cell_id} of document {document_id} has no row")
        memory.order.append(cell_id)
        memory.states[cell_id] = CellState(ymap, rows[cell_id])
    memory.watch()
    await restore_tails(tx, memory, memory.order)
    return memory


async def catch_up(tx: Transaction, memory: NotebookMemory, version: int) -> None:
    """Apply what other processes stored, up to `version`, and read the rows they wrote."""
    await updates.apply_newer(tx, memory, version)
    touched = memory.settle(stored=True)
    memory.updates.clear()
    memory.removed.clear()
    memory.version = version
    await _read_notebook_row(tx, memory)
    only = None if memory.order_changed else touched
    memory.order_changed = False
    for row in await _cell_rows(tx, memory.document_id, only):
        if row.cell_id in memory.states:
            memory.states[row.cell_id].row = row
            memory.states[row.cell_id].note_touched()
    await restore_tails(tx, memory, touched)


async def _read_notebook_row(tx: Transaction, memory: NotebookMemory) -> None:
    query = select(Notebook).where(Notebook.id == memory.document_id)
    row = (await tx.execute(query.execution_options(populate_existing=True))).scalar_one()
    tx.expunge(row)
    memory.row = row


async def _cell_rows(
    tx: Transaction, document_id: uuid.UUID, only: Collection[str] | None = None
) -> list[Cell]:
    """Return cell rows that no session knows: they are written with statements of our own."""
    query = queries.cells_of(document_id)
    if only is not None:
        if not only:
            return []
        query = query.where(Cell.cell_id.in_(only))
    rows = (await tx.execute(query.execution_options(populate_existing=True))).scalars().all()
    for row in rows:
        tx.expunge(row)
    return list(rows)


async def restore_tails(tx: Transaction, memory: NotebookMemory, cell_ids: Collection[str]) -> None:
    """Find the stream that a next piece would continue, for cells whose tail is not known."""
    states = [
        state
        for state in (memory.states.get(cell_id) for cell_id in cell_ids)
        if state is not None and state.tail is None and state.row.execution_id is not None
    ]
    if not states:
        return
    by_row = {state.row.id: state for state in states}
    for last in (await tx.execute(queries.last_outputs(list(by_row)))).all():
        state = by_row[last.cell_id]
        if last.output_type != "stream" or last.execution_id is None:
            continue
        youtputs = state.youtputs
        if not youtputs:
            continue
        youtput = youtputs[len(youtputs) - 1]
        if not isinstance(youtput, Map) or not isinstance(youtput.get("text"), Text):
            continue  # a client wrote it, in a shape of its own: the next piece is another output
        text = str(youtput["text"])
        cursor = None
        if text and not text.endswith("\n"):
            cursor = cursor_after(await _raw_last_line(tx, last.cell_id, last.id))
        state.tail = Tail(last.execution_id, youtput, StreamText(text, cursor))


async def _raw_last_line(tx: Transaction, cell_row_id: uuid.UUID, last_id: int) -> str:
    """Return what was said since the last newline of the stream that ends with an output."""
    line = ""
    later = None
    before = last_id
    while True:
        query = queries.earlier_pieces(cell_row_id, before, _PIECES_AT_ONCE)
        pieces = (await tx.execute(query)).all()
        for piece in pieces:
            if later is not None and not continues(piece, later):
                return values.to_text(line)
            _, newline, rest = piece.text.rpartition("\n")
            line = rest + line
            if newline:
                return values.to_text(line)
            later = piece
        if len(pieces) < _PIECES_AT_ONCE:
            return values.to_text(line)
        before = pieces[-1].id - 1


async def load_displays(tx: Transaction, memory: NotebookMemory) -> None:
    """Find the places of all displays that the notebook's cells show, from their rows."""
    if memory.displays_known:
        return
    by_row = {state.row.id: state for state in memory.states.values()}
    await tx.flush()
    rows = (await tx.execute(queries.outputs_of_cells_with_displays(memory.document_id))).all()
    cell, last, place = None, None, -1
    for row in rows:
        if row.cell_id != cell:
            cell, last, place = row.cell_id, None, -1
        if not continues(last, row):
            place += 1
        last = row
        if row.display_id is not None and row.cell_id in by_row:
            key = (row.kernel_id or "", row.display_id)
            by_row[row.cell_id].displays.setdefault(key, set()).add(place)
    memory.displays_known = True
