"""`/files`: bytes as a browser wants them; what jupyter_server answers is in the parity test."""

import re
from email.utils import formatdate
from html import unescape
from urllib.parse import quote

import pytest

from app.documents.store import DocumentStore
from tests.app.contents.conftest import notebook, sources, write

DATA = bytes(range(256)) * 1000


@pytest.fixture
def file(root_dir):
    (root_dir / "b.bin").write_bytes(DATA)
    return root_dir / "b.bin"


RANGES = [
    ("bytes=0-0", 206, slice(0, 1)),
    ("bytes=10-19", 206, slice(10, 20)),
    ("bytes=255990-", 206, slice(255990, None)),
    ("bytes=-10", 206, slice(-10, None)),
    ("bytes=-999999", 206, slice(None)),
    ("bytes=255990-999999", 206, slice(255990, None)),
    ("bytes=256000-", 416, None),
    ("bytes=-0", 416, None),
    ("bytes=9-3", 200, slice(None)),
    ("bytes=x-y", 200, slice(None)),
    ("bytes=-", 200, slice(None)),
    ("lines=1-2", 200, slice(None)),
    ("bytes=0-1,5-6", 200, slice(None)),
    ("bytes=" + "9" * 400 + "-", 200, slice(None)),
]


async def test_ranges(client, file):
    for wanted, status, part in RANGES:
        answer = await client.get("/files/b.bin", headers={"Range": wanted})
        assert answer.status_code == status, wanted
        if part is None:
            assert answer.headers["content-range"] == f"bytes */{len(DATA)}"
            assert answer.json()["message"]
        else:
            assert answer.content == DATA[part], wanted
            assert int(answer.headers["content-length"]) == len(answer.content)


async def test_headers_keep_a_page_from_acting_as_this_site(client, root_dir):
    (root_dir / "p.html").write_text("<script>1</script>")
    for method in ("GET", "HEAD"):
        answer = await client.request(method, "/files/p.html")
        assert answer.status_code == 200
        assert "sandbox allow-scripts" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-type"] == "text/html"
        assert answer.headers["content-length"] == "18"
    assert answer.content == b""


async def test_what_did_not_change_is_not_sent_again(client, file):
    stamp = formatdate(file.stat().st_mtime, usegmt=True)
    answer = await client.get("/files/b.bin", headers={"If-Modified-Since": stamp})
    assert (answer.status_code, answer.content) == (304, b"")
    earlier = formatdate(file.stat().st_mtime - 60, usegmt=True)
    for since in (earlier, "nonsense"):
        answer = await client.get("/files/b.bin", headers={"If-Modified-Since": since})
        assert answer.status_code == 200


async def test_a_notebook_is_served_as_it_is_now(client, root_dir):
    write(root_dir / "n.ipynb", "old")
    store: DocumentStore = client.app.state.documents
    document = await store.open_notebook("n.ipynb", actor_id=None)
    async with client.app.state.database.transaction() as tx:
        (await store.edit(tx, document.id, origin="api")).replace(notebook("new"))
    answer = await client.get("/files/n.ipynb")
    assert sources(answer.json()) == ["new"]
    assert answer.headers["content-type"] == "application/x-ipynb+json"
    assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''n.ipynb"


NOT_SERVED = [
    ("none", 404),
    (".hidden", 404),
    ("..%2f..%2fetc%2fpasswd", 404),
    ("%2e%2e/x", 404),
    ("a%00", 404),
    ("d", 403),
    ("", 403),
    ("b.bin/x", 404),
    ("x" * 300, 404),
]


async def test_what_is_not_served(client, file, root_dir):
    (root_dir / ".hidden").write_text("x")
    (root_dir / "d").mkdir()
    for path, status in NOT_SERVED:
        answer = await client.get(f"/files/{path}")
        assert answer.status_code == status, path
        assert answer.json()["message"]


async def test_a_page_that_shows_a_file(client, root_dir):
    name = "a b'<\"é.html"
    (root_dir / name).write_text("<p>x</p>")
    answer = await client.get(f"/view/{quote(name)}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=UTF-8"
    (source,) = re.findall(r'src="([^"]*)" sandbox="allow-scripts"', answer.text)
    assert (await client.get(unescape(source))).text == "<p>x</p>"
    (root_dir / ".hidden").write_text("x")
    for missing in ("none", ".hidden", "", "..%2fx"):
        assert (await client.get(f"/view/{missing}")).status_code == 404
