"""Messages of PostgreSQL's `pgoutput` plugin, protocol version 1, as Python values.

https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html. Bytes in, values
out: no connection and no clock. Version 1 sends whole transactions, once they are committed.
"""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class ProtocolError(Exception):
    """The server sent what this version of the protocol does not have."""


@dataclass(frozen=True)
class Begin:
    """The first message of a transaction; `lsn` is where its commit lies."""

    lsn: int
    committed_at: datetime
    xid: int


@dataclass(frozen=True)
class Commit:
    """The last message of a transaction; `end` is what confirming it confirms."""

    lsn: int
    end: int


@dataclass(frozen=True)
class Change:
    """One row. `record` has the published columns; for a delete those of the replica identity.

    `unchanged` are columns of an update that were not sent, since they are stored out of line and
    did not change.
    """

    operation: str
    table: str
    record: dict[str, Any]
    unchanged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Truncate:
    """Tables that were emptied."""

    tables: tuple[str, ...]


Message = Begin | Commit | Change | Truncate


@dataclass(frozen=True)
class _Column:
    name: str
    type_oid: int


@dataclass(frozen=True)
class _Relation:
    name: str
    columns: tuple[_Column, ...]


def _timestamp(text: str) -> str:
    try:
        return datetime.fromisoformat(text).isoformat()
    except ValueError:  # infinity, or a year beyond Python's
        return text


# By type oid (pg_type.dat); every other type is passed on as its text.
_VALUES: dict[int, Callable[[str], Any]] = {
    16: lambda text: text == "t",
    20: int,
    21: int,
    23: int,
    26: int,
    114: json.loads,
    700: float,
    701: float,
    1184: _timestamp,
    3802: json.loads,
}


class _Reader:
    """Takes values off the front of a message."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, shape: str) -> Any:
        """Return one number of struct's format."""
        try:
            (value,) = struct.unpack_from(">" + shape, self._data, self._at)
        except struct.error as error:
            raise ProtocolError("a message ends too early") from error
        self._at += struct.calcsize(shape)
        return value

    def string(self) -> str:
        """Return a text that ends with NUL."""
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise ProtocolError("a text without end")
        value = self._data[self._at : end].decode()
        self._at = end + 1
        return value

    def octets(self, count: int) -> bytes:
        """Return so many bytes."""
        value = self._data[self._at : self._at + count]
        if len(value) != count:
            raise ProtocolError("a message ends too early")
        self._at += count
        return value

    def kind(self) -> str:
        """Return a byte that is a letter."""
        return self.octets(1).decode("latin-1")


@dataclass
class Decoder:
    """Decodes one connection's messages in order: relations are announced before their rows."""

    _relations: dict[int, _Relation] = field(default_factory=dict)

    def decode(self, data: bytes) -> Message | None:
        """Return a message; None for one that only prepares others, or tells of origins."""
        try:
            return self._decode(_Reader(data))
        except (ValueError, OverflowError) as error:  # not UTF-8, not JSON, not a time
            raise ProtocolError(f"a value that cannot be read: {error}") from error

    def _decode(self, reader: _Reader) -> Message | None:
        kind = reader.kind()
        match kind:
            case "B":
                lsn, micros, xid = reader.take("Q"), reader.take("q"), reader.take("I")
                return Begin(lsn, EPOCH + timedelta(microseconds=micros), xid)
            case "C":
                reader.take("B")
                return Commit(reader.take("Q"), reader.take("Q"))
            case "R":
                self._relation(reader)
                return None
            case "I" | "U" | "D":
                return self._change(kind, reader)
            case "T":
                count = reader.take("I")
                reader.take("B")
                oids = [reader.take("I") for _ in range(count)]
                return Truncate(tuple(self._known(oid).name for oid in oids))
            case "O" | "Y" | "M":
                return None
        raise ProtocolError(f"an unknown message {kind!r}")

    def _relation(self, reader: _Reader) -> None:
        oid = reader.take("I")
        reader.string()  # the schema
        name = reader.string()
        reader.take("B")  # the replica identity
        columns = []
        for _ in range(reader.take("H")):
            reader.take("B")  # part of the key
            columns.append(_Column(reader.string(), reader.take("I")))
            reader.take("i")  # the type's modifier
        self._relations[oid] = _Relation(name, tuple(columns))

    def _known(self, oid: int) -> _Relation:
        try:
            return self._relations[oid]
        except KeyError:
            raise ProtocolError(f"a row of an unannounced relation {oid}") from None

    def _change(self, kind: str, reader: _Reader) -> Change:
        relation = self._known(reader.take("I"))
        part = reader.kind()
        if kind == "D":
            if part not in "KO":
                raise ProtocolError(f"a delete with {part!r}")
            record, _ = _tuple(relation, reader)
            # A key is sent as a whole row in which only the key's columns are not null.
            return Change(
                "delete",
                relation.name,
                {name: value for name, value in record.items() if value is not None},
            )
        if part in "KO":  # the row before an update that changed its key
            _tuple(relation, reader)
            part = reader.kind()
        if part != "N":
            raise ProtocolError(f"a row with {part!r}")
        record, unchanged = _tuple(relation, reader)
        operation = "insert" if kind == "I" else "update"
        return Change(operation, relation.name, record, unchanged)


def _tuple(relation: _Relation, reader: _Reader) -> tuple[dict[str, Any], tuple[str, ...]]:
    count = reader.take("H")
    if count != len(relation.columns):
        raise ProtocolError(f"a row of {count} columns for {relation.name}")
    record: dict[str, Any] = {}
    unchanged = []
    for column in relation.columns:
        kind = reader.kind()
        if kind == "n":
            record[column.name] = None
        elif kind == "u":
            unchanged.append(column.name)
        elif kind == "t":
            text = reader.octets(reader.take("I")).decode()
            value = _VALUES.get(column.type_oid)
            record[column.name] = value(text) if value else text
        else:
            raise ProtocolError(f"a value of kind {kind!r}")
    return record, tuple(unchanged)


def format_lsn(lsn: int) -> str:
    """Return a position as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def parse_lsn(text: str) -> int:
    """Return the position that PostgreSQL writes so; raises ValueError."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) | int(low, 16)
