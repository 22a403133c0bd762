"""Reading the change log: what has become visible since a position, and the records it concerns.

Everything is read in one REPEATABLE READ transaction, so that a record is as it was at the position
that the reading leads to. Changes of one record are ordered by their id, which was given while
the record was locked; the order of transactions says nothing of it.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from app.changes.cursor import Position
from app.changes.router import Router, Subscription
from app.changes.tables import TABLES, Columns, Value, clean
from app.changes.visibility import scopes_of

# One reading takes at most this many changes; beyond it snapshots are shorter.
MAX_CHANGES = 50_000
# And about so much of the records that were changed.
MAX_BYTES = 64 * 1024 * 1024
# Records asked for at once.
_FETCH_RECORDS = 2_000

_SINCE = "SELECT * FROM datastore_changes_since($1::text::pg_snapshot, $2::text::xid8, $3, $4)"
_POSITION = "SELECT * FROM datastore_feed_position()"
_CURSOR_STATE = (
    "SELECT datastore_cursor_state($1::text::pg_snapshot, $2::text::xid8, $3, $4::timestamptz)"
)


@dataclass(slots=True)
class Delta:
    """What became of one record: `changed` names the columns, null when it was inserted.

    `former` are the values of its key columns before changes that altered them, the earliest first.
    """

    table: str
    id: str
    xid: str
    order: int
    pinned: bool = False
    inserted: bool = False
    deleted: bool = False
    changed: set[str] = field(default_factory=set)
    rows: list[tuple[int, str, list[str] | None, str | None]] = field(default_factory=list)
    former: list[dict[str, Value]] = field(default_factory=list)


@dataclass(slots=True)
class Reading:
    """What was read of the log. `emptied` are tables that were truncated; `""` is all."""

    position: Position
    deltas: list[Delta]
    tables: set[str]
    emptied: set[str]
    too_many: bool

    @property
    def is_fruitful(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.deltas or self.emptied or self.too_many)


class TooLargeError(Exception):
    """The records that were changed are more than can be held at once."""


async def read_position(connection: Any) -> Position:
    """Return the present end of the log."""
    row = await connection.fetchrow(_POSITION)
    return Position(row["snapshot"], int(row["last_xid"]), row["last_id"], row["last_at"])


async def cursor_state(connection: Any, position: Position) -> str:
    """Return 'ok', 'expired' or 'epoch' for a position of this database's epoch."""
    state = await connection.fetchval(
        _CURSOR_STATE,
        position.snapshot,
        str(position.last_xid),
        position.last_id,
        position.last_at,
    )
    return state or "epoch"


async def read_since(
    connection: Any, previous: Position, tables: Sequence[str], limit: int = MAX_CHANGES
) -> Reading:
    """Return what of these tables has become visible since a position: a delta a record, in order.

    What emptied any other table is told too.
    """
    rows = await connection.fetch(
        _SINCE, previous.snapshot, str(previous.last_xid), limit, list(tables)
    )
    return reading_of(rows, previous, limit)


def reading_of(rows: list[Any], previous: Position, limit: int) -> Reading:
    """Return the reading that rows of `datastore_changes_since` tell, sorted by xid and id."""
    first = rows[0]
    position = Position(
        first["snapshot"], int(first["last_xid"]), first["last_id"], first["last_at"]
    )
    if position.last_xid < previous.last_xid:
        position = replace(previous, snapshot=position.snapshot)
    if first["id"] is None:
        return Reading(position, [], set(), set(), too_many=False)
    tables = {row["table_name"] for row in rows}
    emptied = {row["table_name"] for row in rows if row["op"] == "T"}
    if len(rows) > limit or sum(len(row["record_ids"]) for row in rows) > limit:
        return Reading(position, [], tables, emptied, too_many=True)
    return Reading(position, _deltas(rows), tables, emptied, too_many=False)


