"""Undo and redo for each user, over HTTP: from the stored updates, whoever made them and where.

What each update did to texts, cells and fields is read off the document before and after it; a
user's updates form steps, of which the last one not undone is taken back. An undo is an update
like any other, whose row says what it took back; so another process, or the next one, finds the
same steps. See docs/decisions/0015.
"""

import uuid
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from app.db.engine import Database, Transaction
from app.documents import queries, updates
from app.documents.editor import NotebookEditor
from app.documents.memory import NotebookMemory
from app.documents.store import DocumentStore
from app.documents.text import TextEditor, TextMemory
from app.documents.undo_state import METADATA, Authors, Entry, UndoState

# Typing with shorter pauses is one step, as in editors.
_PAUSE = timedelta(milliseconds=500)
# Documents whose history is kept in memory.
_CACHED = 4
_STEPS_ORIGINS = ("api", "room", "restore")
# A Yjs update that does nothing.
_NO_EDIT = b"\x00\x00"
_TEXT = ""  # the "cell" of a text file


@dataclass(frozen=True)
class Step:
    """Updates that are taken back together."""

    versions: tuple[int, ...]
    last_at: datetime
    joins: bool


@dataclass
class _Steps:
    """What a user can undo and redo, the latest last."""

    undo: list[Step]
    redo: list[Step]


class UndoHistory:
    """A document's history as undo needs it, brought up to a version."""

    def __init__(self, document_id: uuid.UUID, kind: str, compacted_version: int) -> None:
        self.compacted_version = compacted_version
        self._memory: NotebookMemory | TextMemory
        self._memory = (
            NotebookMemory(document_id) if kind == "notebook" else TextMemory(document_id)
        )
        self.state = UndoState()
        self._entries: dict[int, Entry] = {}
        self._authors: Authors = {}
        self._steps: dict[uuid.UUID | None, _Steps] = {}
        self.touched: dict[int, dict[str, list[str]]] = {}

    @property
    def version(self) -> int:
        """The version up to which it is known."""
        return self._memory.version

    async def start(self, tx: Transaction) -> None:
        """Begin with the document as compaction left it: what was before cannot be undone."""
        memory = self._memory
        await updates.replay(tx, memory, self.compacted_version)
        memory.watch()
        if isinstance(memory, NotebookMemory):
            with memory.doc.transaction():
                memory.adopt_all()
        self._take(Entry(self.compacted_version, None), None)

    async def catch_up(self, tx: Transaction, version: int) -> None:
        """Go through the updates up to a version."""
        query = queries.history_after(self._memory.document_id, self.version, version)
        for row in (await tx.execute(query)).all():
            entry = Entry(row.version, row.actor_id)
            if row.undoes:
                self._take_back(self.state, row.undoes, entry)
            touched = self._apply(row.update)
            self._take(entry, touched)
            self._memory.version = row.version
            self.touched[row.version] = entry.summary()
            for numbers in entry.inserted.values():
                for number in numbers:
                    self._authors.setdefault(number, (row.version, row.actor_id))
            if row.undoes or (row.origin in _STEPS_ORIGINS and entry.did_anything()):
                self._entries[row.version] = entry
                self._note(row.actor_id, row)
        self._memory.version = max(self._memory.version, version)

    def _apply(self, update: bytes) -> set[str]:
        memory = self._memory
        if isinstance(memory, TextMemory):
            memory.doc.apply_update(update)
            touched = {_TEXT}
        else:
            with memory.doc.transaction():
                memory.doc.apply_update(update)
            touched = memory.settle()
            memory.removed.clear()
            memory.pop_changed()
            memory.pop_outputs_changed()
        memory.updates.clear()
        return touched

    def _take(self, entry: Entry, touched: set[str] | None) -> None:
        """Read off the document what is other than before; of all cells without `touched`."""
        memory, state = self._memory, self.state
        if isinstance(memory, TextMemory):
            state.take_text(_TEXT, memory.content(), entry)
            return
        state.take_order(memory.order, entry)
        for cell_id in memory.order if touched is None else touched & memory.states.keys():
            cell = memory.cell(memory.states[cell_id])
            state.take_text(cell_id, cell["source"], entry)
            state.take_fields(cell_id, _fields(cell), entry)
        row = memory.row
        values = {f"{METADATA}{key}": value for key, value in row.metadata_.items()}
        state.take_fields(None, values, entry)

    def _take_back(self, state: UndoState, versions: list[int], entry: Entry) -> None:
        for version in sorted(versions, reverse=True):
            old = self._entries.get(version)
            if old is not None:
                state.take_back(old, entry, self._authors)

    def _note(self, actor_id: uuid.UUID | None, row: Any) -> None:
        """Let a user's steps know of an update."""
        steps = self._steps.setdefault(actor_id, _Steps([], []))
        step = Step((row.version,), row.created_at, joins=row.origin == "room")
        if row.origin in _STEPS_ORIGINS:
            last = steps.undo[-1] if steps.undo else None
            if last and last.joins and step.joins and step.last_at - last.last_at < _PAUSE:
                steps.undo[-1] = Step((*last.versions, row.version), step.last_at, joins=True)
            else:
                steps.undo.append(step)
            steps.redo.clear()
            return
        gone = set(row.undoes or ())
        source, target = (
            (steps.undo, steps.redo) if row.origin == "undo" else (steps.redo, steps.undo)
        )
        source[:] = [one for one in source if not gone & set(one.versions)]
        target.append(step)

    def counts(self, actor_id: uuid.UUID) -> tuple[int, int]:
        """Return how many steps a user can undo and redo."""
        steps = self._steps.get(actor_id)
        return (len(steps.undo), len(steps.redo)) if steps else (0, 0)

    def take_back(
        self, actor_id: uuid.UUID, *, redo: bool, steps: int
    ) -> tuple[UndoState, Entry, list[int]]:
        """Return the state without a user's last steps, what that does, and their versions.

        Steps of which nothing is left to take back go along uncounted.
        """
        known = self._steps.get(actor_id, _Steps([], []))
        stack = known.redo if redo else known.undo
        state, entry = self.state.copy(), Entry(0, actor_id)
        versions: list[int] = []
        for step in reversed(stack):
            if steps <= 0:
                break
            one = Entry(0, actor_id)
            self._take_back(state, list(step.versions), one)
            versions += step.versions
            steps -= one.did_anything()
            _add(entry, one)
        return state, entry, sorted(versions)


