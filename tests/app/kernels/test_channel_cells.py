"""Cells run over a websocket by a front end that saves its notebook itself, like JupyterLab."""

import asyncio
import json

import pytest

from tests.kernels import finished, read_notebook, text_of, until, write_notebook
from tests.websockets import front, is_idle, listening, streamed

SLOW = "import time\nfor i in range(6): print(i, flush=True); time.sleep(.15)"
SAID = "".join(f"{i}\n" for i in range(6))


@pytest.fixture
async def server(settings, database_url, tmp_path):
    async with listening(settings, database_url, tmp_path / "data") as client:
        yield client


@pytest.fixture
async def notebook(server, root_dir):
    """A notebook of two cells, its session and its model as a front end got it."""
    cells = write_notebook(root_dir / "a.ipynb", SLOW, "6*7")
    session = {"path": "a.ipynb", "name": "a.ipynb", "type": "notebook"}
    session = (await server.post("/api/sessions", json=session)).json()
    model = (await server.get("/api/contents/a.ipynb")).json()
    return cells, session, model


async def put(server, model, outputs, *, count=None):
    """Save the notebook as its front end has it, with these outputs of the first cell."""
    content = json.loads(json.dumps(model["content"]))
    content["cells"][0].update(outputs=outputs, execution_count=count)
    body = {"type": "notebook", "format": "json", "content": content}
    answer = await server.put("/api/contents/a.ipynb", json=body)
    assert answer.status_code == 200, answer.text


async def outputs_of(server, place=0):
    content = (await server.get("/api/contents/a.ipynb")).json()["content"]
    return content["cells"][place]["outputs"]


async def the_record(server):
    async def found():
        return (await server.get("/api/executions")).json()["executions"]

    (record,) = await until(found)
    return record


def stream(text):
    return [{"output_type": "stream", "name": "stdout", "text": text}]


async def test_outputs_reach_the_document_and_puts_of_the_same_add_nothing(
    server, notebook, root_dir
):
    (cell, _), session, model = notebook
    before = (root_dir / "a.ipynb").read_bytes()
    async with front(server, session["kernel"]["id"]) as client:
        metadata = {"cellId": cell, "deletedCells": []}
        msg_id = await client.execute(SLOW, metadata=metadata)
        messages = await client.until(lambda m: m["content"].get("text") == "1\n")
        assert (root_dir / "a.ipynb").read_bytes() == before, "the front end saves it"
        await put(server, model, stream(streamed(messages)))
        messages += await client.done(msg_id)
        record = await finished(server, await the_record(server))
        assert await outputs_of(server) == stream(SAID)
        await put(server, model, stream(SAID), count=1)
        assert await outputs_of(server) == stream(SAID)
        saved = (root_dir / "a.ipynb").read_bytes()
        # A second run of the same cell; the front end has not saved since.
        again = await client.run("print('new')", metadata=metadata)
        assert streamed(again) == "new\n"

        async def shown():
            return await outputs_of(server) == stream("new\n")

        await until(shown)
        assert (root_dir / "a.ipynb").read_bytes() == saved
    assert (record["path"], record["cell_id"], record["session_id"]) == (
        "a.ipynb",
        cell,
        session["id"],
    )
    assert record["cell_version"] == 1
    assert text_of(record) == SAID

    def on_disk():
        return read_notebook(root_dir / "a.ipynb")["cells"][0]["outputs"][0]["text"] == ["new\n"]

    await until(on_disk)


async def test_a_browser_that_vanishes_loses_nothing(server, notebook, root_dir):
    (cell, _), session, _ = notebook
    kernel = session["kernel"]["id"]
    async with front(server, kernel) as witness:
        async with front(server, kernel) as client:
            msg_id = await client.execute(SLOW, metadata={"cellId": cell})
            await client.until(lambda m: m["content"].get("text") == "1\n")
            client.connection.transport.abort()
        await witness.until(lambda m: is_idle(m, msg_id))
    record = await finished(server, await the_record(server))
    assert (record["status"], text_of(record)) == ("ok", SAID)
    assert await outputs_of(server) == stream(SAID)

    def saved():
        (first, _) = read_notebook(root_dir / "a.ipynb")["cells"]
        return first["execution_count"] == 1 and first["outputs"]

    (output,) = await until(saved)
    assert "".join(output["text"]) == SAID


async def test_a_put_before_the_run_is_recorded(server, notebook):
    """The front end has shown an output already, and saves, when the recorder comes to it."""
    (cell, _), session, model = notebook
    async with front(server, session["kernel"]["id"]) as client:
        msg_id = await client.execute("print('one')", metadata={"cellId": cell})
        await asyncio.gather(put(server, model, stream("one\n")), client.done(msg_id))
        await finished(server, await the_record(server))
        assert await outputs_of(server) == stream("one\n")


async def test_a_cell_that_the_document_does_not_have(server, notebook):
    _, session, _ = notebook
    async with front(server, session["kernel"]["id"]) as client:
        await client.run("print('new')", metadata={"cellId": "not-saved-yet"})
        record = await finished(server, await the_record(server))
    assert (record["cell_id"], record["document_id"]) == ("not-saved-yet", None)
    assert (record["path"], record["session_id"]) == ("a.ipynb", session["id"])
    assert text_of(record) == "new\n"


async def test_edited_code_is_not_the_cells_version(server, notebook):
    (_, cell), session, _ = notebook
    async with front(server, session["kernel"]["id"]) as client:
        await client.run("6*8", metadata={"cellId": cell})
        record = await finished(server, await the_record(server))
    assert (record["code"], record["cell_id"], record["cell_version"]) == ("6*8", cell, None)
    (output,) = await outputs_of(server, 1)
    assert output["data"] == {"text/plain": "48"}
