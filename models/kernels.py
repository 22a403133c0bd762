"""Server processes, kernelspecs, kernels and sessions: what runs, where, for which path."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, TextKey, UuidKey
from models.published import Published, Scope


class ServerProcess(Base):
    """One run of the server; a kernel's host.

    `hostname`, `pid` and `process_started_at` tell a live process from a recycled pid, so that
    the next server on that machine knows which hosts are gone.
    """

    __tablename__ = "server_status"
    __feed__ = Published(
        sent=("id", "hostname", "version", "started_at", "stopped_at"),
        withheld=("pid", "process_started_at", "heartbeat_at"),
        filters=("id",),
        scopes=(Scope("server"),),
    )

    id: Mapped[UuidKey]
    hostname: Mapped[str]
    pid: Mapped[int]
    process_started_at: Mapped[datetime]
    version: Mapped[str]
    started_at: Mapped[Created]
    heartbeat_at: Mapped[Created]
    stopped_at: Mapped[datetime | None]


class Kernelspec(Base):
    """A kernel that can be started, as Jupyter found it when it was last listed.

    `spec` is not published (its `env` may hold secrets): on a replica it is empty.
    """

    __tablename__ = "kernelspecs"
    __feed__ = Published(
        sent=("id", "name", "is_default", "spec", "resources"),
        withheld=("refreshed_at",),
        filters=("id", "name"),
        scopes=(Scope("everyone"),),
    )

    id: Mapped[UuidKey]
    name: Mapped[str] = mapped_column(unique=True)
    is_default: Mapped[bool] = mapped_column(server_default=text("false"))
    spec: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    resources: Mapped[dict[str, Any]]
    refreshed_at: Mapped[Created]


class Kernel(Base):
    """A kernel, living or ended; history refers to ended ones, so rows stay.

    `incarnation` is raised by each restart: an execution belongs to one incarnation.
    `recorded_batch` is the number of the last batch of kernel messages committed, written in the
    same transaction as the batch. When a connection breaks during a commit, it tells the recorder
    whether that commit happened, so no message is stored twice or dropped.
    `reason` says why a kernel is dead or was restarted without being asked.
    `connection_info` holds the kernel's signing key and is never sent to a client.
    """

    __tablename__ = "kernels"
    __feed__ = Published(
        sent=(
            "id",
            "name",
            "path",
            "execution_state",
            "reason",
            "incarnation",
            "connections",
            "owner_id",
            "server_id",
            "kernel_info",
            "created_at",
            "last_activity",
            "ended_at",
        ),
        withheld=("pid", "pid_started_at", "connection_info", "recorded_batch"),
        filters=("id", "name", "path", "owner_id", "server_id"),
        scopes=(Scope("kernels", "id"),),
    )
    __table_args__ = (
        CheckConstraint(
            "execution_state IN ('unknown', 'starting', 'idle', 'busy', 'terminating', "
            "'restarting', 'autorestarting', 'dead')",
            name="execution_state",
        ),
        CheckConstraint("ended_at IS NULL OR execution_state = 'dead'", name="ended_is_dead"),
        Index("kernels_living_idx", "id", postgresql_where=text("ended_at IS NULL")),
    )

    id: Mapped[TextKey]
    name: Mapped[str]
    path: Mapped[str] = mapped_column(server_default=text("''"))
    execution_state: Mapped[str] = mapped_column(server_default=text("'starting'"))
    reason: Mapped[str | None]
    incarnation: Mapped[int] = mapped_column(server_default=text("1"))
    connections: Mapped[int] = mapped_column(server_default=text("0"))
    owner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    server_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("server_status.id", ondelete="SET NULL")
    )
    pid: Mapped[int | None]
    pid_started_at: Mapped[datetime | None]
    connection_info: Mapped[dict[str, Any] | None]
    kernel_info: Mapped[dict[str, Any] | None]
    recorded_batch: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    created_at: Mapped[Created]
    last_activity: Mapped[Created]
    ended_at: Mapped[datetime | None]


class Session(Base):
    """A path (notebook, console or file) and the kernel that serves it."""

    __tablename__ = "sessions"
    __feed__ = Published(
        sent=(
            "id",
            "path",
            "name",
            "type",
            "kernel_id",
            "document_id",
            "owner_id",
            "created_at",
            "ended_at",
        ),
        filters=("id", "path", "type", "kernel_id", "document_id", "owner_id"),
        scopes=(Scope("sessions", "id"),),
    )
    __table_args__ = (
        Index("sessions_living_path_idx", "path", postgresql_where=text("ended_at IS NULL")),
    )

    id: Mapped[TextKey]
    path: Mapped[str]
    name: Mapped[str] = mapped_column(server_default=text("''"))
    type: Mapped[str]
    kernel_id: Mapped[str] = mapped_column(ForeignKey("kernels.id"), index=True)
    document_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("documents.id", ondelete="SET NULL"), index=True
    )
    owner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[Created]
    ended_at: Mapped[datetime | None]