def _add(entry: Entry, one: Entry) -> None:
    """Let an entry tell of the cells that another touched too."""
    for cell_id in (*one.inserted, *one.deleted):
        entry.inserted.setdefault(cell_id, set())
    entry.cells_inserted |= one.cells_inserted
    entry.cells_deleted |= one.cells_deleted
    entry.moved |= one.moved
    entry.fields |= one.fields


def _fields(cell: dict[str, Any]) -> dict[str, Any]:
    found = {f"{METADATA}{key}": value for key, value in cell["metadata"].items()}
    found["cell_type"] = cell["cell_type"]
    found["attachments"] = cell.get("attachments")
    if cell.get("outputs"):
        found["outputs"] = cell["outputs"], cell.get("execution_count")
    return found


class Undo:
    """Undoes and redoes users' edits; keeps the history of a few documents in memory."""

    def __init__(self, database: Database, store: DocumentStore) -> None:
        self._database = database
        self._store = store
        self._histories: OrderedDict[uuid.UUID, UndoHistory] = OrderedDict()

    async def counts(self, document_id: uuid.UUID, actor_id: uuid.UUID) -> dict[str, int]:
        """Return how many steps a user can undo and redo; NotFoundError without a document."""
        async with self._database.transaction(as_server=True) as tx:
            editor = await self._store.edit_any(tx, document_id, origin="api", actor_id=actor_id)
            history = await self._history(tx, editor)
        undo, redo = history.counts(actor_id)
        return {"undo": undo, "redo": redo}

    async def changes(
        self, document_id: uuid.UUID
    ) -> tuple[UndoHistory, dict[int, dict[str, list[str]]]]:
        """Return a document's history, and by version what was done to which cell."""
        async with self._database.transaction(as_server=True) as tx:
            editor = await self._store.edit_any(tx, document_id, origin="api")
            history = await self._history(tx, editor)
        return history, history.touched

    async def perform(
        self, document_id: uuid.UUID, actor_id: uuid.UUID, *, redo: bool, steps: int
    ) -> dict[str, Any]:
        """Undo or redo a user's last steps; return the version and what is possible after it."""
        origin = "redo" if redo else "undo"
        async with self._database.transaction() as tx:
            editor = await self._store.edit_any(tx, document_id, origin=origin, actor_id=actor_id)
            before = editor.version
            history = await self._history(tx, editor)
            state, entry, versions = history.take_back(actor_id, redo=redo, steps=steps)
            editor.undoes = versions
            if isinstance(editor, TextEditor):
                if _TEXT in state.tracks:
                    editor.replace(state.tracks[_TEXT].text())
            elif entry.did_anything() or entry.inserted:
                editor.replace(_notebook(editor, state, entry))
            await editor.flush()
            done = int(editor.version > before)
            if versions and not done:
                # What these steps did is in cells that are gone. Were they not taken back, they
                # would be the last ones again, for ever.
                editor.memory.updates.append(_NO_EDIT)
                await editor.flush()
            version = editor.version
        answer = {"done": done, "version": version}
        return answer | await self.counts(document_id, actor_id)

    async def _history(self, tx: Transaction, editor: NotebookEditor | TextEditor) -> UndoHistory:
        """Return the history up to the version that an editor, with its lock, has."""
        document_id = editor.document_id
        compacted = (await tx.execute(queries.compacted_version(document_id))).scalar_one()
        history = self._histories.pop(document_id, None)
        if history is None or history.version > editor.version or history.version < compacted:
            kind = "notebook" if isinstance(editor, NotebookEditor) else "file"
            history = UndoHistory(document_id, kind, compacted)
            await history.start(tx)
        await history.catch_up(tx, editor.version)
        self._histories[document_id] = history
        if len(self._histories) > _CACHED:
            self._histories.popitem(last=False)
        return history