def _deltas(rows: Iterable[Any]) -> list[Delta]:
    found: dict[tuple[str, str], Delta] = {}
    order = 0
    for row in rows:
        _, _, _, _, xid, number, table, op, record_ids, columns, keys = row
        for place, record_id in enumerate(record_ids):
            order += 1
            key = (table, record_id)
            delta = found.get(key)
            if delta is None:
                delta = found[key] = Delta(table, record_id, xid, order, pinned=op == "I")
            elif not delta.pinned:
                delta.order = order
                delta.xid = xid
            delta.rows.append((number, op, columns, None if keys is None else keys[place]))
    deltas = sorted(found.values(), key=lambda delta: delta.order)
    for delta in deltas:
        _conclude(delta)
    return deltas


def _conclude(delta: Delta) -> None:
    """Work out what a record's changes come to, in the order in which they were made."""
    for _, op, columns, keys in sorted(delta.rows, key=lambda row: row[0]):
        if op == "I":
            delta.inserted = True
        elif op == "D":
            delta.deleted = True
        else:
            delta.changed.update(columns or ())
        if keys is not None:
            delta.former.append(json.loads(keys))


@dataclass(frozen=True, slots=True)
class Row:
    """A record as it is: the values of its key columns, and JSON for each set of columns."""

    values: Mapping[str, Value]
    texts: tuple[str, ...]


def row_of(table: str, record: Any) -> tuple[str, Row]:
    """Return the id and row of what a query with `FeedTable.selected` columns answered."""
    keys = TABLES[table].keys
    values = {name: record[1 + number] for number, name in enumerate(keys)}
    return record[0], Row(values, tuple(clean(text) for text in record[1 + len(keys) :]))


async def read_rows(
    connection: Any,
    table: str,
    ids: list[str],
    column_sets: tuple[Columns, ...],
    room_bytes: int = MAX_BYTES,
) -> tuple[dict[str, Row], int]:
    """Return the records with these ids that exist, and the room that they leave.

    Raises TooLargeError when there is not room for all but the last of them.
    """
    feed_table = TABLES[table]
    found: dict[str, Row] = {}
    for start in range(0, len(ids), _FETCH_RECORDS):
        part = ids[start : start + _FETCH_RECORDS]
        query, parameters = feed_table.rows_by_id(column_sets, part, room_bytes)
        for *record, size in await connection.fetch(query, *parameters):
            if record[-1] is None:
                raise TooLargeError
            room_bytes -= size
            key, row = row_of(table, record)
            found[key] = row
    return found, room_bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """A change as text, in two parts between which the names of subscriptions go."""

    number: int
    xid: str
    head: str
    tail: str

    @property
    def size(self) -> int:
        """Its length without the names."""
        return len(self.head) + len(self.tail)


Pieces = list[tuple[Piece, tuple[Subscription, ...]]]


async def resolve(  # noqa: C901 (one pass over what was read)
    connection: Any, deltas: list[Delta], router: Router, room_bytes: int = MAX_BYTES
) -> dict[Any, Pieces]:
    """Return for each feed what to send it, in order.

    Reads each changed record of a followed table once, on `connection`, whose transaction must be
    the one that read the deltas. Raises TooLargeError when the records do not fit into the room.
    """
    sets = {d.table: router.column_sets(d.table) for d in deltas if router.follows(d.table)}
    rows = await _read_changed(connection, deltas, sets, room_bytes)
    matches = [
        (delta, rows[delta.table].get(delta.id), *_matched(delta, rows[delta.table], router))
        for delta in deltas
        if delta.table in rows
    ]
    await _learn_scopes(matches)
    out: dict[Any, Pieces] = defaultdict(list)
    counter = 0
    for delta, row, now, before in matches:
        table = TABLES[delta.table]
        groups: dict[tuple[Any, int, bool], list[Subscription]] = defaultdict(list)
        hidden: set[Subscription] = set()
        for subscription in now:
            assert row is not None
            if subscription.columns not in sets[delta.table]:
                continue  # it was made meanwhile: its snapshot is newer than this
            if subscription.feed.sight.sees(table, row.values):
                number = sets[delta.table].index(subscription.columns)
                groups[subscription.feed, number, _is_new(delta, subscription)].append(subscription)
            elif delta.former:
                hidden.add(subscription)  # moved to where its user sees nothing, maybe
        gone: dict[Any, list[Subscription]] = defaultdict(list)
        for subscription in before | hidden:
            if not delta.former or any(
                subscription.feed.sight.sees(table, values) for values in delta.former
            ):
                gone[subscription.feed].append(subscription)
        made: dict[tuple[int, bool], Piece] = {}
        for (feed, number, new), subscriptions in groups.items():
            piece = made.get((number, new))
            if piece is None:
                assert row is not None
                piece = made[number, new] = _upsert(counter, delta, row.texts[number], new=new)
                counter += 1
            out[feed].append((piece, tuple(subscriptions)))
        if gone:
            piece = _delete(counter, delta)
            counter += 1
            for feed, subscriptions in gone.items():
                out[feed].append((piece, tuple(subscriptions)))
    return out


