"""The edits of a notebook within one transaction.

An editor belongs to a transaction that holds the document's lock; `DocumentStore.edit` makes it
and sees to it that what it changed is stored before the commit.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pycrdt import Array
from sqlalchemy import bindparam, update

from app.db.engine import Transaction
from app.documents import load, project, values
from app.documents import replace as replacing
from app.documents.memory import CellState, NotebookMemory, Tail, new_youtput
from app.documents.stream import StreamText
from models import Cell, Output

_OUTPUTS: Any = Output.__table__
_DETACH = update(_OUTPUTS).where(_OUTPUTS.c.cell_id == bindparam("shown_in")).values(cell_id=None)


class NotebookEditor:
    """Edits one notebook; each method is one Yjs transaction.

    Methods about an execution do nothing, and say so by returning False, when the cell has gone
    or has been run again since: what a former run says is not shown.
    """

    def __init__(
        self, tx: Transaction, memory: NotebookMemory, *, origin: str, actor_id: uuid.UUID | None
    ) -> None:
        self._tx = tx
        self._memory = memory
        self.origin = origin
        self.actor_id = actor_id
        self.undoes: list[int] | None = None

    @property
    def document_id(self) -> uuid.UUID:
        """The document's id."""
        return self._memory.document_id

    @property
    def path(self) -> str:
        """The path of the document's file."""
        return self._memory.path

    @property
    def version(self) -> int:
        """The version that is stored, raised by `flush`."""
        return self._memory.version

    @property
    def memory(self) -> NotebookMemory:
        """The document in memory."""
        return self._memory

    def running(self) -> set[str]:
        """Return the ids of cells with a queued or running execution."""
        return self._memory.running()

    def notebook(self) -> dict[str, Any]:
        """Return the notebook as it is now, every cell with its id."""
        return self._memory.content()

    async def flush(self) -> None:
        """Store the edits made so far; done before the commit by itself."""
        await self.flush_with_others()
        await self._tx.write_now()

    async def flush_with_others(self) -> None:
        """Store the edits made so far, part of them with `Transaction.write_with_others`."""
        await project.flush(
            self._tx,
            self._memory,
            origin=self.origin,
            actor_id=self.actor_id,
            undoes=self.undoes,
        )

    def cell_ids(self) -> list[str]:
        """Return the ids of the cells in the notebook's order."""
        return list(self._memory.order)

    def cell(self, cell_id: str, *, outputs: bool = False) -> dict[str, Any] | None:
        """Return a cell as nbformat has it, without its outputs unless asked for; None if gone."""
        state = self._memory.states.get(cell_id)
        return None if state is None else self._memory.cell(state, outputs=outputs)

    def row(self, cell_id: str) -> Cell | None:
        """Return a cell's row as it will be stored; it belongs to no session. None if gone.

        Output rows shown in the cell refer to its `id`, which exists in the database unless the
        cell was made in this very transaction.
        """
        state = self._memory.states.get(cell_id)
        return None if state is None else state.row

    async def queue_execution(self, cell_id: str, execution_id: uuid.UUID) -> bool:
        """Make an execution the cell's latest, waiting: its outputs stay until it begins."""
        state = self._memory.states.get(cell_id)
        if state is None or state.row.cell_type != "code":
            return False
        self._set_execution(state, execution_id)
        with self._memory.edit():
            state.ymap["execution_state"] = "running"
        return True

    async def begin_execution(self, cell_id: str, execution_id: uuid.UUID) -> bool:
        """Make an execution the cell's latest, running: outputs and count are cleared.

        What it will say is trusted, as of a cell that JupyterLab runs itself.
        """
        state = self._memory.states.get(cell_id)
        if state is None or state.row.cell_type != "code":
            return False
        self._set_execution(state, execution_id)
        await self._detach_outputs(state)
        with self._memory.edit(own_outputs=True):
            _clear(state)
            if state.row.execution_count is not None or "execution_count" not in state.ymap:
                state.ymap["execution_count"] = None
            # Always written, so that other processes see that the row changed.
            state.ymap["execution_state"] = "running"
            if state.row.metadata_.get("trusted") is not True:
                replacing.set_metadata(state.ymap, {**state.row.metadata_, "trusted": True})
        return True

    async def end_execution(
        self, cell_id: str, execution_id: uuid.UUID, execution_count: int | None
    ) -> bool:
        """Show that an execution has ended, with its count.

        Without a count the one that is shown stays: none once the execution has begun, and that
        of the former run, as its outputs, when it never did.
        """
        state = self._latest(cell_id, execution_id)
        if state is None:
            return False
        with self._memory.edit():
            if execution_count is not None:
                state.ymap["execution_count"] = values.to_y(execution_count)
            state.ymap["execution_state"] = "idle"
        return True

    @contextmanager
    def appending(self) -> Iterator[None]:
        """Make what is appended within it one Yjs transaction; nothing else may be done there.

        Each transaction's event walks the whole list of outputs: one for each output is quadratic.
        """
        with self._memory.edit(own_outputs=True):
            yield

    def append_output(
        self,
        cell_id: str,
        execution_id: uuid.UUID,
        output: dict[str, Any],
        *,
        display_id: str | None = None,
        kernel_id: str | None = None,
    ) -> bool:
        """Show one more output, or one more piece of the stream that is last.

        The caller adds the `Output` row with `cell_id = row(cell_id).id`, in the same order: with
        `Transaction.write_with_others`, or after `write_now`.
        """
        state = self._latest(cell_id, execution_id)
        if state is None or state.row.cell_type != "code":
            return False
        if output.get("output_type") == "stream":
            self._append_stream(state, execution_id, output)
            return True
        self._append(state, new_youtput(output))
        state.tail = None
        if display_id is not None:
            place = len(state.youtputs) - 1
            state.displays.setdefault((kernel_id or "", display_id), set()).add(place)
        return True

    def _append_stream(
        self, state: CellState, execution_id: uuid.UUID, output: dict[str, Any]
    ) -> None:
        memory, name = self._memory, str(output.get("name", "stdout"))
        tail = state.tail
        if tail is None or (tail.execution_id, tail.name) != (execution_id, name):
            self._append(state, new_youtput({"output_type": "stream", "name": name, "text": ""}))
            youtputs = state.youtputs
            youtput = youtputs[len(youtputs) - 1]
            tail = state.tail = Tail(execution_id, youtput, StreamText())
        tail.text.feed(values.to_text(output.get("text", "")))
        memory.streaming.add(state.row.cell_id)

    def _append(self, state: CellState, youtput: Any) -> None:
        self._memory.store_stream(state)
        with self._memory.edit(own_outputs=True):
            if state.youtputs is None:
                state.ymap["outputs"] = Array()
            state.youtputs.append(youtput)

    async def clear_outputs(self, cell_id: str, execution_id: uuid.UUID) -> bool:
        """Show no outputs any more; their rows stay with their execution."""
        state = self._latest(cell_id, execution_id)
        if state is None or state.row.cell_type != "code":
            return False
        await self._detach_outputs(state)
        with self._memory.edit(own_outputs=True):
            _clear(state)
        return True

    async def update_display(
        self,
        kernel_id: str,
        display_id: str,
        data: dict[str, Any],
        metadata: dict[str, Any],
    ) -> int:
        """Replace data and metadata of every output shown with a display id; return how many.

        The caller writes the rows, which other documents and former executions have too.
        """
        await load.load_displays(self._tx, self._memory)
        count = 0
        for state in self._memory.states.values():
            places = state.displays.get((kernel_id, display_id))
            if not places:
                continue
            self._show_anew(state, places, {"data": data, "metadata": metadata})
            count += len(places)
        return count

    def _show_anew(self, state: CellState, places: set[int], changed: dict[str, Any]) -> None:
        """Change outputs, putting them and all that follow into the list anew.

        JupyterLab heeds changes of the list alone, and takes every insertion for one at its end.
        """
        self._memory.store_stream(state)
        youtputs, first = state.youtputs, min(places)
        shown = self._memory.outputs(state)[first:]
        for place in places:
            shown[place - first] |= changed
        with self._memory.edit(own_outputs=True):
            del youtputs[first:]
            for output in shown:
                youtputs.append(new_youtput(output))
        if state.tail is not None:
            last = youtputs[len(youtputs) - 1]
            state.tail = Tail(state.tail.execution_id, last, state.tail.text)

    def replace(self, notebook: dict[str, Any]) -> None:
        """Make the document equal to an nbformat 4 notebook, with as few edits as possible."""
        known = [
            (cell_id, state.row.cell_type, state.row.source)
            for cell_id, state in ((key, self._memory.states[key]) for key in self._memory.order)
        ]
        cells = replacing.identify(notebook["cells"], known)
        replacing.replace(self._memory, {**notebook, "cells": cells})

    def apply_update(self, update: bytes) -> None:
        """Apply a Yjs update that came from outside (a room)."""
        self._memory.store_streams()
        with self._memory.edit():
            self._memory.doc.apply_update(update)

    def _latest(self, cell_id: str, execution_id: uuid.UUID) -> CellState | None:
        state = self._memory.states.get(cell_id)
        return state if state is not None and state.row.execution_id == execution_id else None

    def _set_execution(self, state: CellState, execution_id: uuid.UUID) -> None:
        if state.row.execution_id != execution_id:
            state.row.execution_id = execution_id
            state.changed.add("execution_id")
            self._memory.note_changed(state)

    async def _detach_outputs(self, state: CellState) -> None:
        """Let no output row be shown in the cell; rows added before in this transaction too.

        For a recorder, which the policies do not bind: others may not see all these rows.
        """
        if not state.youtputs:
            return
        await self._tx.flush()
        await self._tx.write_with_others(_DETACH, {"shown_in": state.row.id})
        self._memory.streaming.discard(state.row.cell_id)
        state.forget_outputs()


def _clear(state: CellState) -> None:
    youtputs = state.youtputs
    if youtputs is not None and len(youtputs):
        del youtputs[:]
