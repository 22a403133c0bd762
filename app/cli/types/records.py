"""The shapes of records, from the models and what they publish.

Types are those of docs/feed.md: ids, times and bytes are strings. A text column that a constraint
limits to a list of words is one of these words.
"""

import datetime
import re
import types
import typing
import uuid
from typing import Annotated, Any

from sqlalchemy import CheckConstraint, Table
from sqlalchemy.orm import Mapped

from app.cli.types.shapes import Field, ListOf, Literals, MapOf, OneOf, Plain, Shape, TableShape
from app.cli.types.shapes import Type as ShapeType
from models import Base
from models.published import Published

_PLAIN: dict[Any, ShapeType] = {
    str: Plain("string"),
    uuid.UUID: Plain("string"),
    datetime.datetime: Plain("string"),
    bytes: Plain("string"),
    bool: Plain("boolean"),
    int: Plain("integer"),
    float: Plain("number"),
    type(None): Plain("null"),
    Any: Plain("any"),
}
_ONE_OF_WORDS = re.compile(r"(\w+) IN \(('[^']*'(?:, '[^']*')*)\)")


def published_tables() -> list[TableShape]:
    """Return the tables that clients may follow, by name."""
    models = (mapper.class_ for mapper in Base.registry.mappers)
    found = [_table_shape(model) for model in models if isinstance(model.__feed__, Published)]
    return sorted(found, key=lambda shape: shape.table)


def _table_shape(model: type[Base]) -> TableShape:
    feed = model.__feed__
    assert isinstance(feed, Published)
    table = model.__table__
    assert isinstance(table, Table)
    words = _words(table)
    hints = typing.get_type_hints(model, include_extras=True)
    types_of = {
        attribute.columns[0].name: hints[attribute.key]
        for attribute in model.__mapper__.column_attrs
    }
    fields = tuple(
        Field(name, _field_type(types_of[name], words.get(name)), optional=name in feed.announced)
        for name in (*feed.sent, *feed.announced)
    )
    doc = (model.__doc__ or "").strip().splitlines()[0]
    record = Shape(f"{model.__name__}Record", doc, fields)
    return TableShape(table.name, record, feed.id, feed.filters, feed.announced)


def _words(table: Table) -> dict[str, tuple[str, ...]]:
    """Return the words that columns are limited to by a constraint that says nothing else."""
    found = {}
    for constraint in table.constraints:
        if isinstance(constraint, CheckConstraint) and (
            match := _ONE_OF_WORDS.fullmatch(str(constraint.sqltext))
        ):
            found[match[1]] = tuple(re.findall(r"'([^']*)'", match[2]))
    return found


def _field_type(hint: Any, words: tuple[str, ...] | None) -> ShapeType:
    found = _type(hint)
    if words is None:
        return found
    return OneOf((Literals(words), Plain("null"))) if isinstance(found, OneOf) else Literals(words)


def _type(hint: Any) -> ShapeType:
    """Return the shape of an annotation of a mapped column."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Mapped or origin is Annotated:
        return _type(arguments[0])
    if origin is types.UnionType or origin is typing.Union:
        return OneOf(tuple(_type(argument) for argument in arguments))
    if origin is list:
        return ListOf(_type(arguments[0]))
    if origin is dict:
        return MapOf(_type(arguments[1]))
    return _PLAIN[hint]
