"""The change log, what tells one database's past from another's, and who is connected.

Only triggers write `changes` (`datastore_watch` installs them). How it is read is in
`app/changes/`.
"""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    PrimaryKeyConstraint,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, OID
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import UserDefinedType

from models.base import Base, Created, UuidKey
from models.published import Published, Scope, Unpublished


class Xid8(UserDefinedType[str]):
    """A transaction id that never wraps (`xid8`)."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the type's name."""
        return "xid8"


class PgSnapshot(UserDefinedType[str]):
    """Which transactions were visible at an instant (`pg_snapshot`)."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the type's name."""
        return "pg_snapshot"


class Change(Base):
    """Records that one statement inserted (I), updated (U) or deleted (D), or a TRUNCATE (T).

    A statement is one row, or several where it changed more than a hundred records or not all
    alike; each record is in one of them. `id` orders the changes of one record, since each is
    numbered while the record is locked; it says nothing about transactions. `columns` are the
    published columns that an update changed. `keys` are, for each of the records, the values that
    its filter columns had before: of deleted records, and of those whose update changed any of
    them.

    Partitioned by `at`, which decides where a row is and nothing else: not its order, and not
    alone when it may go (docs/decisions/0050-the-change-log-by-days.md). No constraint says what
    `op` may be: PostgreSQL would parse it again at each statement, and nobody but triggers writes
    here (docs/decisions/0066-a-row-of-the-log-is-a-statement.md).
    """

    __tablename__ = "changes"
    __feed__ = Unpublished("the log of the others' changes")
    __table_args__ = (
        PrimaryKeyConstraint("xid", "id", "at"),
        {"postgresql_partition_by": "RANGE (at)"},
    )

    xid: Mapped[str] = mapped_column(Xid8, server_default=text("pg_current_xact_id()"))
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    table_name: Mapped[str]
    op: Mapped[str]
    record_ids: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    columns: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    keys: Mapped[list[dict[str, Any]] | None] = mapped_column(ARRAY(JSONB))


class FeedEpoch(Base):
    """One row: which database's past the change log tells (`datastore_feed_epoch`).

    `id` is renewed when the database turns out to be a copy: another system, database or table.
    Changes that `pruned` shows are void, whether or not they are gone yet.
    """

    __tablename__ = "feed_epoch"
    __feed__ = Unpublished("part of every cursor")
    __table_args__ = (CheckConstraint("single", name="single"),)

    single: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    id: Mapped[uuid.UUID] = mapped_column(server_default=func.gen_random_uuid())
    system_identifier: Mapped[int] = mapped_column(BigInteger)
    database_oid: Mapped[int] = mapped_column(OID)
    table_oid: Mapped[int] = mapped_column(OID)
    pruned: Mapped[str | None] = mapped_column(PgSnapshot)


class FeedMark(Base):
    """A snapshot taken at a time, so that pruning by age can go by what was visible then.

    The age of a row in `changes` says nothing of when it became visible: its transaction may have
    been open for hours.
    """

    __tablename__ = "feed_marks"
    __feed__ = Unpublished("bookkeeping of the change log")

    at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), primary_key=True, server_default=func.clock_timestamp()
    )
    snapshot: Mapped[str] = mapped_column(PgSnapshot, server_default=text("pg_current_snapshot()"))


class Presence(Base):
    """A connection to the feed: who it is, and what it said it looks at.

    Unlogged, since a crash of PostgreSQL ends what it says anyway; servers write theirs again.
    """

    __tablename__ = "presence"
    __feed__ = Published(
        sent=("id", "user_id", "server_id", "client", "data", "connected_at", "updated_at"),
        filters=("id", "user_id", "server_id"),
        scopes=(Scope("user", "user_id"),),
        crash_empties=True,
    )
    __table_args__ = ({"prefixes": ["UNLOGGED"]},)

    id: Mapped[UuidKey]
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    server_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("server_status.id", ondelete="CASCADE"), index=True
    )
    client: Mapped[str | None]
    data: Mapped[dict[str, Any] | None]
    connected_at: Mapped[Created]
    updated_at: Mapped[Created]
