"""What is put off is not imported by the server, and is there for who needs it."""

import subprocess
import sys

SERVER = """
import sys
import app.main, app.cli.serve
assert "jsonschema" in sys.modules
assert "rfc3987_syntax.syntax_helpers" not in sys.modules
"""
SCHEMA = """
import app
from jsonschema import Draft202012Validator, FormatChecker, ValidationError
schema = {"type": "string", "format": "iri"}
validator = Draft202012Validator(schema, format_checker=FormatChecker())
for _ in range(2):
    validator.validate("https://example.org/caf\\u00e9")
    try:
        validator.validate("no iri")
    except ValidationError:
        pass
    else:
        raise AssertionError("it took what is no IRI")
"""


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_server_does_without():
    run(SERVER)


def test_a_schema_has_its_format_all_the_same():
    run(SCHEMA)
