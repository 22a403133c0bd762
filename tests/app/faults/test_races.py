"""Requests that meet at a bad moment: each execution ends, and only the one that was meant."""

import asyncio
import json

from jupyter_client import AsyncKernelClient
from sqlalchemy import select

from models import Execution, Kernel
from tests.kernels import (
    execute,
    finished,
    input_request,
    run,
    start_kernel,
    status_is,
    text_of,
    until,
)

SLEEP = "import time\nfor _ in range(600): time.sleep(0.05)"


async def test_deleting_one_that_was_sent_leaves_the_other_clients_run_alone(client, database):
    kernel = await start_kernel(client)
    await run(client, kernel, "1")
    running = client.app.state.kernels.get(kernel)
    other = AsyncKernelClient()
    other.load_connection_info(running.process.manager.get_connection_info())
    other.start_channels()
    try:
        await other.wait_for_ready(timeout=30)
        msg_id = other.execute("import time; time.sleep(1.5); print('whole')")

        async def recorded():
            query = select(Execution.id).where(Execution.msg_id == msg_id)
            async with database.read() as tx:
                return (await tx.execute(query)).scalar_one_or_none()

        theirs = await until(recorded)
        ours = await execute(client, kernel, SLEEP)
        await until(lambda: running.queue.was_sent(ours["msg_id"]))
        assert (await client.delete(f"/api/executions/{ours['id']}")).status_code == 204
        whole = await finished(client, str(theirs))
        assert (whole["status"], text_of(whole)) == ("ok", "whole\n")
        assert (await finished(client, ours, 10))["ename"] == "KeyboardInterrupt"
    finally:
        other.stop_channels()


async def test_deleting_at_the_moment_it_begins_or_ends(client):
    kernel = await start_kernel(client)
    await run(client, kernel, "import time")
    for number in range(12):
        code = SLEEP if number % 2 else "1"
        options = {"silent": number % 4 == 3, "stop_on_error": False}
        first = await execute(client, kernel, code, **options)
        second = await execute(client, kernel, "time.sleep(0.02)", stop_on_error=False)
        await asyncio.sleep(0.002 * number)
        response = await client.delete(f"/api/executions/{first['id']}")
        assert response.status_code in (204, 409)
        ended = await finished(client, first, 10)
        if code == SLEEP:
            assert response.status_code == 204
            assert ended["status"] in ("error", "interrupted", "cancelled")
        assert (await finished(client, second, 10))["status"] == "ok"


async def test_what_is_asked_while_the_kernel_restarts_runs_in_the_new_one(client, monkeypatch):
    kernel = await start_kernel(client)
    await run(client, kernel, "x = 1")
    running = client.app.state.kernels.get(kernel)
    before = [await execute(client, kernel, SLEEP), await execute(client, kernel, "2")]
    await status_is(client, before[0], "running")
    real, during = running.process.restart, []

    async def restart(*, now):
        during.append(await execute(client, kernel, "print('x' in globals())"))
        await real(now=now)
        during.append(await execute(client, kernel, "print('x' in globals())"))

    monkeypatch.setattr(running.process, "restart", restart)
    assert (await client.post(f"/api/kernels/{kernel}/restart")).status_code == 200
    for execution in before:
        record = await finished(client, execution, 10)
        assert (record["status"], record["reason"]) == ("interrupted", "the kernel was restarted")
    for execution in during:
        record = await finished(client, execution, 20)
        assert (record["status"], text_of(record)) == ("ok", "False\n")
        assert record["incarnation"] == 2


async def test_what_is_asked_while_the_kernel_is_shut_down_is_interrupted(client, monkeypatch):
    kernel = await start_kernel(client)
    await run(client, kernel, "1")
    running = client.app.state.kernels.get(kernel)
    real, late = running.process.stop, []

    async def stop(**options):
        client.app.state.kernels._kernels[kernel] = running  # its request had found the kernel
        late.append(await execute(client, kernel, "1"))
        client.app.state.kernels._kernels.pop(kernel)
        await real(**options)

    monkeypatch.setattr(running.process, "stop", stop)
    assert (await client.delete(f"/api/kernels/{kernel}")).status_code == 204
    record = await finished(client, late[0], 5)
    assert (record["status"], record["reason"]) == ("interrupted", "the kernel was shut down")


async def test_a_restart_that_fails_leaves_a_dead_kernel_that_can_be_revived(client, monkeypatch):
    kernel = await start_kernel(client)
    await run(client, kernel, "1")
    running = client.app.state.kernels.get(kernel)
    real = running.process.restart

    async def restart(*, now):
        running.process.restart = real
        await running.process.manager.shutdown_kernel(now=True, restart=True)
        raise OSError("no more processes")

    running.process.restart = restart
    response = await client.post(f"/api/kernels/{kernel}/restart")
    assert response.status_code == 409
    assert "no more processes" in response.json()["reason"]
    await running.recorder.drain()
    model = (await client.get(f"/api/kernels/{kernel}")).json()
    assert model["execution_state"] == "dead"
    assert (await client.post(f"/api/kernels/{kernel}/restart")).status_code == 200
    assert text_of(await run(client, kernel, "print(2)")) == "2\n"


async def test_a_question_asked_after_a_caught_interrupt_is_the_one_that_counts(client):
    kernel = await start_kernel(client)
    code = "try: input('first')\nexcept KeyboardInterrupt: print(ascii(input('second')))"
    execution = await execute(client, kernel, code)
    first = await input_request(client, execution)
    assert (await client.delete(f"/api/executions/{execution['id']}")).status_code == 204

    async def second():
        asking = (await client.get(f"/api/executions/{execution['id']}")).json()["input_request"]
        return asking if asking and asking["id"] != first["id"] else None

    asking = await until(second)
    assert asking["prompt"] == "second"
    url = f"/api/executions/{execution['id']}/input"
    body = {"value": "\ud800\0", "input_request_id": asking["id"]}
    assert (await client.post(url, content=json.dumps(body))).status_code == 201
    assert text_of(await finished(client, execution)) == "'\\ud800\\x00'\n"


async def test_a_session_of_a_kernel_that_is_being_shut_down_does_not_stay(client):
    kernel = await start_kernel(client)
    body = {"path": "x", "type": "file", "kernel": {"id": kernel}}
    made, ended = await asyncio.gather(
        client.post("/api/sessions", json=body), client.delete(f"/api/kernels/{kernel}")
    )
    assert ended.status_code == 204
    assert made.status_code == 201
    # It came first and ended with its kernel, or it was given another kernel, as in Jupyter.
    for session in (await client.get("/api/sessions")).json():
        assert session["kernel"]["id"] != kernel
        running = (await client.get(f"/api/kernels/{session['kernel']['id']}")).json()
        assert running["execution_state"] != "dead"


async def test_a_kernel_id_is_taken_once(client, database):
    body = {"kernel_id": "11111111-2222-3333-4444-555555555555"}
    answers = await asyncio.gather(*(client.post("/api/kernels", json=body) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409]
    assert (await client.delete(f"/api/kernels/{body['kernel_id']}")).status_code == 204
    assert (await client.post("/api/kernels", json=body)).status_code == 409, "history has it"
    async with database.read() as tx:
        assert len((await tx.execute(select(Kernel.id))).all()) == 1