def _notebook(editor: NotebookEditor, state: UndoState, entry: Entry) -> dict[str, Any]:
    """Return the notebook as it is to be: as it is, but for what the entry touched."""
    notebook = editor.notebook()
    cells = {cell["id"]: cell for cell in notebook["cells"]}
    touched = {cell_id for cell_id, _ in entry.fields if cell_id is not None}
    touched |= entry.inserted.keys() | entry.deleted.keys() | entry.cells_inserted
    for cell_id in touched & state.cells:
        cells[cell_id] = _cell(cell_id, state, cells.get(cell_id))
    metadata = notebook["metadata"]
    for owner, name in entry.fields:
        if owner is None:
            _set(metadata, name.removeprefix(METADATA), state.fields.get((None, name)))
    order = [cell_id for cell_id in state.order() if cell_id in cells]
    return {**notebook, "metadata": metadata, "cells": [cells[cell_id] for cell_id in order]}


def _cell(cell_id: str, state: UndoState, now: dict[str, Any] | None) -> dict[str, Any]:
    """Return a cell as it is to be."""
    fields = {name: value for (key, name), value in state.fields.items() if key == cell_id}
    cell = dict(now or {"id": cell_id})
    cell["source"] = state.tracks[cell_id].text() if cell_id in state.tracks else ""
    cell["cell_type"] = fields.get("cell_type", "code")
    cell["metadata"] = {
        name.removeprefix(METADATA): value
        for name, value in fields.items()
        if name.startswith(METADATA)
    }
    _set(cell, "attachments", fields.get("attachments"))
    if cell["cell_type"] == "code":
        shown: tuple[Any, Any] = ([], cell.get("execution_count"))
        cell["outputs"], cell["execution_count"] = fields.get("outputs", shown)
    else:
        cell.pop("outputs", None)
        cell.pop("execution_count", None)
    return cell


def _set(target: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        target.pop(key, None)
    else:
        target[key] = value
