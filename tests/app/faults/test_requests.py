"""Rubbish in requests: a right status in Jupyter's body, never a 5xx, nothing half done."""

import asyncio
import json

import pytest

from tests.kernels import execute, run, start_kernel, until

NUL, LONE = "a\0b", "\ud800"


def assert_refused(response, *statuses):
    assert response.status_code in (statuses or (400, 404)), response.text
    assert set(response.json()) == {"message", "reason"}
    assert "Traceback" not in response.text


async def kernels_and_sessions(client):
    return (await client.get("/api/kernels")).json(), (await client.get("/api/sessions")).json()


@pytest.mark.parametrize(
    "url",
    [
        "/api/kernels/a%00b",
        "/api/sessions/a%00b",
        "/api/executions?kernel_id=%00",
        "/api/executions?path=a%00b",
        "/api/executions?actor=%00",
        "/api/executions?since=0001-01-01T00:00:00%2B14:00",
        "/api/executions?limit=nan",
        "/api/executions?cursor=9223372036854775808",
        "/api/executions/00000000-0000-0000-0000-000000000000?wait=nan",
        "/api/executions/00000000-0000-0000-0000-000000000000?wait=inf",
        "/api/executions/00000000-0000-0000-0000-000000000000/outputs?cursor=%C2%B2.x",
        "/api/executions/%00",
    ],
)
async def test_what_the_database_cannot_look_up(client, url):
    assert_refused(await client.get(url))


@pytest.mark.parametrize(
    "body",
    [
        {"kernel_id": "../../escaped"},
        {"kernel_id": NUL},
        {"env": {"A": NUL}},
        {"env": {NUL: "x"}},
        {"env": {"A=B": "x"}},
        {"env": {"A": LONE}},
        {"env": []},
        {"path": NUL},
        {"path": LONE},
        {"name": NUL},
    ],
)
async def test_a_kernel_that_no_process_can_be(client, tmp_path, body):
    assert_refused(await client.post("/api/kernels", content=json.dumps(body)))
    assert (await client.get("/api/kernels")).json() == []
    assert not list(tmp_path.rglob("*escaped*"))


@pytest.mark.parametrize("field", ["path", "type", "name"])
@pytest.mark.parametrize("value", [NUL, LONE, 5])
async def test_a_refused_session_leaves_no_kernel(client, field, value):
    kernel = await start_kernel(client)
    session = {"path": "x", "type": "file", "kernel": {"id": kernel}}
    made = (await client.post("/api/sessions", json=session)).json()
    before = await kernels_and_sessions(client)
    body = {"path": "y", "type": "file", "kernel": {"name": "python3"}, field: value}
    assert_refused(await client.post("/api/sessions", content=json.dumps(body)))
    assert_refused(await client.patch(f"/api/sessions/{made['id']}", content=json.dumps(body)))
    after = await kernels_and_sessions(client)
    assert [[x["id"] for x in found] for found in after] == [
        [x["id"] for x in found] for found in before
    ]
    assert after[1][0]["path"] == "x"


@pytest.mark.parametrize(
    "body",
    [
        {"code": "1", "idempotency_key": NUL},
        {"code": "1", "idempotency_key": LONE},
        {"cell_id": LONE, "path": "a.ipynb"},
        {"cell_id": "x", "path": LONE},
        {"cell_id": "x", "document_id": LONE},
    ],
)
async def test_an_execution_with_names_that_cannot_be_stored(client, body):
    kernel = await start_kernel(client)
    url = f"/api/kernels/{kernel}/execute"
    assert_refused(await client.post(url, content=json.dumps(body)))
    assert (await client.get("/api/executions")).json()["executions"] == []


async def test_a_key_is_for_one_execution(client, root_dir):
    made = await client.post("/api/sessions", json={"path": "x.ipynb", "type": "notebook"})
    url = f"/api/sessions/{made.json()['id']}/run"
    assert_refused(await client.post(url, json={"cells": "all", "idempotency_key": "k"}), 400)


async def test_code_of_any_text_runs_or_fails_and_is_kept(client):
    kernel = await start_kernel(client)
    for code in ("'\ud800'", "print('a\0b')", "'\ufdd0'"):
        record = await run(client, kernel, code, user_expressions={LONE: "1"})
        assert record["code"] == code
        assert record["user_expressions"] == {LONE: "1"}
        assert record["finished_at"]
    assert (await run(client, kernel, "1"))["status"] == "ok"


async def test_nobody_is_waited_for_who_went_away(client):
    kernel = await start_kernel(client)
    execution = await execute(client, kernel, "import time; time.sleep(30)")
    app, waiters, answered = client.app, client.app.state.waiters, []
    gone = asyncio.Event()

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        answered.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/api/executions/{execution['id']}",
        "raw_path": b"",
        "query_string": b"wait=3000",
        "headers": [(b"authorization", client.headers["authorization"].encode())],
    }
    request = asyncio.create_task(app(scope, receive, send))
    await until(lambda: waiters._events)
    gone.set()
    await asyncio.wait_for(request, 10)
    assert not waiters._events