async def _read_changed(
    connection: Any,
    deltas: list[Delta],
    sets: Mapping[str, tuple[Columns, ...]],
    room_bytes: int,
) -> dict[str, dict[str, Row]]:
    """Return the changed records of these tables, with JSON for each of a table's column sets."""
    wanted: dict[str, list[str]] = defaultdict(list)
    for delta in deltas:
        if delta.table in sets:
            wanted[delta.table].append(delta.id)
    rows: dict[str, dict[str, Row]] = {}
    for name, ids in wanted.items():
        rows[name], room_bytes = await read_rows(connection, name, ids, sets[name], room_bytes)
    return rows


def _matched(
    delta: Delta, rows: Mapping[str, Row], router: Router
) -> tuple[set[Subscription], set[Subscription]]:
    """Return the subscriptions that a record matches, and those that it matched before only."""
    row = rows.get(delta.id)
    now = router.match(delta.table, row.values) if row is not None else set()
    before: set[Subscription] = set()
    for values in delta.former:
        before |= router.match(delta.table, values)
    if row is None and not delta.former and not delta.inserted:
        # Its deletion was hidden from the triggers: whoever may have it is told.
        before = set(router.of(delta.table))
    return now, before - now


async def _learn_scopes(
    matches: list[tuple[Delta, Row | None, set[Subscription], set[Subscription]]],
) -> None:
    """Have every user's sight know the scopes that are about to be asked for."""
    asked: dict[Any, set[Any]] = defaultdict(set)
    for delta, row, now, before in matches:
        table = TABLES[delta.table]
        versions = ([row.values] if row is not None else []) + delta.former
        scopes = {scope for values in versions for scope in scopes_of(table, values)}
        for subscription in now | before:
            asked[subscription.feed.sight] |= scopes
    for sight, scopes in asked.items():
        await sight.learn(scopes)


def _is_new(delta: Delta, subscription: Subscription) -> bool:
    """Tell whether the record is new to a subscription that matches it now."""
    if delta.inserted:
        return True
    if not delta.former:
        return False
    first = delta.former[0]
    sight = subscription.feed.sight
    return not (subscription.where.matches(first) and sight.sees(TABLES[delta.table], first))


def _upsert(number: int, delta: Delta, record: str, *, new: bool) -> Piece:
    changed = "null" if new else json.dumps(sorted(delta.changed), separators=(",", ":"))
    return Piece(
        number,
        delta.xid,
        f'{{"op":"upsert","table":"{delta.table}","id":{json.dumps(delta.id)},"subs":',
        f',"changed":{changed},"record":{record}}}',
    )


def _delete(number: int, delta: Delta) -> Piece:
    return Piece(
        number,
        delta.xid,
        f'{{"op":"delete","table":"{delta.table}","id":{json.dumps(delta.id)},"subs":',
        "}",
    )
