"""The tables that can be followed: columns as JSON, filters, the queries that read them.

What goes out is what the models declare (`models.published`). PostgreSQL writes the JSON, so that
a row is encoded once however many follow it.
"""

import json
import math
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Integer,
    LargeBinary,
    Select,
    Table,
    Text,
    Uuid,
    any_,
    bindparam,
    case,
    func,
    literal_column,
    or_,
    select,
    tuple_,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import ARRAY, asyncpg

from app.errors import BadRequestError, NotFoundError
from models import Base, codec
from models.published import Published

_INTEGER = re.compile("-?[0-9]{1,19}")
_LIKE_SPECIAL = re.compile("[/%_]")
_DIALECT = asyncpg.dialect()  # type: ignore[no-untyped-call]

Value = str | int | bool | None
Columns = tuple[str, ...]


class FeedTableError(BadRequestError):
    """A table, column, filter or value that cannot be followed; `reason` is the protocol's."""


@dataclass(frozen=True, slots=True)
class Where:
    """Which records of a table: all of `equals`, and below the path `prefix`."""

    equals: tuple[tuple[str, Value], ...] = ()
    prefix: str | None = None

    def matches(self, values: Mapping[str, Value]) -> bool:
        """Tell whether a record with these values of its filter columns is one of them."""
        for name, wanted in self.equals:
            if values.get(name) != wanted:
                return False
        if self.prefix:
            path = values.get("path")
            return isinstance(path, str) and (
                path == self.prefix or path.startswith(self.prefix + "/")
            )
        return True


