"""Writing shapes as TypeScript, in the formatting of the client's formatter."""

import json
from collections.abc import Iterable, Iterator

from app.cli.types.shapes import Field, ListOf, Literals, MapOf, Named, Plain, Shape, TableShape
from app.cli.types.shapes import Type as ShapeType

_WIDTH = 100
_PLAIN = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "null": "null",
    "any": "unknown",
}


def records(tables: Iterable[TableShape], header: str) -> str:
    """Return a module with each table's record, and the tables themselves."""
    tables = list(tables)
    lines = [header, ""]
    for table in tables:
        lines += [*_interface(table.record), ""]
    lines += ["/** The tables that can be followed: their records and filters. */"]
    lines += ["export interface Tables {"]
    for table in tables:
        filters = _union([json.dumps(name) for name in table.filters], "    ", "filter: ")
        lines += [f"  {table.table}: {{", f"    record: {table.record.name};", *filters, "  };"]
    lines += ["}", "", "/** The columns that make up a record's id. */"]
    lines += ["export const ID_COLUMNS: { readonly [table: string]: readonly string[] } = {"]
    lines += [f"  {t.table}: {json.dumps(list(t.id))}," for t in tables]
    return "\n".join([*lines, "};", ""])


def api(shapes: Iterable[Shape], header: str) -> str:
    """Return a module with the API's bodies and answers."""
    lines = [header, ""]
    for shape in shapes:
        lines += [*_interface(shape), ""]
    return "\n".join(lines)


def _interface(shape: Shape) -> Iterator[str]:
    yield f"/** {shape.doc} */"
    yield f"export interface {shape.name} {{"
    for field in shape.fields:
        yield from _member(field)
    yield "}"


def _member(field: Field) -> list[str]:
    name = field.name if field.name.isidentifier() else json.dumps(field.name)
    return _union(_options(field.type), "  ", f"{name}{'?' if field.optional else ''}: ")


def _union(options: list[str], indent: str, before: str) -> list[str]:
    """Return a member whose type is a union, on lines of their own where one is too short."""
    line = f"{indent}{before}{' | '.join(options)};"
    if len(line) <= _WIDTH:
        return [line]
    broken = [f"{indent}  | {option}" for option in options]
    return [f"{indent}{before.rstrip()}", *broken[:-1], f"{broken[-1]};"]


def _options(kind: ShapeType) -> list[str]:
    match kind:
        case Literals(values):
            return [json.dumps(value) for value in values]
        case Plain(name):
            return [_PLAIN[name]]
        case Named(name):
            return [name]
        case ListOf(item):
            options = _options(item)
            return [f"({' | '.join(options)})[]" if len(options) > 1 else f"{options[0]}[]"]
        case MapOf(value):
            return [f"Record<string, {' | '.join(_options(value))}>"]
    options = [option for part in kind.options for option in _options(part)]
    # `unknown | null` is just `unknown`.
    return ["unknown"] if "unknown" in options else list(dict.fromkeys(options))
