"""Output rows as nbformat has them, and as a document shows them.

Rows keep what the kernel said, piece by piece; nbformat and documents have one output for adjacent
pieces of one stream. `rendered(fold(rows))` is what the document of the cell that shows the rows
holds, unless a file brought raw control characters with it: those stay as they are (`as_shown`).
"""

import json
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from app.documents import stream, values
from models import Output

_FIELDS: dict[str, tuple[str, ...]] = {
    "stream": ("name", "text"),
    "display_data": ("data", "metadata"),
    "execute_result": ("data", "metadata", "execution_count"),
    "error": ("ename", "evalue", "traceback"),
}
_TYPES: dict[str, type] = {
    "name": str,
    "text": str,
    "data": dict,
    "metadata": dict,
    "ename": str,
    "evalue": str,
    "traceback": list,
}


class _Piece(Protocol):
    """What tells whether two rows are pieces of one output."""

    execution_id: Any
    output_type: Any
    name: Any


def continues(last: _Piece | None, row: _Piece) -> bool:
    """Tell whether `row` goes on with the stream of `last`, the row before it.

    Outputs that a file brought have no execution and are never joined: the file had them apart.
    """
    return (
        last is not None
        and row.output_type == "stream" == last.output_type
        and row.execution_id is not None
        and (row.execution_id, row.name) == (last.execution_id, last.name)
    )


def output_of(row: Output) -> dict[str, Any]:
    """Return one row as an nbformat output."""
    if row.output_type == "unknown":
        return dict(row.extra or {})
    output: dict[str, Any] = {"output_type": row.output_type}
    for field in _FIELDS[row.output_type]:
        value = row.metadata_ if field == "metadata" else getattr(row, field)
        if value is not None or field == "execution_count":
            output[field] = value
    return output | (row.extra or {})


def columns_of(output: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of `Output` that hold an nbformat output; `output_of` inverts it.

    What does not fit the columns of its type is kept whole as type `unknown`.
    """
    kind = output.get("output_type")
    fields = _FIELDS.get(kind) if isinstance(kind, str) else None
    size = _size(output)
    if fields is None or not _fits(output, fields):
        return {"output_type": "unknown", "extra": output, "size_bytes": size}
    columns: dict[str, Any] = {"output_type": kind, "size_bytes": size}
    for field in fields:
        if field in output:
            columns["metadata_" if field == "metadata" else field] = output[field]
    extra = {key: output[key] for key in output.keys() - {"output_type", *fields}}
    if extra:
        columns["extra"] = extra
    return columns


def _fits(output: dict[str, Any], fields: tuple[str, ...]) -> bool:
    for field in fields:
        if field == "execution_count":
            count = output.get(field, ...)
            if count is not None and (type(count) is not int or not -(2**63) <= count < 2**63):
                return False
        elif field in output and not isinstance(output[field], _TYPES[field]):
            return False
    return all(isinstance(line, str) for line in output.get("traceback", []))


def _size(output: dict[str, Any]) -> int:
    if output.get("output_type") == "stream" and isinstance(output.get("text"), str):
        return len(output["text"].encode("utf-8", "surrogatepass"))
    return len(json.dumps(output, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def fold(rows: Iterable[Output]) -> list[dict[str, Any]]:
    """Return rows, given in the order of their id, as nbformat outputs with their exact text."""
    return [output for output, _ in _folded(rows)]


def rendered(outputs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    r"""Return outputs with what `\r` and `\b` overwrite gone and lone surrogates escaped."""
    shown = []
    for output in outputs:
        output = values.shown(output)  # noqa: PLW2901 (a copy of the item itself)
        if output.get("output_type") == "stream" and isinstance(output.get("text"), str):
            output["text"] = stream.render(output["text"])
        shown.append(output)
    return shown


def as_shown(rows: Iterable[Output]) -> list[dict[str, Any]]:
    """Return what a document holds for the rows that one of its cells shows, in order of id."""
    return [
        values.shown(output) if execution_id is None else rendered([output])[0]
        for output, execution_id in _folded(rows)
    ]


def groups(rows: Iterable[Output]) -> list[list[Output]]:
    """Return the rows of each output, in the order of the outputs in the document."""
    found: list[list[Output]] = []
    for row in rows:
        if found and continues(found[-1][-1], row):
            found[-1].append(row)
        else:
            found.append([row])
    return found


def _folded(rows: Iterable[Output]) -> list[tuple[dict[str, Any], uuid.UUID | None]]:
    return [(_join(group), group[0].execution_id) for group in groups(rows)]


def _join(group: Sequence[Output]) -> dict[str, Any]:
    output = output_of(group[0])
    if len(group) > 1:
        output["text"] = "".join(row.text or "" for row in group)
    return output
