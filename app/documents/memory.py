"""A notebook in memory: its Yjs document and, for each cell, the row that is its projection.

The shape of the document is `jupyter_ydoc.YNotebook`'s (which is not used itself: it adds
metadata, replaces text whole and keeps an undo history). Events of the document say what an edit
touched, whoever made it; `settle` brings the rows in memory up to date with it and remembers what
to write. Nothing here reads or writes the database.
"""

import copy
import itertools
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pycrdt import Array, Map, Text

from app.documents import values
from app.documents.merge_state import MergeState
from app.documents.outputs import rendered
from app.documents.stream import StreamText
from models import Cell, Notebook

_CELL_COLUMNS = ("source", "cell_type", "metadata", "attachments", "execution_count")
_NOT_EXTRA = {*_CELL_COLUMNS, "id", "outputs", "execution_state"}
_EVERYTHING = {*_CELL_COLUMNS, "outputs", "execution_state", "extra"}
_CELL_TYPES = ("code", "markdown", "raw")
_BLOCK = 16 * 1024
_ID_LIMIT = 500  # an index's entries are bounded
# In the order of cells: what a client put there that is none; it is taken out again.
_STRANGER = ""
_states = itertools.count()


class Tail:
    """The stream at the end of a cell's outputs, which the next piece may continue."""

    def __init__(self, execution_id: uuid.UUID, youtput: Any, text: StreamText) -> None:
        self.execution_id = execution_id
        self.name = youtput["name"]
        self.text = text
        self._youtput = youtput
        self._ytext = youtput["text"]
        self._block = _BLOCK

    def store(self) -> None:
        """Put what was said since the last time into the document.

        Yjs joins texts that one client adds without doing anything in between, and counts the
        whole again each time (1 ms for 2 MB); writing the name again ends such a block.
        """
        splices = self.text.take()
        if self._block >= _BLOCK and splices:
            self._youtput["name"] = self.name
            self._block = 0
        self._block += sum(len(splice.text) for splice in splices)
        apply_splices(self._ytext, splices)


class CellState:
    """One cell: its Yjs map, its row, and what is known of its outputs.

    `changed` are the row's attributes to be written. `displays` maps (kernel id, display id) to
    places in the outputs; None as long as nobody asked. `stamp` is another number, which no cell
    of this process had before, whenever the cell may be another one than it was.
    """

    __slots__ = ("changed", "displays", "is_new", "row", "stamp", "tail", "ymap")

    def __init__(self, ymap: Any, row: Cell) -> None:
        self.ymap = ymap
        self.row = row
        self.changed: set[str] = set()
        self.is_new = False
        self.tail: Tail | None = None
        self.displays: dict[tuple[str, str], set[int]] = {}
        self.stamp = next(_states)

    def note_touched(self) -> None:
        """Remember that the cell may be another one now."""
        self.stamp = next(_states)

    @property
    def youtputs(self) -> Any:
        """The cell's outputs; None when it has none (markdown, raw)."""
        found = self.ymap.get("outputs")
        return found if isinstance(found, Array) else None

    @property
    def running(self) -> bool:
        """Whether an execution of the cell is queued or running."""
        return self.row.execution_state == "running"

    def forget_outputs(self) -> None:
        """Forget what was known of outputs that have gone."""
        self.tail = None
        self.displays = {}


