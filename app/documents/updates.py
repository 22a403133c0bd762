"""The stored updates of a document: appending one, replaying them, and snapshots of the whole.

What the updates mean for rows is not known here.
"""

import uuid
from typing import Any

from pycrdt import merge_updates
from sqlalchemy import delete, insert, select

from app.db.engine import Transaction
from app.db.together import parameters, row_insert, row_update
from app.documents import queries
from app.documents.merge_state import MergeState, Stored
from models import Document, DocumentSnapshot, DocumentUpdate

_SNAPSHOT_UPDATES = 1000
_SNAPSHOT_BYTES = 4 * 1024 * 1024
# A snapshot of a large document must be worth its bytes.
_SNAPSHOT_UPDATE_WORTH = 20 * 1024

# Core statements, made once: every edit runs them, and making them costs more than running them.
_DOCUMENTS: Any = Document.__table__
_RAISE_VERSION = row_update(_DOCUMENTS, ["version"])
_UPDATES: Any = DocumentUpdate.__table__
_APPEND_UPDATE = row_insert(
    _UPDATES, ["document_id", "version", "update", "actor_id", "origin", "undoes"]
)


async def append(
    tx: Transaction,
    memory: MergeState,
    *,
    origin: str,
    actor_id: uuid.UUID | None,
    undoes: list[int] | None = None,
    keep_whole: bool = False,
) -> None:
    """Store what was done since the last time as one update, and raise the version.

    Needs the document's row lock, and that there is something. It is written before the commit, or
    by `write_now`. Flushes. With `keep_whole` the update is the document's whole state, and the
    document keeps it.
    """
    await tx.flush()
    merged = memory.updates[0] if len(memory.updates) == 1 else merge_updates(*memory.updates)
    memory.updates.clear()
    memory.version += 1
    memory.forget_whole()
    if keep_whole:
        memory.keep_whole(merged)
    raised = {"id": memory.document_id, "version": memory.version}
    appended = {
        "document_id": memory.document_id,
        "version": memory.version,
        "update": merged,
        "actor_id": actor_id,
        "origin": origin,
        "undoes": undoes,
    }
    for write, table, values in (
        (_RAISE_VERSION, _DOCUMENTS, raised),
        (_APPEND_UPDATE, _UPDATES, appended),
    ):
        await tx.write_with_others(write, parameters(table, values))
    memory.stored.append(Stored(memory.version, merged))
    memory.updates_since_snapshot += 1
    memory.bytes_since_snapshot += len(merged)


async def replay(tx: Transaction, memory: MergeState, version: int) -> None:
    """Bring a new, empty document to the state that was stored at `version`."""
    snapshot = (
        await tx.execute(queries.latest_snapshot(memory.document_id, version))
    ).one_or_none()
    after = 0
    if snapshot is not None:
        after = snapshot.version
        memory.doc.apply_update(snapshot.state)
        memory.snapshot_bytes = len(snapshot.state)
    updates = (await tx.execute(queries.updates_after(memory.document_id, after, version))).all()
    with memory.doc.transaction():
        for stored in updates:
            memory.doc.apply_update(stored.update)
    memory.updates_since_snapshot = len(updates)
    memory.bytes_since_snapshot = sum(len(stored.update) for stored in updates)
    memory.version = version


async def apply_newer(tx: Transaction, memory: MergeState, version: int) -> None:
    """Apply what other processes stored after the document's version, up to `version`."""
    updates = (
        await tx.execute(queries.updates_after(memory.document_id, memory.version, version))
    ).all()
    with memory.doc.transaction():
        for stored in updates:
            memory.doc.apply_update(stored.update)
    memory.updates_since_snapshot += len(updates)
    memory.bytes_since_snapshot += sum(len(stored.update) for stored in updates)


async def write_snapshot(tx: Transaction, memory: MergeState) -> None:
    """Store the whole state if enough has happened since the last time.

    Snapshots before it go, but the one at which compaction ended.
    """
    updates = max(_SNAPSHOT_UPDATES, memory.snapshot_bytes // _SNAPSHOT_UPDATE_WORTH)
    size = max(_SNAPSHOT_BYTES, memory.snapshot_bytes)
    if memory.updates_since_snapshot < updates and memory.bytes_since_snapshot < size:
        return
    if memory.version == 1:
        # The update that loaded the file is the whole state: once is enough.
        memory.snapshot_bytes = memory.bytes_since_snapshot
        memory.updates_since_snapshot = memory.bytes_since_snapshot = 0
        return
    state = memory.doc.get_update()
    await tx.execute(
        insert(DocumentSnapshot).values(
            document_id=memory.document_id, version=memory.version, state=state
        )
    )
    kept = (
        select(Document.compacted_version)
        .where(Document.id == memory.document_id)
        .scalar_subquery()
    )
    await tx.execute(
        delete(DocumentSnapshot).where(
            DocumentSnapshot.document_id == memory.document_id,
            DocumentSnapshot.version < memory.version,
            DocumentSnapshot.version != kept,
        ),
        execution_options={"synchronize_session": False},
    )
    memory.updates_since_snapshot = 0
    memory.bytes_since_snapshot = 0
    memory.snapshot_bytes = len(state)
