"""What clients of Jupyter Server rely on: its own API tests' expectations, in our words.

That suite itself is run by `jp_suite.py` where its sources are (docs/compatibility.md).
"""

import re
from pathlib import Path

import jupyter_server
import nbformat
import pytest
import yaml
from nbformat.v4 import new_notebook

from tests.kernels import until

# Routes that come with other parts of the second issue.
NOBODY = "111-111-111-111-111"


def endpoints(paths: dict) -> set[str]:
    return {
        f"{method} {re.sub('{[^}]*}', '{}', path).rstrip('/')}"
        for path, methods in paths.items()
        for method in methods
        if method in ("get", "post", "put", "patch", "delete")
    }


async def test_every_endpoint_of_api_yaml_is_there(client):
    file = Path(jupyter_server.__file__).parent / "services" / "api" / "api.yaml"
    wanted = endpoints(yaml.safe_load(file.read_text("utf-8"))["paths"])
    assert len(wanted) > 30
    missing = wanted - endpoints(client.app.openapi()["paths"])
    assert missing == set()


async def test_version_and_status(client):
    version = await client.get("/api")
    assert list(version.json()) == ["version"]
    status = await client.get("/api/status")
    assert status.headers["content-type"] == "application/json"
    answer = status.json()
    assert sorted(answer) == ["connections", "kernels", "last_activity", "started"]
    assert (answer["kernels"], answer["connections"]) == (0, 0)
    assert answer["started"].endswith("Z")
    assert answer["last_activity"].endswith("Z")