class NotebookMemory(MergeState):
    """The document, brought up to `version`, and the states of its cells in order."""

    def __init__(self, document_id: uuid.UUID) -> None:
        super().__init__(document_id)
        self.meta = self.doc.get("meta", type=Map)
        self.cells = self.doc.get("cells", type=Array)
        self.row = Notebook(id=document_id, nbformat=4, nbformat_minor=5, metadata_={}, extra={})
        self.row_changed: set[str] = set()
        self.order: list[str] = []
        self.states: dict[str, CellState] = {}
        # What happened since the last flush.
        self.removed: dict[str, CellState] = {}
        self.order_changed = False
        self.streaming: set[str] = set()
        self._changed_cells: set[str] = set()
        self._changed_outputs: set[str] = set()
        # Whether `displays` of all cells are known.
        self.displays_known = False
        self._own_outputs = False
        self._editing = False
        self._deltas: list[list[tuple[str, Any]]] = []
        self._touched: list[tuple[int, set[str]]] = []
        self._meta_touched = False
        self._expected: dict[str, list[dict[str, Any]]] = {}
        self._subscriptions: list[Any] = []

    def adopt_all(self) -> None:
        """Take the cells of a document that was filled before it was watched; rows are made up."""
        for ymap in self.cells:
            cell_id = self._adopt(ymap, stored=True)
            self.order.append(cell_id)
            self._read_cell(self.states[cell_id], _EVERYTHING, stored=False)
        self._read_meta(stored=True)

    def expect(self, notebook: dict[str, Any]) -> None:
        """Make the rows, and the states, of an empty document that is about to hold a notebook.

        So they can be written while the document is built (`hold`). What is in no row, the cells'
        outputs, is read from the notebook as long as this lasts.
        """
        for cell in notebook["cells"]:
            cell_id = cell["id"]
            state = CellState(None, _new_row(self.document_id, cell_id))
            state.is_new = True
            for name, value in _columns(_ycontent(cell), _EVERYTHING).items():
                setattr(state.row, name, value)
            self.states[cell_id] = state
            self.order.append(cell_id)
            self.note_changed(state)
            if cell["cell_type"] == "code":
                self._changed_outputs.add(cell_id)
                self._expected[cell_id] = cell.get("outputs", [])
        self.order_changed = True
        self._take_meta(
            values.shown({key: value for key, value in notebook.items() if key != "cells"}),
            stored=False,
        )

    def hold(self) -> bytes:
        """Take the cells that were expected, which the document holds now; return its state."""
        for cell_id, ymap in zip(self.order, self.cells, strict=True):
            self.states[cell_id].ymap = ymap
        self._expected.clear()
        return self.doc.get_update()

    def unwatch(self) -> None:
        """Follow the document's events no more."""
        for shared, subscription in zip(
            (self.doc, self.cells, self.meta), self._subscriptions, strict=True
        ):
            shared.unobserve(subscription)
        self._subscriptions = []

    def watch(self) -> None:
        """Start to follow the document's events."""
        self._subscriptions = [
            self.doc.observe(lambda event: self.updates.append(event.update)),
            self.cells.observe_deep(self._cells_event),
            self.meta.observe_deep(self._meta_event),
        ]

    @contextmanager
    def edit(self, *, own_outputs: bool = False) -> Iterator[None]:
        """One Yjs transaction, settled at its end; within another one, a part of that.

        With `own_outputs` the caller sees to the rows of the outputs that it touches. Edits with
        and without it must not be nested.
        """
        if self._editing:
            assert own_outputs == self._own_outputs
            yield
            return
        self._own_outputs = own_outputs
        self._editing = True
        try:
            with self.doc.transaction():
                yield
            self.settle()
        finally:
            self._own_outputs = self._editing = False

    def _cells_event(self, events: list[Any]) -> None:
        for event in events:
            path = event.path
            if not path:
                self._deltas.append([next(iter(part.items())) for part in event.delta])
            elif len(path) == 1:
                self._touched.append((path[0], set(event.keys)))
            else:
                self._touched.append((path[0], {path[1]}))

    def _meta_event(self, _events: list[Any]) -> None:
        self._meta_touched = True

    def settle(self, *, stored: bool = False) -> set[str]:
        """Bring rows in memory up to date with the events; return the ids of touched cells.

        With `stored` the events come from updates that another process stored with their rows:
        nothing is to be written, and the caller reads the rows of the touched cells again.
        """
        inserted: list[str] = []
        for delta in self._deltas:
            inserted.extend(self._reorder(delta, stored=stored))
        if self._deltas:
            self.order_changed = True
        touched: dict[str, set[str]] = {}
        for index, keys in self._touched:
            touched.setdefault(self.order[index], set()).update(keys)
        touched.pop(_STRANGER, None)
        reordered = bool(self._deltas)
        self._deltas, self._touched = [], []
        present = [cell_id for cell_id in inserted if cell_id in self.states]
        for cell_id in present:
            touched[cell_id] = _EVERYTHING
        for cell_id, keys in touched.items():
            self.states[cell_id].note_touched()
            self._read_cell(self.states[cell_id], keys, stored=stored)
        if self._meta_touched:
            self._meta_touched = False
            self._read_meta(stored=stored)
        if reordered:
            self._remove_strangers()
        if self._touched or self._deltas:
            # A cell was given another id; its place means this order, not the next one.
            return set(touched) | self.settle(stored=stored)
        return set(touched)

    def _remove_strangers(self) -> None:
        """Take out of the cells what is no cell; that is an event of its own."""
        if _STRANGER not in self.order:
            return
        with self.doc.transaction():
            for place in range(len(self.order) - 1, -1, -1):
                if self.order[place] == _STRANGER:
                    del self.cells[place]

    def _reorder(self, delta: list[tuple[str, Any]], *, stored: bool) -> list[str]:
        """Apply the cell array's change to `order`; return the ids of inserted cells."""
        order: list[str] = []
        place = 0
        gone: list[str] = []
        inserted: list[tuple[int, Any]] = []
        for kind, value in delta:
            if kind == "retain":
                order.extend(self.order[place : place + value])
                place += value
            elif kind == "delete":
                gone.extend(self.order[place : place + value])
                place += value
            else:
                for ymap in value:
                    inserted.append((len(order), ymap))
                    order.append(_STRANGER)
        order.extend(self.order[place:])
        for cell_id in gone:
            if cell_id == _STRANGER:
                continue
            self.removed[cell_id] = self.states.pop(cell_id)
        for place, ymap in inserted:
            order[place] = self._adopt(ymap, stored=stored)
        self.order = order
        return [order[place] for place, _ in inserted]

    def _adopt(self, ymap: Any, *, stored: bool) -> str:
        if not isinstance(ymap, Map):
            return _STRANGER
        cell_id = storable_id(ymap.get("id"))
        if cell_id is None or cell_id in self.states:
            # Two clients moved one cell at once: Yjs keeps both copies.
            cell_id = str(uuid.uuid4())
            ymap["id"] = cell_id
        state = self.removed.pop(cell_id, None)
        if state is None:
            state = CellState(ymap, _new_row(self.document_id, cell_id))
            state.is_new = not stored
        else:
            state.ymap = ymap
        self.states[cell_id] = state
        self.note_changed(state)
        return cell_id

    def _read_cell(self, state: CellState, keys: set[str], *, stored: bool) -> None:
        if "id" in keys and state.ymap.get("id") != state.row.cell_id:
            # A client changed it; it is how rows, executions and people know the cell.
            state.ymap["id"] = state.row.cell_id
        if "outputs" in keys and not self._own_outputs:
            state.forget_outputs()
            self.displays_known = False
            if not stored:
                self._changed_outputs.add(state.row.cell_id)
        if stored or keys == {"outputs"}:
            return
        row, found = state.row, _columns(state.ymap, keys)
        changed = {
            name
            for name, value in found.items()
            if not values.same(values.shown(getattr(row, name)), value)
        }
        if changed & {"source", "cell_type"} and not state.is_new:
            row.version += 1
            state.changed.add("version")
        for name in changed:
            setattr(row, name, found[name])
        if changed:
            state.changed |= changed
            self.note_changed(state)

    def _read_meta(self, *, stored: bool) -> None:
        self._take_meta(values.from_y(self.meta.to_py()) or {}, stored=stored)

    def _take_meta(self, meta: dict[str, Any], *, stored: bool) -> None:
        found = {
            "nbformat": _format(meta.pop("nbformat", 4), 4),
            "nbformat_minor": _format(meta.pop("nbformat_minor", 5), 0),
            "metadata_": _dict(meta.pop("metadata", {})),
            "extra": meta,
        }
        for name, value in found.items():
            if not values.same(values.shown(getattr(self.row, name)), value):
                setattr(self.row, name, value)
                if not stored:
                    self.row_changed.add(name)

    def note_changed(self, state: CellState) -> None:
        """Remember that a cell's row is to be written."""
        self._changed_cells.add(state.row.cell_id)

    def pop_changed(self) -> list[str]:
        """Return the cells whose rows are to be written."""
        changed, self._changed_cells = self._changed_cells, set()
        return sorted(changed)

    def pop_outputs_changed(self) -> list[str]:
        """Return the cells whose output rows are to be compared with the document."""
        changed, self._changed_outputs = self._changed_outputs, set()
        return sorted(changed)

    # Reading

    def outputs(self, state: CellState) -> list[dict[str, Any]]:
        """Return a code cell's outputs as the document shows them."""
        if (expected := self._expected.get(state.row.cell_id)) is not None:
            return [values.shown(output) for output in expected]
        self.store_stream(state)
        youtputs = state.youtputs
        found = [] if youtputs is None else values.from_y(youtputs.to_py()) or []
        return [output for output in found if isinstance(output, dict)]

    def cell(self, state: CellState, *, outputs: bool = True) -> dict[str, Any]:
        """Return a cell as nbformat 4.5 has it; without its outputs it has no such key."""
        row = state.row
        cell: dict[str, Any] = {
            **copy.deepcopy(row.extra),
            "id": row.cell_id,
            "cell_type": row.cell_type,
            "metadata": copy.deepcopy(row.metadata_),
            "source": row.source,
        }
        if row.attachments is not None:
            cell["attachments"] = copy.deepcopy(row.attachments)
        if row.cell_type == "code":
            cell["execution_count"] = row.execution_count
            if outputs:
                cell["outputs"] = self.outputs(state)
        return cell

    def content(self) -> dict[str, Any]:
        """Return the whole notebook, every cell with its id."""
        return {
            **copy.deepcopy(self.row.extra),
            "nbformat": self.row.nbformat,
            "nbformat_minor": self.row.nbformat_minor,
            "metadata": copy.deepcopy(self.row.metadata_),
            "cells": [self.cell(self.states[cell_id]) for cell_id in self.order],
        }

    def stamps(self) -> list[int]:
        """Return the stamps of all cells in order; call it after `content`, which may change them.

        Equal stamps say that two cells, as `content` returned them, are equal.
        """
        return [self.states[cell_id].stamp for cell_id in self.order]

    def running(self) -> set[str]:
        """Return the ids of cells with a queued or running execution."""
        return {cell_id for cell_id, state in self.states.items() if state.running}

    # Streams

    def store_stream(self, state: CellState) -> None:
        """Put into the document what was said to the cell's stream since the last time."""
        if state.row.cell_id not in self.streaming:
            return
        self.streaming.discard(state.row.cell_id)
        tail = state.tail
        if tail is None or not tail.text.pending:
            return
        with self.edit(own_outputs=True):
            tail.store()

    def store_streams(self) -> None:
        """Do so for all cells."""
        for cell_id in list(self.streaming):
            if cell_id in self.states:
                self.store_stream(self.states[cell_id])
        self.streaming.clear()


