"""The declarative base, the constraint names and the column types that all tables share.

No table lives here.
"""

import secrets
import time
import uuid
from datetime import datetime
from typing import Annotated, Any, ClassVar

from sqlalchemy import BigInteger, DateTime, Identity, MetaData, Text, Uuid, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

from models.codec import ExactText
from models.published import Published, Unpublished

NAMING_CONVENTION = {
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ck": "%(table_name)s_%(constraint_name)s_check",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "pk": "%(table_name)s_pkey",
}


def uuid7() -> uuid.UUID:
    """Return a new UUIDv7 (RFC 9562, section 5.7): its order is that of time.

    The 12 bits after the milliseconds are their fraction (section 6.2, method 3).
    """
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    fraction = rest * 4096 // 1_000_000
    return uuid.UUID(
        int=milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | secrets.randbits(62)
    )


UuidKey = Annotated[uuid.UUID, mapped_column(primary_key=True, default=uuid.uuid4)]
BigKey = Annotated[int, mapped_column(BigInteger, Identity(always=True), primary_key=True)]
TimedKey = Annotated[uuid.UUID, mapped_column(primary_key=True, default=uuid7)]
TextKey = Annotated[str, mapped_column(Text, primary_key=True)]
Exact = Annotated[str, mapped_column(ExactText)]
Created = Annotated[datetime, mapped_column(server_default=func.now())]


class Base(DeclarativeBase):
    """Base of every table: typed columns, `timestamptz` for times, `jsonb` for JSON."""

    # What clients may follow of the table.
    __feed__: ClassVar[Published | Unpublished]

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {  # noqa: RUF012 (SQLAlchemy reads a plain class attribute)
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
        list[Any]: JSONB(none_as_null=True),
        list[str]: JSONB(none_as_null=True),
        str: Text,
        uuid.UUID: Uuid,
    }
