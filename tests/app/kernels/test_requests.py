"""Kernel requests as plain HTTP, against a real kernel."""

import asyncio
import json
import math

import pytest

from tests.kernels import execute, finished, run, start_kernel, status_is, until


@pytest.fixture
async def kernel(client, tmp_path):
    # A history of its own: IPython's is otherwise shared by all kernels of an account.
    return await start_kernel(client, env={"IPYTHONDIR": str(tmp_path / "ipython")})


async def ask(client, kernel, name, status=200, params=None, **body):
    response = await client.post(f"/api/kernels/{kernel}/{name}", json=body, params=params)
    assert response.status_code == status, response.text
    return response.json()


async def test_each_request_answers_with_its_reply(client, kernel):
    info = await ask(client, kernel, "kernel_info")
    assert (info["status"], info["language_info"]["name"]) == ("ok", "python")
    await run(client, kernel, "secret_number = 42")
    reply = await ask(client, kernel, "complete", code="secret_nu")
    assert (reply["matches"], reply["cursor_start"]) == (["secret_number"], 0)
    # Positions count code points: the emoji is one.
    text = "s = '\U0001f600'; secret_num + 1"
    reply = await ask(client, kernel, "complete", code=text, cursor_pos=text.index(" + 1"))
    assert reply["matches"] == ["secret_number"]
    reply = await ask(client, kernel, "inspect", code="secret_number", detail_level=1)
    assert reply["found"]
    assert "int" in reply["data"]["text/plain"]
    assert not (await ask(client, kernel, "inspect", code="nothing_here"))["found"]
    assert (await ask(client, kernel, "is_complete", code="for i in x:"))["status"] == "incomplete"
    assert (await ask(client, kernel, "is_complete", code="1 + 1"))["status"] == "complete"
    assert (await ask(client, kernel, "is_complete", code="1 +* 1"))["status"] == "invalid"
    last = (await ask(client, kernel, "history", n=1))["history"]
    assert [entry[2] for entry in last] == ["secret_number = 42"]
    found = await ask(client, kernel, "history", hist_access_type="search", pattern="secret*")
    assert [entry[2] for entry in found["history"]] == ["secret_number = 42"]
    ranged = await ask(client, kernel, "history", hist_access_type="range", unknown="ignored")
    assert "secret_number = 42" in [entry[2] for entry in ranged["history"]]
    await run(client, kernel, "from ipykernel.comm import Comm\nc = Comm(target_name='t')")
    comms = (await ask(client, kernel, "comm_info", target_name="t"))["comms"]
    assert [c["target_name"] for c in comms.values()] == ["t"]
    assert (await ask(client, kernel, "comm_info", target_name="none"))["comms"] == {}


async def test_debug_goes_over_control_while_the_kernel_is_busy(client, kernel):
    execution = await execute(client, kernel, "import time; time.sleep(60)")
    await status_is(client, execution, "running")
    reply = await ask(client, kernel, "debug", command="debugInfo")
    assert reply["success"]
    assert reply["body"]["isStarted"] is False
    model = (await client.get(f"/api/kernels/{kernel}")).json()
    assert model["execution_state"] == "busy", "the control channel's idle is not the kernel's"
    error = await ask(client, kernel, "complete", 504, timeout=0.2, code="a")
    assert error == {
        "message": "The kernel did not answer within 0.2 seconds",
        "reason": "the kernel is busy",
    }
    await ask(client, kernel, "kernel_info", 504, params={"timeout": 0.2})
    running = client.app.state.kernels.get(kernel)
    assert (await running.connected()).awaited == 0, "nothing waits for a reply that comes late"
    await client.post(f"/api/kernels/{kernel}/interrupt")
    await finished(client, execution)
    assert (await ask(client, kernel, "complete", code="ti"))["status"] == "ok"


async def test_a_restart_ends_the_wait(client, kernel):
    execution = await execute(client, kernel, "import time; time.sleep(60)")
    await status_is(client, execution, "running")
    waiting = asyncio.create_task(ask(client, kernel, "complete", 409, code="a", timeout=60))
    channels = await client.app.state.kernels.get(kernel).connected()
    await until(lambda: channels.awaited)
    async with asyncio.timeout(20):
        await client.post(f"/api/kernels/{kernel}/restart")
        assert "restarted" in (await waiting)["message"]


