"""Files known to the server, and the merge state behind those that are open.

`contents` follow the disk; `documents` are what collaborators edit; `notebooks` and `cells` are
rows projected from a document in the transaction that edits it. Outputs are in
`models.executions`.
"""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, Exact, UuidKey
from models.published import Published, Scope, Unpublished


class Content(Base):
    """A file under the root directory, as it was last seen on disk.

    `path` is Jupyter's API path (relative to the root, `/` separated, no leading slash; the root
    itself is the empty path). One path is one row; a rename changes the path and keeps the id.
    `parent_id` is the folder's row, null for the root and for what vanished with its folder.
    `file_key` is the file's device and inode, by which a rename that another program made is
    told. `missing_since` is when the file was found gone: it may come back or turn up elsewhere,
    so the row is kept for a while, and for as long as it has a document. `size`, times and the
    rest are those of a listing (a link's own, as Jupyter says); `hash` is the content's, known
    for files that were opened, null once the file has changed.
    """

    __tablename__ = "contents"
    __feed__ = Published(
        sent=(
            "id",
            "parent_id",
            "path",
            "name",
            "type",
            "format",
            "mimetype",
            "writable",
            "size",
            "created",
            "last_modified",
            "hash",
            "hash_algorithm",
            "missing_since",
        ),
        withheld=("file_key",),
        filters=("id", "parent_id", "path", "type"),
        scopes=(Scope("contents", "path"),),
    )
    __table_args__ = (
        CheckConstraint("type IN ('notebook', 'file', 'directory')", name="type"),
        CheckConstraint("path NOT LIKE '/%'", name="path_is_relative"),
        CheckConstraint("parent_id IS NULL OR path <> ''", name="root_has_no_parent"),
        Index("contents_file_key_idx", "file_key", postgresql_where=text("file_key IS NOT NULL")),
        Index(
            "contents_missing_idx",
            "missing_since",
            postgresql_where=text("missing_since IS NOT NULL"),
        ),
    )

    id: Mapped[UuidKey]
    parent_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("contents.id", ondelete="SET NULL"), index=True
    )
    path: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    type: Mapped[str]
    format: Mapped[str | None]
    mimetype: Mapped[str | None]
    writable: Mapped[bool] = mapped_column(server_default=text("true"))
    size: Mapped[int | None] = mapped_column(BigInteger)
    created: Mapped[datetime | None]
    last_modified: Mapped[datetime | None]
    hash: Mapped[str | None]
    hash_algorithm: Mapped[str | None]
    file_key: Mapped[str | None]
    missing_since: Mapped[datetime | None]


class Checkpoint(Base):
    """A copy of a file that the contents manager keeps, as it was last listed or made here."""

    __tablename__ = "checkpoints"
    __feed__ = Published(
        sent=("id", "content_id", "checkpoint_id", "last_modified"),
        filters=("id", "content_id"),
        scopes=(Scope("content", "content_id"),),
    )
    __table_args__ = (UniqueConstraint("content_id", "checkpoint_id"),)

    id: Mapped[UuidKey]
    content_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("contents.id", ondelete="CASCADE"))
    checkpoint_id: Mapped[str]
    last_modified: Mapped[datetime]


class Document(Base):
    """An open notebook or text file: its merge state's version and what is on disk.

    `version` is the number of the last stored update; the row's lock is taken for every edit, so
    versions have no gap and one order. `saved_version` is the version that the file holds, and
    `disk_hash` that file's SHA-256: a file with another hash was changed by another program.
    `disk_base` keeps, for each cell in the saved file, hashes of its parts, the base of a
    three-way merge; of a text file, the text. `save_error` is the reason why the last save failed.
    Updates up to `compacted_version` may be joined or gone; the snapshot at it stays.
    """

    __tablename__ = "documents"
    __feed__ = Published(
        sent=(
            "id",
            "content_id",
            "type",
            "format",
            "version",
            "saved_version",
            "saved_at",
            "save_error",
            "created_at",
        ),
        withheld=("disk_hash", "disk_base", "compacted_version"),
        filters=("id", "content_id"),
        scopes=(Scope("documents", "id"),),
    )
    __table_args__ = (
        CheckConstraint("type IN ('notebook', 'file')", name="type"),
        CheckConstraint("saved_version <= version", name="saved_not_ahead"),
        CheckConstraint("compacted_version <= version", name="compacted_not_ahead"),
        Index("documents_unsaved_idx", "id", postgresql_where=text("saved_version < version")),
    )

    id: Mapped[UuidKey]
    content_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("contents.id", ondelete="CASCADE"), unique=True
    )
    type: Mapped[str]
    format: Mapped[str]
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    saved_version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    compacted_version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    saved_at: Mapped[datetime | None]
    save_error: Mapped[str | None]
    disk_hash: Mapped[str | None]
    disk_base: Mapped[dict[str, Any] | None]
    created_at: Mapped[Created]


class DocumentUpdate(Base):
    """One Yjs update (v1 encoding) of a document, in the order of its row lock.

    `origin` says what made it; 'save' is what the server says of the file after it was written.
    `edits` is how many updates it was before compaction joined them, null for one: versions have
    gaps there.
    `undoes` are the versions that an undo or redo took back.
    """

    __tablename__ = "document_updates"
    __feed__ = Unpublished("what a document is made of: clients see its projection")
    __table_args__ = (
        CheckConstraint(
            "origin IN ('load', 'api', 'execution', 'disk', 'room', 'undo', 'redo', 'restore',"
            " 'save')",
            name="origin",
        ),
        CheckConstraint("edits >= 1", name="edits"),
    )

    document_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True
    )
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    update: Mapped[bytes] = mapped_column(LargeBinary)
    actor_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id"))
    origin: Mapped[str]
    edits: Mapped[int | None]
    undoes: Mapped[list[int] | None] = mapped_column(ARRAY(BigInteger))
    created_at: Mapped[Created]


