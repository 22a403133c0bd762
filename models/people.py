"""Who acts and what they may: users, groups, tokens, permissions, share links, the audit.

What a permission means is decided by the SQL function `datastore_may` alone; no rule lives here.
"""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, Index, LargeBinary, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, BigKey, Created, UuidKey
from models.published import Published, Scope, Unpublished

_ACTIONS = "ARRAY['read', 'write', 'execute', 'share']"
_ONE_TARGET = (
    "(resource = 'contents') = (content_id IS NOT NULL) "
    "AND (resource = 'kernels') = (kernel_id IS NOT NULL)"
)


class User(Base):
    """A person or service that acts; `name` is what Jupyter calls the username.

    `full_name`, `display_name`, `initials`, `avatar_url` and `color` are what other people are
    shown (Jupyter's identity model). Rows are never deleted while history refers to them;
    `disabled_at` ends a user's access. `home_id` is a folder that is theirs alone: a permission on
    a folder above it does not reach into it. `home_path` is its path, kept by triggers, so that the
    homes in a folder are found by an index.
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
        withheld=("home_id", "home_path", "hub_name"),
        filters=("id", "name"),
        scopes=(Scope("everyone"),),
    )
    __table_args__ = (
        CheckConstraint("name <> ''", name="name_not_empty"),
        Index("users_home_path_idx", "home_path"),
    )

    id: Mapped[UuidKey]
    name: Mapped[str] = mapped_column(unique=True)
    full_name: Mapped[str | None]
    display_name: Mapped[str | None]
    initials: Mapped[str | None]
    avatar_url: Mapped[str | None]
    color: Mapped[str | None]
    admin: Mapped[bool] = mapped_column(server_default=text("false"))
    home_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("contents.id", ondelete="SET NULL"), index=True
    )
    home_path: Mapped[str | None] = mapped_column(Text(collation="C"))
    created_at: Mapped[Created]
    disabled_at: Mapped[datetime | None]
    hub_name: Mapped[str | None] = mapped_column(unique=True)


class Password(Base):
    """What a password is checked against (argon2). No role but the server's own may read it."""

    __tablename__ = "passwords"
    __feed__ = Unpublished("secrets are nobody's to follow")

    user_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    hash: Mapped[str]
    changed_at: Mapped[Created]


class Group(Base):
    """Users who are given permissions together; who is in one with a `hub_name` says the hub."""

    __tablename__ = "groups"
    __feed__ = Published(
        sent=("id", "name", "created_at"),
        withheld=("hub_name",),
        filters=("id", "name"),
        scopes=(Scope("everyone"),),
    )
    __table_args__ = (CheckConstraint("name <> ''", name="name_not_empty"),)

    id: Mapped[UuidKey]
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[Created]
    hub_name: Mapped[str | None] = mapped_column(unique=True)


class GroupMember(Base):
    """That a user is in a group."""

    __tablename__ = "group_members"
    __feed__ = Published(
        sent=("group_id", "user_id", "created_at"),
        filters=("group_id", "user_id"),
        scopes=(Scope("user", "user_id"),),
        id=("group_id", "user_id"),
    )

    group_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True
    )
    user_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    created_at: Mapped[Created]


class Token(Base):
    """A secret that stands for a user, as its SHA-256.

    A token has at least 16 random bytes, so a fast hash is as good as a slow one. `prefix` (the
    token's first characters) lets people tell tokens apart; the unique `hash` is what a request
    is found by, so two rows can never answer for one secret. `scopes` restrict it to some actions
    (`read`) or actions on some resources (`execute:kernels`); null is all that its user may.
    A login by name and password is such a row too (`kind` is `login`): its secret is known to
    nobody, the browser's cookie names the row. One of JupyterHub's (`kind` is `hub`) is good for as
    long as the hub says so: `checked_at` is when it last did, `expires_at` when it no longer did.
    """

    __tablename__ = "tokens"
    __feed__ = Unpublished("secrets, also as hashes, are nobody's to follow")
    __table_args__ = (
        CheckConstraint(
            "kind IN ('token', 'login') AND checked_at IS NULL "
            "OR kind = 'hub' AND checked_at IS NOT NULL",
            name="kind",
        ),
    )

    id: Mapped[UuidKey]
    user_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    kind: Mapped[str] = mapped_column(server_default=text("'token'"))
    name: Mapped[str]
    prefix: Mapped[str]
    hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    scopes: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    created_at: Mapped[Created]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    checked_at: Mapped[datetime | None]


