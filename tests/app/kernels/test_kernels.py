import asyncio
import json
import os
import signal
import sys

import pytest

from tests.kernels import execute, finished, run, start_kernel, status_is, text_of, until


async def kernel_model(client, kernel_id):
    return (await client.get(f"/api/kernels/{kernel_id}")).json()


async def state_is(client, kernel_id, state):
    async def reached():
        model = await kernel_model(client, kernel_id)
        return model if model["execution_state"] == state else None

    return await until(reached)


async def test_start_list_and_shut_down(client):
    response = await client.post("/api/kernels", json={"name": "python3"})
    assert response.status_code == 201
    model = response.json()
    assert response.headers["location"] == f"/api/kernels/{model['id']}"
    assert set(model) == {"id", "name", "last_activity", "execution_state", "connections"}
    assert model["name"] == "python3"
    await state_is(client, model["id"], "idle")
    assert [k["id"] for k in (await client.get("/api/kernels")).json()] == [model["id"]]
    assert (await client.delete(f"/api/kernels/{model['id']}")).status_code == 204
    assert (await client.get("/api/kernels")).json() == []
    for method in ("GET", "DELETE"):
        gone = await client.request(method, f"/api/kernels/{model['id']}")
        assert gone.status_code == 404


async def test_kernelspecs(client):
    answer = (await client.get("/api/kernelspecs")).json()
    assert answer["default"] == "python3"
    spec = answer["kernelspecs"]["python3"]
    assert spec["spec"]["language"] == "python"
    assert spec["resources"]["logo-svg"] == "/kernelspecs/python3/logo-svg.svg"
    assert (await client.get("/api/kernelspecs/python3")).json() == spec
    assert (await client.get("/api/kernelspecs/nope")).status_code == 404


async def test_an_unknown_kernelspec_is_refused(client):
    response = await client.post("/api/kernels", json={"name": "no-such-kernel"})
    assert response.status_code == 400
    assert "no-such-kernel" in response.json()["message"]
    assert (await client.get("/api/kernels")).json() == []


async def test_interrupt_and_restart(client):
    kernel = await start_kernel(client)
    await run(client, kernel, "x = 1")
    execution = await execute(client, kernel, "import time; time.sleep(60)")
    await status_is(client, execution, "running")
    assert (await client.post(f"/api/kernels/{kernel}/interrupt")).status_code == 204
    assert (await finished(client, execution))["ename"] == "KeyboardInterrupt"

    running = await execute(client, kernel, "print('on', flush=True); time.sleep(60)")
    queued = await execute(client, kernel, "x")
    await status_is(client, running, "running")
    response = await client.post(f"/api/kernels/{kernel}/restart")
    assert response.status_code == 200
    assert response.json()["execution_state"] == "idle"
    for execution in (running, queued):
        record = await finished(client, execution)
        assert (record["status"], record["reason"]) == ("interrupted", "the kernel was restarted")
    assert "on" in text_of(await finished(client, running))
    record = await run(client, kernel, "x")
    assert (record["ename"], record["incarnation"]) == ("NameError", 2)


async def test_a_killed_kernel_restarts_itself_and_says_why(client):
    kernel = await start_kernel(client)
    pid = int(text_of(await run(client, kernel, "import os; print(os.getpid())")))
    running = await execute(client, kernel, "print('last words', flush=True); input()")
    queued = await execute(client, kernel, "1")
    await status_is(client, running, "running")

    async def printed():
        record = (await client.get(f"/api/executions/{running['id']}")).json()
        return "last words" in text_of(record)

    await until(printed)
    os.kill(pid, signal.SIGKILL)
    record = await finished(client, running)
    assert record["status"] == "interrupted"
    assert "SIGKILL" in record["reason"]
    assert record["input_request"] is None
    assert (await finished(client, queued))["status"] == "interrupted"
    model = await state_is(client, kernel, "idle")
    assert "SIGKILL" in model["reason"]
    assert (await run(client, kernel, "1+1"))["status"] == "ok"


async def test_a_kernel_that_exits_by_itself(client):
    kernel = await start_kernel(client)
    record = await run(client, kernel, "import os; os._exit(3)")
    assert record["status"] == "interrupted"
    assert "status 3" in record["reason"]
    assert (await run(client, kernel, "1"))["status"] == "ok"


@pytest.fixture
def broken_specs(tmp_path, monkeypatch):
    """Kernelspecs whose processes fail in three ways."""
    commands = {
        "missing": ["/nonexistent/python"],
        "crashes": [sys.executable, "-c", "raise SystemExit('no license for this kernel')"],
        "silent": [sys.executable, "-c", "import time; time.sleep(600)"],
    }
    for name, argv in commands.items():
        folder = tmp_path / "share" / "kernels" / name
        folder.mkdir(parents=True)
        spec = {"argv": argv, "display_name": name, "language": "python"}
        (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))


@pytest.fixture
def settings(settings):
    settings.kernel_start_timeout_seconds = 20
    return settings


async def test_a_kernel_that_cannot_be_started(broken_specs, client):
    response = await client.post("/api/kernels", json={"name": "missing"})
    assert response.status_code == 500
    assert "/nonexistent/python" in response.json()["reason"]
    assert (await client.get("/api/kernels")).json() == []


async def test_a_kernel_that_crashes_at_start(broken_specs, client):
    kernel = await start_kernel(client, name="crashes")
    execution = await client.post(f"/api/kernels/{kernel}/execute", json={"code": "1"})
    model = await state_is(client, kernel, "dead")
    assert "no license for this kernel" in model["reason"]
    if execution.status_code == 202:
        record = await finished(client, execution.json())
        assert record["status"] == "interrupted"
        assert "no license" in record["reason"]
    refused = await client.post(f"/api/kernels/{kernel}/execute", json={"code": "1"})
    assert refused.status_code == 409
    assert "no license" in refused.json()["reason"]
    assert (await client.delete(f"/api/kernels/{kernel}")).status_code == 204


async def test_a_kernel_that_never_answers(broken_specs, settings, client):
    settings.kernel_start_timeout_seconds = 1
    kernel = await start_kernel(client, name="silent")
    model = await state_is(client, kernel, "dead")
    assert "did not answer within 1 second" in model["reason"]


async def test_two_kernels_run_at_once(client):
    kernels = [await start_kernel(client) for _ in range(2)]
    code = "import time\nfor i in range(200):\n    print({0}, i, flush=True)\n    time.sleep(0.001)"
    executions = [await execute(client, kernel, code.format(n)) for n, kernel in enumerate(kernels)]
    records = await asyncio.gather(*(finished(client, e) for e in executions))
    for n, record in enumerate(records):
        assert text_of(record).split("\n")[:-1] == [f"{n} {i}" for i in range(200)]
