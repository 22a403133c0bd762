"""The decoder, on messages made by hand after PostgreSQL's documentation, and on any bytes."""

import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.replication.pgoutput import (
    Begin,
    Change,
    Commit,
    Decoder,
    Message,
    ProtocolError,
    Truncate,
)

INT4, TEXT, JSONB, TIMESTAMPTZ, BOOL = 23, 25, 3802, 1184, 16


def relation(oid: int, name: str, **columns: int) -> bytes:
    parts = [b"R", struct.pack(">I", oid), b"public\0", name.encode() + b"\0", b"d"]
    parts.append(struct.pack(">H", len(columns)))
    for column, kind in columns.items():
        parts += [b"\1", column.encode() + b"\0", struct.pack(">Ii", kind, -1)]
    return b"".join(parts)


def row(*values: str | bytes | None) -> bytes:
    """Texts as they are, None for null, b"u" for what was not sent."""
    parts = [struct.pack(">H", len(values))]
    for value in values:
        if value is None:
            parts.append(b"n")
        elif isinstance(value, bytes):
            parts.append(value)
        else:
            data = value.encode()
            parts.append(b"t" + struct.pack(">I", len(data)) + data)
    return b"".join(parts)


def insert(oid: int, *values: str | bytes | None) -> bytes:
    return b"I" + struct.pack(">I", oid) + b"N" + row(*values)


def decoded(*messages: bytes) -> list[Message | None]:
    decoder = Decoder()
    return [decoder.decode(message) for message in messages]


def test_a_transaction():
    found = decoded(
        b"B" + struct.pack(">QqI", 0x1_0000_0010, 86_400_000_000, 7),
        relation(5, "executions", id=INT4, code=TEXT, reply=JSONB, at=TIMESTAMPTZ, silent=BOOL),
        insert(5, "1", "x = 'é'", '{"n": 1.5}', "2026-11-25 03:00:00.25+00", "t"),
        b"U" + struct.pack(">I", 5) + b"N" + row("1", b"u", None, "infinity", "f"),
        b"U"
        + struct.pack(">I", 5)
        + b"O"
        + row("1", "", None, None, "f")
        + b"N"
        + row("2", "y", None, None, "f"),
        b"D" + struct.pack(">I", 5) + b"K" + row("1", None, None, None, None),
        b"T" + struct.pack(">IBI", 1, 0, 5),
        b"C" + struct.pack(">BQQq", 0, 0x1_0000_0010, 0x1_0000_0040, 0),
    )
    assert found == [
        Begin(0x1_0000_0010, datetime(2000, 1, 2, tzinfo=UTC), 7),
        None,
        Change(
            "insert",
            "executions",
            {
                "id": 1,
                "code": "x = 'é'",
                "reply": {"n": 1.5},
                "at": "2026-11-25T03:00:00.250000+00:00",
                "silent": True,
            },
        ),
        Change(
            "update",
            "executions",
            {"id": 1, "reply": None, "at": "infinity", "silent": False},
            ("code",),
        ),
        Change(
            "update",
            "executions",
            {"id": 2, "code": "y", "reply": None, "at": None, "silent": False},
        ),
        Change("delete", "executions", {"id": 1}),
        Truncate(("executions",)),
        Commit(0x1_0000_0010, 0x1_0000_0040),
    ]


def test_a_relation_may_change_its_shape():
    found = decoded(
        relation(5, "outputs", id=INT4),
        insert(5, "1"),
        relation(5, "outputs", id=INT4, stream=TEXT),
        insert(5, "2", "stdout"),
    )
    assert [change.record for change in found if isinstance(change, Change)] == [
        {"id": 1},
        {"id": 2, "stream": "stdout"},
    ]


@pytest.mark.parametrize(
    "message",
    [
        b"X",
        b"",
        b"B\0",
        insert(6, "1"),
        insert(5, "1", "2"),
        insert(5, b"b"),
        insert(5, "1")[:-1],
        b"D" + struct.pack(">I", 5) + b"N" + row("1"),
        b"I" + struct.pack(">I", 5) + b"K" + row("1"),
        b"R" + struct.pack(">I", 5) + b"no end",
    ],
)
def test_what_the_protocol_does_not_have_is_refused(message: bytes):
    decoder = Decoder()
    decoder.decode(relation(5, "outputs", id=INT4))
    with pytest.raises(ProtocolError):
        decoder.decode(message)


@given(st.lists(st.one_of(st.none(), st.text(), st.just(b"u")), max_size=8))
def test_any_row_comes_back(values: list[str | bytes | None]):
    names = [f"c{index}" for index in range(len(values))]
    _, change = decoded(relation(1, "outputs", **dict.fromkeys(names, TEXT)), insert(1, *values))
    assert isinstance(change, Change)
    sent = {name: value for name, value in zip(names, values, strict=True) if value != b"u"}
    assert change.record == sent
    assert set(change.unchanged) == set(names) - set(sent)


@given(st.binary(max_size=60))
def test_any_bytes_are_decoded_or_refused(data: bytes):
    decoder = Decoder()
    decoder.decode(relation(0, "outputs", id=TEXT))
    try:
        decoder.decode(data)
    except ProtocolError:
        return
