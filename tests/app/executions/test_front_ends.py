"""The bodies that JupyterLab's three executors send to one path."""

import asyncio
import html
import json
import random
import re

import httpx
import pytest

from app.executions.server_documents import murmur2
from tests.conftest import TOKEN
from tests.kernels import finished, input_request, start_kernel, write_notebook

QUESTION = "name = input('Who? ')\nprint('hello', name)"


@pytest.fixture
async def opened(client, root_dir):
    """A kernel, and a notebook of eight cells as a front end knows it."""
    ids = write_notebook(root_dir / "a.ipynb", *(f"print({number})" for number in range(8)))
    kernel = await start_kernel(client)
    first = await post(client, kernel, {"cell_id": ids[0], "path": "a.ipynb"})
    record = await finished(client, first.json())
    return kernel, f"json:notebook:{record['document_id']}", ids


async def post(client, kernel, body):
    return await client.post(f"/api/kernels/{kernel}/execute", json=body)


async def listed(client, kernel):
    answer = await client.get("/api/executions", params={"kernel_id": kernel})
    return answer.json()["executions"][::-1]


async def polled(client, address, *, until=(200, 300)):
    """Ask as the extension does until the answer has one of these statuses."""
    async with asyncio.timeout(30):
        while (answer := await client.get(address)).status_code not in until:
            assert answer.status_code in (202, 300), answer.text
            await asyncio.sleep(0.02)
    return answer


async def test_built_in_requests_at_once_run_in_the_notebooks_order(client, opened):
    kernel, document, ids = opened
    shuffled = random.Random(6).sample(ids[1:], 7)
    answers = await asyncio.gather(
        *(post(client, kernel, {"cell_id": cell, "document_id": document}) for cell in shuffled)
    )
    assert [answer.status_code for answer in answers] == [202] * 7
    assert [answer.json()["cell_id"] for answer in answers] == shuffled
    assert [record["cell_id"] for record in await listed(client, kernel)] == ids
    last = await finished(client, (await listed(client, kernel))[-1])
    assert last["outputs"][0]["text"] == "7\n"


async def test_built_in_request_for_a_cell_that_never_comes(client, opened):
    kernel, document, ids = opened
    missing, there = await asyncio.gather(
        post(client, kernel, {"cell_id": "no-such-cell", "document_id": document}),
        post(client, kernel, {"cell_id": ids[1], "document_id": document}),
    )
    assert (missing.status_code, there.status_code) == (404, 202)


async def test_nbmodel_runs_the_code_it_sends(client, opened):
    kernel, document, ids = opened
    metadata = {"cell_id": ids[2], "document_id": document, "document_path": "a.ipynb"}
    answer = await post(client, kernel, {"code": "print('sent')", "metadata": metadata})
    assert answer.status_code == 202
    body = answer.json()
    assert (body["kernel_id"], body["cell_id"], body["pending"]) == (kernel, ids[2], True)
    assert answer.headers["location"] == body["request_url"]
    done = await polled(client, body["request_url"])
    assert (done.status_code, done.json()["status"]) == (200, "ok")
    (output,) = json.loads(done.json()["outputs"])
    assert output["text"] == "sent\n"
    # Reading does not consume: another window may look too.
    assert (await client.get(body["request_url"])).json() == done.json()
    record = await finished(client, body["request_id"])
    assert (record["code"], record["cell_id"], record["actor"]) == ("print('sent')", ids[2], "ada")


async def test_nbmodel_asks_and_anyone_answers(client, opened):
    kernel, document, ids = opened
    metadata = {"cell_id": ids[3], "document_id": document}
    asked = (await post(client, kernel, {"code": QUESTION, "metadata": metadata})).json()
    question = await polled(client, asked["request_url"])
    assert question.status_code == 300
    assert question.json()["input_request"] == {"prompt": "Who? ", "password": False}
    place = question.headers["location"]
    assert (await client.post(place, json={"value": "no"})).status_code == 400
    assert (await client.post(place, json={"input": "Ada"})).status_code == 201
    assert (await client.post(place, json={"input": "again"})).status_code == 409
    done = await polled(client, asked["request_url"])
    assert "hello Ada" in done.json()["outputs"]


