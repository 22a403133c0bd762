"""What websockets' clients ask and answer, as the recorder is told of it before the kernel is."""

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Boolean, Row, Table, Text, func, select
from sqlalchemy import cast as cast_sql

from app.db.engine import Transaction
from app.recorder.operations import CellTarget, Keeper
from models import Cell, Session
from models.codec import encode_text

_SESSIONS = cast("Table", Session.__table__)
_CELLS = cast("Table", Cell.__table__)
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


@dataclass(eq=False, slots=True)
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
    place: Place | None = None

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
        place = self.place or Place()
        return {
            "id": self.id,
            "session_id": place.session_id,
            "document_id": place.document_id,
            "path": place.path,
            "cell_id": None if self.cell_id is None else encode_text(self.cell_id),
            "cell_version": place.cell_version,
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


async def find_places(tx: Transaction, kernel_id: str, announced: list[Announced]) -> None:
    """Find where executions belong: in the kernel's session whose notebook has the cell.

    The asker must be allowed to execute the notebook, as over HTTP: a client of the kernel names
    what cell it likes. Without such a cell it is the kernel's only session, if there is just one.
    """
    living = select(_SESSIONS.c.id, _SESSIONS.c.path, _SESSIONS.c.document_id).where(
        _SESSIONS.c.kernel_id == kernel_id, _SESSIONS.c.ended_at.is_(None)
    )
    sessions = (await tx.execute(living.order_by(_SESSIONS.c.created_at, _SESSIONS.c.id))).all()
    only = Place(sessions[0].id, sessions[0].path) if len(sessions) == 1 else Place()
    documents = {row.document_id for row in sessions if row.document_id is not None}
    wanted = {encode_text(item.cell_id) for item in announced if item.cell_id is not None}
    cells: dict[tuple[uuid.UUID, str], list[Row[uuid.UUID, str, int, str]]] = {}
    askers = {item.actor_id for item in announced} if documents and wanted else set()
    for actor_id in sorted(askers):
        notebook = cast_sql(_CELLS.c.notebook_id, Text)
        query = select(
            _CELLS.c.notebook_id, _CELLS.c.cell_id, _CELLS.c.version, _CELLS.c.source
        ).where(
            _CELLS.c.notebook_id.in_(documents),
            _CELLS.c.cell_id.in_(wanted),
            _CELLS.c.cell_type == "code",
            func.datastore_may(actor_id, "execute", "documents", notebook, type_=Boolean),
        )
        for row in await tx.execute(query):
            cells.setdefault((actor_id, row.cell_id), []).append(row)
    for item in announced:
        item.place = only
        found = cells.get((item.actor_id, encode_text(item.cell_id or "")), [])
        for session in sessions:
            cell = next((cell for cell in found if cell.notebook_id == session.document_id), None)
            if cell is not None and item.cell_id is not None:
                item.keeper.documents.add(cell.notebook_id)
                item.place = Place(
                    session.id,
                    session.path,
                    CellTarget(cell.notebook_id, item.cell_id, item.keeper),
                    cell.notebook_id,
                    cell.version if cell.source == item.code else None,
                )
                break
