"""Comms and their messages as rows."""

import uuid

from sqlalchemy import Select, select
from sqlalchemy.orm import defer

from app.db.engine import Transaction
from app.errors import NotFoundError
from models import Comm, CommMessage


def kernel_comms(
    kernel_id: str,
    *,
    state: str = "open",
    target_name: str | None = None,
    comm_id: str | None = None,
) -> Select[Comm]:
    """A kernel's comms that match all given filters, in the order in which they were opened."""
    query = (
        select(Comm)
        .where(Comm.kernel_id == kernel_id, Comm.state == state)
        .order_by(Comm.opened_at, Comm.id)
    )
    if target_name is not None:
        query = query.where(Comm.target_name == target_name)
    if comm_id is not None:
        query = query.where(Comm.comm_id == comm_id)
    return query


async def read_comm(tx: Transaction, row_id: uuid.UUID, *, with_data: bool = True) -> Comm:
    """Return a comm by its row's id; NotFoundError (404) when there is none."""
    query = select(Comm).where(Comm.id == row_id)
    if not with_data:
        query = query.options(defer(Comm.data), defer(Comm.metadata_), defer(Comm.buffers))
    found = (await tx.execute(query)).scalar_one_or_none()
    if found is None:
        raise NotFoundError(f"Comm does not exist: {row_id}")
    return found


def messages_after(row_id: uuid.UUID, after: int, limit: int) -> Select[CommMessage]:
    """A comm's recorded messages after the one with this id, in order."""
    return (
        select(CommMessage)
        .where(CommMessage.comm_id == row_id, CommMessage.id > after)
        .order_by(CommMessage.id)
        .limit(limit)
    )