async def test_a_client_that_goes_away_leaves_nothing(client, kernel):
    execution = await execute(client, kernel, "import time; time.sleep(60)")
    await status_is(client, execution, "running")
    channels = await client.app.state.kernels.get(kernel).connected()
    body = json.dumps({"code": "a", "timeout": 60}).encode()
    gone = asyncio.Event()
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        pass

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "method": "POST",
        "path": f"/api/kernels/{kernel}/complete",
        "raw_path": f"/api/kernels/{kernel}/complete".encode(),
        "query_string": b"token=a-token-for-tests",
        "headers": [],
    }
    request = asyncio.create_task(client.app(scope, receive, send))
    await until(lambda: channels.awaited)
    gone.set()
    async with asyncio.timeout(5):
        await request
    assert channels.awaited == 0


async def test_odd_text_and_odd_replies(client, kernel):
    body = json.dumps({"code": "'\ud800\x00"})  # JSON escapes: neither has a place in UTF-8
    response = await client.post(f"/api/kernels/{kernel}/is_complete", content=body)
    assert response.status_code == 200, response.text
    code = r"""
        k = get_ipython().kernel
        def answering(name, content):
            def handler(stream, ident, parent):
                reply = k.session.msg(name + '_reply', content, parent=parent['header'])
                stream.send_multipart([*k.session.serialize(reply, ident), b'a buffer'])
            k.shell_handlers[name + '_request'] = handler
        answering('complete', rb'{"matches": ["\ud800", "\u0000"], "n": NaN, "status": "error"}')
        answering('inspect', b'[1]')
        def silent(stream, ident, parent): raise ValueError
        k.shell_handlers['is_complete_request'] = silent
    """
    record = await run(client, kernel, "\n".join(line[8:] for line in code.split("\n")))
    assert record["status"] == "ok", record["evalue"]
    reply = await ask(client, kernel, "complete", code="x")
    assert (reply["matches"], reply["status"]) == (["\ud800", "\x00"], "error")
    assert math.isnan(reply["n"])
    error = await ask(client, kernel, "inspect", 502, code="x")
    assert "cannot be read" in error["message"]
    assert "TypeError" in error["reason"]
    await ask(client, kernel, "is_complete", 504, code="x", timeout=0.5)


BAD = [
    ("complete", {}, "code"),
    ("complete", {"code": 1}, "code"),
    ("complete", {"code": "a", "cursor_pos": -1}, "cursor_pos"),
    ("complete", {"code": "a", "cursor_pos": True}, "cursor_pos"),
    ("complete", {"code": "a", "cursor_pos": 2**80}, "cursor_pos"),
    ("complete", {"code": "a", "timeout": "x"}, "timeout"),
    ("complete", {"code": "a", "timeout": 0}, "timeout"),
    ("complete", {"code": "a", "timeout": 1e9}, "timeout"),
    ("complete", {"code": "a", "timeout": float("nan")}, "timeout"),
    ("inspect", {"code": "a", "detail_level": 2}, "detail_level"),
    ("inspect", {"code": "a", "omit_sections": "x"}, "omit_sections"),
    ("is_complete", {"code": None}, "code"),
    ("history", {"hist_access_type": "all"}, "hist_access_type"),
    ("history", {"raw": "yes"}, "raw"),
    ("history", {"n": "1"}, "n"),
    ("history", {"hist_access_type": "search", "unique": 1}, "unique"),
    ("comm_info", {"target_name": 1}, "target_name"),
    ("debug", {}, "command"),
    ("debug", {"command": "x", "arguments": []}, "arguments"),
]


async def test_bad_input(client, monkeypatch):
    class Kernel:
        def require_alive(self):
            raise AssertionError("was not refused")

    monkeypatch.setattr(client.app.state.kernels, "get", lambda _: Kernel())
    for name, body, field in BAD:
        response = await client.post(f"/api/kernels/k/{name}", content=json.dumps(body))
        assert response.status_code == 400, (name, body, response.text)
        assert field in response.json()["message"], (name, body)
    response = await client.post("/api/kernels/k/complete", content="[")
    assert response.status_code == 400


async def test_who_may_ask_and_of_what(client):
    for name in ("complete", "debug"):
        url = f"/api/kernels/nope/{name}"
        assert (await client.post(url, json={"code": ""})).status_code == 404
        anonymous = await client.post(url, headers={"Authorization": ""})
        assert anonymous.status_code == 403
        assert anonymous.json()["message"] == "Forbidden"


async def test_a_dead_kernel_is_a_conflict(client, kernel):
    running = client.app.state.kernels.get(kernel)
    # Once it has run something, it says no more of its state, which would be taken over again.
    await run(client, kernel, "1")
    running.state, running.reason = "dead", "it died"
    try:
        error = await ask(client, kernel, "complete", 409, code="a")
    finally:
        running.state = "idle"
    assert error == {"message": "The kernel is dead", "reason": "it died"}