def apply_splices(ytext: Any, splices: list[Any]) -> None:
    """Apply splices to a Yjs text, in their order."""
    for offset, deleted, text in splices:
        if deleted:
            del ytext[offset : offset + deleted]
        if text:
            ytext.insert(offset, text)


def new_ycell(cell: dict[str, Any]) -> Any:
    """Return a Yjs map for a cell with an id, in `jupyter_ydoc`'s shape."""
    content = _ycontent(cell)
    content["source"] = Text(content["source"])
    content["metadata"] = Map(content["metadata"])
    if cell["cell_type"] == "code":
        content["outputs"] = Array([new_youtput(output) for output in cell.get("outputs", [])])
    return Map(content)


def _ycontent(cell: dict[str, Any]) -> dict[str, Any]:
    """Return what a cell's Yjs map holds, but its outputs, as plain values."""
    content = {
        key: values.to_y(value)
        for key, value in cell.items()
        if key not in ("source", "metadata", "outputs", "execution_state")
    }
    content["source"] = values.to_text(cell.get("source", ""))
    content["metadata"] = values.to_y(cell.get("metadata", {}))
    if cell["cell_type"] == "code":
        content.setdefault("execution_count", None)
        content["execution_state"] = cell.get("execution_state", "idle")
    return content


def new_youtput(output: dict[str, Any], *, render: bool = False) -> Any:
    """Return a Yjs map for an output; the text of a stream is a Yjs text of its own."""
    output = rendered([output])[0] if render else output
    content = values.to_y(output)
    if output.get("output_type") == "stream" and isinstance(content.get("text"), str):
        content["text"] = Text(content["text"])
    return Map(content)


