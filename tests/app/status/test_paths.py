import httpx

from tests.kernels import start_kernel


async def resolve(client, path, **more):
    response = await client.get("/api/resolvePath", params={"path": path, **more})
    assert response.status_code == 200, response.text
    return response.json()


async def test_paths(client, root_dir, tmp_path, monkeypatch):
    (root_dir / "sub").mkdir()
    (root_dir / "sub" / "a b.py").write_text("1")
    (tmp_path / "outside.py").write_text("1")
    found = {"resolved": [{"scope": "server", "path": "sub/a b.py"}]}
    assert await resolve(client, "sub/a b.py") == found
    assert await resolve(client, str(root_dir / "sub" / "a b.py")) == found
    monkeypatch.setenv("HOME", str(root_dir))
    assert await resolve(client, "~/sub/a b.py") == found
    monkeypatch.setenv("HOME", str(tmp_path))
    nothing = {"resolved": []}
    for path in ("nope.py", "../outside.py", str(tmp_path / "outside.py"), "~/outside.py"):
        assert await resolve(client, path) == nothing
    kernel = await start_kernel(client, path="sub")
    seen = await resolve(client, "a b.py", kernel=kernel)
    assert seen == {"resolved": [{"scope": "kernel", "path": str(root_dir / "sub" / "a b.py")}]}
    lost = await resolve(client, "sub/a b.py", kernel="nope")
    assert lost["resolved"] == found["resolved"]
    assert lost["unresolved"] == [{"scope": "kernel", "reason": "Kernel nope could not be found"}]


async def test_bad_input_and_anonymous(client):
    assert (await client.get("/api/resolvePath")).status_code == 400
    assert (await client.get("/api/resolvePath?path=a%00b")).status_code == 400
    assert (await client.get("/api/resolvePath?path=" + "x" * 5000)).status_code == 200
    assert (await client.get("/api/resolvePath?path=~nobody-such/x")).status_code == 200
    transport = httpx.ASGITransport(client.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as nobody:
        assert (await nobody.get("/api/resolvePath?path=x")).status_code == 403
