"""Notebooks as nbformat 4, from whatever a file or a client has, and back to a file's bytes.

Nothing here touches the disk.
"""

import codecs
import json
import re
import warnings
from typing import Any

import nbformat
from nbformat import v4
from nbformat.v4.rwbase import split_lines, strip_transient
from pydantic_core import from_json, to_json

from app.errors import BadRequestError

_HALVES = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def read_json(content: bytes) -> Any:
    """Return the JSON value that a file's bytes are; UnicodeDecodeError, or ValueError, if none.

    Pydantic's reader takes a third of the time. What it refuses, Python's may take all the same:
    lone surrogates, deep nesting.
    """
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return from_json(content)
    except ValueError:
        return json.loads(content.decode())


def serialized(notebook: dict[str, Any]) -> bytes:
    """Return a notebook as the bytes of its file, as nbformat writes them."""
    node: Any = nbformat.from_dict(notebook)  # type: ignore[no-untyped-call]
    if not _is_written_alike(node):
        text: str = v4.writes_json(node)  # type: ignore[no-untyped-call]
        return (text if text.endswith("\n") else text + "\n").encode()
    node = strip_transient(split_lines(node))  # type: ignore[no-untyped-call]
    return to_json(_sorted(node), indent=1) + b"\n"


def _is_written_alike(value: Any) -> bool:
    """Tell whether pydantic writes a JSON value as Python does, in a quarter of the time.

    Floats it writes in another form; lone surrogates it refuses, as UTF-8 does.
    """
    match value:
        case dict():
            return all(isinstance(key, str) and _is_written_alike(value[key]) for key in value)
        case list() | tuple():
            return all(map(_is_written_alike, value))
        case str():
            return True
        case _:
            return value is None or type(value) in (int, bool)


def _sorted(value: Any) -> Any:
    match value:
        case dict():
            return {key: _sorted(value[key]) for key in sorted(value)}
        case list() | tuple():
            return [_sorted(item) for item in value]
        case _:
            return value


def as_notebook(content: Any) -> tuple[dict[str, Any], str | None]:
    """Return what a client sent as an nbformat 4 notebook, and why it is not valid, if so.

    Raises BadRequestError when it is no notebook at all.
    """
    try:
        return as_v4(content)
    except Exception as error:
        raise BadRequestError(f"Not a notebook: {error!r}") from error


def as_v4(raw: Any) -> tuple[dict[str, Any], str | None]:
    """Return any notebook as nbformat 4, and why it is not valid, if so.

    Raises whatever nbformat raises when it is no notebook at all.
    """
    if not isinstance(raw, dict) or not isinstance(raw.get("nbformat"), int | float):
        raise ValueError("the document has no nbformat")
    major = int(raw["nbformat"])
    if major >= 4:
        notebook = v4.to_notebook(_completed(raw))  # type: ignore[no-untyped-call]
    else:
        notebook = nbformat.versions[major].to_notebook_json(raw)
        notebook = nbformat.convert(notebook, 4)  # type: ignore[no-untyped-call]
        notebook = v4.to_notebook(notebook)  # type: ignore[no-untyped-call]
    message = problem(notebook)
    copied: dict[str, Any] = _plain(notebook)
    for cell in copied["cells"]:
        if not isinstance(cell["source"], str):
            raise ValueError("a cell's source is not text")
    return copied, message


def problem(notebook: dict[str, Any]) -> str | None:
    """Return Jupyter's message about a notebook that is not valid."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A copy: validation repairs ids in place, which is the document's to do.
            nbformat.validate(_plain(notebook))
    except nbformat.ValidationError as error:
        return f"Notebook validation failed: {error}:\n{_instance(error)}"
    return None


def _plain(value: Any) -> Any:
    """Return a copy of a JSON value as if written and read again, without doing it.

    Text is shared, not copied: a notebook is mostly that, and writing and reading 50 MB holds up
    all threads for a second.
    """
    match value:
        case str():
            return value if value.isascii() else _joined(value)
        case dict():
            return {_plain(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return value


def _joined(text: str) -> str:
    """Return text in which the two halves of a character, if apart, are one, as JSON reads them."""
    if not _HALVES.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _completed(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a copy in which what nbformat's own reader needs is there."""
    notebook: dict[str, Any] = _plain(raw)
    notebook.setdefault("metadata", {})
    notebook.setdefault("nbformat_minor", 0)
    for cell in notebook.setdefault("cells", []):
        cell.setdefault("metadata", {})
        cell.setdefault("source", "")
        if cell["cell_type"] not in ("code", "markdown", "raw"):
            raise ValueError(f"unknown cell type {cell['cell_type']!r}")
        if cell["cell_type"] == "code":
            cell.setdefault("outputs", [])
            cell.setdefault("execution_count", None)
    return notebook


def _instance(error: Any) -> str:
    try:
        return json.dumps(error.instance, indent=1)[:2000]
    except (TypeError, ValueError):
        return ""
