"""Executions and their outputs as rows."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import BigInteger, Select, bindparam, select
from sqlalchemy.orm import aliased

from app.db.engine import Transaction
from app.errors import NotFoundError
from models import Execution, InputRequest, Output, User
from models.executions import KEPT


class ExecutionRow(NamedTuple):
    """An execution with the names of who asked and whose kernel ran it."""

    execution: Execution
    actor: str | None
    run_as: str


_Actor = aliased(User)
_RunAs = aliased(User)


def executions() -> Select[Execution, str, str]:
    """All executions with names, newest first."""
    return (
        select(Execution, _Actor.name, _RunAs.name)
        .outerjoin(_Actor, _Actor.id == Execution.actor_id)
        .join(_RunAs, _RunAs.id == Execution.run_as_id)
        .order_by(Execution.seq.desc())
    )


# Built once: making a statement anew costs more than running it.
_BY_ID = executions().order_by(None).where(Execution.id == bindparam("execution_id"))


def filtered_executions(
    *,
    kernel_id: str | None = None,
    path: str | None = None,
    cell_id: str | None = None,
    actor: str | None = None,
    status: str | None = None,
    since: datetime | None = None,
    before_seq: int | None = None,
    limit: int,
) -> Select[Execution, str, str]:
    """The newest executions that match all given filters; `before_seq` is the page's cursor."""
    query = executions().limit(limit)
    for column, value in (
        (Execution.kernel_id, kernel_id),
        (Execution.path, path),
        (Execution.cell_id, cell_id),
        (Execution.status, status),
        (_Actor.name, actor),
    ):
        if value is not None:
            query = query.where(column == value)
    if since is not None:
        query = query.where(Execution.queued_at >= since)
    if before_seq is not None:
        query = query.where(Execution.seq < before_seq)
    return query


async def read_execution(tx: Transaction, execution_id: uuid.UUID) -> ExecutionRow:
    """Return one execution; NotFoundError (404) when there is none."""
    found = (await tx.execute(_BY_ID, {"execution_id": execution_id})).one_or_none()
    if found is None:
        raise NotFoundError(f"Execution does not exist: {execution_id}")
    return ExecutionRow._make(found)


def pending_inputs(execution_ids: list[uuid.UUID]) -> Select[InputRequest]:
    """The input requests of these executions that wait for an answer, oldest first."""
    return (
        select(InputRequest)
        .where(InputRequest.execution_id.in_(execution_ids), InputRequest.status == "pending")
        .order_by(InputRequest.created_at)
    )


_SHOWN_OUTPUTS = (
    select(Output)
    .where(
        Output.execution_id == bindparam("execution_id"),
        # Where the rows are: those of other times are not looked at.
        Output.partition_id.in_([bindparam("execution_id"), KEPT]),
        Output.cleared_at.is_(None),
        Output.seq > bindparam("after_seq"),
    )
    .order_by(Output.seq)
    .limit(bindparam("at_most", type_=BigInteger))
)


async def shown_outputs(
    tx: Transaction, execution_id: uuid.UUID, *, after_seq: int = 0, limit: int | None = None
) -> Sequence[Output]:
    """Return an execution's outputs that its code has not cleared, in order."""
    values = {"execution_id": execution_id, "after_seq": after_seq, "at_most": limit}
    return (await tx.execute(_SHOWN_OUTPUTS, values)).scalars().all()
