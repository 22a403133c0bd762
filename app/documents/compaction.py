"""Keeping `document_updates` small: what is older than undo goes back is joined.

Each run of updates by one person in the same way within some minutes becomes one update, which
holds all that they hold; so the Yjs document keeps its identity, and a browser that was away for
long merges as ever. At the boundary the document's whole state is kept as a snapshot: undo, and
looking at what was, begin there. What is older than the history's limit is dropped; named versions
have states of their own.
"""

import asyncio
import logging
import uuid
from datetime import timedelta
from typing import Any

from pycrdt import merge_updates
from sqlalchemy import delete, func, insert, select, update

from app.db.engine import Database, Transaction
from app.documents import queries, updates
from app.documents.merge_state import MergeState
from models import Document, DocumentSnapshot, DocumentUpdate

log = logging.getLogger(__name__)

# Fewer than these are not worth it.
_WORTH = 200
_RUN = timedelta(minutes=5)
_INTERVAL_SECONDS = 3600
_SAVE = "save"


class Compaction:
    """Compacts documents, each in a transaction of its own."""

    def __init__(
        self,
        database: Database,
        *,
        undo_days: float,
        history_days: float,
        worth: int = _WORTH,
    ) -> None:
        self._database = database
        self._worth = worth
        self._undo = timedelta(days=undo_days)
        self._history = timedelta(days=max(history_days, undo_days))
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Compact now and then."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL_SECONDS)
            try:
                await self.run()
            except Exception:
                log.exception("documents are not compacted now")

    async def run(self) -> int:
        """Compact the documents for which it is worth it; return how many."""
        async with self._database.read(recorder=True) as tx:
            query = queries.documents_to_compact(self._undo, self._history, self._worth)
            found = list((await tx.execute(query)).scalars())
        for document_id in found:
            async with self._database.transaction(recorder=True) as tx:
                await self._compact(tx, document_id)
        return len(found)

    async def _compact(self, tx: Transaction, document_id: uuid.UUID) -> None:
        locked = await tx.execute(queries.locked_version(), {"document_id": document_id})
        if locked.one_or_none() is None:
            return
        former = (await tx.execute(queries.compacted_version(document_id))).scalar_one()
        boundary = (
            await tx.execute(
                select(func.max(DocumentUpdate.version)).where(
                    DocumentUpdate.document_id == document_id,
                    DocumentUpdate.created_at < func.now() - self._undo,
                )
            )
        ).scalar_one()
        if boundary is not None and boundary > former:
            await self._move_boundary(tx, document_id, former, boundary)
        dropped = await tx.execute(
            delete(DocumentUpdate)
            .where(
                DocumentUpdate.document_id == document_id,
                DocumentUpdate.version
                <= select(Document.compacted_version)
                .where(Document.id == document_id)
                .scalar_subquery(),
                DocumentUpdate.created_at < func.now() - self._history,
            )
            .returning(DocumentUpdate.version),
            execution_options={"synchronize_session": False},
        )
        log.info("document %s: %d old updates dropped", document_id, len(dropped.all()))

    async def _move_boundary(
        self, tx: Transaction, document_id: uuid.UUID, former: int, boundary: int
    ) -> None:
        memory = MergeState(document_id)
        await updates.replay(tx, memory, boundary)
        await tx.execute(
            delete(DocumentSnapshot).where(
                DocumentSnapshot.document_id == document_id,
                DocumentSnapshot.version <= boundary,
            ),
            execution_options={"synchronize_session": False},
        )
        await tx.execute(
            insert(DocumentSnapshot).values(
                document_id=document_id, version=boundary, state=memory.doc.get_update()
            )
        )
        await tx.execute(
            update(Document).where(Document.id == document_id).values(compacted_version=boundary),
            execution_options={"synchronize_session": False},
        )
        rows = (await tx.execute(queries.history_after(document_id, former, boundary))).all()
        for run in _runs(rows):
            if len(run) > 1:
                await _join(tx, document_id, run)


def _runs(rows: Any) -> list[list[Any]]:
    """Return updates in runs of one person, in one way, within some minutes.

    What the server says of a saved file belongs to the run before it.
    """
    found: list[list[Any]] = []
    for row in rows:
        first = found[-1][0] if found else None
        if first is not None and (
            row.origin == _SAVE
            or (
                (row.actor_id, row.origin) == (first.actor_id, first.origin)
                and row.created_at - first.created_at <= _RUN
            )
        ):
            found[-1].append(row)
        else:
            found.append([row])
    return found


async def _join(tx: Transaction, document_id: uuid.UUID, run: list[Any]) -> None:
    """Make the last update of a run all of it."""
    last = run[-1].version
    await tx.execute(
        delete(DocumentUpdate).where(
            DocumentUpdate.document_id == document_id,
            DocumentUpdate.version.in_([row.version for row in run[:-1]]),
        ),
        execution_options={"synchronize_session": False},
    )
    await tx.execute(
        update(DocumentUpdate)
        .where(DocumentUpdate.document_id == document_id, DocumentUpdate.version == last)
        .values(
            update=merge_updates(*[row.update for row in run]),
            edits=len(run),
            actor_id=run[0].actor_id,
            origin=run[0].origin,
        ),
        execution_options={"synchronize_session": False},
    )
