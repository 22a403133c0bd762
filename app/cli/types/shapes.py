"""What a type can be, whatever the language: enough for records and the API's JSON."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Plain:
    """A JSON value of one kind; `any` is whatever JSON has."""

    kind: Literal["string", "number", "integer", "boolean", "null", "any"]


@dataclass(frozen=True, slots=True)
class Literals:
    """One of these strings."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """A shape of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class ListOf:
    """An array."""

    item: "Type"


@dataclass(frozen=True, slots=True)
class MapOf:
    """An object with any keys."""

    value: "Type"


@dataclass(frozen=True, slots=True)
class OneOf:
    """Any of these types."""

    options: "tuple[Type, ...]"


Type = Plain | Literals | Named | ListOf | MapOf | OneOf


@dataclass(frozen=True, slots=True)
class Field:
    """A key of an object; an `optional` one may be absent."""

    name: str
    type: Type
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """An object with these fields, and what it is."""

    name: str
    doc: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table that clients may follow: its record's shape and what a subscription may name."""

    table: str
    record: Shape
    id: tuple[str, ...]
    filters: tuple[str, ...]
    announced: tuple[str, ...] = field(default=())
