"""Every HTTP route with generated and with nasty input: no 5xx, and errors in Jupyter's shape.

Paths and queries are generated from the application's own OpenAPI; bodies, where it does not
describe them, from the names that the routes read. Deterministic, and bounded in examples.
"""

import asyncio
import contextlib
import copy
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import nbformat
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from nbformat.v4 import new_code_cell, new_notebook

from app.main import create_app
from app.settings import Settings
from tests.conftest import TOKEN

# Ten thousand requests through the same lines: counting them takes three times as long.
pytestmark = pytest.mark.no_cover
_EXAMPLES = 500  # over all operations
# Ends the server, which is tested elsewhere.
_LEFT_OUT = ("/api/shutdown",)
_FIELDS = (
    *("cell_id", "cells", "code", "content", "copy_from", "document_id", "env", "ext", "format"),
    *("idempotency_key", "input_request_id", "kernel", "kernel_id", "name", "path", "type"),
    *("silent", "user_expressions", "value", "cell_version", "chunk", "data", "metadata"),
    *("id", "index", "before", "after", "source", "splices", "base", "version", "at", "steps"),
    *("user", "group", "action", "resource", "expires_at", "scopes", "token", "title"),
)
# A body has any of the names, mostly with values of the type that is right for one of them.
_BODY = {
    "type": "object",
    "properties": {
        name: {
            "anyOf": [
                {"type": "string", "maxLength": 20},
                {"type": "boolean"},
                {"type": "integer"},
                {"type": "array", "items": {"type": "string"}, "maxItems": 3},
                {"type": "object", "maxProperties": 3},
                {"type": "null"},
            ]
        }
        for name in _FIELDS
    },
    "additionalProperties": False,
    "required": ["name", "path"],
    "maxProperties": 8,
}
_NASTY_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**70, 1e308, "", "\x00", "a\x00b", "\ud800", "\n", "../../x", "/", ".",
    "x" * 5_000, "💥", [], [None], ["\x00"], {}, {"name": "\x00"}, {"name": 1, "id": []},
    {"\ud800": "\ud800"}, {"id": "\ud800", "path": {}},
)  # fmt: skip
_NASTY_BODIES = (
    b"", b"null", b"[]", b"0", b'"x"', b"{", b"\xff\xfe", b"\x00", b'{"name": NaN}', b'{"a":1}{}',
    b"[" * 50_000, b'{"a":' * 50_000, b'{"name": 1e999, "path": -0}', b"a=b&c=d",
)  # fmt: skip
_NASTY_PARTS = (
    "%00",
    "%2e%2e",
    "%2F",
    "%ff",
    "%ED%A0%80",
    "a" * 3_000,
    "%0a",
    "%F0%9F%92%A5",
    "%25",
    "{}",
)


@pytest.fixture
def address(database_url, root_dir, tmp_path) -> Iterator[str]:
    """The server, on a thread of its own, with nothing that a test here could start by itself."""
    made = Settings(root_dir=root_dir, owner="ada", save_delay_seconds=0.05)
    app = create_app(made, database_url=database_url, token=TOKEN, data_dir=tmp_path / "data")
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment]
    thread = threading.Thread(target=asyncio.run, args=(server.serve(),))
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    yield f"http://localhost:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(60)
    assert not thread.is_alive()
    app.openapi_schema = None


@pytest.fixture
def schema(address, database_url, root_dir, tmp_path) -> dict[str, Any]:
    made = create_app(
        Settings(root_dir=root_dir), database_url=database_url, token=TOKEN, data_dir=tmp_path
    )
    described = copy.deepcopy(made.openapi())
    for path in list(described["paths"]):
        if path.endswith(_LEFT_OUT):
            del described["paths"][path]
    for methods in described["paths"].values():
        for method, operation in methods.items():
            if method in ("post", "put", "patch") and "requestBody" not in operation:
                operation["requestBody"] = {"content": {"application/json": {"schema": _BODY}}}
    return described


@pytest.fixture
def known(address, root_dir) -> Iterator[dict[str, str]]:
    """Things that exist, by the name of the path parameter that finds them."""
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), root_dir / "a.ipynb")
    (root_dir / "a.txt").write_text("a")
    with httpx.Client(base_url=address, headers=_HEADERS, timeout=60) as client:
        body = {"path": "a.ipynb", "type": "notebook", "name": "", "kernel": {"name": "python3"}}
        session = client.post("/api/sessions", json=body).raise_for_status().json()
        kernel = session["kernel"]["id"]
        path = "/api/contents/a.ipynb"
        cell = client.get(path).raise_for_status().json()["content"]["cells"][0]["id"]
        body = {"path": "a.ipynb", "cell_id": cell}
        ran = client.post(f"/api/kernels/{kernel}/execute", json=body).raise_for_status().json()
        execution = ran["id"]
        client.get(f"/api/executions/{execution}", params={"wait": 60}).raise_for_status()
        yield {
            "kernel_id": kernel,
            "session_id": session["id"],
            "execution_id": execution,
            "document_id": ran["document_id"],
            "cell_id": cell,
            "path": "a.ipynb",
            "name": "python3",
        }