class ShareLink(Base):
    """A code that gives whoever accepts it some actions on a target, as its SHA-256.

    What it gave ends with it: when it expires or is revoked, so do the permissions.
    """

    __tablename__ = "share_links"
    __feed__ = Unpublished("secrets, also as hashes, are nobody's to follow")
    __table_args__ = (
        CheckConstraint("resource IN ('contents', 'kernels')", name="resource"),
        CheckConstraint(_ONE_TARGET, name="one_target"),
        CheckConstraint(f"'read' = ANY (actions) AND actions <@ {_ACTIONS}", name="actions"),
    )

    id: Mapped[UuidKey]
    hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    prefix: Mapped[str]
    resource: Mapped[str]
    content_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("contents.id", ondelete="CASCADE"), index=True
    )
    kernel_id: Mapped[str | None] = mapped_column(
        ForeignKey("kernels.id", ondelete="CASCADE"), index=True
    )
    actions: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_by_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[Created]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Permission(Base):
    """That a user, a group or everyone who has logged in may do something to a target.

    The target is a file or a folder with what is under it (`content_id`, so that a permission
    follows renames and ends with the file), a kernel, or the server. Whoever may do anything may
    read: `actions` always has `read`.
    """

    __tablename__ = "permissions"
    __feed__ = Unpublished("who may see one depends on what it is of: it is read over HTTP")
    __table_args__ = (
        CheckConstraint("subject IN ('user', 'group', 'everyone')", name="subject"),
        CheckConstraint(
            "(subject = 'user') = (user_id IS NOT NULL) "
            "AND (subject = 'group') = (group_id IS NOT NULL)",
            name="one_subject",
        ),
        CheckConstraint("resource IN ('contents', 'kernels', 'server')", name="resource"),
        CheckConstraint(_ONE_TARGET, name="one_target"),
        CheckConstraint(f"'read' = ANY (actions) AND actions <@ {_ACTIONS}", name="actions"),
        Index("permissions_everyone_idx", "id", postgresql_where=text("subject = 'everyone'")),
        Index(
            "permissions_expires_at_idx",
            "expires_at",
            postgresql_where=text("expires_at IS NOT NULL"),
        ),
    )

    id: Mapped[UuidKey]
    subject: Mapped[str]
    user_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    group_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("groups.id", ondelete="CASCADE"), index=True
    )
    resource: Mapped[str]
    content_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("contents.id", ondelete="CASCADE"), index=True
    )
    kernel_id: Mapped[str | None] = mapped_column(
        ForeignKey("kernels.id", ondelete="CASCADE"), index=True
    )
    actions: Mapped[list[str]] = mapped_column(ARRAY(Text))
    granted_by_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id"))
    share_link_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("share_links.id", ondelete="CASCADE"), index=True
    )
    created_at: Mapped[Created]
    expires_at: Mapped[datetime | None]


class AuditEntry(Base):
    """Something that was done about access, or tried; rows are only ever added.

    Names are kept beside ids, and nothing refers to other tables: an entry outlives what it is
    about. Triggers and privileges keep the server's own role from changing any.
    """

    __tablename__ = "audit"
    __feed__ = Unpublished("for administrators, over HTTP")
    __table_args__ = (Index("audit_at_idx", "at"),)

    id: Mapped[BigKey]
    at: Mapped[Created]
    event: Mapped[str]
    actor_id: Mapped[uuid.UUID | None]
    actor: Mapped[str | None]
    detail: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))


class SqlRole(Base):
    """A PostgreSQL login of a person, who sees through the policies what that person may see.

    Which person a connection is for is read from here by its login (`session_user`), never from a
    setting that the person could change.
    """

    __tablename__ = "sql_roles"
    __feed__ = Unpublished("bookkeeping of logins to the database")

    role_name: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    created_at: Mapped[Created]
