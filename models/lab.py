"""What JupyterLab keeps for a person: settings of its plugins, and how its windows are laid out."""

import uuid
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, Exact
from models.published import Published, Scope


class LabSetting(Base):
    """A person's settings of one plugin of JupyterLab.

    `raw` is the JSON5 as it was written, comments included; `settings` is what it says.
    """

    __tablename__ = "lab_settings"
    __feed__ = Published(
        sent=("user_id", "schema_id", "raw", "settings", "created_at", "last_modified"),
        filters=("user_id", "schema_id"),
        scopes=(Scope("user", "user_id"),),
        id=("user_id", "schema_id"),
    )
    __table_args__ = (
        CheckConstraint("jsonb_typeof(settings) = 'object'", name="settings_is_object"),
    )

    user_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    schema_id: Mapped[str] = mapped_column(primary_key=True)
    raw: Mapped[Exact]
    settings: Mapped[dict[str, Any]]
    created_at: Mapped[Created]
    last_modified: Mapped[Created]


class LabWorkspace(Base):
    """A person's layout of one JupyterLab workspace: what is open, where, and how.

    `name` is the workspace's id without its leading slash.
    """

    __tablename__ = "lab_workspaces"
    __feed__ = Published(
        sent=("user_id", "name", "created_at", "last_modified"),
        announced=("data", "metadata"),
        filters=("user_id", "name"),
        scopes=(Scope("user", "user_id"),),
        id=("user_id", "name"),
    )
    __table_args__ = (
        CheckConstraint("name <> ''", name="name_not_empty"),
        CheckConstraint("jsonb_typeof(data) = 'object'", name="data_is_object"),
    )

    user_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[dict[str, Any]]
    meta: Mapped[dict[str, Any]] = mapped_column("metadata")
    created_at: Mapped[Created]
    last_modified: Mapped[Created]
