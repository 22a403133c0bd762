"""Queries on documents, their cells and the outputs that cells show."""

import uuid
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, and_, bindparam, func, or_, select

from models import (
    Cell,
    Content,
    Document,
    DocumentSnapshot,
    DocumentUpdate,
    DocumentVersion,
    Output,
    User,
)

# Statements that every edit runs are built once: making one anew costs more than running it.
_BY_PATH = (
    select(Document)
    .join(Content, Content.id == Document.content_id)
    .where(Content.path == bindparam("path"))
)
_CURRENT_VERSION = (
    select(Document.version, Content.path, Document.type, Document.compacted_version)
    .join(Content, Content.id == Document.content_id)
    .where(Document.id == bindparam("document_id"))
)
_LOCKED_VERSION = _CURRENT_VERSION.with_for_update(of=Document, key_share=True)


def documents_by_path() -> Select[Document]:
    """The document of the file at `path`, if it was ever opened."""
    return _BY_PATH


def document_paths(document_id: uuid.UUID) -> Select[Any]:
    """The path of a document's file."""
    return (
        select(Content.path)
        .join(Document, Document.content_id == Content.id)
        .where(Document.id == document_id)
    )


def locked_version() -> Select[int, str, str, int]:
    """What `current_version` returns, of a document locked against other edits.

    FOR NO KEY UPDATE: rows that refer to the document may be inserted meanwhile.
    """
    return _LOCKED_VERSION


def current_version() -> Select[int, str, str, int]:
    """The version, path, type and compacted version of the document `document_id`."""
    return _CURRENT_VERSION


def unsaved_documents() -> Select[Any]:
    """Documents whose file is behind."""
    return (
        select(Document.id).where(Document.saved_version < Document.version).order_by(Document.id)
    )


def latest_snapshot(document_id: uuid.UUID, version: int) -> Select[int, bytes]:
    """The newest snapshot of a document up to a version."""
    return (
        select(DocumentSnapshot.version, DocumentSnapshot.state)
        .where(DocumentSnapshot.document_id == document_id, DocumentSnapshot.version <= version)
        .order_by(DocumentSnapshot.version.desc())
        .limit(1)
    )


def updates_after(document_id: uuid.UUID, version: int, last: int) -> Select[int, bytes]:
    """The updates of a document after `version` up to `last`, in order."""
    return (
        select(DocumentUpdate.version, DocumentUpdate.update)
        .where(
            DocumentUpdate.document_id == document_id,
            DocumentUpdate.version > version,
            DocumentUpdate.version <= last,
        )
        .order_by(DocumentUpdate.version)
    )


def history_after(document_id: uuid.UUID, version: int, last: int) -> Select[*tuple[Any, ...]]:
    """The updates of a document after `version` up to `last`, with who made them and when."""
    return (
        select(
            DocumentUpdate.version,
            DocumentUpdate.update,
            DocumentUpdate.actor_id,
            DocumentUpdate.origin,
            DocumentUpdate.undoes,
            DocumentUpdate.created_at,
        )
        .where(
            DocumentUpdate.document_id == document_id,
            DocumentUpdate.version > version,
            DocumentUpdate.version <= last,
        )
        .order_by(DocumentUpdate.version)
    )


def changes_before(
    document_id: uuid.UUID, before: int | None, limit: int
) -> Select[*tuple[Any, ...]]:
    """The last updates of a document before a version, the latest first, without their bytes."""
    query = (
        select(
            DocumentUpdate.version,
            DocumentUpdate.origin,
            func.coalesce(DocumentUpdate.edits, 1).label("edits"),
            DocumentUpdate.undoes,
            DocumentUpdate.created_at,
            func.length(DocumentUpdate.update).label("size_bytes"),
            User.name.label("user_name"),
        )
        .outerjoin(User, User.id == DocumentUpdate.actor_id)
        .where(DocumentUpdate.document_id == document_id)
        .order_by(DocumentUpdate.version.desc())
        .limit(limit)
    )
    return query if before is None else query.where(DocumentUpdate.version < before)