_HEADERS = {"Authorization": f"token {TOKEN}"}


def fault_in(answer: Any) -> str | None:
    """What is wrong with an answer, or None."""
    if answer.status_code >= 500 and answer.status_code not in (501, 503):
        return f"{answer.status_code}: {answer.text[:200]}"
    if answer.status_code >= 400 and answer.request.method != "HEAD":
        try:
            body = answer.json()
        except ValueError:
            return f"{answer.status_code} without JSON: {answer.text[:200]!r}"
        if not isinstance(body, dict) or not isinstance(body.get("message"), str):
            return f"{answer.status_code} without a message: {answer.text[:200]}"
    return None


def test_generated_input_never_gets_a_5xx(address, schema):
    loaded = schemathesis.openapi.from_dict(schema)
    loaded.config.update(base_url=address)
    operations = [result.ok() for result in loaded.get_all_operations()]
    assert len(operations) > 20
    faults: dict[str, str] = {}
    seen: set[int] = set()
    for operation in operations:

        @settings(
            max_examples=max(5, _EXAMPLES // len(operations)),
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def send(case: schemathesis.Case) -> None:
            answer = case.call(headers=_HEADERS, timeout=60)
            seen.add(answer.status_code)
            if fault := fault_in(answer):
                faults.setdefault(case.as_curl_command()[:600], fault)

        send()
    assert not faults, json.dumps(faults, indent=1)
    assert {200, 400, 404} <= seen


def test_nasty_input_never_gets_a_5xx(address, schema, known):
    faults: dict[str, str] = {}
    count = 0

    def send(method: str, path: str, **arguments: Any) -> None:
        nonlocal count
        count += 1
        url = client.base_url.copy_with(raw_path=path.encode("utf-8", "surrogatepass"))
        try:
            answer = client.request(method, url, **arguments)
        except httpx.TransportError as error:
            faults.setdefault(f"{method} {path[:80]} {str(arguments)[:200]}", repr(error))
            return
        if fault := fault_in(answer):
            faults.setdefault(f"{method} {path[:80]} {str(arguments)[:200]}", fault)

    with httpx.Client(base_url=address, headers=_HEADERS, timeout=60) as client:
        operations = [
            (method == "delete", template, method, described)
            for template, methods in schema["paths"].items()
            for method, described in methods.items()
        ]
        # What is known is deleted last.
        for _, template, method, described in sorted(operations, key=lambda entry: entry[:3]):
            path = template.format_map(_Known(known))
            for parameter in described.get("parameters", []):
                for part in _NASTY_PARTS if parameter["in"] == "query" else ():
                    send(method, f"{path}?{parameter['name']}={part}")
            for part in _NASTY_PARTS if "{" in template else ():
                send(method, template.format_map(_Known({}, default=part)))
            if method not in ("post", "put", "patch") or path.endswith("restart"):
                continue
            for raw in _NASTY_BODIES:
                send(method, path, content=raw)
            for field in _fields_of(template):
                for value in _NASTY_VALUES:
                    body = {**_minimal(template), field: value}
                    send(method, path, content=json.dumps(body))
    assert not faults, f"{len(faults)} of {count}: " + json.dumps(faults, indent=1)


class _Known(dict[str, str]):
    def __init__(self, known: dict[str, str], default: str = "none") -> None:
        super().__init__(known)
        self._default = default

    def __missing__(self, key: str) -> str:
        return self._default


def _fields_of(template: str) -> list[str]:
    """The names that a route may read; those that say what to start are not left to chance."""
    for ending, fields in {
        "/api/kernels": "name path kernel_id env",
        "/api/sessions": "name path type kernel notebook",
        "/execute": "code cell_id path document_id idempotency_key cell_version user_expressions",
        "/run": "cells stop_on_error",
        "/input": "value input_request_id",
        "/api/terminals": "name cwd",  # each that is made starts a shell
        "/cells": "id type source metadata attachments index before after",
        "/cells/{cell_id}": "source splices base version type metadata attachments outputs",
        "/move": "index before after",
        "/undo": "steps",
        "/redo": "steps",
        "/versions": "name version at",
        "/restore": "name version at",
    }.items():
        if template.endswith(ending):
            return fields.split()
    return ["name", "path", "type", "format", "content", "kernel", "copy_from", "ext", "chunk"]


def _minimal(template: str) -> dict[str, Any]:
    """What else a body needs so that the nasty field is looked at."""
    if template.endswith("/api/kernels"):
        return {"name": "no-such-kernel"}
    if template.endswith("/api/sessions"):
        return {"path": "x", "type": "console", "kernel": {"name": "no-such-kernel"}}
    if template.endswith("/execute"):
        return {"code": "1"}
    if template.endswith("/api/terminals"):
        return {"cwd": "no-such-folder"}
    if "contents" in template:
        return {"type": "file", "format": "text", "content": "x"}
    return {}
