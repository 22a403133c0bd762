import asyncio

from tests.kernels import start_kernel, until, write_notebook


async def test_create_get_list_delete(client, root_dir):
    write_notebook(root_dir / "a.ipynb", "1")
    body = {"path": "a.ipynb", "type": "notebook", "name": "a", "kernel": {"name": "python3"}}
    response = await client.post("/api/sessions", json=body)
    assert response.status_code == 201
    session = response.json()
    assert response.headers["location"] == f"/api/sessions/{session['id']}"
    assert session["notebook"] == {"path": "a.ipynb", "name": "a"}
    assert session["kernel"]["name"] == "python3"
    again = await client.post("/api/sessions", json=body)
    assert (again.status_code, again.json()["id"]) == (201, session["id"])
    assert [s["id"] for s in (await client.get("/api/sessions")).json()] == [session["id"]]
    got = await client.get(f"/api/sessions/{session['id']}")
    assert got.json()["path"] == "a.ipynb"
    assert (await client.delete(f"/api/sessions/{session['id']}")).status_code == 204
    assert (await client.get("/api/kernels")).json() == []
    for method in ("GET", "DELETE", "PATCH"):
        response = await client.request(method, f"/api/sessions/{session['id']}", json={})
        assert response.status_code == 404


async def test_two_windows_at_once_share_a_session(client):
    body = {"path": "b.ipynb", "type": "notebook"}
    answers = await asyncio.gather(*(client.post("/api/sessions", json=body) for _ in range(4)))
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len((await client.get("/api/kernels")).json()) == 1


async def test_patch_path_name_type_and_kernel(client, root_dir):
    write_notebook(root_dir / "n.ipynb", "1")
    body = {"path": "0b1f", "type": "notebook", "name": ""}
    session = (await client.post("/api/sessions", json=body)).json()
    url = f"/api/sessions/{session['id']}"
    patched = (await client.patch(url, json={"path": "n.ipynb"})).json()
    assert patched["path"] == "n.ipynb"
    assert patched["kernel"]["id"] == session["kernel"]["id"]
    patched = (await client.patch(url, json={"name": "n", "type": "console"})).json()
    assert (patched["name"], patched["type"]) == ("n", "console")
    patched = (await client.patch(url, json={"kernel": {"name": "python3"}})).json()
    assert patched["kernel"]["id"] != session["kernel"]["id"]

    async def old_is_gone():
        kernels = (await client.get("/api/kernels")).json()
        return [k["id"] for k in kernels] == [patched["kernel"]["id"]]

    await until(old_is_gone)
    other = await start_kernel(client)
    patched = (await client.patch(url, json={"kernel": {"id": other}})).json()
    assert patched["kernel"]["id"] == other
    response = await client.patch(url, json={"kernel": {"id": "nope"}})
    assert response.status_code == 400


async def test_bad_requests(client):
    for body, status in [
        (b"nonsense", 400),
        (b'{"type": "notebook"}', 400),
        (b'{"path": "a.ipynb"}', 400),
        (b'{"path": "a", "type": "console", "kernel": 3}', 400),
        (b'{"path": "a", "type": "console", "kernel": {"id": "../nope", "name": "nope"}}', 501),
        (b'{"path": "a", "type": "console", "kernel": {"name": "nope"}}', 501),
    ]:
        response = await client.post("/api/sessions", content=body)
        assert response.status_code == status, response.text
        assert set(response.json()) == {"message", "reason"}
    assert (await client.get("/api/sessions")).json() == []
    assert (await client.get("/api/kernels")).json() == []


async def test_a_kernel_that_is_shut_down_ends_its_session(client):
    body = {"path": "c", "type": "console"}
    session = (await client.post("/api/sessions", json=body)).json()
    await client.delete(f"/api/kernels/{session['kernel']['id']}")
    assert (await client.get("/api/sessions")).json() == []