@dataclass(frozen=True, slots=True)
class FeedTable:
    """One table that can be followed."""

    name: str
    table: Table
    published: Published
    ids: tuple[Column[Any], ...]
    default_columns: Columns
    # As `published.keys`, which are sorted anew each time.
    keys: Columns
    _known: frozenset[str] = field(repr=False)

    def columns(self, wanted: Any) -> Columns:
        """Return the columns that a subscription asks for, in the table's order; ids always."""
        if wanted is None:
            return self.default_columns
        if not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted):
            raise FeedTableError("columns must be a list of names", reason="bad_message")
        for name in wanted:
            if name not in self._known:
                raise FeedTableError(f"{self.name} has no column {name}", reason="unknown_column")
        chosen = {*wanted, *self.published.id}
        return tuple(
            name for name in (*self.published.sent, *self.published.announced) if name in chosen
        )

    def where(self, wanted: Any) -> Where:
        """Return a checked filter; FeedTableError for what cannot be compared."""
        if wanted is None:
            return Where()
        if not isinstance(wanted, dict):
            raise FeedTableError("where must be an object", reason="bad_message")
        equals: list[tuple[str, Value]] = []
        prefix = None
        for name, value in wanted.items():
            if name == "path_prefix" and "path" in self.published.filters:
                if not isinstance(value, str):
                    raise FeedTableError("path_prefix must be a string", reason="bad_value")
                prefix = codec.encode_text(value.strip("/"))
            elif name in self.published.filters:
                equals.append((name, self._value(self.table.c[name], value)))
            else:
                raise FeedTableError(f"{self.name} has no filter {name}", reason="unknown_filter")
        order = self.published.filters.index
        return Where(tuple(sorted(equals, key=lambda item: order(item[0]))), prefix)

    def parse(self, name: str, text: str) -> Any:
        """Return a filter's value from the text of a query parameter, still to be checked."""
        column = self.table.c.get(name)
        kind = None if column is None else column.type
        if text == "null" and not _is_text(kind):
            return None
        if isinstance(kind, Integer) and _INTEGER.fullmatch(text):
            return int(text)
        if isinstance(kind, Boolean) and text in ("true", "false"):
            return text == "true"
        return text

    def _value(self, column: Column[Any], value: Any) -> Value:
        kind = column.type
        if value is None:
            return None
        if isinstance(kind, Uuid) and isinstance(value, str):
            try:
                return str(uuid.UUID(value))
            except ValueError:
                pass
        elif isinstance(kind, Boolean):
            if isinstance(value, bool):
                return value
        elif isinstance(kind, Integer):
            if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
                return value
        elif _is_text(kind) and isinstance(value, str):
            return codec.encode_text(value)  # the form in which rows and keys have it
        raise FeedTableError(f"{column.name}: {value!r} is no value of it", reason="bad_value")

    # what is read

    def id_text(self) -> ColumnElement[str]:
        """The record's id, as triggers write it."""
        parts = [sql_cast(column, Text) for column in self.ids]
        joined: ColumnElement[str] = parts[0]
        for part in parts[1:]:
            joined = joined.concat(literal_column("'/'")).concat(part)
        return joined

    def selected(self, column_sets: Sequence[Columns]) -> list[ColumnElement[Any]]:
        """The id, the filter columns as routing compares them, and JSON for each column set."""
        keys = [_as_key(self.table.c[name]) for name in self.keys]
        return [
            self.id_text().label("record_id"),
            *(key.label(f"key_{number}") for number, key in enumerate(keys)),
            *(
                self._json(columns).label(f"json_{number}")
                for number, columns in enumerate(column_sets)
            ),
        ]

    def _json(self, columns: Columns) -> ColumnElement[str]:
        """A record as the text of a JSON object; in pieces, as a function takes 100 arguments."""
        pairs: list[tuple[Any, Any]] = [
            (literal_column(f"'{name}'"), _as_json(self.table.c[name])) for name in columns
        ]
        flat = [item for pair in pairs for item in pair]
        assert len(flat) <= 100, f"{self.name} has too many columns for json_build_object"
        return sql_cast(func.json_build_object(*flat), Text)

    def rows_by_id(
        self, column_sets: tuple[Columns, ...], ids: Sequence[str], room_bytes: int
    ) -> tuple[str, list[Any]]:
        """The query, and its parameters, for records by id: columns as `selected`, and a size.

        When the records before one have filled the room, it comes without JSON: what is read is at
        most so much and one record.
        """
        text, names = _rows_by_id(self.name, column_sets)
        values = self._id_values(ids)
        given = {f"ids_{number}": column for number, column in enumerate(values)}
        return text, [room_bytes if name == "room" else given[name] for name in names]

    def _id_values(self, ids: Iterable[str]) -> list[list[Any]]:
        """For each id column the values of these records, as asyncpg takes them."""
        count = len(self.ids)
        if count == 1:
            whole = isinstance(self.ids[0].type, Integer)
            return [[int(item) for item in ids] if whole else list(ids)]
        parts = [item.split("/", count - 1) for item in ids]
        return [list(values) for values in zip(*parts, strict=True)]

    def page(
        self, where: Where, columns: Columns, after: str | None, limit: int
    ) -> tuple[str, list[Any]]:
        """The query, and its parameters, for a page of the records that match, in id order."""
        shape = tuple((name, value is None) for name, value in where.equals)
        text, names, processors = _page(
            self.name, shape, bool(where.prefix), columns, after is not None
        )
        given: dict[str, Any] = {"page_limit": limit}
        for name, value in where.equals:
            if value is not None:
                given[f"equal_{name}"] = _of_column(self.table.c[name], value)
        if where.prefix:
            given["prefix"] = where.prefix
            given["beneath"] = _LIKE_SPECIAL.sub(r"/\g<0>", where.prefix + "/") + "%"
        if after is not None:
            given.update(self._place(after))
        # Text is in its stored form already, in which it would be escaped again.
        return text, [
            value
            if isinstance(value := given[name], str)
            else _processed(processors[name], value)
            if name in processors
            else value
            for name in names
        ]

    def _place(self, after: str) -> dict[str, Any]:
        """The parameters that say which record's id this is."""
        parts = after.split("/", len(self.ids) - 1)
        try:
            if len(parts) != len(self.ids):
                raise ValueError(after)
            return {
                f"after_{column.name}": _of_column(column, part)
                for column, part in zip(self.ids, parts, strict=True)
            }
        except ValueError as error:
            raise FeedTableError(f"{after} is no id of {self.name}", reason="bad_value") from error


def _of_column(column: Column[Any], value: Any) -> Any:
    """A checked value, or a part of an id, as the column's type takes it."""
    if isinstance(column.type, Uuid):
        return uuid.UUID(value)
    if isinstance(column.type, Integer):
        if isinstance(value, str) and not _INTEGER.fullmatch(value):
            raise ValueError(value)
        if abs(whole := int(value)) >= 2**63:
            raise ValueError(value)
        return whole
    # An id from outside may be in neither form; one that is stored stays as it is.
    return codec.encode_text(codec.decode_text(value)) if isinstance(value, str) else value


def compiled(query: Select[Any]) -> tuple[str, list[str], Mapping[str, Any]]:
    """Return a query's text for asyncpg, its parameters' names in order, and their processors."""
    made = query.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    return str(made), cast("list[str]", made.positiontup), made._bind_processors


