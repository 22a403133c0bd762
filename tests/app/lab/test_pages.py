"""The front ends' pages and files."""

import json
import re

import httpx
import pytest

from app.lab.assets import is_immutable
from app.settings import Settings
from tests.conftest import TOKEN, serving

CONFIG = re.compile(r'id="jupyter-config-data" type="application/json">(.*?)</script>', re.DOTALL)


async def config_of(client, path):
    page = await client.get(path)
    assert page.status_code == 200, page.text
    assert page.headers["cache-control"] == "no-store"
    return json.loads(CONFIG.search(page.text)[1])


async def test_lab_has_what_its_front_end_needs(client, root_dir):
    config = await config_of(client, "/lab")
    assert (config["mode"], config["workspace"], config["treePath"]) == (
        "multiple-document",
        "default",
        "",
    )
    assert config["token"] == "", "a page acts with the browser's cookie"
    assert TOKEN not in (await client.get("/lab")).text
    assert config["serverSideExecution"] is True
    names = {extension["name"] for extension in config["federated_extensions"]}
    assert {
        "@jupyter/collaboration-extension",
        "@jupyter/docprovider-extension",
        "@datalayer/jupyter-server-nbmodel",
    } <= names
    assert "@jupyterlab/notebook-extension:cell-executor" in config["disabledExtensions"]
    assert config["fullSettingsUrl"] == "/lab/api/settings"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/lab/tree/a/b c.ipynb", ("multiple-document", "default", "a/b c.ipynb", None)),
        ("/lab/workspaces/mine", ("multiple-document", "mine", "", None)),
        ("/lab/workspaces/mine/tree/x", ("multiple-document", "mine", "x", None)),
        ("/doc", ("single-document", "default", "", None)),
        ("/doc/workspaces/w/tree/x", ("single-document", "w", "x", None)),
        ("/lab/nothing", ("multiple-document", "default", "", "/lab/nothing")),
    ],
)
async def test_addresses_of_lab(client, path, found):
    config = await config_of(client, path)
    assert (
        config["mode"],
        config["workspace"],
        config["treePath"],
        config.get("notFoundUrl"),
    ) == found


async def test_every_file_that_the_page_loads_is_there_for_all(client):
    config = await config_of(client, "/lab")
    script = re.search(r'src="(/static/lab/main[^"]+)"', (await client.get("/lab")).text)[1]
    loads = [
        f"{config['fullLabextensionsUrl']}/{extension['name']}/{extension['load']}"
        for extension in config["federated_extensions"]
    ]
    transport = client._transport
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8888") as anyone:
        for path in [script, *loads, "/static/favicons/favicon.ico"]:
            answer = await anyone.get(path)
            assert answer.status_code == 200, path
            again = await anyone.get(path, headers={"If-None-Match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        assert "immutable" in (await anyone.get(script)).headers["cache-control"]
        assert "javascript" in (await anyone.get(script)).headers["content-type"]
        # The page itself is for people who have logged in.
        assert (await anyone.get("/lab")).headers["location"] == "/login?next=%2Flab"
        assert (await anyone.get("/lab/api/settings")).status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/static/lab/..%2f..%2fschemas/@jupyterlab/apputils-extension/themes.json",
        "/static/..%2f..%2f__init__.py",
        "/static/lab/",
        "/static/lab/none.js",
        "/lab/extensions/@jupyter/..%2f..%2f..%2fkernels/python3/kernel.json",
        "/lab/extensions/none/static/x.js",
        "/lab/api/themes/..%2fstatic/index.html",
        "/lab/api/none",
    ],
)
async def test_nothing_else_of_the_disk_is_served(client, path):
    assert (await client.get(path)).status_code == 404


def test_names_that_change_with_the_content(tmp_path):
    assert is_immutable(tmp_path / "main.efd36b46f3b45eb8.js")
    assert is_immutable(tmp_path / "0031b1860ea4ad75.woff")
    assert is_immutable(tmp_path / "remoteEntry.5cbb9d2323598fbda535.js")
    assert not is_immutable(tmp_path / "index.html")
    assert not is_immutable(tmp_path / "style.js")


async def test_the_first_page_leads_to_lab(client):
    answer = await client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (302, "/lab")


async def test_below_a_base_url(database_url, root_dir, tmp_path):
    settings = Settings(root_dir=root_dir, owner="ada", base_url="/user/ada%20l/")
    async with serving(settings, database_url, tmp_path / "data") as client:
        config = await config_of(client, "/user/ada%20l/lab/tree/x")
        assert config["baseUrl"] == "/user/ada%20l/"
        assert config["fullStaticUrl"] == "/user/ada%20l/static/lab"
        assert config["fullSettingsUrl"] == "/user/ada%20l/lab/api/settings"
        assert config["treePath"] == "x"
        assert (await client.get("/user/ada%20l/")).headers["location"] == "/user/ada%20l/lab"
        assert (await config_of(client, "/user/ada%20l/doc"))["mode"] == "single-document"
        page = await client.get("/user/ada%20l/lab")
        script = re.search(r'src="([^"]+main[^"]+)"', page.text)[1]
        assert (await client.get(script)).status_code == 200


async def test_without_collaboration_lab_is_as_it_comes(database_url, root_dir, tmp_path):
    settings = Settings(
        root_dir=root_dir, owner="ada", collaboration=False, page_config={"hubUser": "ada"}
    )
    async with serving(settings, database_url, tmp_path / "data") as client:
        config = await config_of(client, "/lab")
    names = {extension["name"] for extension in config["federated_extensions"]}
    assert not {name for name in names if "collaboration" in name or "nbmodel" in name}
    assert config["serverSideExecution"] is False
    assert "@jupyterlab/notebook-extension:cell-executor" not in config["disabledExtensions"]
    assert config["hubUser"] == "ada"


async def test_jupyter_notebook(client, root_dir):
    (root_dir / "folder").mkdir()
    (root_dir / "folder/a.ipynb").write_text("{}")
    (root_dir / "a.txt").write_text("text")
    config = await config_of(client, "/tree/folder")
    assert (config["notebookPage"], config["treePath"]) == ("tree", "folder")
    assert config["fullStaticUrl"] == "/static/notebook"
    page = (await client.get("/tree")).text
    script = re.search(r'src="(/static/notebook/main[^"]+)"', page)[1]
    assert (await client.get(script)).status_code == 200
    for path, place in [
        ("/tree/folder/a.ipynb", "/notebooks/folder/a.ipynb"),
        ("/tree/a.txt", "/files/a.txt"),
        ("/notebooks/folder", "/tree/folder"),
    ]:
        assert (await client.get(path)).headers["location"] == place
    assert (await client.get("/tree/none")).status_code == 404
    for path, name in [
        ("/notebooks/folder/a.ipynb", "notebooks"),
        ("/edit/a.txt", "edit"),
        ("/consoles/a", "consoles"),
        ("/terminals/1", "terminals"),
    ]:
        assert (await config_of(client, path))["notebookPage"] == name