@pytest.fixture
def kernelspecs(tmp_path, monkeypatch):
    """Two kernelspecs of a person's own, one of which is no JSON."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "share"))
    for name, text in (
        ("Sample", '{"argv": ["cat", "{connection_file}"], "display_name": "Test kernel"}'),
        ("unstartable", '{"argv": ["no-such-program"], "display_name": "Bad"}'),
        ("garbage", "garbage"),
    ):
        folder = tmp_path / "share" / "kernels" / name
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text(text)


async def test_kernelspecs(kernelspecs, client):
    answer = (await client.get("/api/kernelspecs")).json()
    assert answer["default"] == "python3"
    specs = answer["kernelspecs"]
    assert {"python3", "sample", "unstartable"} <= set(specs)
    assert "garbage" not in specs
    assert all(specs[name]["name"] == name for name in specs)
    one = (await client.get("/api/kernelspecs/Sample")).json()
    assert one["name"] == "sample"
    assert one["spec"]["display_name"] == "Test kernel"
    assert isinstance(one["resources"], dict)
    assert (await client.get("/api/kernelspecs/nonexistent")).status_code == 404


async def test_kernels(kernelspecs, client):
    assert (await client.get("/api/kernels")).json() == []
    chosen = "11111111-2222-3333-4444-555555555555"
    made = await client.post("/api/kernels", json={"name": "python3", "kernel_id": chosen})
    assert made.status_code == 201
    assert made.headers["location"] == f"/api/kernels/{chosen}"
    assert made.headers["content-security-policy"] == (
        "frame-ancestors 'self'; report-uri /api/security/csp-report; default-src 'none'"
    )
    model = made.json()
    assert {"id", "name", "last_activity", "execution_state", "connections"} <= set(model)
    one = (await client.get(f"/api/kernels/{chosen}")).json()
    assert (one["id"], one["name"], one["connections"]) == (chosen, "python3", 0)
    again = await client.post("/api/kernels", json={"kernel_id": chosen})
    assert again.status_code == 409
    assert chosen in again.json()["message"]
    assert (await client.post(f"/api/kernels/{chosen}/interrupt")).status_code == 204
    restarted = await client.post(f"/api/kernels/{chosen}/restart")
    assert (restarted.status_code, restarted.json()["id"]) == (200, chosen)
    assert (await client.delete(f"/api/kernels/{chosen}")).status_code == 204
    assert (await client.get("/api/kernels")).json() == []
    assert (await client.post("/api/kernels", json={"kernel_id": chosen})).status_code == 409
    for method, path in (
        ("GET", f"/api/kernels/{NOBODY}"),
        ("DELETE", f"/api/kernels/{NOBODY}"),
        ("POST", f"/api/kernels/{NOBODY}/interrupt"),
        ("POST", f"/api/kernels/{NOBODY}/restart"),
    ):
        answer = await client.request(method, path)
        assert answer.status_code == 404
        assert answer.json()["message"] == f"Kernel does not exist: {NOBODY}"
    assert (await client.post("/api/kernels", json={"name": "unstartable"})).status_code >= 400
    assert (await client.get("/api/kernels")).json() == []


@pytest.mark.parametrize("bad", ["../evil", "a/b", ".", "", "a b", "x" * 200, "é"])
async def test_ids_that_no_kernel_can_have(client, bad):
    body = {"kernel_id": bad, "name": "no-such-kernel"}
    answer = await client.post("/api/kernels", json=body)
    assert answer.status_code == 400
    assert bool(bad) == ("id may have" in answer.json()["message"])
    session = {"path": "x", "type": "console", "kernel": {"id": bad, "name": "no-such-kernel"}}
    # Not heeded, as in Jupyter: the session would get a new kernel.
    assert (await client.post("/api/sessions", json=session)).status_code == 501


async def test_sessions(client, root_dir):
    (root_dir / "foo").mkdir()
    nbformat.write(new_notebook(), root_dir / "foo" / "nb1.ipynb")
    assert (await client.get("/api/sessions")).json() == []
    body = {"path": "foo/nb1.ipynb", "type": "notebook", "kernel": {"name": None, "id": None}}
    made = await client.post("/api/sessions", json=body)
    assert made.status_code == 201
    session = made.json()
    assert (session["path"], session["type"]) == ("foo/nb1.ipynb", "notebook")
    assert made.headers["location"] == f"/api/sessions/{session['id']}"
    (listed,) = (await client.get("/api/sessions")).json()
    assert listed["kernel"]["id"] == session["kernel"]["id"]
    # The path has a session: any other request for it gets the same, whatever it asks for.
    old_form = {"notebook": {"path": "foo/nb1.ipynb"}, "kernel": {"name": "python", "id": "foo"}}
    same = await client.post("/api/sessions", json=old_form)
    assert (same.status_code, same.json()["id"]) == (201, session["id"])
    assert same.json()["notebook"]["path"] == "foo/nb1.ipynb"
    url = f"/api/sessions/{session['id']}"
    moved = await client.patch(url, json={"path": "nb2.ipynb"})
    assert (moved.status_code, moved.json()["path"]) == (200, "nb2.ipynb")
    moved = await client.patch(url, json={"notebook": {"path": "nb3.ipynb"}})
    assert moved.json()["notebook"]["path"] == "nb3.ipynb"
    assert (await client.patch(url, json={"type": "console"})).json()["type"] == "console"
    for wrong in (
        {"kernel": {"id": NOBODY, "name": "python3"}},
        {"kernel": []},
        {"path": 3},
        {"name": "\x00"},
    ):
        assert (await client.patch(url, json=wrong)).status_code == 400, wrong
    # An id that no kernel has is given to a new one.
    chosen = "aaaaaaaa-2222-3333-4444-555555555555"
    other = {"path": "foo/x.py", "type": "file", "kernel": {"id": chosen}}
    second = (await client.post("/api/sessions", json=other)).json()
    assert second["kernel"]["id"] == chosen
    changed = await client.patch(url, json={"kernel": {"id": chosen, "name": "foo"}})
    assert changed.json()["kernel"]["id"] == chosen
    assert [k["id"] for k in (await client.get("/api/kernels")).json()] == [chosen]
    assert (await client.delete(url)).status_code == 204
    assert (await client.get(url)).status_code == 404
    assert (await client.delete(url)).status_code == 404
    # The id of a kernel that has ended has its history: the session gets a new kernel.
    third = (await client.post("/api/sessions", json={**other, "path": "y.py"})).json()
    assert third["kernel"]["id"] != chosen
    assert (await client.delete(f"/api/kernels/{third['kernel']['id']}")).status_code == 204

    async def nothing_left() -> bool:
        return (await client.get("/api/sessions")).json() == []

    await until(nothing_left)
    for lacking in ({"type": "notebook"}, {"path": "x"}, {}):
        assert (await client.post("/api/sessions", json=lacking)).status_code == 400
    unknown = {"path": "x", "type": "console", "kernel": {"name": "no-such-kernel"}}
    refused = await client.post("/api/sessions", json=unknown)
    assert refused.status_code == 501
    assert "no-such-kernel" in refused.json()["message"]