def _processed(process: Any, value: Any) -> Any:
    return process(value) if callable(process) else value


def _is_text(kind: Any) -> bool:
    return isinstance(kind, Text) or isinstance(getattr(kind, "impl_instance", None), Text)


def _as_key(column: Column[Any]) -> ColumnElement[Any]:
    return sql_cast(column, Text) if isinstance(column.type, Uuid) else column


def _as_json(column: Column[Any]) -> ColumnElement[Any]:
    kind = column.type
    if isinstance(kind, DateTime):
        utc = func.timezone(literal_column("'UTC'"), column)
        return func.to_char(utc, literal_column("""'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""))
    if isinstance(kind, ARRAY) and isinstance(kind.item_type, LargeBinary):
        return func.datastore_base64(column)
    if isinstance(kind, LargeBinary):
        return func.datastore_base64(column)
    return column


@lru_cache(maxsize=4096)
def _page(
    name: str, equals: tuple[tuple[str, bool], ...], prefix: bool, columns: Columns, after: bool
) -> tuple[str, list[str], Mapping[str, Any]]:
    """The query for a page, made once for all values: of columns, and whether these are null."""
    table = TABLES[name]
    limit: Any = bindparam("page_limit", type_=Integer)
    query = select(*table.selected((columns,))).order_by(*table.ids).limit(limit)
    for column_name, is_null in equals:
        column = table.table.c[column_name]
        wanted: Any = bindparam(f"equal_{column_name}", type_=column.type)
        query = query.where(column.is_(None) if is_null else column == wanted)
    if prefix:
        path = table.table.c.path
        beneath: Any = bindparam("beneath", type_=path.type)
        query = query.where(
            or_(path == bindparam("prefix", type_=path.type), path.like(beneath, escape="/"))
        )
    if after:
        place = (bindparam(f"after_{c.name}", type_=c.type) for c in table.ids)
        query = query.where(tuple_(*table.ids) > tuple_(*place))
    return compiled(query)


@lru_cache(maxsize=4096)
def _rows_by_id(name: str, column_sets: tuple[Columns, ...]) -> tuple[str, list[str]]:
    table = TABLES[name]
    query = select(*table.selected(column_sets))
    for number, column in enumerate(table.ids):
        wanted = bindparam(f"ids_{number}", type_=ARRAY(column.type))
        query = query.where(column == any_(wanted))
    # Materialized, or each record would be made into JSON twice.
    found = query.cte("found").prefix_with("MATERIALIZED")
    first = len(found.c) - len(column_sets)
    size: ColumnElement[Any] = sum(
        (func.octet_length(text) for text in found.c[first + 1 :]),
        start=func.octet_length(found.c[first]),
    )
    measured = select(
        *found.c, size.label("size"), func.sum(size).over(rows=(None, 0)).label("total")
    ).subquery("measured")
    fits = measured.c.total - measured.c.size < bindparam("room", type_=BigInteger)
    texts = (
        case((fits, text)).label(text.name)
        for text in list(measured.c)[first : first + len(column_sets)]
    )
    made, names, _ = compiled(select(*list(measured.c)[:first], *texts, measured.c.size))
    return made, names


def _feed_tables() -> dict[str, FeedTable]:
    found = {}
    for mapper in Base.registry.mappers:
        published = mapper.class_.__feed__
        if isinstance(published, Published):
            table = cast("Table", mapper.local_table)
            found[table.name] = FeedTable(
                table.name,
                table,
                published,
                tuple(table.c[name] for name in published.id),
                published.sent,
                published.keys,
                frozenset((*published.sent, *published.announced)),
            )
    return dict(sorted(found.items()))


TABLES = _feed_tables()


def table_named(name: Any) -> FeedTable:
    """Return a table that can be followed; NotFoundError (404) when it is none."""
    found = TABLES.get(name) if isinstance(name, str) else None
    if found is None:
        raise NotFoundError(f"There is no table {name} to follow", reason="unknown_table")
    return found


def clean(text: str) -> str:
    """Return a record's JSON with escapes of what PostgreSQL cannot hold undone."""
    if codec.ESCAPE not in text:
        return text
    return json.dumps(_finite(codec.decode_json(json.loads(text))), separators=(",", ":"))


def _finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list():
            return [_finite(item) for item in value]
        case _:
            return value


__all__ = ["TABLES", "FeedTable", "FeedTableError", "Where", "clean", "table_named"]
