import asyncio
import json

import httpx
import pytest

from tests.conftest import serving


@pytest.fixture(autouse=True)
def config_dirs(tmp_path, monkeypatch):
    """The user's config folder, and one that JUPYTER_CONFIG_PATH puts above it; both empty."""
    user, system = tmp_path / "user", tmp_path / "system"
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(user))
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(system))
    for folder in (user, system):
        (folder / "serverconfig" / "notebook.d").mkdir(parents=True)
    return user / "serverconfig", system / "serverconfig"


def write(path, section):
    path.write_text(json.dumps(section))


async def get(client, name="notebook"):
    response = await client.get(f"/api/config/{name}")
    assert response.status_code == 200
    return response.json()


async def test_put_get_patch(client, database_url, settings, tmp_path):
    assert await get(client) == {}
    section = {"a": {"b": 1, "c": [1, 2]}, "d": "\x00\ud800"}
    body = json.dumps(section)
    assert (await client.put("/api/config/notebook", content=body)).status_code == 204
    assert await get(client) == section
    changes = {"a": {"b": None, "e": {"f": 1.5}}, "d": None, "g": None}
    response = await client.patch("/api/config/notebook", json=changes)
    assert response.status_code == 200
    assert response.json() == {"a": {"c": [1, 2], "e": {"f": 1.5}}}
    assert await get(client) == response.json()
    assert await get(client, "tree") == {}
    await client.patch("/api/config/notebook", json={"a": None})
    assert await get(client) == {}


async def test_objects_and_other_values_take_each_others_place(client, config_dirs):
    """jupyter_server answers 500 to these."""
    write(config_dirs[0] / "notebook.d" / "a.json", {"packaged": 1, "deep": {"packaged": 2}})
    steps = [
        ({"a": 1}, {"a": 1}),
        ({"a": {"b": "\x00"}}, {"a": {"b": "\x00"}}),
        ({"a": {"b": {"\ud800": []}}}, {"a": {"b": {"\ud800": []}}}),
        ({"a": "x"}, {"a": "x"}),
        ({"a": {}}, {}),
        ({"packaged": {"b": 3}, "deep": 4}, {"packaged": {"b": 3}, "deep": 4}),
    ]
    packaged = await get(client)
    for changes, own in steps:
        response = await client.patch("/api/config/notebook", content=json.dumps(changes))
        assert (response.status_code, response.json()) == (200, {**packaged, **own})
        assert await get(client) == {**packaged, **own}
    body = json.dumps({"packaged": {"b": 3}, "a": {"b": 1}})
    assert (await client.put("/api/config/notebook", content=body)).status_code == 204
    assert await get(client) == {**packaged, "packaged": {"b": 3}, "a": {"b": 1}}


async def test_rows_survive_and_no_file_is_written(database_url, settings, tmp_path, config_dirs):
    async with serving(settings, database_url, tmp_path / "data") as client:
        await client.put("/api/config/notebook", json={"kept": True})
    async with serving(settings, database_url, tmp_path / "data") as client:
        assert await get(client) == {"kept": True}
    assert not (config_dirs[0] / "notebook.json").exists()


async def test_files_and_changes_lie_upon_each_other_as_in_jupyter(client, config_dirs):
    user, system = config_dirs
    write(system / "notebook.json", {"from": {"system": 1}, "both": "system"})
    write(user / "notebook.d" / "a.json", {"from": {"package": 2}, "both": "package"})
    write(user / "notebook.json", {"from": {"file": 3}, "own": True})
    everything = {"from": {"system": 1, "package": 2, "file": 3}, "both": "system", "own": True}
    assert await get(client) == everything
    # A change starts from what the user's file says, whose place the row takes.
    response = await client.patch("/api/config/notebook", json={"from": {"file": None}, "new": 1})
    assert response.json() == {"from": {"package": 2}, "both": "package", "own": True, "new": 1}
    everything["from"].pop("file")
    assert await get(client) == {**everything, "new": 1}
    assert json.loads((user / "notebook.json").read_text()) == {"from": {"file": 3}, "own": True}
    # What a package set later shows through, as it is not in the row.
    write(user / "notebook.d" / "a.json", {"later": 2})
    assert (await get(client))["later"] == 2
    await client.put("/api/config/notebook", json={})
    assert await get(client) == {"from": {"system": 1}, "both": "system", "later": 2}


async def test_broken_files_count_as_empty(client, config_dirs):
    user, system = config_dirs
    (user / "notebook.json").write_bytes(b"\xff{")
    write(system / "notebook.json", [1])
    assert await get(client) == {}
    response = await client.patch("/api/config/notebook", json={"a": 1})
    assert response.json() == {"a": 1}


async def test_changes_at_once_are_all_heeded(client):
    changes = [client.patch("/api/config/notebook", json={f"k{n}": n}) for n in range(8)]
    assert {r.status_code for r in await asyncio.gather(*changes)} == {200}
    assert await get(client) == {f"k{n}": n for n in range(8)}


async def test_bad_input_and_anonymous(client):
    for content in ("{", "[1]", "null", '"x"'):
        for method in ("PUT", "PATCH"):
            answer = await client.request(method, "/api/config/notebook", content=content)
            assert answer.status_code == 400, content
    deep = '{"a":' * 400 + "{}" + "}" * 400
    for method in ("PUT", "PATCH"):
        answer = await client.request(method, "/api/config/notebook", content=deep)
        assert answer.status_code in (200, 204, 400)
    for name in ("a.b", "a-b", "..%2Fa", "%00", "a" * 200):
        for method in ("GET", "PUT", "PATCH"):
            answer = await client.request(method, f"/api/config/{name}", content="{}")
            assert answer.status_code == 404, name
    transport = httpx.ASGITransport(client.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as nobody:
        for method in ("GET", "PUT", "PATCH"):
            answer = await nobody.request(method, "/api/config/notebook", content="{}")
            assert answer.status_code == 403
