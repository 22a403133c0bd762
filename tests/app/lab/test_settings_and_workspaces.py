"""`/lab/api`: settings and workspaces as rows of each person, and what is installed."""

import json
import time

import pytest
from sqlalchemy import select

from app.auth.identity import hash_token
from models import LabSetting, LabWorkspace, Token, User

THEMES = "@jupyterlab/apputils-extension:themes"
SETTINGS = "/lab/api/settings"
WORKSPACES = "/lab/api/workspaces"
RAW = '{\n    // a comment\n    "theme": "JupyterLab Dark",\n}'


@pytest.fixture
async def bob(client, database):
    """Another person's headers."""
    async with database.transaction() as tx:
        user = User(name="bob")
        tx.add(user)
        await tx.flush()
        tx.add(Token(user_id=user.id, name="t", prefix="bob", hash=hash_token("bobs-token")))
    return {"Authorization": "token bobs-token"}


async def test_settings_are_those_of_jupyterlab_server(client):
    plugins = (await client.get(SETTINGS)).json()["settings"]
    by_id = {plugin["id"]: plugin for plugin in plugins}
    assert len(by_id) == len(plugins) > 70
    assert by_id[THEMES]["schema"]["properties"]["theme"]["default"] == "JupyterLab Light"
    assert (by_id[THEMES]["raw"], by_id[THEMES]["settings"]) == ("{}", {})
    ids = (await client.get(SETTINGS, params={"ids_only": "true"})).json()["settings"]
    assert ids == [{"id": plugin["id"]} for plugin in plugins]
    assert (await client.get(f"{SETTINGS}/{THEMES}")).json() == by_id[THEMES]
    news = by_id["@jupyterlab/apputils-extension:notification"]["schema"]["properties"]
    assert news["fetchNews"]["default"] == "false"


async def test_settings_are_kept_for_each_person(client, database, bob):
    before = time.time()
    saved = await client.put(f"{SETTINGS}/{THEMES}", content=json.dumps({"raw": RAW}))
    assert saved.status_code == 204, saved.text
    found = (await client.get(f"{SETTINGS}/{THEMES}")).json()
    assert (found["raw"], found["settings"]) == (RAW, {"theme": "JupyterLab Dark"})
    assert found["created"] <= found["last_modified"]
    listed = (await client.get(SETTINGS)).json()["settings"]
    assert found in listed
    (row,) = (await read(database, select(LabSetting))).all()
    assert row.settings == {"theme": "JupyterLab Dark"}
    assert row.last_modified.timestamp() >= before - 5
    theirs = (await client.get(f"{SETTINGS}/{THEMES}", headers=bob)).json()
    assert (theirs["settings"], theirs["created"]) == ({}, None)
    await client.put(f"{SETTINGS}/{THEMES}", json={"raw": "{}"})
    again = (await client.get(f"{SETTINGS}/{THEMES}")).json()
    assert (again["settings"], again["created"]) == ({}, found["created"])
    assert again["last_modified"] > found["last_modified"]


@pytest.mark.parametrize(
    ("schema", "body", "status"),
    [
        (THEMES, '{"raw": "{\\"theme\\": 1}"}', 400),
        (THEMES, '{"raw": "{not json5"}', 400),
        (THEMES, '{"raw": "[]"}', 400),
        (THEMES, '{"raw": {}}', 400),
        (THEMES, "not json", 400),
        ("@none/none:none", '{"raw": "{}"}', 404),
        ("no-colon", '{"raw": "{}"}', 404),
    ],
)
async def test_settings_that_make_no_sense_are_refused(client, schema, body, status):
    answer = await client.put(f"{SETTINGS}/{schema}", content=body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"message", "reason"}


async def test_settings_that_no_longer_fit_are_left_out(client, database):
    await client.put(f"{SETTINGS}/{THEMES}", json={"raw": RAW})
    async with database.transaction() as tx:
        (row,) = (await tx.execute(select(LabSetting))).scalars()
        row.settings = {"theme": 5}
    found = (await client.get(f"{SETTINGS}/{THEMES}")).json()
    assert (found["raw"], found["settings"]) == ("{}", {})


async def test_a_workspace_is_kept_for_each_person(client, database, bob):
    empty = {"data": {}, "metadata": {"id": "/default"}}
    assert (await client.get(f"{WORKSPACES}/default")).json() == empty
    assert (await client.get(WORKSPACES)).json() == {"workspaces": {"ids": [], "values": []}}
    workspace = {"data": {"layout": {"a": [1, "x\x00y"]}}, "metadata": {"id": "default"}}
    for _ in range(2):
        saved = await client.put(f"{WORKSPACES}/default", content=json.dumps(workspace))
        assert saved.status_code == 204, saved.text
    found = (await client.get(f"{WORKSPACES}/default")).json()
    assert found["data"] == workspace["data"]
    assert found["metadata"]["id"] == "default"
    assert found["metadata"]["created"] < found["metadata"]["last_modified"]
    listed = (await client.get(f"{WORKSPACES}/")).json()["workspaces"]
    assert listed == {"ids": ["default"], "values": [found]}
    assert (await client.get(f"{WORKSPACES}/default", headers=bob)).json() == empty
    assert (await client.delete(f"{WORKSPACES}/default", headers=bob)).status_code == 404
    assert (await client.delete(f"{WORKSPACES}/default")).status_code == 204
    assert (await client.delete(f"{WORKSPACES}/default")).status_code == 404
    assert (await read(database, select(LabWorkspace))).all() == []


@pytest.mark.parametrize(
    "body",
    [
        {"data": {}, "metadata": {"id": "/other"}},
        {"data": {}},
        {"data": [], "metadata": {"id": "default"}},
    ],
)
async def test_a_workspace_that_makes_no_sense_is_refused(client, body):
    answer = await client.put(f"{WORKSPACES}/default", json=body)
    assert answer.status_code == 400


async def test_what_is_installed(client):
    languages = (await client.get("/lab/api/translations")).json()
    assert languages == {
        "data": {"en": {"displayName": "English", "nativeName": "English"}},
        "message": "",
    }
    assert (await client.get("/lab/api/translations/default")).json() == {"data": {}, "message": ""}
    missing = (await client.get("/lab/api/translations/de_DE")).json()["message"]
    assert missing == "Language pack 'de_DE' not installed!"
    css = await client.get("/lab/api/themes/@jupyterlab/theme-light-extension/index.css")
    assert css.headers["content-type"].startswith("text/css")
    licences = await client.get("/lab/api/licenses/", params={"download": "1"})
    assert "@jupyterlab/application-top" in licences.json()["bundles"]
    assert licences.headers["content-disposition"].endswith('"jupyterlab-licenses.json"')
    for form in ("csv", "markdown"):
        assert (await client.get("/lab/api/licenses", params={"format": form})).status_code == 200
    assert (await client.get("/lab/api/licenses", params={"format": "x"})).status_code == 400
    extensions = (await client.get("/lab/api/extensions", params={"refresh": 0})).json()
    assert "@jupyter/collaboration-extension" in {e["name"] for e in extensions}
    refused = await client.post("/lab/api/extensions", json={"cmd": "install"})
    assert refused.status_code == 403
    assert (await client.get("/lab/api/build")).json()["status"] == "stable"
    assert (await client.get("/lab/api/news")).json() == {"news": []}
    assert (await client.get("/lab/api/update")).json() == {"notification": None}
    assert (await client.get("/lsp/status")).json()["sessions"] == {}
    assert (await client.get("/lab/api/plugins")).json()["allLocked"] is True


async def read(database, query):
    async with database.read() as tx:
        return (await tx.execute(query)).scalars()
