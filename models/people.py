"""Who acts: users and the tokens they prove themselves with.

Groups and permissions join them with the issue on people.
"""

import uuid
from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, UuidKey
from models.published import Published, Scope, Unpublished


class User(Base):
    """A person or service that acts; `name` is what Jupyter calls the username.

    `full_name`, `display_name`, `initials`, `avatar_url` and `color` are what other people are
    shown (Jupyter's identity model). Rows are never deleted while history refers to them;
    `disabled_at` ends a user's access.
    """

    __tablename__ = "users"
    __feed__ = Published(
        sent=(
            "id",
            "name",
            "full_name",
            "display_name",
            "initials",
            "avatar_url",
            "color",
            "admin",
            "created_at",
            "disabled_at",
        ),
        filters=("id", "name"),
        scopes=(Scope("server"),),
    )
    __table_args__ = (CheckConstraint("name <> ''", name="name_not_empty"),)

    id: Mapped[UuidKey]
    name: Mapped[str] = mapped_column(unique=True)
    full_name: Mapped[str | None]
    display_name: Mapped[str | None]
    initials: Mapped[str | None]
    avatar_url: Mapped[str | None]
    color: Mapped[str | None]
    admin: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[Created]
    disabled_at: Mapped[datetime | None]


class Token(Base):
    """A secret that stands for a user, as its SHA-256.

    A token has at least 16 random bytes, so a fast hash is as good as a slow one. `prefix` (the
    token's first characters) lets people tell tokens apart; the unique `hash` is what a request
    is found by, so two rows can never answer for one secret.
    """

    __tablename__ = "tokens"
    __feed__ = Unpublished("secrets, also as hashes, are nobody's to follow")

    id: Mapped[UuidKey]
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str]
    prefix: Mapped[str]
    hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    created_at: Mapped[Created]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
