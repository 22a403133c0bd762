import base64
import io
import zipfile

import httpx
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.kernels import finished, start_kernel, write_notebook

PNG = base64.b64encode(b"\x89PNG").decode()


@pytest.fixture
def notebook(root_dir):
    cells = write_notebook(root_dir / "a b.ipynb", "# Title", "print('x' * 3)")
    return "a%20b.ipynb", cells


async def test_formats(client):
    formats = (await client.get("/api/nbconvert")).json()
    assert formats["html"] == {"output_mimetype": "text/html"}
    assert formats["python"] == {"output_mimetype": "text/x-python"}


async def test_a_disabled_format_is_none(client, notebook, monkeypatch):
    path, _ = notebook
    monkeypatch.setattr("nbconvert.exporters.PythonExporter.enabled", False)
    assert "python" not in (await client.get("/api/nbconvert")).json()
    assert (await client.get(f"/nbconvert/python/{path}")).status_code == 404
    assert (await client.get(f"/nbconvert/html/{path}")).status_code == 200


async def test_a_file(client, notebook):
    path, _ = notebook
    response = await client.get(f"/nbconvert/html/{path}")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "sandbox allow-scripts" in response.headers["content-security-policy"]
    assert "no-store" in response.headers["cache-control"]
    assert response.headers["last-modified"].endswith("GMT")
    assert "<title>a b</title>" in response.text
    assert "content-disposition" not in response.headers
    response = await client.get(f"/nbconvert/python/{path}?download=true")
    assert response.headers["content-type"] == "text/x-python; charset=utf-8"
    assert response.headers["content-disposition"] == "attachment; filename*=utf-8''a%20b.py"
    assert "print('x' * 3)" in response.text


async def test_outputs_of_this_moment_are_in_it(client, notebook, settings):
    settings.save_delay_seconds = 3600  # the file on disk has no outputs
    path, cells = notebook
    kernel = await start_kernel(client)
    body = {"path": "a b.ipynb", "cell_id": cells[1]}
    execution = (await client.post(f"/api/kernels/{kernel}/execute", json=body)).json()
    await finished(client, execution)
    assert "xxx" in (await client.get(f"/nbconvert/markdown/{path}")).text


def with_image():
    output = new_output("display_data", {"image/png": PNG})
    cells = [new_markdown_cell("<script>bad()</script> text"), new_code_cell("1", outputs=[output])]
    return new_notebook(cells=cells)


async def test_resources_make_a_zip(client, root_dir):
    nbformat.write(with_image(), root_dir / "plot.ipynb")
    for response in (
        await client.get("/nbconvert/markdown/plot.ipynb"),
        await client.post(
            "/nbconvert/markdown", json={"content": with_image(), "name": "plot.ipynb"}
        ),
    ):
        assert response.headers["content-type"] == "application/zip"
        assert response.headers["content-disposition"] == "attachment; filename*=utf-8''plot.zip"
        archive = zipfile.ZipFile(io.BytesIO(response.content))
        names = archive.namelist()
        assert "plot.md" in names
        assert archive.read(next(n for n in names if n.endswith(".png"))) == b"\x89PNG"


async def test_sanitized(client, root_dir):
    nbformat.write(with_image(), root_dir / "plot.ipynb")
    plain = await client.get("/nbconvert/html/plot.ipynb")
    clean = await client.get("/nbconvert/html/plot.ipynb?sanitize_html=true")
    assert "<script>bad()</script>" in plain.text
    assert "<script>bad()</script>" not in clean.text


async def test_a_notebook_that_was_sent(client):
    notebook = new_notebook(cells=[new_code_cell("y = 2")])
    response = await client.post("/nbconvert/python", json={"content": notebook})
    assert response.status_code == 200
    assert "y = 2" in response.text
    assert "sandbox allow-scripts" in response.headers["content-security-policy"]


async def test_bad_input_and_anonymous(client, root_dir, notebook):
    path, _ = notebook
    (root_dir / "folder").mkdir()
    (root_dir / "t.txt").write_text("t")
    (root_dir / "broken.ipynb").write_text("{")
    for url, status in [
        ("/nbconvert/nope/" + path, 404),
        ("/nbconvert/os.path/" + path, 404),
        ("/nbconvert/html/missing.ipynb", 404),
        ("/nbconvert/html/../../etc/passwd.ipynb", 404),
        ("/nbconvert/html/%2e%2e/x.ipynb", 404),
        ("/nbconvert/html/a%00.ipynb", 404),
        ("/nbconvert/html/folder", 400),
        ("/nbconvert/html/broken.ipynb", 400),
        ("/nbconvert/html/missing.txt", 404),
        ("/nbconvert/" + "x" * 3000 + "/" + path, 404),
    ]:
        answer = await client.get(url)
        assert answer.status_code == status, (url, answer.text)
        if answer.headers["content-type"] == "application/json":
            assert set(answer.json()) == {"message", "reason"}
    moved = await client.get("/nbconvert/html/t.txt")
    assert (moved.status_code, moved.headers["location"]) == (302, "/files/t.txt")
    bad_cell = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "x"}]}
    for body in (
        {},
        {"content": []},
        {"content": {"cells": 1}},
        {"content": bad_cell},
        {"name": 1},
    ):
        assert (await client.post("/nbconvert/html", json=body)).status_code == 400
    odd = new_notebook(cells=[new_code_cell("1")]).copy()
    odd["cells"][0]["outputs"] = [{"output_type": "display_data", "data": 7, "metadata": {}}]
    answer = await client.post("/nbconvert/html", json={"content": odd})
    assert answer.status_code < 500
    assert (
        await client.post("/nbconvert/nope", json={"content": new_notebook()})
    ).status_code == 404
    transport = httpx.ASGITransport(client.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as nobody:
        for method, url in [("GET", "/api/nbconvert"), ("POST", "/nbconvert/html")]:
            assert (await nobody.request(method, url)).status_code == 403
        # A page leads to the login, where there is one.
        assert (await nobody.get("/nbconvert/html/x")).status_code in (302, 403)
