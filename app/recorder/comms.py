"""Comms as rows: opened, messages appended in the kernel's order, state merged, then forgotten.

Only a kernel's recorder writes its comms while the kernel lives, so that the ids of one comm's
messages rise in the order in which they are committed.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any

from sqlalchemy import delete, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import defer

from app.db.engine import Transaction
from app.recorder import widget_state
from app.recorder.followers import CommRecord
from app.recorder.operations import CloseComms, CommEvent
from models import Comm, CommMessage

# Dropping old messages waits until there are this many times too many: it costs a scan.
_SLACK = 1.25
_NOTHING: dict[str, Any] = {
    "data": {},
    "metadata_": {},
    "buffers": [],
    "dropped_through": 0,
    "messages_kept": 0,
    "bytes_kept": 0,
}


@dataclass(frozen=True)
class Retention:
    """How much of an open comm is kept: at least its last message, and no more than this."""

    messages: int = 1_000
    size_bytes: int = 64 * 1024 * 1024


@dataclass(slots=True)
class _Row:
    """An open comm's row as this batch leaves it; `data` is read when a message may change it."""

    id: uuid.UUID
    target_name: str
    messages: int
    size_bytes: int
    data: dict[str, Any] | None = None
    buffers: list[bytes] | None = None
    last_id: int = 0
    dropped_through: int = 0


class CommWriter:
    """Writes one batch of a kernel's comm events; `records` is what followers are told of it."""

    def __init__(self, tx: Transaction, kernel_id: str, retention: Retention) -> None:
        self.records: list[CommRecord] = []
        self._tx = tx
        self._kernel_id = kernel_id
        self._retention = retention
        self._rows: dict[str, _Row] = {}
        self._pending: list[tuple[_Row, CommEvent]] = []

    async def write(self, events: list[CommEvent | CloseComms]) -> None:
        """Write the events in order; messages of comms that are not open are kept out."""
        await self._load({event.comm_id for event in events if isinstance(event, CommEvent)})
        for event in events:
            if isinstance(event, CloseComms):
                await self._flush()
                await self._close_all(event)
                continue
            if event.msg_type == "comm_open":
                self._rows[event.comm_id] = await self._open(event)
            row = self._rows.get(event.comm_id)
            if row is None:
                continue
            if event.msg_type == "comm_close":
                await self._flush()
                del self._rows[event.comm_id]
                await close_comms(self._tx, [row.id], event.at)
                self.records.append(_record(row, event, row.last_id))
            else:
                self._pending.append((row, event))
        await self._flush()

    async def _load(self, comm_ids: set[str]) -> None:
        query = select(Comm.comm_id, Comm).where(
            Comm.kernel_id == self._kernel_id, Comm.state == "open", Comm.comm_id.in_(comm_ids)
        )
        # Data and buffers may be large and are needed for widgets' updates only.
        query = query.options(defer(Comm.data), defer(Comm.buffers))
        for comm_id, comm in await self._tx.execute(query):
            self._rows[comm_id] = _Row(
                comm.id,
                comm.target_name,
                comm.messages_kept,
                comm.bytes_kept,
                last_id=comm.last_message_id,
                dropped_through=comm.dropped_through,
            )

    async def _open(self, event: CommEvent) -> _Row:
        """Insert a comm, or open again one with the same id: its former life is forgotten."""
        if (former := self._rows.get(event.comm_id)) is not None:
            await self._flush()
            await self._tx.execute(delete(CommMessage).where(CommMessage.comm_id == former.id))
        target_name = str(event.content.get("target_name", ""))
        target_module = event.content.get("target_module")
        data = _data(event)
        values = {
            **_NOTHING,
            "incarnation": event.incarnation,
            "target_name": target_name,
            "target_module": None if target_module is None else str(target_module),
            "state": "open",
            "reason": None,
            "execution_id": event.execution_id,
            "data": data,
            "metadata_": event.metadata,
            "buffers": event.buffers,
            "opened_at": event.at,
            "closed_at": None,
        }
        inserted = upsert(Comm).values(
            id=uuid.uuid4(), kernel_id=self._kernel_id, comm_id=event.comm_id, **values
        )
        columns = {getattr(Comm, name): value for name, value in values.items()}
        statement = inserted.on_conflict_do_update(
            index_elements=["kernel_id", "comm_id"], set_=columns
        ).returning(Comm.id)
        row_id = (await self._tx.execute(statement)).scalar_one()
        return _Row(row_id, target_name, 0, 0, data, event.buffers)

    async def _flush(self) -> None:
        """Insert the messages collected so far and bring their comms' rows up to date."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        rows = [_message_row(row, event) for row, event in pending]
        statement = insert(CommMessage).returning(CommMessage.id, sort_by_parameter_order=True)
        ids = (await self._tx.execute(statement, rows)).scalars().all()
        touched = {row.id: row for row, _ in pending}
        changed = await self._merge(pending)
        for (row, event), message_id in zip(pending, ids, strict=True):
            row.last_id = message_id
            row.messages += 1
            row.size_bytes += event.size_bytes
            self.records.append(_record(row, event, message_id))
        # Two lists, since the rows of one statement change the same columns.
        for with_data in (False, True):
            values = [
                await self._values(row, with_data=with_data)
                for row in touched.values()
                if (row.id in changed) == with_data
            ]
            if values:
                await self._tx.execute(update(Comm), sorted(values, key=itemgetter("id")))

    async def _merge(self, pending: list[tuple[_Row, CommEvent]]) -> set[uuid.UUID]:
        """Merge widgets' updates into their comms' data; returns those that changed."""
        updates = [
            (row, event)
            for row, event in pending
            if row.target_name == widget_state.TARGET and event.msg_type == "comm_msg"
        ]
        unread = {row.id: row for row, _ in updates if row.data is None}
        if unread:
            query = select(Comm.id, Comm.data, Comm.buffers).where(Comm.id.in_(unread))
            for row_id, data, buffers in await self._tx.execute(query):
                unread[row_id].data, unread[row_id].buffers = data, buffers
        changed = set()
        for row, event in updates:
            assert row.data is not None
            assert row.buffers is not None
            merged = widget_state.merge_update(
                row.data,
                row.buffers,
                _data(event),
                event.buffers,
                by_client=event.direction == "client",
            )
            if merged is not None:
                row.data, row.buffers = merged
                changed.add(row.id)
        return changed

    async def _values(self, row: _Row, *, with_data: bool) -> dict[str, Any]:
        """Return the new values of a comm's row, after dropping what is over the limits."""
        limit = self._retention
        if row.messages > limit.messages * _SLACK or row.size_bytes > limit.size_bytes * _SLACK:
            await self._drop(row)
        values = {
            "id": row.id,
            "last_message_id": row.last_id,
            "dropped_through": row.dropped_through,
            "messages_kept": row.messages,
            "bytes_kept": row.size_bytes,
        }
        return {**values, "data": row.data, "buffers": row.buffers} if with_data else values

    async def _drop(self, row: _Row) -> None:
        """Delete the messages over the limits."""
        newest_first = CommMessage.id.desc()
        ranked = (
            select(
                CommMessage.id,
                func.row_number().over(order_by=newest_first).label("place"),
                func.sum(CommMessage.size_bytes).over(order_by=newest_first).label("size"),
            )
            .where(CommMessage.comm_id == row.id)
            .subquery()
        )
        over = or_(
            ranked.c.place > self._retention.messages, ranked.c.size > self._retention.size_bytes
        )
        last = await self._tx.scalar(select(func.max(ranked.c.id)).where(ranked.c.place > 1, over))
        if last is None:
            return
        statement = (
            delete(CommMessage)
            .where(CommMessage.comm_id == row.id, CommMessage.id <= last)
            .returning(CommMessage.size_bytes)
        )
        sizes = (await self._tx.execute(statement)).scalars().all()
        row.messages -= len(sizes)
        row.size_bytes -= sum(sizes)
        row.dropped_through = last

    async def _close_all(self, event: CloseComms) -> None:
        query = select(Comm.id).where(Comm.kernel_id == self._kernel_id, Comm.state == "open")
        ids = (await self._tx.execute(query)).scalars().all()
        await close_comms(self._tx, ids, event.at, event.reason)
        self._rows.clear()
        for row_id in ids:
            self.records.append(
                CommRecord(row_id, 0, "comm_close", "kernel", None, {}, {}, [], 0, event.reason)
            )


