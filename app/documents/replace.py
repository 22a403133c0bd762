"""Making a document equal to a given notebook with as few Yjs edits as possible."""

import uuid
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

from pycrdt import Array, Map, Text

from app.documents import values
from app.documents.memory import (
    CellState,
    NotebookMemory,
    apply_splices,
    new_ycell,
    new_youtput,
    storable_id,
)
from app.documents.splices import kept_in_place, text_splices

_META = ("nbformat", "nbformat_minor", "metadata", "cells")
_NESTED = ("source", "metadata", "outputs", "execution_state")


def identify(
    cells: Sequence[dict[str, Any]], known: Sequence[tuple[str, str, str]]
) -> list[dict[str, Any]]:
    """Return copies of cells with an id each, unique among them.

    A cell that has none, or one that rows cannot hold, gets the id of the cell in `known` (id,
    type, source, in order) that it goes on from: one with the same text, else one of its type at
    its place between such cells. The second of two cells with one id gets a new id.
    """
    seen: set[str] = set()
    ids: list[str | None] = []
    for cell in cells:
        given = cell.get("id")
        cell_id = storable_id(values.to_text(given)) if isinstance(given, str) else None
        ids.append(None if cell_id in seen else cell_id)
        seen.add(cell_id or "")
    without = [place for place, cell_id in enumerate(ids) if cell_id is None]
    free = [entry for entry in known if entry[0] not in seen]
    for place, matched in zip(
        without, _match([cells[place] for place in without], free), strict=True
    ):
        ids[place] = matched or str(uuid.uuid4())
    return [{**cell, "id": cell_id} for cell, cell_id in zip(cells, ids, strict=True)]


def _match(
    cells: Sequence[dict[str, Any]], known: Sequence[tuple[str, str, str]]
) -> list[str | None]:
    old = [(kind, source) for _, kind, source in known]
    new = [(cell["cell_type"], values.to_text(cell["source"])) for cell in cells]
    found: list[str | None] = [None] * len(cells)
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    for tag, low, high, new_low, new_high in matcher.get_opcodes():
        if tag not in ("equal", "replace"):
            continue
        for place, new_place in zip(range(low, high), range(new_low, new_high), strict=False):
            if old[place][0] == new[new_place][0]:
                found[new_place] = known[place][0]
    return found


def replace(memory: NotebookMemory, notebook: dict[str, Any]) -> None:
    """Make the document equal to `notebook`, whose cells have ids (see `identify`).

    Outputs and count of a cell with a queued or running execution stay the server's.
    """
    memory.store_streams()
    cells = notebook["cells"]
    wanted = {cell["id"]: cell for cell in cells}
    if not memory.order:
        # One update for all of it: two would be merged, which costs as much as making them.
        with memory.edit():
            replace_meta(memory, notebook)
            moved = _place_cells(memory, cells)
    else:
        with memory.edit():
            replace_meta(memory, notebook)
        moved = _place_cells(memory, cells)
    with memory.edit():
        for cell_id, state in list(memory.states.items()):
            if cell_id not in moved:
                _replace_cell(state, wanted[cell_id])
    keep_exact(memory, notebook)


def replace_meta(memory: NotebookMemory, notebook: dict[str, Any]) -> None:
    """Make the notebook's own fields those that are given."""
    meta = memory.meta
    wanted = {key: value for key, value in notebook.items() if key not in ("cells", "metadata")}
    for key in set(meta.keys()) - wanted.keys() - {"metadata"}:
        del meta[key]
    for key, value in wanted.items():
        if key not in meta or not values.same(values.from_y(meta[key]), values.shown(value)):
            meta[key] = values.to_y(value)
    metadata = notebook.get("metadata", {})
    if isinstance(meta.get("metadata"), Map):
        _replace_map(meta["metadata"], metadata)
    else:
        meta["metadata"] = Map(values.to_y(metadata))


def _replace_map(ymap: Any, wanted: dict[str, Any]) -> None:
    wanted = values.to_y(wanted)
    for key in set(ymap.keys()) - wanted.keys():
        del ymap[key]
    for key, value in wanted.items():
        if key not in ymap or not values.same(values.from_y(ymap[key]), values.from_y(value)):
            ymap[key] = value