async def test_nbmodel_lists_and_stops(client, opened):
    kernel, document, ids = opened
    metadata = {"cell_id": ids[4], "document_id": document}
    one = (await post(client, kernel, {"code": QUESTION, "metadata": metadata})).json()
    two = (await post(client, kernel, {"code": "1", "metadata": metadata})).json()
    await input_request(client, {"id": one["request_id"]})
    active = (await client.get(f"/api/kernels/{kernel}/execute")).json()
    assert [request["request_id"] for request in active["requests"]] == [
        one["request_id"],
        two["request_id"],
    ]
    for request in (two, one):
        assert (await client.delete(request["request_url"])).status_code == 204
        done = await polled(client, request["request_url"], until=(200,))
        assert done.json()["status"] == "error"
    assert (await client.get(f"/api/kernels/{kernel}/execute")).json()["requests"] == []
    other = await start_kernel(client)
    elsewhere = one["request_url"].replace(kernel, other)
    assert (await client.get(elsewhere)).status_code == 404


async def test_nbmodel_runs_what_no_document_has(client, root_dir):
    write_notebook(root_dir / "b.ipynb", "1")
    kernel = await start_kernel(client)
    metadata = {"cell_id": "not-saved-yet", "document_path": "b.ipynb"}
    body = (await post(client, kernel, {"code": "6*7", "metadata": metadata})).json()
    done = (await polled(client, body["request_url"])).json()
    assert '"42"' in done["outputs"]


async def test_server_documents_queues_all_or_none(client, opened):
    kernel, document, ids = opened
    cells = [
        {"cell_id": cell, "source_hash": str(murmur2(f"print({ids.index(cell)})"))}
        for cell in ids[5:8]
    ]
    body = {"document_id": document, "cells": cells, "client_id": "1", "request_id": "2"}
    answer = await post(client, kernel, body)
    assert (answer.status_code, answer.json()) == (200, None)
    records = await listed(client, kernel)
    assert [record["cell_id"] for record in records[1:]] == ids[5:8]
    cells[1]["source_hash"] = "1"
    refused = await post(client, kernel, body)
    assert refused.status_code == 409
    assert refused.json() == {"error": "source_mismatch", "cell_id": ids[6]}
    assert len(await listed(client, kernel)) == 4


async def test_a_page_with_everybodys_questions(client, opened):
    kernel, document, ids = opened
    metadata = {"cell_id": ids[3], "document_id": document}
    code = "import getpass\nsecret = getpass.getpass('<Key>')\nprint(len(secret))"
    asked = (await post(client, kernel, {"code": code, "metadata": metadata})).json()
    await polled(client, asked["request_url"])
    transport = client._transport
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8888") as browser:
        assert (await browser.get("/questions")).headers["location"].startswith("/login")
        first = await browser.get("/questions", params={"token": TOKEN})
        assert first.headers["location"] == "/questions"
        page = (await browser.get("/questions")).text
        assert "&lt;Key&gt;" in page
        assert 'name="value" type="password"' in page
        action = html.unescape(re.search(r'action="([^"]+)"', page)[1])
        question = re.search(r'name="input_request_id" value="([^"]+)"', page)[1]
        form = {"input_request_id": question, "value": "open sesame"}
        forged = await browser.post(action.partition("?")[0], data=form)
        assert forged.status_code == 403, "a form of another site"
        assert (await browser.post(action, data={"value": "x"})).status_code == 400
        answered = await browser.post(action, data=form)
        assert (answered.status_code, answered.headers["location"]) == (303, "/questions")
        late = await browser.post(action, data=form)
        assert (late.status_code, "Too late" in late.text) == (409, True)
        assert "Nothing waits" in (await browser.get("/questions")).text
    done = await polled(client, asked["request_url"], until=(200,))
    assert "11" in done.json()["outputs"]
    assert "sesame" not in done.text


@pytest.mark.parametrize(
    ("text", "expected"),
    # What @jupyterlab/coreutils' murmur2(text, 0) returns.
    [("", 0), ("a", 2456313694), ("abc", 0x13577C9B), ("print(1)", None), ("äöü", None)],
)
def test_murmur2(text, expected):
    found = murmur2(text)
    assert 0 <= found < 2**32
    if expected is not None:
        assert found == expected
