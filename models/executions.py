"""What ran and what it said: executions, outputs, input requests, comms."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    UniqueConstraint,
)
from sqlalchemy import (
    text as sql,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, BigKey, Created, Exact, TimedKey, UuidKey
from models.codec import ExactText
from models.published import Published, Scope, Unpublished

UNFINISHED = ("queued", "running")
FINAL = ("ok", "error", "aborted", "cancelled", "interrupted")


class Execution(Base):
    """One run of one piece of code on one incarnation of one kernel.

    `seq` gives the order in which executions were asked for, and the cursor of listings.
    `path` is the notebook's path at that time and stays when the file is renamed or deleted.
    `run_as_id` is the kernel's owner: to run code on another's kernel is to act as its owner.
    `msg_id` is the execute_request's; unique per kernel (within a partition), since the recorder
    finds the execution a kernel message belongs to by it. `idempotency_key` is what the request
    came with; `IdempotencyKey` sees to it that a repeated request does not run twice. A final
    status never changes (trigger `executions_final`).

    The table is partitioned by `id`, a UUIDv7, so by the time at which an execution was asked
    for, and old partitions may be dropped (docs/decisions/0025-partitions-by-time.md). Therefore
    no other table has a foreign key to it, except each partition of `outputs` to that of the same
    period: an `execution_id` elsewhere may name an execution that is no longer kept.
    """

    __tablename__ = "executions"
    __feed__ = Published(
        sent=(
            "id",
            "seq",
            "kernel_id",
            "incarnation",
            "session_id",
            "document_id",
            "path",
            "cell_id",
            "cell_version",
            "actor_id",
            "run_as_id",
            "client",
            "msg_id",
            "code",
            "source_hash",
            "silent",
            "store_history",
            "stop_on_error",
            "allow_stdin",
            "status",
            "reason",
            "execution_count",
            "queued_at",
            "started_at",
            "finished_at",
            "ename",
            "evalue",
            "traceback",
            "output_bytes",
        ),
        announced=("user_expressions", "reply"),
        withheld=("idempotency_key",),
        filters=(
            "id",
            "kernel_id",
            "session_id",
            "document_id",
            "path",
            "cell_id",
            "actor_id",
            "status",
        ),
        scopes=(Scope("executions", "id"),),
    )
    __table_args__ = (
        CheckConstraint(
            "status IN ('queued', 'running', 'ok', 'error', 'aborted', 'cancelled', 'interrupted')",
            name="status",
        ),
        CheckConstraint(
            "(finished_at IS NULL) = (status IN ('queued', 'running'))", name="finished_is_final"
        ),
        CheckConstraint(
            "status <> 'running' OR started_at IS NOT NULL", name="running_has_started"
        ),
        Index(
            "executions_unfinished_idx",
            "kernel_id",
            "seq",
            postgresql_where=sql("status IN ('queued', 'running')"),
        ),
        Index("executions_path_seq_idx", "path", "seq"),
        Index("executions_kernel_id_seq_idx", "kernel_id", "seq"),
        Index("executions_cell_id_seq_idx", "cell_id", "seq"),
        Index("executions_actor_id_seq_idx", "actor_id", "seq"),
        Index(
            "executions_document_id_seq_idx",
            "document_id",
            "seq",
            postgresql_where=sql("document_id IS NOT NULL"),
        ),
        Index("executions_queued_at_idx", "queued_at"),
        Index("executions_failed_idx", "queued_at", postgresql_where=sql("status = 'error'")),
        Index("executions_seq_idx", "seq"),
        {"postgresql_partition_by": "RANGE (id)"},
    )

    id: Mapped[TimedKey]
    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    kernel_id: Mapped[str] = mapped_column(ForeignKey("kernels.id"))
    incarnation: Mapped[int]
    session_id: Mapped[str | None] = mapped_column(ForeignKey("sessions.id", ondelete="SET NULL"))
    document_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("documents.id", ondelete="SET NULL")
    )
    path: Mapped[str | None]
    cell_id: Mapped[str | None]
    cell_version: Mapped[int | None]
    actor_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id"))
    run_as_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    client: Mapped[str]
    msg_id: Mapped[str]
    idempotency_key: Mapped[str | None]
    code: Mapped[Exact]
    source_hash: Mapped[str]
    silent: Mapped[bool] = mapped_column(server_default=sql("false"))
    store_history: Mapped[bool] = mapped_column(server_default=sql("true"))
    stop_on_error: Mapped[bool] = mapped_column(server_default=sql("true"))
    allow_stdin: Mapped[bool] = mapped_column(server_default=sql("true"))
    user_expressions: Mapped[dict[str, Any]] = mapped_column(server_default=sql("'{}'::jsonb"))
    status: Mapped[str] = mapped_column(server_default=sql("'queued'"))
    reason: Mapped[str | None]
    execution_count: Mapped[int | None] = mapped_column(BigInteger)
    queued_at: Mapped[Created]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    ename: Mapped[str | None] = mapped_column(ExactText)
    evalue: Mapped[str | None] = mapped_column(ExactText)
    traceback: Mapped[list[str] | None]
    reply: Mapped[dict[str, Any] | None]
    output_bytes: Mapped[int] = mapped_column(BigInteger, server_default=sql("0"))


class IdempotencyKey(Base):
    """A key that a client sent along, so that the same request again gives the same execution.

    A table of its own because it must be unique whatever partition the execution is in: of two
    requests with one key, the second waits for the first one's commit and then finds its row.
    """

    __tablename__ = "idempotency_keys"
    __feed__ = Unpublished("keys are their askers' alone")

    actor_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    execution_id: Mapped[uuid.UUID]
    created_at: Mapped[Created]


KEPT = uuid.UUID(int=0)


def _partition_id(context: Any) -> uuid.UUID:
    found: uuid.UUID | None = context.get_current_parameters().get("execution_id")
    return KEPT if found is None else found


class Output(Base):
    """One output message of an execution, or an output that a file brought with it.

    Rows are appended, in the order of `id`, and their text never changes (trigger
    `outputs_append_only`); a long stream is many rows. Only `update_display_data` writes again, to
    `data` and `metadata` of every row with its `display_id`. `cell_id` refers to the cell row that
    shows it and is null once it is cleared or the cell runs again; `cleared_at` is set when the
    code itself cleared it, so that `cleared_at IS NULL` are the outputs of an execution as a
    person would have seen them at its end. `size_bytes` counts its text or JSON in UTF-8.

    The table is partitioned by `partition_id`: the execution's id, so that outputs are with the
    outputs of their time and go when their partition is dropped, or `KEPT` for those that do not:
    what a file brought, and what a cell still showed when their time was over.

    What a comm's callback said (a widget's observer), or an Output widget took for itself, belongs
    to the execution that opened the comm, and has the kernel's `comm_id`; no cell shows it.
    """

    __tablename__ = "outputs"
    __feed__ = Published(
        sent=(
            "id",
            "execution_id",
            "seq",
            "kernel_id",
            "cell_id",
            "output_type",
            "name",
            "text",
            "data",
            "metadata",
            "execution_count",
            "ename",
            "evalue",
            "traceback",
            "extra",
            "display_id",
            "comm_id",
            "size_bytes",
            "created_at",
            "updated_at",
            "cleared_at",
        ),
        withheld=("partition_id",),
        filters=("id", "execution_id", "kernel_id", "cell_id", "comm_id"),
        scopes=(Scope("executions", "execution_id"), Scope("cells", "cell_id")),
    )
    __table_args__ = (
        CheckConstraint(
            "output_type IN ('stream', 'display_data', 'execute_result', 'error', 'unknown')",
            name="output_type",
        ),
        CheckConstraint("execution_id IS NOT NULL OR seq = 0", name="seq_is_of_execution"),
        Index(
            "outputs_execution_id_seq_key",
            "execution_id",
            "seq",
            "partition_id",
            unique=True,
            postgresql_where=sql("execution_id IS NOT NULL"),
        ),
        CheckConstraint(
            "partition_id = '00000000-0000-0000-0000-000000000000'"
            " OR (execution_id IS NOT NULL AND partition_id = execution_id)",
            name="partition_is_of_execution",
        ),
        Index(
            "outputs_display_id_idx",
            "kernel_id",
            "display_id",
            postgresql_where=sql("display_id IS NOT NULL"),
        ),
        Index(
            "outputs_comm_id_idx",
            "kernel_id",
            "comm_id",
            postgresql_where=sql("comm_id IS NOT NULL"),
        ),
        Index("outputs_cell_id_idx", "cell_id", "id", postgresql_where=sql("cell_id IS NOT NULL")),
        {"postgresql_partition_by": "RANGE (partition_id)"},
    )

    id: Mapped[BigKey]
    partition_id: Mapped[uuid.UUID] = mapped_column(
        primary_key=True,
        default=_partition_id,
        server_default=sql("'00000000-0000-0000-0000-000000000000'::uuid"),
    )
    execution_id: Mapped[uuid.UUID | None]
    seq: Mapped[int] = mapped_column(server_default=sql("0"))
    kernel_id: Mapped[str | None] = mapped_column(ForeignKey("kernels.id"))
    cell_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("cells.id", ondelete="SET NULL"))
    output_type: Mapped[str]
    name: Mapped[str | None]
    text: Mapped[str | None] = mapped_column(ExactText)
    data: Mapped[dict[str, Any] | None]
    metadata_: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    execution_count: Mapped[int | None] = mapped_column(BigInteger)
    ename: Mapped[str | None] = mapped_column(ExactText)
    evalue: Mapped[str | None] = mapped_column(ExactText)
    traceback: Mapped[list[str] | None]
    extra: Mapped[dict[str, Any] | None]
    display_id: Mapped[str | None]
    comm_id: Mapped[str | None] = mapped_column(ExactText)
    size_bytes: Mapped[int] = mapped_column(BigInteger, server_default=sql("0"))
    created_at: Mapped[Created]
    updated_at: Mapped[datetime | None]
    cleared_at: Mapped[datetime | None]


class InputRequest(Base):
    """A question that running code asks (`input()`, `getpass()`); anyone allowed may answer, once.

    A password's value is never stored.
    """

    __tablename__ = "input_requests"
    __feed__ = Published(
        sent=(
            "id",
            "execution_id",
            "kernel_id",
            "msg_id",
            "prompt",
            "password",
            "status",
            "answered_by_id",
            "created_at",
            "answered_at",
        ),
        withheld=("value",),  # what a person typed is shown by the kernel, if at all
        filters=("id", "execution_id", "kernel_id", "status"),
        scopes=(Scope("executions", "execution_id"),),
    )
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'answered', 'cancelled')", name="status"),
        CheckConstraint("NOT password OR value IS NULL", name="password_not_stored"),
        CheckConstraint(
            "(status = 'answered') = (answered_at IS NOT NULL)", name="answered_has_time"
        ),
        Index(
            "input_requests_pending_idx",
            "execution_id",
            postgresql_where=sql("status = 'pending'"),
        ),
        # The replica identity: publications must tell which rows are about passwords.
        Index("input_requests_replica_key", "id", "password", unique=True),
    )

    id: Mapped[UuidKey]
    execution_id: Mapped[uuid.UUID] = mapped_column(index=True)
    kernel_id: Mapped[str] = mapped_column(ForeignKey("kernels.id"))
    msg_id: Mapped[str]
    prompt: Mapped[Exact]
    password: Mapped[bool]
    status: Mapped[str] = mapped_column(server_default=sql("'pending'"))
    value: Mapped[str | None] = mapped_column(ExactText)
    answered_by_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[Created]
    answered_at: Mapped[datetime | None]


class Comm(Base):
    """A comm (the channel behind a widget) between a kernel and its clients.

    While it is open, `data`, `metadata` and `buffers` are what a comm_open sent now would carry:
    what it was opened with and, for Jupyter widgets, every update since merged into
    `data["state"]`, so that a reader needs no replay. `last_message_id` is the message they are
    the state of. Older messages are dropped (`dropped_through` is the last one dropped), so that a
    slider dragged for hours stays small; `messages_kept` and `bytes_kept` count the others. A
    closed comm keeps none of it, only that it was there and, where it did not end by itself, why.
    """

    __tablename__ = "comms"
    __feed__ = Published(
        sent=(
            "id",
            "kernel_id",
            "incarnation",
            "comm_id",
            "target_name",
            "target_module",
            "state",
            "reason",
            "execution_id",
            "last_message_id",
            "dropped_through",
            "opened_at",
            "closed_at",
        ),
        announced=("data", "metadata", "buffers"),
        withheld=("messages_kept", "bytes_kept"),
        filters=("id", "kernel_id", "comm_id", "target_name", "state", "execution_id"),
        scopes=(Scope("comms", "id"),),
    )
    __table_args__ = (
        UniqueConstraint("kernel_id", "comm_id"),
        CheckConstraint("state IN ('open', 'closed')", name="state"),
        CheckConstraint("(state = 'closed') = (closed_at IS NOT NULL)", name="closed_has_time"),
    )

    id: Mapped[UuidKey]
    kernel_id: Mapped[str] = mapped_column(ForeignKey("kernels.id"))
    incarnation: Mapped[int]
    comm_id: Mapped[Exact]
    target_name: Mapped[Exact]
    target_module: Mapped[str | None] = mapped_column(ExactText)
    state: Mapped[str] = mapped_column(server_default=sql("'open'"))
    reason: Mapped[str | None]
    execution_id: Mapped[uuid.UUID | None]
    data: Mapped[dict[str, Any]] = mapped_column(server_default=sql("'{}'::jsonb"))
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", server_default=sql("'{}'::jsonb"))
    buffers: Mapped[list[bytes]] = mapped_column(ARRAY(LargeBinary), server_default=sql("'{}'"))
    last_message_id: Mapped[int] = mapped_column(BigInteger, server_default=sql("0"))
    dropped_through: Mapped[int] = mapped_column(BigInteger, server_default=sql("0"))
    messages_kept: Mapped[int] = mapped_column(server_default=sql("0"))
    bytes_kept: Mapped[int] = mapped_column(BigInteger, server_default=sql("0"))
    opened_at: Mapped[Created]
    closed_at: Mapped[datetime | None]


class CommMessage(Base):
    """A message on a comm, in the kernel's order; kept while the comm is open.

    `direction` says who sent it. A client's message has its place where the kernel took it up, so
    that the messages in order lead to the state that the kernel has. `msg_id` is the message's;
    `actor_id` is the person who sent a client's.
    """

    __tablename__ = "comm_messages"
    __feed__ = Published(
        sent=(
            "id",
            "comm_id",
            "execution_id",
            "direction",
            "actor_id",
            "msg_id",
            "msg_type",
            "data",
            "metadata",
            "size_bytes",
            "created_at",
        ),
        announced=("buffers",),
        filters=("id", "comm_id", "execution_id"),
        scopes=(Scope("comms", "comm_id"),),
    )
    __table_args__ = (
        CheckConstraint("msg_type IN ('comm_open', 'comm_msg', 'comm_close')", name="msg_type"),
        CheckConstraint("direction IN ('kernel', 'client')", name="direction"),
        Index("comm_messages_comm_id_id_idx", "comm_id", "id"),
    )

    id: Mapped[BigKey]
    comm_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("comms.id", ondelete="CASCADE"))
    execution_id: Mapped[uuid.UUID | None]
    direction: Mapped[str] = mapped_column(server_default=sql("'kernel'"))
    actor_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id"))
    msg_id: Mapped[str | None] = mapped_column(ExactText)
    msg_type: Mapped[str]
    data: Mapped[dict[str, Any]]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata")
    buffers: Mapped[list[bytes]] = mapped_column(ARRAY(LargeBinary), server_default=sql("'{}'"))
    size_bytes: Mapped[int] = mapped_column(BigInteger, server_default=sql("0"))
    created_at: Mapped[Created]
