"""Editing single cells, as HTTP asks for it: each edit is small, so that it merges.

Texts given whole are compared with the text that the asker started from, if it says so, else with
the one that is there now.
"""

import uuid
from typing import Any

from app.documents import replace as replacing
from app.documents import values
from app.documents.editor import NotebookEditor
from app.documents.memory import CellState, NotebookMemory, new_ycell
from app.documents.splices import changes
from app.documents.store import DocumentStore
from app.errors import BadRequestError, ConflictError, NotFoundError

_TYPES = ("code", "markdown", "raw")


def insert(editor: NotebookEditor, body: dict[str, Any]) -> str:
    """Insert a cell; return its id.

    `type`, `source`, `metadata`, `attachments`, `id`; the place is `index`, or `before` or `after`
    another cell, else the end. 400 for what makes no sense, 404 for an unknown neighbour, 409 when
    there is a cell with the id.
    """
    memory = editor.memory
    cell_id = body.get("id")
    if cell_id is None:
        cell_id = str(uuid.uuid4())
    elif not isinstance(cell_id, str) or not 0 < len(cell_id) <= 64 or "\x00" in cell_id:
        raise BadRequestError("id must be a text of 1 to 64 characters")
    if cell_id in memory.states:
        raise ConflictError(f"There is a cell with the id {cell_id}")
    cell: dict[str, Any] = {
        "id": cell_id,
        "cell_type": _type(body.get("type", "code")),
        "source": _text(body, "source") or "",
        "metadata": _object(body, "metadata") or {},
    }
    if (attachments := _attachments(body)) is not None:
        cell["attachments"] = attachments
    place = _place(body, memory.order)
    with memory.edit():
        memory.cells.insert(place, new_ycell(cell))
    return cell_id


async def begin_if_empty(store: DocumentStore, document_id: uuid.UUID) -> None:
    """Give a notebook without cells an empty code cell, as it has one in front ends."""
    if await store.has_cells(document_id):
        return
    async with store.editing(document_id, origin="load", actor_id=None) as (_, editor):
        assert isinstance(editor, NotebookEditor)
        if not editor.cell_ids():
            insert(editor, {"metadata": {"trusted": True}})


def change(editor: NotebookEditor, cell_id: str, body: dict[str, Any]) -> None:
    """Change a cell: `source` or `splices`, `metadata`, `attachments`, `type`, `outputs`.

    `base` is the text that the asker started from; `version` that text's version: another one is
    409. `metadata` has the keys to set, null for those to remove. `outputs` may be `[]` only.
    """
    memory = editor.memory
    state = _state(memory, cell_id)
    version = body.get("version")
    if version is not None and version != state.row.version:
        raise ConflictError(
            f"The cell's text is at version {state.row.version}", reason="cell_version"
        )
    if "source" in body or "splices" in body:
        _change_text(memory, state, body)
    if (metadata := _object(body, "metadata")) is not None:
        _merge_metadata(memory, state, metadata)
    if "attachments" in body:
        attachments = _attachments(body)
        with memory.edit():
            if attachments is not None:
                state.ymap["attachments"] = values.to_y(attachments)
            elif "attachments" in state.ymap:
                del state.ymap["attachments"]
    if "type" in body:
        _change_type(memory, state, _type(body["type"]))
    if "outputs" in body:
        if body["outputs"] != []:
            raise BadRequestError("outputs can only be cleared")
        _clear(memory, _state(memory, cell_id))


def delete(editor: NotebookEditor, cell_id: str) -> None:
    """Delete a cell; 404 when there is none."""
    memory = editor.memory
    _state(memory, cell_id)
    with memory.edit():
        del memory.cells[memory.order.index(cell_id)]


def move(editor: NotebookEditor, cell_id: str, body: dict[str, Any]) -> None:
    """Move a cell to `index` (counted without it), or `before` or `after` another one."""
    memory = editor.memory
    _state(memory, cell_id)
    others = [one for one in memory.order if one != cell_id]
    place = _place(body, others, required=True)
    if [*others[:place], cell_id, *others[place:]] != memory.order:
        _make_again(memory, cell_id, place)


def _make_again(memory: NotebookMemory, cell_id: str, place: int, **changes: Any) -> None:
    """Make a cell again under its id, since Yjs 13 moves nothing: what it shows goes with it."""
    state = memory.states[cell_id]
    cell = memory.cell(state)
    if state.running:
        cell["execution_state"] = "running"
    cell |= changes
    if cell["cell_type"] != "code":
        for name in ("outputs", "execution_count", "execution_state"):
            cell.pop(name, None)
    else:
        cell.setdefault("outputs", [])
    with memory.edit():
        del memory.cells[memory.order.index(cell_id)]
        memory.cells.insert(place, new_ycell(cell))


