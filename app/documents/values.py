r"""JSON values on their way into a Yjs document and back.

Numbers: JavaScript knows doubles only and a Yjs BigInt breaks the front end, so integers go in as
floats, as `jupyter_ydoc` does, and integral floats come out as integers. Whoever needs `1.0` to
stay `1.0` keeps the original beside the document (the rows do, for everything but outputs).

Text: neither Yjs nor a UTF-8 file holds a lone surrogate, so it is shown as its escape, the six
characters `\udc80`. NUL is kept: both hold it.
"""

import json
import re
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")
# Above this a float is an approximation that nobody wrote as an integer (1e300).
_INTEGRAL_LIMIT = 2.0**63


def to_text(text: str) -> str:
    """Return `text` with lone surrogates escaped; the same object if it has none."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def to_y(value: Any) -> Any:  # noqa: PLR0911 (one for each type)
    """Return a copy of a JSON value as it goes into a Yjs document."""
    match value:
        case str():
            return to_text(value)
        case bool() | None | float():
            return value
        case int():
            try:
                number = float(value)
            except OverflowError:
                return str(value)  # beyond both double and 64 bits: only text holds it
            return number if number == value or abs(value) >= 2**63 else value
        case dict():
            return {to_text(str(key)): to_y(item) for key, item in value.items()}
        case list() | tuple():
            return [to_y(item) for item in value]
        case _:
            return value


def storable(value: Any) -> Any:
    """Return a copy of a JSON value with its numbers as they are, its text as files hold it."""
    match value:
        case str():
            return to_text(value)
        case dict():
            return {to_text(str(key)): storable(item) for key, item in value.items()}
        case list() | tuple():
            return [storable(item) for item in value]
        case _:
            return value


def from_y(value: Any) -> Any:
    """Return a copy of a value read from a Yjs document, with integral floats as integers."""
    match value:
        case float():
            return int(value) if value.is_integer() and abs(value) < _INTEGRAL_LIMIT else value
        case dict():
            return {key: from_y(item) for key, item in value.items()}
        case list():
            return [from_y(item) for item in value]
        case _:
            return value


def shown(value: Any) -> Any:
    """Return a JSON value as a document shows it: in and out again."""
    return from_y(to_y(value))


def same(left: Any, right: Any) -> bool:
    """Tell whether two JSON values are equal, NaN being equal to itself and 1 to 1.0."""
    if left == right:
        # True == 1 in Python, but not in JSON.
        return not _has_bool(left) or json.dumps(from_y(left), sort_keys=True) == json.dumps(
            from_y(right), sort_keys=True
        )
    if isinstance(left, str) or isinstance(right, str):
        return False
    return json.dumps(from_y(left), sort_keys=True) == json.dumps(from_y(right), sort_keys=True)


def _has_bool(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_bool(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_bool(item) for item in value)
    return isinstance(value, bool | int | float) and value in (0, 1)
