"""Executions and their outputs as rows."""

import uuid
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Uuid,
    bindparam,
    func,
    literal,
    select,
    true,
    union,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from app.db.engine import Database
from app.errors import NotFoundError
from models import Document, Execution, InputRequest, Kernel, Output, User
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
        select(Execution, _Actor.name.label("actor"), _RunAs.name.label("run_as"))
        .outerjoin(_Actor, _Actor.id == Execution.actor_id)
        .join(_RunAs, _RunAs.id == Execution.run_as_id)
        .order_by(Execution.seq.desc())
    )


# Built once: making a statement anew costs more than running it.
_BY_ID = executions().order_by(None).where(Execution.id == bindparam("execution_id"))


class Wanted(NamedTuple):
    """Which executions a list is to have; None asks for nothing."""

    kernel_id: str | None = None
    path: str | None = None
    cell_id: str | None = None
    actor: str | None = None
    status: str | None = None
    since: datetime | None = None

    @property
    def is_narrow(self) -> bool:
        """Whether an index finds them, whoever may see how many of them."""
        return (self.kernel_id, self.path, self.cell_id) != (None, None, None)

    def conditions(self) -> list[ColumnElement[bool]]:
        """What executions must be to be in the list."""
        made = [
            column == value
            for column, value in (
                (Execution.kernel_id, self.kernel_id),
                (Execution.path, self.path),
                (Execution.cell_id, self.cell_id),
                (Execution.status, self.status),
            )
            if value is not None
        ]
        if self.actor is not None:
            named = select(User.id).where(User.name == self.actor).scalar_subquery()
            made.append(Execution.actor_id == named)
        if self.since is not None:
            made.append(Execution.queued_at >= self.since)
        return made


async def newest_executions(
    database: Database, wanted: Wanted, *, everything: bool, before_seq: int | None, limit: int
) -> list[ExecutionRow]:
    """Return the newest executions that are wanted and visible to the asker; `before_seq` pages.

    Who sees everything reads them in order. Others may see few of many: the policy is asked of the
    newest `_WINDOW` only, then they are looked for where they can be: by their asker, on each
    kernel and each document that is visible.
    """
    conditions = wanted.conditions()
    if before_seq is not None:
        conditions.append(Execution.seq < before_seq)
    query = executions().where(*conditions).limit(limit)
    if everything or wanted.is_narrow:
        return await _rows(database, query)
    top = before_seq
    if top is None:
        async with database.read(as_server=True) as tx:
            top = await tx.scalar(select(func.max(Execution.seq))) or 0
    first = top - _WINDOW
    found = await _rows(database, query.where(Execution.seq > first))
    if len(found) == limit or first <= 0:
        return found
    async with database.read() as tx:
        visible = select(Document.id).limit(_MANY_DOCUMENTS + 1)
        document_ids = list(await tx.scalars(visible))
        if len(document_ids) <= _MANY_DOCUMENTS:
            ids = (await tx.scalars(_visible_ids(conditions, document_ids, limit))).all()
            query = executions().where(Execution.id.in_(ids)).limit(limit)
    return await _rows(database, query)


# Of how many of the newest the policy is asked one by one, some 10 us each, and of how many
# documents each is looked at before it is likelier that what is asked one by one is visible.
_WINDOW = 2000
_MANY_DOCUMENTS = 2000


def _visible_ids(
    conditions: list[ColumnElement[bool]], document_ids: list[uuid.UUID], limit: int
) -> Select[uuid.UUID]:
    """The ids of the newest executions by the ways in which they can be visible."""
    newest = (
        select(Execution.id, Execution.seq)
        .where(*conditions)
        .order_by(Execution.seq.desc())
        .limit(limit)
    )
    mine = newest.where(Execution.actor_id == func.datastore_current_user_id()).subquery()
    kernels = select(Kernel.id).subquery()
    documents = select(func.unnest(literal(document_ids, ARRAY(Uuid()))).label("id")).subquery()
    of_kernel = newest.where(Execution.kernel_id == kernels.c.id).lateral()
    of_document = newest.where(Execution.document_id == documents.c.id).lateral()
    found = union(
        select(mine),
        select(of_kernel).select_from(kernels.join(of_kernel, true())),
        select(of_document).select_from(documents.join(of_document, true())),
    ).subquery()
    return select(found.c.id).order_by(found.c.seq.desc()).limit(limit)


async def _rows(database: Database, query: Select[Execution, str, str]) -> list[ExecutionRow]:
    async with database.read() as tx:
        return [ExecutionRow._make(row) for row in (await tx.execute(query))]


async def read_execution(database: Database, execution_id: uuid.UUID) -> ExecutionRow:
    """Return one execution that the asker may see; NotFoundError (404) when there is none."""
    found = await database.read_alone(_BY_ID, {"execution_id": execution_id})
    if not found:
        raise NotFoundError(f"Execution does not exist: {execution_id}")
    (row,) = found
    actor, run_as = row.pop("actor"), row.pop("run_as")
    return ExecutionRow(Execution(**row), actor, run_as)


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
    database: Database, execution_id: uuid.UUID, *, after_seq: int = 0, limit: int | None = None
) -> list[Output]:
    """Return an execution's outputs that its code has not cleared, in order."""
    values = {"execution_id": execution_id, "after_seq": after_seq, "at_most": limit}
    rows = await database.read_alone(_SHOWN_OUTPUTS, values)
    return [Output(metadata_=row.pop("metadata"), **row) for row in rows]
