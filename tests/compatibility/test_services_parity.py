"""The same requests to a stock Jupyter Server and to this one, where answers are determined."""

import json

import jupyter_server
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from app.events.events import CONTENTS
from tests.compatibility.stock import stock_server
from tests.conftest import serving

# What both servers are asked, in order: method, path, body.
CONFIG = [
    ("GET", "/api/config/notebook", None),
    ("PUT", "/api/config/notebook", {"a": {"b": 1, "c": [1]}, "pkg": {"x": 1, "y": 3}}),
    ("GET", "/api/config/notebook", None),
    ("PATCH", "/api/config/notebook", {"a": {"b": None, "d": "ü"}, "new": {"deep": {"er": 1}}}),
    ("GET", "/api/config/notebook", None),
    ("PATCH", "/api/config/notebook", {"a": None, "pkg": {"x": None}}),
    ("GET", "/api/config/notebook", None),
    ("PATCH", "/api/config/other", {"own": None, "z": 1}),
    ("GET", "/api/config/other", None),
    ("PUT", "/api/config/notebook", {}),
    ("GET", "/api/config/notebook", None),
    ("PUT", "/api/config/notebook", "{"),
    ("GET", "/api/config/a.b", None),
]
EVENT = {"schema_id": CONTENTS, "version": "1", "data": {"action": "get", "path": "a"}}
EVENTS = [
    ("POST", "/api/events", EVENT),
    ("POST", "/api/events", {**EVENT, "timestamp": "2022-05-26T13:50:00+05:00Z"}),
    ("POST", "/api/events", {**EVENT, "timestamp": "2022-05-26"}),
    ("POST", "/api/events", {**EVENT, "version": "9"}),
    ("POST", "/api/events", {**EVENT, "schema_id": "https://nope"}),
    ("POST", "/api/events", {"schema_id": CONTENTS}),
]
STATUSES = [
    ("GET", "/api/me?permissions={", None),
    ("GET", "/api/me?permissions=[]", None),
    ("PATCH", "/api/me", {"username": "x"}),
    ("PATCH", "/api/me", {}),
    ("GET", "/api/terminals/9", None),
    ("DELETE", "/api/terminals/9", None),
    ("GET", "/nbconvert/html/nope.ipynb", None),
    ("GET", "/kernelspecs/python3/nope", None),
    ("GET", "/kernelspecs/nope/logo-64x64.png", None),
    ("GET", "/api/resolvePath", None),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A root folder and config folders as both servers see them."""
    base = tmp_path_factory.mktemp("parity")
    root, user, system = base / "root", base / "user", base / "system"
    root.mkdir()
    for folder in (user, system):
        (folder / "serverconfig" / "notebook.d").mkdir(parents=True)
    (user / "serverconfig" / "notebook.d" / "p.json").write_text('{"pkg": {"x": 1, "w": 2}}')
    (user / "serverconfig" / "other.json").write_text('{"own": 1, "kept": 2}')
    (system / "serverconfig" / "notebook.json").write_text('{"sys": 1, "pkg": {"x": 0}}')
    image = new_output("display_data", {"image/png": "iVBORw0KGgo=\n"})
    cells = [new_markdown_cell("# Ü"), new_code_cell("print(1)", outputs=[image])]
    nbformat.write(new_notebook(cells=cells), root / "a.ipynb")
    (root / "t.txt").write_text("t")
    return root, {"JUPYTER_CONFIG_DIR": str(user), "JUPYTER_CONFIG_PATH": str(system)}, base


@pytest.fixture(scope="module")
def stock(places):
    root, environment, base = places
    # notebook_shim, installed along with Jupyter Notebook, mixes nbconfig into config sections.
    shim = "--ServerApp.jpserver_extensions={'notebook_shim': False}"
    with stock_server(root, base / "home", shim, **environment) as client:
        yield client


@pytest.fixture
async def ours(settings, database_url, places, monkeypatch, stock):
    root, environment, _ = places
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings.root_dir = root
    async with serving(settings, database_url, places[2] / "data") as client:
        yield client


async def both(stock, ours, method, path, body=None):
    content = body if isinstance(body, str) else None if body is None else json.dumps(body)
    theirs = stock.request(method, path, content=content)
    return theirs, await ours.request(method, path, content=content)


def answer(response):
    kind = response.headers.get("content-type", "").split(";")[0]
    is_json = response.content and kind in ("application/json", "text/html")
    try:
        return response.status_code, json.loads(response.content) if is_json else response.content
    except ValueError:
        return response.status_code, response.content


async def test_config(stock, ours, places):
    # The stock server writes the user's file, ours reads it: ours is asked all of it first.
    mine = [answer(await ours.request(m, p, content=_content(b))) for m, p, b in CONFIG]
    theirs = [answer(stock.request(m, p, content=_content(b))) for m, p, b in CONFIG]
    for request, (status, body), (their_status, their_body) in zip(
        CONFIG, mine, theirs, strict=True
    ):
        assert status == their_status, request
        if status < 300:
            assert body == their_body, request


def _content(body):
    return body if isinstance(body, str) else None if body is None else json.dumps(body)


@pytest.mark.parametrize(("method", "path", "body"), EVENTS + STATUSES)
async def test_statuses(stock, ours, method, path, body):
    theirs, mine = await both(stock, ours, method, path, body)
    assert mine.status_code == theirs.status_code, (mine.text[:300], theirs.text[:300])
    if mine.status_code < 300:
        assert mine.content == theirs.content


async def test_me(stock, ours):
    asked = json.dumps({"contents": ["read", "write"], "kernels": ["execute"]})
    theirs, mine = await both(stock, ours, "GET", f"/api/me?permissions={asked}")
    assert mine.json()["permissions"] == theirs.json()["permissions"]
    assert list(mine.json()["identity"]) == list(theirs.json()["identity"])
    theirs, mine = await both(stock, ours, "PATCH", "/api/me", {"color": "blue"})
    assert mine.status_code == theirs.status_code
    assert set(mine.json()) == set(theirs.json())
    assert mine.json()["identity"]["color"] == theirs.json()["identity"]["color"] == "blue"


async def test_nbconvert(stock, ours):
    theirs, mine = await both(stock, ours, "GET", "/api/nbconvert")
    assert mine.json() == theirs.json()
    for path in (
        "/nbconvert/python/a.ipynb",
        "/nbconvert/python/a.ipynb?download=true",
        "/nbconvert/html/a.ipynb?sanitize_html=true",
        "/nbconvert/markdown/a.ipynb",
    ):
        theirs, mine = await both(stock, ours, "GET", path)
        assert mine.status_code == theirs.status_code, path
        for header in ("content-type", "content-disposition", "cache-control"):
            if mine.status_code == 200:
                assert mine.headers.get(header) == theirs.headers.get(header), (path, header)
        if mine.headers["content-type"] != "application/zip":
            assert mine.text == theirs.text, path
    body = {"name": "b.ipynb", "content": new_notebook(cells=[new_code_cell("x = 1")])}
    theirs, mine = await both(stock, ours, "POST", "/nbconvert/script", body)
    assert (mine.status_code, mine.headers["content-type"]) == (
        theirs.status_code,
        theirs.headers["content-type"],
    )
    assert mine.text == theirs.text


async def test_kernelspec_resources(stock, ours):
    for name in ("logo-64x64.png", "logo-svg.svg"):
        theirs, mine = await both(stock, ours, "GET", f"/kernelspecs/python3/{name}")
        assert mine.content == theirs.content
        assert mine.headers["content-type"] == theirs.headers["content-type"]
        tag = {"if-none-match": mine.headers["etag"]}
        again = await ours.get(f"/kernelspecs/python3/{name}", headers=tag)
        assert again.status_code == 304
    assert mine.headers["last-modified"] == theirs.headers["last-modified"]


async def test_terminals(stock, ours):
    theirs, mine = await both(stock, ours, "POST", "/api/terminals", {})
    assert mine.status_code == theirs.status_code
    assert mine.json()["name"] == theirs.json()["name"] == "1"
    assert set(mine.json()) == set(theirs.json())
    theirs, mine = await both(stock, ours, "GET", "/api/terminals")
    assert [set(t) for t in mine.json()] == [set(t) for t in theirs.json()]
    theirs, mine = await both(stock, ours, "DELETE", "/api/terminals/1")
    assert (mine.status_code, mine.content) == (theirs.status_code, theirs.content)
    theirs, mine = await both(stock, ours, "GET", "/api/terminals")
    assert mine.json() == theirs.json() == []


async def test_resolve_path(stock, ours, places):
    root = places[0]
    for path in ("a.ipynb", str(root / "t.txt"), "nope", "../x", "~/x", ""):
        theirs, mine = await both(stock, ours, "GET", f"/api/resolvePath?path={path}")
        assert answer(mine) == answer(theirs), path
    theirs, mine = await both(stock, ours, "GET", "/api/resolvePath?path=t.txt&kernel=nope")
    assert answer(mine) == answer(theirs)


def test_the_peer_is_the_one_that_was_read():
    assert jupyter_server.version_info[0] == 2
