"""Writing shapes as Python."""

import json
from collections.abc import Iterable, Iterator

from app.cli.types.shapes import ListOf, Literals, MapOf, Named, Plain, Shape, TableShape
from app.cli.types.shapes import Type as ShapeType

_NO_WRAPPING = "# ruff: noqa: E501"
_PLAIN = {
    "string": "str",
    "number": "float",
    "integer": "int",
    "boolean": "bool",
    "null": "None",
    "any": "Any",
}


def records(tables: Iterable[TableShape], header: str) -> str:
    """Return a module with each table's record, and `table` with a signature for each."""
    tables = list(tables)
    lines = [header, _NO_WRAPPING, ""]
    lines += ["from typing import Any, Literal, NotRequired, TypedDict, overload", ""]
    lines += ["from jupyter_datastore_client.table import Table", "", ""]
    for table in tables:
        lines += [*_class(table.record), "", ""]
    lines += ["# The columns that make up a record's id."]
    lines += ["ID_COLUMNS: dict[str, tuple[str, ...]] = {"]
    for t in tables:
        columns = ", ".join(json.dumps(c) for c in t.id) + ("," if len(t.id) == 1 else "")
        lines += [f'    "{t.table}": ({columns}),']
    lines += ["}", "", "", "class TypedTables:"]
    lines += ['    """`table`, typed by the table\'s name."""', ""]
    for t in tables:
        lines += ["    @overload"]
        lines += [
            f'    def table(self, name: Literal["{t.table}"]) -> Table[{t.record.name}]: ...',
            "",
        ]
    lines += ["    @overload", "    def table(self, name: str) -> Table[Any]: ...", ""]
    lines += ["    def table(self, name: str) -> Table[Any]:"]
    lines += ['        """Return a table to follow or to read; further tables are untyped."""']
    lines += ["        return self._table(name)", ""]
    lines += ["    def _table(self, name: str) -> Table[Any]:", "        raise NotImplementedError"]
    return "\n".join([*lines, ""])


def api(shapes: Iterable[Shape], header: str) -> str:
    """Return a module with the API's bodies and answers."""
    lines = [header, _NO_WRAPPING, ""]
    # Shapes refer to others that follow.
    lines += ["from __future__ import annotations", ""]
    lines += ["from typing import Any, Literal, NotRequired, TypedDict", ""]
    for shape in shapes:
        lines += ["", *_class(shape), ""]
    return "\n".join(lines)


def _class(shape: Shape) -> Iterator[str]:
    if not all(field.name.isidentifier() for field in shape.fields):
        raise ValueError(f"{shape.name} has a field that is no name in Python")
    yield f"class {shape.name}(TypedDict):"
    yield f'    """{shape.doc}"""'
    yield ""
    for field in shape.fields:
        kind = _written(field.type)
        yield f"    {field.name}: {f'NotRequired[{kind}]' if field.optional else kind}"
    if not shape.fields:
        yield "    pass"


def _written(kind: ShapeType) -> str:
    match kind:
        case Literals(values):
            return f"Literal[{', '.join(json.dumps(value) for value in values)}]"
        case Plain(name):
            return _PLAIN[name]
        case Named(name):
            return name
        case ListOf(item):
            return f"list[{_written(item)}]"
        case MapOf(value):
            return f"dict[str, {_written(value)}]"
    return " | ".join(dict.fromkeys(_written(option) for option in kind.options))