def _columns(ymap: Any, keys: set[str]) -> dict[str, Any]:
    """Return the row's attributes that the given keys of a cell's map decide."""
    found: dict[str, Any] = {}
    if keys & {"source", "cell_type"}:
        kind = ymap.get("cell_type")
        found["source"] = str(ymap.get("source") or "")
        found["cell_type"] = kind if kind in _CELL_TYPES else "raw"
    if "metadata" in keys:
        found["metadata_"] = _dict(_plain(ymap.get("metadata")))
    if "attachments" in keys:
        attachments = _plain(ymap.get("attachments"))
        # Any other kind, which a peer may have put there, has no place in a file.
        found["attachments"] = (
            {name: one for name, one in attachments.items() if isinstance(one, dict)}
            if isinstance(attachments, dict)
            else None
        )
    if keys & {"execution_count", "execution_state"}:
        found["execution_count"] = _count(ymap.get("execution_count"))
        found["execution_state"] = "running" if _runs(ymap) else "idle"
    if keys - _NOT_EXTRA:
        names = set(ymap.keys()) - _NOT_EXTRA
        found["extra"] = {name: _plain(ymap[name]) for name in names}
    return found


def _new_row(document_id: uuid.UUID, cell_id: str) -> Cell:
    return Cell(
        id=uuid.uuid4(),
        notebook_id=document_id,
        cell_id=cell_id,
        position=0,
        cell_type="raw",
        source="",
        version=1,
        metadata_={},
        attachments=None,
        extra={},
        execution_count=None,
        execution_state="idle",
        execution_id=None,
    )


def storable_id(value: Any) -> str | None:
    """Return the id that a client or file gave a cell, None when rows cannot hold it."""
    fits = isinstance(value, str) and 0 < len(value) <= _ID_LIMIT and "\x00" not in value
    return value if fits else None


def _plain(value: Any) -> Any:
    return values.from_y(value.to_py() if isinstance(value, Map | Array | Text) else value)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int | None:
    value = values.from_y(value)
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def _format(value: Any, default: int) -> int:
    number = _count(value)
    return number if number and 0 < number < 1000 else default


def _runs(ymap: Any) -> bool:
    return bool(ymap.get("execution_state") == "running")
