"""What the clients call is what the server's OpenAPI document has, and their types are current."""

import re
from pathlib import Path

import pytest
from jupyter_datastore_client import records
from jupyter_datastore_client.records import ID_COLUMNS

from app.changes.tables import TABLES
from app.cli.types.records import published_tables
from app.cli.typescript import document, written_types

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "clients" / "python" / "src" / "jupyter_datastore_client"
TYPESCRIPT = ROOT / "clients" / "typescript" / "src"
SOURCES = {"python": PYTHON / "actions.py", "typescript": TYPESCRIPT / "actions.ts"}

# The subjects that clients have methods for. Of these every operation is there, but for:
SUBJECTS = re.compile(
    r"/api$|/files/|/nbconvert/|/api/(status|shutdown|me|kernelspecs|kernels|sessions|executions|comms"
    r"|documents|contents|terminals|config|nbconvert|events|resolvePath|users|groups|tokens"
    r"|permissions|audit)\b"
)
LEFT_OUT = {
    "HEAD /files/{path}": "a browser's concern",
    "GET /api/contents": "the path may be empty in `GET /api/contents/{path}`",
    "PUT /api/contents": "as above",
    "POST /api/contents": "as above",
    "PATCH /api/contents": "as above",
    "DELETE /api/contents": "as above",
    "GET /api/contents/checkpoints": "as above",
}


def called(source: Path) -> set[str]:
    text = source.read_text("utf-8")
    found = set(re.findall(r'"((?:GET|HEAD|PUT|POST|PATCH|DELETE) /[^"]*)"', text))
    # The Python client's kernel requests share one line.
    if 'f"POST /api/kernels/{{kernel_id}}/{request}"' in text:
        requests = re.findall(r'self\._ask\(\s*"(\w+)"', text)
        assert requests
        found.remove("POST /api/kernels/{{kernel_id}}/{request}")
        found |= {f"POST /api/kernels/{{kernel_id}}/{request}" for request in requests}
    return found


@pytest.fixture(scope="module")
def operations() -> set[str]:
    paths = document()["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


@pytest.mark.parametrize("client", SOURCES)
def test_what_a_client_calls_exists(client: str, operations: set[str]):
    assert called(SOURCES[client])
    assert called(SOURCES[client]) - operations == set()


@pytest.mark.parametrize("client", SOURCES)
def test_every_operation_of_its_subjects_has_a_method(client: str, operations: set[str]):
    """A new operation wants a method in both clients, or a reason in `LEFT_OUT`."""
    wanted = {operation for operation in operations if SUBJECTS.match(operation.split(" ")[1])}
    assert wanted - called(SOURCES[client]) - LEFT_OUT.keys() == set()
    assert LEFT_OUT.keys() <= operations


@pytest.mark.parametrize(
    ("path", "what", "language"),
    [
        (PYTHON / "records.py", "records", "python"),
        (PYTHON / "shapes.py", "api", "python"),
        (TYPESCRIPT / "records.ts", "records", "typescript"),
        (TYPESCRIPT / "shapes.ts", "api", "typescript"),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_the_types_are_current(path: Path, what: str, language: str):
    made = f"jupyter-datastore typescript --of {what} --language {language}"
    assert path.read_text("utf-8") == written_types(what, language), (
        f"made anew by: {made} --output {path.relative_to(ROOT)}"
    )


def test_records_have_what_the_feed_sends():
    """A typed record's keys are the columns that the feed sends, the optional ones announced."""
    assert {name: table.published.id for name, table in TABLES.items()} == ID_COLUMNS
    shapes = {shape.table: shape.record.name for shape in published_tables()}
    assert shapes.keys() == TABLES.keys()
    for name, table in TABLES.items():
        record = getattr(records, shapes[name])
        assert record.__required_keys__ == set(table.published.sent), name
        assert record.__optional_keys__ == set(table.published.announced), name
