"""What a server offers beside kernels and files: terminals, and the settings of frontends."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, Exact, UuidKey
from models.published import Published, Scope


class Terminal(Base):
    """A shell on a pseudo-terminal of one server process, living or ended.

    Two living terminals never share a name: the name is what clients connect by. What a terminal
    prints is not kept here; a terminal ends with its server.
    """

    __tablename__ = "terminals"
    __feed__ = Published(
        sent=("id", "name", "owner_id", "server_id", "created_at", "last_activity", "ended_at"),
        withheld=("cwd",),
        filters=("id", "name", "owner_id", "server_id"),
        scopes=(Scope("user", "owner_id"),),
    )
    __table_args__ = (
        Index(
            "terminals_living_name_key",
            "name",
            unique=True,
            postgresql_where=text("ended_at IS NULL"),
        ),
        CheckConstraint("name <> ''", name="name_not_empty"),
    )

    id: Mapped[UuidKey]
    name: Mapped[str]
    owner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    server_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("server_status.id", ondelete="SET NULL")
    )
    cwd: Mapped[Exact]
    created_at: Mapped[Created]
    last_activity: Mapped[Created]
    ended_at: Mapped[datetime | None]


class ConfigSection(Base):
    """One section of a user's frontend settings, as `/api/config/{name}` changes it.

    It stands in the place of `serverconfig/{name}.json` in the user's Jupyter config folder, which
    is read until the row exists.
    """

    __tablename__ = "config_sections"
    __feed__ = Published(
        sent=("user_id", "name", "data", "updated_at"),
        filters=("user_id", "name"),
        scopes=(Scope("user", "user_id"),),
        id=("user_id", "name"),
    )
    __table_args__ = (CheckConstraint("jsonb_typeof(data) = 'object'", name="data_is_object"),)

    user_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[dict[str, Any]]
    updated_at: Mapped[Created]
