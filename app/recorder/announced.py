"""What websockets' clients ask and answer, as the recorder is told of it before the kernel is."""

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import and_, select

from app.db.engine import Transaction
from app.recorder.operations import CellTarget, Keeper
from models import Cell, Session
from models.codec import encode_text

# Longer ids do not fit the index of executions by cell.
_CELL_ID_LENGTH = 255


@dataclass(frozen=True, slots=True)
class Place:
    """The session, notebook and cell that an execution belongs to, as far as they are known."""

    session_id: str | None = None
    path: str | None = None
    target: CellTarget | None = None
    document_id: uuid.UUID | None = None
    cell_version: int | None = None


@dataclass(slots=True)
class Announced:
    """An execute_request that is about to be sent for a client; `content` is its content.

    `place` is found by the recorder when its turn comes.
    """

    id: uuid.UUID
    msg_id: str
    actor_id: uuid.UUID
    content: dict[str, Any] = field(repr=False)
    cell_id: str | None
    at: datetime
    keeper: Keeper
    place: Place = Place()

    def __post_init__(self) -> None:
        if self.cell_id is not None and not 0 < len(self.cell_id) <= _CELL_ID_LENGTH:
            self.cell_id = None

    @property
    def code(self) -> str:
        """The code to run."""
        return str(self.content.get("code", ""))

    def values(self) -> dict[str, Any]:
        """Return the columns of its execution that do not depend on the kernel."""
        expressions = self.content.get("user_expressions")
        return {
            "id": self.id,
            "session_id": self.place.session_id,
            "document_id": self.place.document_id,
            "path": self.place.path,
            "cell_id": None if self.cell_id is None else encode_text(self.cell_id),
            "cell_version": self.place.cell_version,
            "actor_id": self.actor_id,
            "client": "channel",
            "msg_id": self.msg_id,
            "code": self.code,
            "silent": bool(self.content.get("silent", False)),
            "store_history": bool(self.content.get("store_history", True)),
            "stop_on_error": bool(self.content.get("stop_on_error", True)),
            "allow_stdin": bool(self.content.get("allow_stdin", True)),
            "user_expressions": expressions if isinstance(expressions, dict) else {},
            "queued_at": self.at,
        }


@dataclass(frozen=True, slots=True)
class Answered:
    """A client's answer to the input request with this message id."""

    msg_id: str
    actor_id: uuid.UUID
    value: str = field(repr=False)
    at: datetime


async def find_place(tx: Transaction, kernel_id: str, announced: Announced) -> Place:
    """Return where an execution belongs: the kernel's session whose notebook has the cell.

    Without such a cell it is the kernel's only session, if there is just one.
    """
    cell_id = announced.cell_id
    query = (
        select(Session, Cell.version, Cell.source == announced.code)
        .outerjoin(
            Cell,
            and_(
                Cell.notebook_id == Session.document_id,
                Cell.cell_id == (cell_id and encode_text(cell_id)),
                Cell.cell_type == "code",
            ),
        )
        .where(Session.kernel_id == kernel_id, Session.ended_at.is_(None))
        .order_by(Cell.id.is_(None), Session.created_at, Session.id)
        .limit(2)
    )
    found = (await tx.execute(query)).all()
    if not found:
        return Place()
    session, version, same_text = found[0]
    if version is None or session.document_id is None:
        return Place(session.id, session.path) if len(found) == 1 else Place()
    announced.keeper.documents.add(session.document_id)
    return Place(
        session.id,
        session.path,
        CellTarget(session.document_id, str(cell_id), announced.keeper),
        session.document_id,
        version if same_text else None,
    )
