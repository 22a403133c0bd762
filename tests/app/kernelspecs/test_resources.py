import json

import httpx
import pytest


@pytest.fixture(autouse=True)
def spec_dir(tmp_path, monkeypatch):
    folder = tmp_path / "share" / "kernels" / "mine"
    folder.mkdir(parents=True)
    spec = {"argv": ["true"], "display_name": "Mine", "language": "x"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    (folder / "logo-32x32.png").write_bytes(b"\x89PNG")
    (folder / "logo-svg.svg").write_text("<svg/>")
    (folder / "kernel.js").write_text("define()")
    (folder / "sub").mkdir()
    (folder / "sub" / "x.css").write_text("a{}")
    (tmp_path / "secret").write_text("secret")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "in.js").symlink_to(folder / "kernel.js")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    return folder


async def test_files(client):
    for path, kind, text in [
        ("logo-32x32.png", "image/png", "\x89PNG"),
        ("logo-svg.svg", "image/svg+xml", "<svg/>"),
        ("kernel.js", "text/javascript", "define()"),
        ("sub/x.css", "text/css", "a{}"),
        ("in.js", "text/javascript", "define()"),
    ]:
        response = await client.get(f"/kernelspecs/mine/{path}")
        assert response.status_code == 200, path
        assert response.headers["content-type"].split(";")[0] == kind
        assert response.content.decode("latin-1") == text
    listed = (await client.get("/api/kernelspecs/mine")).json()["resources"]
    for url in listed.values():
        assert (await client.get(url)).status_code == 200


async def test_caching(client):
    url = "/kernelspecs/mine/logo-32x32.png"
    first = await client.get(url)
    assert first.headers["cache-control"] == "max-age=2592000"
    for header, name in [("if-none-match", "etag"), ("if-modified-since", "last-modified")]:
        again = await client.get(url, headers={header: first.headers[name]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    other = await client.get(url, headers={"if-none-match": '"other"'})
    assert other.status_code == 200
    bad = await client.get(url, headers={"if-modified-since": "yesterday"})
    assert bad.status_code == 200
    head = await client.head(url)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "4", b"")


@pytest.mark.parametrize(
    "path",
    [
        "mine/nope",
        "mine/out",
        "mine/../../../secret",
        "mine/%2e%2e/%2e%2e/%2e%2e/secret",
        "mine//etc/passwd",
        "mine/a%00b",
        "mine/" + "x" * 5000,
        "mine/sub",
        "mine/",
        "nope/kernel.js",
        "../kernels/mine/kernel.js",
        "%2e%2e/kernel.js",
    ],
    ids=lambda path: path[:40].replace("/", " "),
)
async def test_what_is_not_there(client, path):
    assert (await client.get(f"/kernelspecs/{path}")).status_code == 404


async def test_anonymous(client):
    transport = httpx.ASGITransport(client.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as nobody:
        for method in ("GET", "HEAD"):
            answer = await nobody.request(method, "/kernelspecs/mine/kernel.js")
            # A page leads to the login, where there is one.
            assert answer.status_code in (302, 403)
