"""Rubbish in requests: a right status in Jupyter's body, never a 5xx, nothing half done."""

import asyncio
import itertools
import json
import re
import socket

from tests.kernels import execute, finished, run, start_kernel, until
from tests.servers import TOKEN, serving_process
from tests.websockets import listening

NUL, LONE = "a\0b", "\ud800"


def assert_refused(response, *statuses):
    assert response.status_code in (statuses or (400, 404)), response.text
    assert set(response.json()) == {"message", "reason"}
    assert "Traceback" not in response.text


async def kernels_and_sessions(client):
    return (await client.get("/api/kernels")).json(), (await client.get("/api/sessions")).json()


URLS = [
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
]


async def test_what_the_database_cannot_look_up(client):
    for url in URLS:
        assert_refused(await client.get(url))


KERNELS = [
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
]


async def test_a_kernel_that_no_process_can_be(client, tmp_path):
    for body in KERNELS:
        assert_refused(await client.post("/api/kernels", content=json.dumps(body)))
    assert (await client.get("/api/kernels")).json() == []
    assert not list(tmp_path.rglob("*escaped*"))


async def test_a_refused_session_leaves_no_kernel(client):
    kernel = await start_kernel(client)
    session = {"path": "x", "type": "file", "kernel": {"id": kernel}}
    made = (await client.post("/api/sessions", json=session)).json()
    before = await kernels_and_sessions(client)
    for field, value in itertools.product(("path", "type", "name"), (NUL, LONE, 5)):
        body = {"path": "y", "type": "file", "kernel": {"name": "python3"}, field: value}
        assert_refused(await client.post("/api/sessions", content=json.dumps(body)))
        assert_refused(await client.patch(f"/api/sessions/{made['id']}", content=json.dumps(body)))
    after = await kernels_and_sessions(client)
    assert [[x["id"] for x in found] for found in after] == [
        [x["id"] for x in found] for found in before
    ]
    assert after[1][0]["path"] == "x"


EXECUTIONS = [
    {"code": "1", "idempotency_key": NUL},
    {"code": "1", "idempotency_key": LONE},
    {"cell_id": LONE, "path": "a.ipynb"},
    {"cell_id": "x", "path": LONE},
    {"cell_id": "x", "document_id": LONE},
]


async def test_an_execution_with_names_that_cannot_be_stored(client):
    kernel = await start_kernel(client)
    url = f"/api/kernels/{kernel}/execute"
    for body in EXECUTIONS:
        assert_refused(await client.post(url, content=json.dumps(body)))
    assert (await client.get("/api/executions")).json()["executions"] == []


async def test_a_key_is_for_one_execution(client, root_dir):
    made = await client.post("/api/sessions", json={"path": "x.ipynb", "type": "notebook"})
    url = f"/api/sessions/{made.json()['id']}/run"
    assert_refused(await client.post(url, json={"cells": "all", "idempotency_key": "k"}), 400)


async def test_code_of_any_text_runs_or_fails_and_is_kept(client):
    kernel = await start_kernel(client)
    for code in ("'\ud800'", "print('a\0b')", "'\ufdd0'"):
        body = json.dumps({"code": code, "user_expressions": {LONE: "1"}})
        response = await client.post(f"/api/kernels/{kernel}/execute", content=body)
        record = await finished(client, response.json())
        assert record["code"] == code
        assert record["user_expressions"] == {LONE: "1"}
        assert record["finished_at"]
    assert (await run(client, kernel, "1"))["status"] == "ok"


async def test_an_unexpected_error_costs_no_connection(settings, database_url, tmp_path):
    """Closed after the answer, the connection would fail the client's next request."""
    async with listening(settings, database_url, tmp_path / "data") as client:
        client.app.state.contents = None  # whoever uses it fails
        address = client.base_url.host, client.base_url.port
        reader, writer = await asyncio.open_connection(*address)
        for method, path, status in (
            ("POST", "/api/contents", 500),
            ("DELETE", "/api/contents/x", 500),
            ("GET", "/api/status", 200),
        ):
            head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: token {TOKEN}"
            writer.write(f"{head}\r\nContent-Length: 0\r\n\r\n".encode())
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            (length,) = re.findall(r"content-length: (\d+)", answer)
            body = json.loads(await reader.readexactly(int(length)))
            assert answer.startswith(f"http/1.1 {status} "), answer
            assert "connection: close" not in answer
            if status == 500:
                assert body == {"message": "Internal server error", "reason": None}
        writer.close()


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
    assert (await client.delete(f"/api/executions/{execution['id']}")).status_code == 204


def test_a_request_whose_body_never_ends_does_not_spoil_the_shutdown(root_dir, short_tmp):
    data_dir = short_tmp / "slow-body"
    with serving_process(root_dir, data_dir, DATASTORE_SHUTDOWN_TIMEOUT_SECONDS="1") as server:
        client = server.wait_until_up()
        with socket.create_connection(("127.0.0.1", client.base_url.port), timeout=20) as slow:
            head = (
                f"POST /api/kernels HTTP/1.1\r\nHost: localhost\r\nAuthorization: token {TOKEN}\r\n"
            )
            slow.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            assert client.get("/api/kernels").status_code == 200
            assert server.stop() == 0
            assert slow.recv(1000).startswith(b"HTTP/1.1 503 ")
        assert "Traceback" not in server.log