def version_at(document_id: uuid.UUID, at: datetime) -> Select[Any]:
    """The version that a document had at a time."""
    return select(func.max(DocumentUpdate.version)).where(
        DocumentUpdate.document_id == document_id, DocumentUpdate.created_at <= at
    )


def named_version(document_id: uuid.UUID, name: str) -> Select[Any]:
    """The version of a document that has a name."""
    return select(DocumentVersion).where(
        DocumentVersion.document_id == document_id, DocumentVersion.name == name
    )


def named_versions(document_id: uuid.UUID) -> Select[*tuple[Any, ...]]:
    """The named versions of a document, the latest first, without their states."""
    return (
        select(
            DocumentVersion.name,
            DocumentVersion.version,
            DocumentVersion.created_at,
            User.name.label("user_name"),
        )
        .outerjoin(User, User.id == DocumentVersion.actor_id)
        .where(DocumentVersion.document_id == document_id)
        .order_by(DocumentVersion.version.desc(), DocumentVersion.created_at.desc())
    )


def documents_to_compact(undo: timedelta, history: timedelta, worth: int) -> Select[Any]:
    """Documents with many updates that are older than undo goes back, or some to be dropped."""
    age = func.now() - DocumentUpdate.created_at
    is_joinable = and_(age > undo, DocumentUpdate.version > Document.compacted_version)
    return (
        select(DocumentUpdate.document_id)
        .join(Document, Document.id == DocumentUpdate.document_id)
        .group_by(DocumentUpdate.document_id)
        .having(
            or_(
                func.count().filter(is_joinable) >= worth,
                func.count().filter(age > history) > 0,
            )
        )
        .order_by(DocumentUpdate.document_id)
    )


def compacted_version(document_id: uuid.UUID) -> Select[int]:
    """The version up to which a document's updates may be joined or gone."""
    return select(Document.compacted_version).where(Document.id == document_id)


def cells_of(document_id: uuid.UUID) -> Select[Any]:
    """A notebook's cells in order."""
    return select(Cell).where(Cell.notebook_id == document_id).order_by(Cell.position, Cell.id)


def shown_outputs(cell_row_id: uuid.UUID) -> Select[Any]:
    """The outputs that a cell shows, in order."""
    return select(Output).where(Output.cell_id == cell_row_id).order_by(Output.id)


def last_outputs(cell_row_ids: Collection[uuid.UUID]) -> Select[*tuple[Any, ...]]:
    """The last output that each of some cells shows."""
    last = (
        select(func.max(Output.id)).where(Output.cell_id.in_(cell_row_ids)).group_by(Output.cell_id)
    )
    return select(
        Output.cell_id, Output.id, Output.execution_id, Output.output_type, Output.name
    ).where(Output.id.in_(last))


def earlier_pieces(cell_row_id: uuid.UUID, before_id: int, limit: int) -> Select[*tuple[Any, ...]]:
    """Outputs that a cell shows, backwards from an id (inclusive)."""
    return (
        select(Output.id, Output.execution_id, Output.output_type, Output.name, Output.text)
        .where(Output.cell_id == cell_row_id, Output.id <= before_id)
        .order_by(Output.id.desc())
        .limit(limit)
    )


def outputs_of_cells_with_displays(document_id: uuid.UUID) -> Select[*tuple[Any, ...]]:
    """What tells the places of displays: the outputs, in order, of cells that show a display."""
    with_display = (
        select(Output.cell_id)
        .join(Cell, Cell.id == Output.cell_id)
        .where(Cell.notebook_id == document_id, Output.display_id.is_not(None))
    )
    return (
        select(
            Output.cell_id,
            Output.execution_id,
            Output.output_type,
            Output.name,
            Output.kernel_id,
            Output.display_id,
        )
        .where(Output.cell_id.in_(with_display))
        .order_by(Output.cell_id, Output.id)
    )


def documents_showing(kernel_id: str, display_ids: Collection[str]) -> Select[Any]:
    """The documents with cells that show any of a kernel's displays."""
    return (
        select(Cell.notebook_id)
        .join(Output, Output.cell_id == Cell.id)
        .where(Output.kernel_id == kernel_id, Output.display_id.in_(display_ids))
        .distinct()
    )