class DocumentSnapshot(Base):
    """A document's whole Yjs state at a version, so that opening it need not replay all updates.

    The one at `documents.compacted_version` is kept: what compaction joined or dropped is before
    it, and undo goes back to it.
    """

    __tablename__ = "document_snapshots"
    __feed__ = Unpublished("what a document is made of: clients see its projection")

    document_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True
    )
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    state: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[Created]


class DocumentVersion(Base):
    """A version of a document that somebody gave a name; `state` is its whole Yjs state.

    With a state of its own it outlives the updates that led to it.
    """

    __tablename__ = "document_versions"
    __feed__ = Published(
        sent=("id", "document_id", "version", "name", "actor_id", "created_at"),
        withheld=("state",),
        filters=("id", "document_id"),
        scopes=(Scope("documents", "document_id"),),
    )
    __table_args__ = (
        UniqueConstraint("document_id", "name"),
        CheckConstraint("name <> ''", name="name_not_empty"),
    )

    id: Mapped[UuidKey]
    document_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("documents.id", ondelete="CASCADE"))
    version: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str]
    state: Mapped[bytes] = mapped_column(LargeBinary)
    actor_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[Created]


class DocumentFork(Base):
    """A fork of a document, as jupyter-collaboration has them: edited apart, merged or dropped.

    With `synchronize` it also gets what is done to the document meanwhile. `state` is its whole
    Yjs state; a fork is not saved to a file.
    """

    __tablename__ = "document_forks"
    __feed__ = Published(
        sent=(
            "id",
            "document_id",
            "title",
            "description",
            "synchronize",
            "actor_id",
            "created_at",
        ),
        withheld=("state",),
        filters=("id", "document_id"),
        scopes=(Scope("documents", "document_id"),),
    )

    id: Mapped[UuidKey]
    document_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("documents.id", ondelete="CASCADE"), index=True
    )
    title: Mapped[str]
    description: Mapped[str]
    synchronize: Mapped[bool]
    state: Mapped[bytes] = mapped_column(LargeBinary)
    actor_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[Created]


class CollaborationSession(Base):
    """The session id that rooms have: one for the life of the database.

    Browsers compare it when they come back; the merge state that it stands for is in the tables,
    so it outlives restarts and is the same in all processes. A single row.
    """

    __tablename__ = "collaboration_session"
    __feed__ = Unpublished("the server's own: a room's session route tells it to who may open one")
    __table_args__ = (CheckConstraint("single", name="single"),)

    single: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    id: Mapped[uuid.UUID] = mapped_column(server_default=text("gen_random_uuid()"))


class TextContent(Base):
    """The text of an open text file, as its document says, with line feeds as line ends."""

    __tablename__ = "text_contents"
    __feed__ = Published(
        sent=("id",),
        announced=("text",),
        filters=("id",),
        scopes=(Scope("documents", "id"),),
    )

    id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True
    )
    text: Mapped[Exact]


class Notebook(Base):
    """A notebook's own fields; `extra` are top-level keys that nbformat does not define."""

    __tablename__ = "notebooks"
    __feed__ = Published(
        sent=("id", "nbformat", "nbformat_minor", "metadata", "extra"),
        filters=("id",),
        scopes=(Scope("documents", "id"),),
    )

    id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True
    )
    nbformat: Mapped[int]
    nbformat_minor: Mapped[int]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata")
    extra: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))


class Cell(Base):
    """A cell of a notebook, as its document says.

    `cell_id` is the id in the file (generated for formats before 4.5) and is unique within the
    notebook. `version` rises whenever `source` or `cell_type` changes, never for outputs, so that
    a run can say which text it was asked for. `execution_id` is the latest run: only that run's
    outputs are shown in the cell.
    """

    __tablename__ = "cells"
    __feed__ = Published(
        sent=(
            "id",
            "notebook_id",
            "cell_id",
            "position",
            "cell_type",
            "source",
            "version",
            "metadata",
            "extra",
            "execution_count",
            "execution_state",
            "execution_id",
        ),
        announced=("attachments",),
        filters=("id", "notebook_id", "cell_id", "execution_id"),
        scopes=(Scope("documents", "notebook_id"),),
    )
    __table_args__ = (
        UniqueConstraint("notebook_id", "cell_id"),
        CheckConstraint("cell_type IN ('code', 'markdown', 'raw')", name="cell_type"),
        CheckConstraint("position >= 0", name="position"),
        CheckConstraint("version >= 1", name="version"),
    )

    id: Mapped[UuidKey]
    notebook_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("notebooks.id", ondelete="CASCADE"))
    cell_id: Mapped[str]
    position: Mapped[int]
    cell_type: Mapped[str]
    source: Mapped[Exact]
    version: Mapped[int] = mapped_column(server_default=text("1"))
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata")
    attachments: Mapped[dict[str, Any] | None]
    extra: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    execution_count: Mapped[int | None] = mapped_column(BigInteger)
    execution_state: Mapped[str] = mapped_column(server_default=text("'idle'"))
    execution_id: Mapped[uuid.UUID | None]
