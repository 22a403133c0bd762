"""The API document, held against jupyter_server's and against what this server really answers."""

import json
import re
from pathlib import Path

import httpx
import jsonschema
import jupyter_server
import openapi_spec_validator
import pytest
import yaml
from click.testing import CliRunner

from app.cli import main
from app.main import create_app
from app.settings import Settings
from app.spec.document import openapi_document
from tests.conftest import TOKEN, serving
from tests.kernels import write_notebook

# Operations of jupyter_server that are another part's of the work; empty once all are merged.
MISSING: set[tuple[str, str]] = set()


@pytest.fixture(scope="module")
def document():
    app = create_app(
        Settings(), database_url="postgresql://", token=TOKEN, data_dir=Path("/nonexistent")
    )
    return openapi_document(app)


@pytest.fixture(scope="module")
def jupyters():
    path = Path(jupyter_server.__file__).parent / "services" / "api" / "api.yaml"
    return yaml.safe_load(path.read_text())


def jupyters_operations(jupyters):
    """Yield (method, path, operation, parameters) of Jupyter Server's definition (Swagger 2)."""
    for path, entry in jupyters["paths"].items():
        shared = entry.get("parameters", [])
        for method, operation in entry.items():
            if method != "parameters":
                given = [*shared, *operation.get("parameters", [])]
                parameters = [
                    jupyters["parameters"][p["$ref"].rpartition("/")[2]] if "$ref" in p else p
                    for p in given
                ]
                yield method, path.rstrip("/"), operation, parameters


def resolved(document, schema):
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def properties(schema, of):
    """The names of a schema's properties (of its items, if it is a list)."""
    schema = of(schema)
    if schema.get("type") == "array":
        schema = of(schema["items"])
    return set(schema.get("properties", {}))


def test_every_operation_of_jupyter_server_is_there(document, jupyters):
    missing = {
        (method, path)
        for method, path, _, _ in jupyters_operations(jupyters)
        if method not in document["paths"].get(path, {})
    }
    assert missing == MISSING


def test_with_the_same_parameters(document, jupyters):
    for method, path, _, parameters in jupyters_operations(jupyters):
        if (method, path) in MISSING:
            continue
        ours = document["paths"][path][method]
        found = {(p["in"], p["name"]) for p in ours.get("parameters", [])}
        # Some paths of Jupyter's list a path's parameter with an operation's body by mistake.
        wanted = {(p["in"], p["name"]) for p in parameters if p["in"] != "body"}
        assert wanted <= found, (method, path)
        # Its restart declares no body; each operation with one must have one here.
        bodies = [p for p in parameters if p["in"] == "body"]
        assert bool(bodies) <= ("requestBody" in ours), (method, path)
        for body in bodies:
            if path.startswith("/api/sessions") or "properties" not in body["schema"]:
                continue
            schema = ours["requestBody"]["content"]["application/json"]["schema"]
            wanted = set(body["schema"]["properties"])
            assert wanted <= properties(schema, lambda s: resolved(document, s)), (method, path)


def test_with_the_same_answers(document, jupyters):
    def jupyters_schema(schema):
        while "$ref" in schema:
            schema = jupyters["definitions"][schema["$ref"].rpartition("/")[2]]
        return schema

    # Jupyter's definition names the kernel.json `KernelSpecFile`; servers send it as `spec`.
    sent_otherwise = {"KernelSpecFile"}
    compared = 0
    for method, path, operation, _ in jupyters_operations(jupyters):
        if (method, path) in MISSING:
            continue
        ours = document["paths"][path][method]["responses"]
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                continue
            assert str(status) in ours, (method, path, status)
            wanted = properties(answer.get("schema", {}), jupyters_schema) - sent_otherwise
            if not wanted:
                continue
            schema = ours[str(status)]["content"]["application/json"]["schema"]
            found = properties(schema, lambda s: resolved(document, s))
            assert wanted <= found, (method, path, status)
            compared += 1
            if "Location" in answer.get("headers", {}):
                assert "Location" in ours[str(status)]["headers"], (method, path)
    assert compared > 10


def test_the_document_is_valid_openapi(document):
    openapi_spec_validator.validate(document)


def test_every_operation_is_described_once(document):
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len({o["operationId"] for *_, o in operations}) == len(operations)
    for path, method, operation in operations:
        assert operation["description"], (path, method)
        names = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
        assert names == set(re.findall(r"{(\w+)}", path)), (path, method)
        for reference in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(operation)):
            assert reference in document["components"]["schemas"]


async def edited_and_shared(client):
    """Edit a notebook and share files; return the paths and answers of the posts."""
    entries = (await client.get("/api/contents/a.ipynb")).json()["content"]["cells"]
    session = (await client.get("/api/sessions")).json()[0]["id"]
    body = {"cells": [entries[0]["id"]]}
    run = (await client.post(f"/api/sessions/{session}/run", json=body)).json()["executions"][0]
    of, document = f"/api/documents/{run['document_id']}", "/api/documents/{document_id}"
    answers = []

    async def post(template, url=None, **body):
        answer = await client.post(url or template, json=body)
        assert answer.is_success, (template, answer.text)
        answers.append((template, answer))
        return answer.json()

    cell = (await post(f"{document}/cells", f"{of}/cells", source="2"))["id"]
    await post(f"{document}/cells/{{cell_id}}/move", f"{of}/cells/{cell}/move", index=0)
    await post(f"{document}/versions", f"{of}/versions", name="first")
    await post(f"{document}/undo", f"{of}/undo")
    await post(f"{document}/redo", f"{of}/redo")
    await post(f"{document}/restore", f"{of}/restore", name="first")
    await post(f"{document}/overwrite", f"{of}/overwrite")
    await post("/api/users", name="eve")
    await post("/api/groups", name="readers")
    await post("/api/tokens", scopes=["read"])
    await post("/api/permissions", path="t.txt", role="viewer", user="eve")
    code = (await post("/api/share-links", path="t.txt", role="runner"))["code"]
    await post("/api/share-links/accept", code=code)
    return answers