async def close_comms(
    tx: Transaction, ids: Iterable[uuid.UUID], at: datetime, reason: str | None = None
) -> None:
    """Mark comms as closed and forget what was said on them."""
    wanted = list(ids)
    if not wanted:
        return
    await tx.execute(delete(CommMessage).where(CommMessage.comm_id.in_(wanted)))
    await tx.execute(
        update(Comm)
        .where(Comm.id.in_(wanted))
        .values({**_NOTHING, "state": "closed", "closed_at": at, "reason": reason})
        .execution_options(synchronize_session=False)
    )


def _data(event: CommEvent) -> dict[str, Any]:
    data = event.content.get("data")
    return data if isinstance(data, dict) else {}


def _message_row(row: _Row, event: CommEvent) -> dict[str, Any]:
    return {
        "comm_id": row.id,
        "execution_id": event.execution_id,
        "direction": event.direction,
        "actor_id": event.actor_id,
        "msg_id": event.msg_id,
        "msg_type": event.msg_type,
        "data": _data(event),
        "metadata_": event.metadata,
        "buffers": event.buffers,
        "size_bytes": event.size_bytes,
        "created_at": event.at,
    }


def _record(row: _Row, event: CommEvent, message_id: int) -> CommRecord:
    return CommRecord(
        row.id,
        message_id,
        event.msg_type,
        event.direction,
        event.msg_id,
        _data(event),
        event.metadata,
        event.buffers,
        event.size_bytes,
    )