def _place_cells(memory: NotebookMemory, cells: list[dict[str, Any]]) -> set[str]:
    """Delete, insert and move cells; return the ids of those that were made anew.

    Yjs 13 has no move, so a cell that moves or changes its type is made again under its id.
    """
    made: set[str] = set()
    order = [cell["id"] for cell in cells]
    kept = kept_in_place(memory.order, order)
    for cell in cells:
        state = memory.states.get(cell["id"])
        if state is not None and state.row.cell_type != cell["cell_type"]:
            kept.discard(cell["id"])
    if len(kept) == len(memory.order) == len(order):
        return made
    contents = {}
    for cell in cells:
        if cell["id"] not in kept:
            made.add(cell["id"])
            contents[cell["id"]] = _with_server_outputs(memory, cell)
    with memory.edit():
        for place in range(len(memory.order) - 1, -1, -1):
            if memory.order[place] not in kept:
                del memory.cells[place]
        for place, cell_id in enumerate(order):
            if cell_id not in kept:
                memory.cells.insert(place, new_ycell(contents[cell_id]))
    return made


def _with_server_outputs(memory: NotebookMemory, cell: dict[str, Any]) -> dict[str, Any]:
    state = memory.states.get(cell["id"])
    if state is None or not state.running or cell["cell_type"] != "code":
        return cell
    return {
        **cell,
        "outputs": memory.outputs(state),
        "execution_count": state.row.execution_count,
        "execution_state": "running",
    }


def set_text(ymap: Any, old: str, new: str) -> None:
    """Make a cell's text, which is `old` now, `new`."""
    if old == new:
        return
    if isinstance(ymap.get("source"), Text):
        apply_splices(ymap["source"], text_splices(old, new))
    else:
        ymap["source"] = Text(new)


def set_metadata(ymap: Any, metadata: dict[str, Any]) -> None:
    """Make a cell's metadata what is given."""
    if isinstance(ymap.get("metadata"), Map):
        _replace_map(ymap["metadata"], metadata)
    else:
        ymap["metadata"] = Map(values.to_y(metadata))


def _replace_cell(state: CellState, cell: dict[str, Any]) -> None:
    ymap, row = state.ymap, state.row
    source = values.to_text(cell["source"])
    set_text(ymap, row.source, source)
    set_metadata(ymap, cell.get("metadata", {}))
    is_code = cell["cell_type"] == "code"
    kept = {"id", *_NESTED}
    if is_code and state.running:
        kept.add("execution_count")
    for key in set(ymap.keys()) - cell.keys() - kept:
        del ymap[key]
    for key in cell.keys() - kept:
        if key not in ymap or not values.same(values.from_y(ymap[key]), values.shown(cell[key])):
            ymap[key] = values.to_y(cell[key])
    if is_code and not state.running:
        _replace_outputs(state, cell.get("outputs", []))


def _replace_outputs(state: CellState, outputs: list[dict[str, Any]]) -> None:
    youtputs = state.youtputs
    if youtputs is None:
        state.ymap["outputs"] = Array([new_youtput(output) for output in outputs])
        return
    old = values.from_y(youtputs.to_py()) or []
    new = [values.shown(output) for output in outputs]
    start = 0
    while start < min(len(old), len(new)) and values.same(old[start], new[start]):
        start += 1
    end = 0
    limit = min(len(old), len(new)) - start
    while end < limit and values.same(old[len(old) - 1 - end], new[len(new) - 1 - end]):
        end += 1
    if len(old) - end > start:
        del youtputs[start : len(old) - end]
    for place in range(start, len(new) - end):
        youtputs.insert(place, new_youtput(outputs[place]))


def keep_exact(memory: NotebookMemory, notebook: dict[str, Any]) -> None:
    """Put what the document shows as equal, but holds as doubles, into the rows as it was given."""
    row = memory.row
    metadata = notebook.get("metadata", {})
    if "metadata_" in memory.row_changed and values.same(row.metadata_, values.shown(metadata)):
        row.metadata_ = values.storable(metadata)
    for cell in notebook["cells"]:
        state = memory.states[cell["id"]]
        metadata = cell.get("metadata", {})
        if (state.is_new or "metadata_" in state.changed) and values.same(
            state.row.metadata_, values.shown(metadata)
        ):
            state.row.metadata_ = values.storable(metadata)
