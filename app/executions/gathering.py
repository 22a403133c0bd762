"""The body of jupyter-collaboration's own executor, `{"cell_id", "document_id"}`.

"Run all" sends one such request for each cell, all at the same time and over several
connections, so they arrive in any order. Those that come within a moment are put in the order of
the notebook. The edit that a person typed just before comes by another way, the room, and has
mostly arrived by then.
"""

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.datastructures import State

from app.auth.access import require
from app.auth.identity import Identity
from app.documents.editor import NotebookEditor
from app.errors import NotFoundError
from app.executions.queries import ExecutionRow
from app.executions.submit import Options, run_chosen

_MOMENT_SECONDS = 0.02
# How long a cell may be on its way that was inserted just before it was run.
_ARRIVAL_SECONDS = 2.0
_LOOK_SECONDS = 0.1

Key = tuple[str, str, Any]


def is_built_in(body: dict[str, Any]) -> bool:
    """Tell whether a body is that of jupyter-collaboration's executor."""
    return body.keys() == {"cell_id", "document_id"} and all(
        isinstance(value, str) for value in body.values()
    )


class Gathering:
    """Puts requests for cells that come at the same moment in the notebook's order."""

    def __init__(self) -> None:
        self._batches: dict[Key, _Batch] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(
        self, state: State, identity: Identity, kernel_id: str, body: dict[str, Any]
    ) -> ExecutionRow:
        """Queue a cell with those that come at the same moment; returns its execution."""
        state.kernels.get(kernel_id).require_alive()
        await require(state.database, identity, "execute", "documents", body["document_id"])
        key = (kernel_id, body["document_id"], identity.id)
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = _Batch(state, identity, kernel_id, body["document_id"])
            task = asyncio.create_task(self._submit(key, batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        future: asyncio.Future[ExecutionRow] = asyncio.get_running_loop().create_future()
        batch.waiting.setdefault(body["cell_id"], []).append(future)
        return await future

    async def _submit(self, key: Key, batch: "_Batch") -> None:
        await asyncio.sleep(_MOMENT_SECONDS)
        del self._batches[key]
        await batch.submit()


@dataclass
class _Batch:
    """What is asked of one kernel and document by one person at the same moment."""

    state: State
    identity: Identity
    kernel_id: str
    document_id: str
    waiting: dict[str, list[asyncio.Future[ExecutionRow]]] = field(default_factory=dict)

    async def submit(self) -> None:
        """Queue all cells, waiting a little for those that the document does not have yet."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _ARRIVAL_SECONDS
        try:
            document = await self.state.documents.find(document_id=self.document_id)
            while self.waiting:
                late = loop.time() >= deadline
                rows = await run_chosen(
                    self.state,
                    self.identity,
                    self.kernel_id,
                    document,
                    partial(self._choose, late=late),
                    options=Options(),
                )
                for row in rows:
                    self._settle(str(row.execution.cell_id), row)
                if late:
                    for cell_id in list(self.waiting):
                        self._settle(cell_id, NotFoundError(f"Cell does not exist: {cell_id}"))
                elif self.waiting:
                    await asyncio.sleep(_LOOK_SECONDS)
        except Exception as error:  # noqa: BLE001 (each request answers with it)
            for cell_id in list(self.waiting):
                self._settle(cell_id, error)

    def _choose(self, editor: NotebookEditor, *, late: bool) -> list[str]:
        """The cells to queue now: all in order, or none while one is on its way."""
        known = editor.cell_ids()
        found = [cell_id for cell_id in known if cell_id in self.waiting]
        return found if late or len(found) == len(self.waiting) else []

    def _settle(self, cell_id: str, outcome: ExecutionRow | Exception) -> None:
        for future in self.waiting.pop(cell_id):
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