def _change_text(memory: NotebookMemory, state: CellState, body: dict[str, Any]) -> None:
    now, base = state.row.source, _text(body, "base")
    start = now if base is None else values.to_text(base)
    if "splices" in body:
        if "source" in body:
            raise BadRequestError("Either source or splices")
        wanted = values.to_text(_spliced(start, body["splices"]))
    else:
        wanted = values.to_text(_text(body, "source") or "")
    merged = wanted if start == now else rebased(start, wanted, now)
    with memory.edit():
        replacing.set_text(state.ymap, now, merged)


def rebased(base: str, wanted: str, now: str) -> str:
    """Return `base` with what was done to it on both sides, to make it `wanted` and `now`."""
    theirs = changes(base, now)
    inserted: dict[int, str] = {}
    gone: set[int] = set()
    for low, high, text in theirs + [one for one in changes(base, wanted) if one not in theirs]:
        inserted[low] = inserted.get(low, "") + text
        gone.update(range(low, high))
    parts = []
    for place, character in enumerate(base):
        parts.append(inserted.get(place, ""))
        if place not in gone:
            parts.append(character)
    return "".join(parts) + inserted.get(len(base), "")


def _spliced(text: str, splices: Any) -> str:
    """Return a text after splices, each on the outcome of the one before; in characters."""
    if not isinstance(splices, list):
        raise BadRequestError("splices must be a list")
    for splice in splices:
        if not isinstance(splice, dict):
            raise BadRequestError("A splice is an object")
        offset, deleted, new = (
            splice.get("offset"),
            splice.get("delete", 0),
            splice.get("insert", ""),
        )
        numbers = all(type(number) is int and number >= 0 for number in (offset, deleted))
        if not numbers or not isinstance(new, str) or offset + deleted > len(text):
            raise BadRequestError("A splice has offset, delete and insert within the text")
        text = text[:offset] + new + text[offset + deleted :]
    return text


def _merge_metadata(memory: NotebookMemory, state: CellState, metadata: dict[str, Any]) -> None:
    wanted = {**state.row.metadata_, **metadata}
    wanted = {key: value for key, value in wanted.items() if metadata.get(key, 0) is not None}
    with memory.edit():
        replacing.set_metadata(state.ymap, wanted)


def _change_type(memory: NotebookMemory, state: CellState, kind: str) -> None:
    if state.row.cell_type != kind:
        cell_id = state.row.cell_id
        _make_again(memory, cell_id, memory.order.index(cell_id), cell_type=kind)


def _clear(memory: NotebookMemory, state: CellState) -> None:
    if state.row.cell_type != "code":
        raise BadRequestError("Only code cells have outputs")
    with memory.edit():
        if state.youtputs:
            del state.youtputs[:]
        if not state.running and state.row.execution_count is not None:
            state.ymap["execution_count"] = None


def _place(body: dict[str, Any], order: list[str], *, required: bool = False) -> int:
    given = [name for name in ("index", "before", "after") if body.get(name) is not None]
    if len(given) > 1 or (required and not given):
        raise BadRequestError("The place is one of index, before and after")
    if not given:
        return len(order)
    value = body[given[0]]
    if given[0] == "index":
        if type(value) is not int or not 0 <= value <= len(order):
            raise BadRequestError(f"index must be a number from 0 to {len(order)}")
        return value
    if value not in order:
        raise NotFoundError(f"No such cell: {value}")
    return order.index(value) + (given[0] == "after")


def _state(memory: NotebookMemory, cell_id: str) -> CellState:
    state = memory.states.get(cell_id)
    if state is None:
        raise NotFoundError(f"No such cell: {cell_id}")
    return state


def _type(value: Any) -> str:
    if value not in _TYPES:
        raise BadRequestError("type must be code, markdown or raw")
    return str(value)


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequestError(f"{name} must be a string")
    return value


def _attachments(body: dict[str, Any]) -> dict[str, Any] | None:
    """Return attachments by name, each an object: a file with another kind cannot be written."""
    attachments = _object(body, "attachments")
    if not all(isinstance(one, dict) for one in (attachments or {}).values()):
        raise BadRequestError("each of the attachments must be an object")
    return attachments


def _object(body: dict[str, Any], name: str) -> dict[str, Any] | None:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise BadRequestError(f"{name} must be an object")
    return value
