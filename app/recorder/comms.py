"""Comms as rows: opened, messages appended in the kernel's order, forgotten when closed."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from app.db.engine import Transaction
from app.recorder.operations import CloseComms, CommEvent
from models import Comm, CommMessage
from models.codec import encode_text


async def write_comms(
    tx: Transaction, kernel_id: str, events: list[CommEvent | CloseComms]
) -> None:
    """Write one kernel's comm events; messages of comms that are not open are kept out."""
    pending: list[dict[str, Any]] = []
    ids = await _open_ids(tx, kernel_id, events)
    for event in events:
        if isinstance(event, CloseComms):
            pending.clear()
            await _close(tx, list((await _all_open(tx, kernel_id)).values()), event.at)
            ids.clear()
            continue
        if event.msg_type == "comm_open":
            ids[event.comm_id] = await _open(tx, kernel_id, event)
        row_id = ids.get(event.comm_id)
        if row_id is None:
            continue
        if event.msg_type == "comm_close":
            pending = [row for row in pending if row["comm_id"] != row_id]
            await _close(tx, [row_id], event.at)
            del ids[event.comm_id]
            continue
        pending.append(_message_row(row_id, event))
    if pending:
        await tx.execute(insert(CommMessage), pending)


def _message_row(row_id: uuid.UUID, event: CommEvent) -> dict[str, Any]:
    data = event.content.get("data")
    return {
        "comm_id": row_id,
        "execution_id": event.execution_id,
        "msg_type": event.msg_type,
        "data": data if isinstance(data, dict) else {},
        "metadata_": event.metadata,
        "buffers": event.buffers,
        "created_at": event.at,
    }


async def _open(tx: Transaction, kernel_id: str, event: CommEvent) -> uuid.UUID:
    module = event.content.get("target_module")
    values = {
        "incarnation": event.incarnation,
        "target_name": encode_text(str(event.content.get("target_name", ""))),
        "target_module": encode_text(module) if isinstance(module, str) else None,
        "state": "open",
        "execution_id": event.execution_id,
        "opened_at": event.at,
        "closed_at": None,
    }
    statement = (
        upsert(Comm)
        .values(id=uuid.uuid4(), kernel_id=kernel_id, comm_id=event.comm_id, **values)
        .on_conflict_do_update(index_elements=["kernel_id", "comm_id"], set_=values)
        .returning(Comm.id)
    )
    return (await tx.execute(statement)).scalar_one()


async def _all_open(tx: Transaction, kernel_id: str) -> dict[str, uuid.UUID]:
    query = select(Comm.comm_id, Comm.id).where(Comm.kernel_id == kernel_id, Comm.state == "open")
    return dict((await tx.execute(query)).all())


async def _open_ids(
    tx: Transaction, kernel_id: str, events: list[CommEvent | CloseComms]
) -> dict[str, uuid.UUID]:
    wanted = {event.comm_id for event in events if isinstance(event, CommEvent)}
    query = select(Comm.comm_id, Comm.id).where(
        Comm.kernel_id == kernel_id, Comm.state == "open", Comm.comm_id.in_(wanted)
    )
    return dict((await tx.execute(query)).all())


async def _close(tx: Transaction, ids: list[uuid.UUID], at: datetime) -> None:
    if not ids:
        return
    await tx.execute(delete(CommMessage).where(CommMessage.comm_id.in_(ids)))
    await tx.execute(
        update(Comm)
        .where(Comm.id.in_(ids))
        .values(state="closed", closed_at=at)
        .execution_options(synchronize_session=False)
    )
