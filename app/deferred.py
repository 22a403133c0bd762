"""Imports put off until somebody needs them.

jsonschema imports `rfc3987_syntax` for the formats `iri` and `iri-reference`, which takes a second
and 15 MB: a parser is made of the grammar of RFC 3987. No schema here has such a format.
"""

import importlib.util
import sys
from types import ModuleType

_NAME = "rfc3987_syntax"


def defer() -> None:
    """Let that module be there without having been imported; called before jsonschema is."""
    if _NAME not in sys.modules and importlib.util.find_spec(_NAME) is not None:
        stand_in = ModuleType(_NAME)
        stand_in.__dict__["is_valid_syntax"] = _is_valid_syntax
        sys.modules[_NAME] = stand_in


def _is_valid_syntax(term: str, value: str) -> bool:
    real = sys.modules[_NAME]
    if real.__dict__.get("is_valid_syntax") is _is_valid_syntax:
        del sys.modules[_NAME]
        real = importlib.import_module(_NAME)
    return bool(real.is_valid_syntax(term, value))
