"""Text and JSON that PostgreSQL can hold, and back, without loss.

PostgreSQL's `text` and `jsonb` take any Unicode scalar value but NUL, and JSON has no NaN or
infinity. Kernels send all of these. What cannot be stored is written as U+FDD0 (a noncharacter,
reserved for internal use by the Unicode Standard, section 23.7) followed by four hex digits, and
a number without JSON form as U+FDD0 and its name. U+FDD0 itself is escaped too, so that every
string has exactly one stored form and comes back as it was.
"""

import json
import math
import re
from typing import Any

from sqlalchemy import Dialect, Text
from sqlalchemy.types import TypeDecorator

ESCAPE = "\ufdd0"

# Made once: `json.dumps` makes one for each value when it is told anything.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_UNSTORABLE = re.compile(f"[\x00\ud800-\udfff{ESCAPE}]")
_ESCAPED = re.compile(f"{ESCAPE}([0-9a-f]{{4}})")
_NUMBER_NAMES = {f"{ESCAPE}NaN": math.nan, f"{ESCAPE}Inf": math.inf, f"{ESCAPE}-Inf": -math.inf}


def encode_text(value: str) -> str:
    """Return `value` with NUL, lone surrogates and U+FDD0 escaped."""
    if value.isascii():
        if "\x00" not in value:
            return value
    elif not _UNSTORABLE.search(value):
        return value
    return _UNSTORABLE.sub(lambda match: f"{ESCAPE}{ord(match[0]):04x}", value)


def decode_text(value: str) -> str:
    """Return the text that `encode_text` was given."""
    if ESCAPE not in value:
        return value
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), value)


def _encode_float(value: float) -> float | str:
    if math.isnan(value):
        return f"{ESCAPE}NaN"
    if math.isinf(value):
        return f"{ESCAPE}Inf" if value > 0 else f"{ESCAPE}-Inf"
    return value


def encode_json(value: Any) -> Any:
    """Return a copy of a JSON value in which every string and number has a form `jsonb` takes."""
    match value:
        case str():
            return encode_text(value)
        case float():
            return _encode_float(value)
        case dict():
            return {encode_text(str(key)): encode_json(item) for key, item in value.items()}
        case list() | tuple():
            return [encode_json(item) for item in value]
        case _:
            return value


def decode_json(value: Any) -> Any:
    """Return the JSON value that `encode_json` was given."""
    match value:
        case str():
            return _NUMBER_NAMES[value] if value in _NUMBER_NAMES else decode_text(value)
        case dict():
            return {decode_text(key): decode_json(item) for key, item in value.items()}
        case list():
            return [decode_json(item) for item in value]
        case _:
            return value


def dumps(value: Any) -> str:
    """Serialise a JSON value for a `jsonb` column (the engine's `json_serializer`).

    The common case costs one pass of the C encoder and one search; only a value with something
    unstorable in it is walked.
    """
    try:
        text = _ENCODER.encode(value)
    except ValueError:
        text = ""
    if not text or "\\u0000" in text or _UNSTORABLE.search(text):
        return _ENCODER.encode(encode_json(value))
    return text


def loads(text: str | bytes) -> Any:
    """Parse the text of a `jsonb` value (the engine's `json_deserializer`)."""
    value = json.loads(text)
    if isinstance(text, bytes):
        return decode_json(value) if ESCAPE.encode() in text else value
    return decode_json(value) if ESCAPE in text else value


class ExactText(TypeDecorator[str]):
    """A `text` column that gives back exactly the Python string it was given."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 (SQLAlchemy's signature)
        """Escape what PostgreSQL refuses."""
        return None if value is None else encode_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 (SQLAlchemy's signature)
        """Undo the escapes."""
        return None if value is None else decode_text(value)
