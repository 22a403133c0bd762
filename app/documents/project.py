"""Writing what an edit changed: the update, the version, and the rows that are its projection."""

import uuid
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Update,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)

from app.db.engine import Transaction
from app.db.together import parameters, row_update
from app.documents import queries, updates
from app.documents.load import restore_tails
from app.documents.memory import CellState, NotebookMemory
from app.documents.outputs import as_shown, columns_of, groups
from app.documents.values import same
from models import Cell, Notebook, Output

_CELLS: Any = Cell.__table__
_CELL_ATTRIBUTES = (
    "id",
    "notebook_id",
    "cell_id",
    "position",
    "cell_type",
    "source",
    "version",
    "metadata_",
    "attachments",
    "extra",
    "execution_count",
    "execution_state",
    "execution_id",
)
_OUTPUT_ATTRIBUTES = (
    "output_type",
    "name",
    "text",
    "data",
    "metadata_",
    "execution_count",
    "ename",
    "evalue",
    "traceback",
    "extra",
    "size_bytes",
)


async def flush(
    tx: Transaction,
    memory: NotebookMemory,
    *,
    origin: str,
    actor_id: uuid.UUID | None,
    undoes: list[int] | None = None,
) -> bool:
    """Store all edits since the last flush; tell whether there were any.

    Needs the document's row lock. Writes one `document_updates` row, raises the version, and
    writes only rows that changed; part of it with `Transaction.write_with_others`.
    """
    memory.store_streams()
    if not memory.updates:
        return False
    is_new = memory.version == 0
    await updates.append(tx, memory, origin=origin, actor_id=actor_id, undoes=undoes)
    await write_rows(tx, memory, is_new=is_new)
    await updates.write_snapshot(tx, memory)
    return True


async def write_rows(tx: Transaction, memory: NotebookMemory, *, is_new: bool) -> None:
    """Write the rows that changed; all of them if the document `is_new`."""
    await _write_notebook(tx, memory, is_new=is_new)
    new_cells = await _write_cells(tx, memory)
    await _write_outputs(tx, memory, new_cells)


async def _write_notebook(tx: Transaction, memory: NotebookMemory, *, is_new: bool) -> None:
    row = memory.row
    if is_new:
        await tx.execute(
            insert(Notebook).values(
                id=row.id,
                nbformat=row.nbformat,
                nbformat_minor=row.nbformat_minor,
                metadata_=row.metadata_,
                extra=row.extra,
            )
        )
    elif memory.row_changed:
        columns = {name: getattr(row, name) for name in memory.row_changed}
        await tx.execute(
            update(Notebook).where(Notebook.id == row.id).values(columns),
            execution_options={"synchronize_session": False},
        )
    memory.row_changed.clear()


async def _write_cells(tx: Transaction, memory: NotebookMemory) -> set[str]:
    """Write the rows of cells that changed; return the ids of cells that had none."""
    gone = [state.row.id for state in memory.removed.values() if not state.is_new]
    memory.removed.clear()
    if gone:
        await tx.execute(
            delete(Cell).where(Cell.id.in_(gone)),
            execution_options={"synchronize_session": False},
        )
    _number(memory)
    new: list[dict[str, Any]] = []
    changed: dict[tuple[str, ...], list[Cell]] = {}
    for cell_id in memory.pop_changed():
        if cell_id not in memory.states:
            continue
        state = memory.states[cell_id]
        if state.is_new:
            new.append({name: getattr(state.row, name) for name in _CELL_ATTRIBUTES})
            state.is_new = False
        elif state.changed:
            changed.setdefault(tuple(sorted(state.changed)), []).append(state.row)
        state.changed = set()
    if new:
        await tx.execute(insert(Cell), new)
    for names, rows in changed.items():
        await _update_cells(tx, names, rows)
    return {columns["cell_id"] for columns in new}


def _number(memory: NotebookMemory) -> None:
    """Give the rows the positions that their cells have now."""
    if not memory.order_changed:
        return
    for position, cell_id in enumerate(memory.order):
        state = memory.states[cell_id]
        if state.row.position != position:
            state.row.position = position
            state.changed.add("position")
            memory.note_changed(state)
    memory.order_changed = False


@lru_cache
def _cells_update(names: tuple[str, ...]) -> Update:
    """Return the update of these attributes of a cell."""
    return row_update(_CELLS, [Cell.__mapper__.columns[name].name for name in names])


async def _update_cells(tx: Transaction, names: tuple[str, ...], rows: list[Cell]) -> None:
    columns = Cell.__mapper__.columns
    changed = [
        parameters(
            _CELLS, {"id": row.id} | {columns[name].name: getattr(row, name) for name in names}
        )
        for row in sorted(rows, key=lambda row: row.id)
    ]
    if len(changed) == 1:
        await tx.write_with_others(_cells_update(names), changed[0])
    else:
        await (await tx.connection()).execute(_cells_update(names), changed)


async def _write_outputs(tx: Transaction, memory: NotebookMemory, new_cells: set[str]) -> None:
    """Make the rows that cells show equal to their outputs, keeping those that are the same."""
    changed = [cell_id for cell_id in memory.pop_outputs_changed() if cell_id in memory.states]
    if changed:
        await tx.write_now()  # outputs of a recorder's are among the rows that are read
    new: list[dict[str, Any]] = []
    for cell_id in changed:
        state = memory.states[cell_id]
        wanted = memory.outputs(state) if state.row.cell_type == "code" else []
        kept = 0 if cell_id in new_cells else await _keep_outputs(tx, state, wanted)
        new.extend(
            dict.fromkeys(_OUTPUT_ATTRIBUTES) | columns_of(output) | {"cell_id": state.row.id}
            for output in wanted[kept:]
        )
    if new:
        # All with the same keys, so that they are inserted, and numbered, in this order.
        await tx.execute(insert(Output), new)
    await restore_tails(tx, memory, [cell_id for cell_id in changed if cell_id not in new_cells])


async def _keep_outputs(tx: Transaction, state: CellState, wanted: list[dict[str, Any]]) -> int:
    """Detach the rows that the cell no longer shows; return how many outputs stay."""
    query = queries.shown_outputs(state.row.id).execution_options(populate_existing=True)
    rows = list((await tx.execute(query)).scalars().all())
    shown = as_shown(rows)
    kept = 0
    while kept < min(len(shown), len(wanted)) and same(shown[kept], wanted[kept]):
        kept += 1
    gone = [row.id for group in groups(rows)[kept:] for row in group]
    if gone:
        ids = literal(gone, ARRAY(BigInteger))
        await tx.execute(select(func.datastore_detach_outputs(ids)))
    return kept