async def test_answers_are_as_described(client, root_dir, document):
    """Real answers, each against its schema: the shapes are not wishes."""
    write_notebook(root_dir / "a.ipynb", "1")
    (root_dir / "t.txt").write_text("t")
    registry = {"components": document["components"]}
    kernel = (await client.post("/api/kernels")).json()["id"]
    body = {"path": "a.ipynb", "type": "notebook", "kernel": {"id": kernel}}
    session = (await client.post("/api/sessions", json=body)).json()["id"]
    body = {"code": "1+1"}
    execution = (await client.post(f"/api/kernels/{kernel}/execute", json=body)).json()["id"]
    made = await edited_and_shared(client)
    for path, answer in made:
        responses = document["paths"][path]["post"]["responses"]
        schema = responses[str(answer.status_code)]["content"]["application/json"]["schema"]
        jsonschema.validate(answer.json(), {**registry, **schema})
    of = f"/api/documents/{made[0][1].json()['document_id']}"
    wait = "?wait=60"
    for path, url in [
        ("/api", "/api"),
        ("/api/status", "/api/status"),
        ("/api/me", "/api/me"),
        ("/api/kernelspecs", "/api/kernelspecs"),
        ("/api/kernelspecs/{name}", "/api/kernelspecs/python3"),
        ("/api/kernels", "/api/kernels"),
        ("/api/kernels/{kernel_id}", f"/api/kernels/{kernel}"),
        ("/api/sessions", "/api/sessions"),
        ("/api/sessions/{session}", f"/api/sessions/{session}"),
        ("/api/executions", "/api/executions"),
        ("/api/executions/{execution_id}", f"/api/executions/{execution}{wait}"),
        ("/api/executions/{execution_id}/outputs", f"/api/executions/{execution}/outputs"),
        ("/api/contents/{path}", "/api/contents/a.ipynb"),
        ("/api/contents/{path}", "/api/contents/t.txt?hash=1"),
        ("/api/contents", "/api/contents"),
        ("/api/terminals", "/api/terminals"),
        ("/api/nbconvert", "/api/nbconvert"),
        ("/api/config/{section_name}", "/api/config/notebook"),
        ("/api/resolvePath", "/api/resolvePath?path=t.txt"),
        ("/api/documents/{document_id}/cells", f"{of}/cells"),
        ("/api/documents/{document_id}/undo", f"{of}/undo"),
        ("/api/documents/{document_id}/history", f"{of}/history"),
        ("/api/documents/{document_id}/content", f"{of}/content?name=first"),
        ("/api/documents/{document_id}/versions", f"{of}/versions"),
        ("/api/users", "/api/users"),
        ("/api/groups", "/api/groups"),
        ("/api/tokens", "/api/tokens"),
        ("/api/permissions", "/api/permissions"),
        ("/api/permissions", "/api/permissions?path=t.txt"),
        ("/api/share-links", "/api/share-links"),
        ("/api/audit", "/api/audit"),
        ("/api/datastore/tables", "/api/datastore/tables"),
        ("/api/datastore/tables/{table}", "/api/datastore/tables/kernels"),
    ]:
        response = await client.get(url)
        assert response.status_code == 200, url
        answer = document["paths"][path]["get"]["responses"]["200"]
        schema = {**registry, **answer["content"]["application/json"]["schema"]}
        jsonschema.validate(response.json(), schema)


def test_the_command(tmp_path):
    printed = CliRunner().invoke(main, ["openapi"])
    assert printed.exit_code == 0, printed.output
    assert yaml.safe_load(printed.stdout)["paths"]["/api/me"]
    for name, load in [("api.json", json.loads), ("api.yaml", yaml.safe_load)]:
        done = CliRunner().invoke(main, ["openapi", "--output", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
        assert load((tmp_path / name).read_text()) == yaml.safe_load(printed.stdout)
    failed = CliRunner().invoke(main, ["openapi", "--output", str(tmp_path / "no" / "x.json")])
    assert failed.exit_code == 1
    assert "No such file" in failed.output


async def test_served_below_the_base_url(settings, database_url, tmp_path, document):
    settings.base_url = "/base/"
    async with serving(settings, database_url, tmp_path / "data") as client:
        response = await client.get("/base/api/spec.yaml")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/x-yaml")
        served = yaml.safe_load(response.text)
        assert served["servers"] == [{"url": "/base"}]
        assert served["paths"] == json.loads(json.dumps(document["paths"]))
        transport = httpx.ASGITransport(client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as nobody:
            assert (await nobody.get("/base/api/spec.yaml")).status_code == 403
