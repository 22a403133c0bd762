"""Idle kernels are ended, by what the tables know; the clock is given."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from app.kernels.culling import Culler
from models import Kernel, ServerProcess, Session
from tests.conftest import serving
from tests.kernels import execute, finished, input_request, run, start_kernel, until


@pytest.fixture
def settings(settings):
    settings.cull_idle_timeout = 60
    settings.cull_interval = 3600
    return settings


async def row_of(database, kernel_id):
    async with database.read() as tx:
        return (await tx.execute(select(Kernel).where(Kernel.id == kernel_id))).scalar_one()


async def change(database, kernel_id, **values):
    async with database.transaction() as tx:
        await tx.execute(update(Kernel).where(Kernel.id == kernel_id).values(values))


async def idle(client, database, kernel_id):
    """The time 61 seconds after the kernel was last active; it is idle."""

    async def reached():
        await client.app.state.kernels.get(kernel_id).recorder.drain()
        row = await row_of(database, kernel_id)
        return row if row.execution_state == "idle" else None

    return (await until(reached)).last_activity + timedelta(seconds=61)


async def test_who_is_culled_and_who_is_not(client, database, settings):
    culler: Culler = client.app.state.culler
    session = (
        await client.post(
            "/api/sessions", json={"path": "a", "type": "console", "kernel": {"name": "python3"}}
        )
    ).json()
    kernel = session["kernel"]["id"]
    await run(client, kernel, "from ipykernel.comm import Comm")
    now = await idle(client, database, kernel)
    assert await culler.cull(now - timedelta(seconds=2)) == [], "not yet"
    later = datetime.now(UTC) + timedelta(days=365)

    # Running, with one more queued, in no tab at all.
    running = await execute(client, kernel, "input()")
    queued = await execute(client, kernel, "1")
    question = await input_request(client, running)
    settings.cull_busy = True
    assert await culler.cull(later) == []
    # The tables are what counts, whatever the state.
    await change(database, kernel, execution_state="idle")
    assert await culler.cull(later) == []
    await client.post(f"/api/executions/{running['id']}/input", json={"value": "x"})
    assert question
    await finished(client, queued)
    await idle(client, database, kernel)

    # Busy past the tables: with `cull_busy` only.
    settings.cull_busy = False
    await change(database, kernel, execution_state="busy")
    assert await culler.cull(later) == []
    await change(database, kernel, execution_state="idle")

    # Connected: with `cull_connected` only.
    await change(database, kernel, connections=1)
    assert await culler.cull(later) == []
    await change(database, kernel, connections=0)

    # An open comm: with `cull_open_comms` only, and someone who follows one is a connection.
    settings.cull_open_comms = False
    await run(client, kernel, "c = Comm(target_name='t')")
    await idle(client, database, kernel)
    assert await culler.cull(later) == []
    settings.cull_open_comms = True
    with client.app.state.waiters.comms.follow(uuid.uuid4(), kernel):
        assert await culler.cull(later) == []

    # A request that inserts an execution right now holds it.
    async with database.transaction() as tx:
        held = (
            select(Kernel.id).where(Kernel.id == kernel).with_for_update(read=True, key_share=True)
        )
        await tx.execute(held)
        assert await culler.cull(later) == []

    # Another server's kernel is another server's matter.
    async with database.transaction() as tx:
        other = ServerProcess(hostname="x", pid=1, process_started_at=later, version="1")
        tx.add(other)
        await tx.flush()
        owner_id = (await row_of(database, kernel)).owner_id
        tx.add(
            Kernel(
                id="elsewhere",
                name="python3",
                owner_id=owner_id,
                server_id=other.id,
                execution_state="idle",
            )
        )

    settings.cull_open_comms = False
    await run(client, kernel, "c.close()")
    now = await idle(client, database, kernel)
    assert await culler.cull(now) == [kernel]
    assert (await client.get(f"/api/kernels/{kernel}")).status_code == 404
    row = await row_of(database, kernel)
    assert (row.execution_state, row.reason) == ("dead", "culled: idle for 61 seconds")
    assert row.ended_at is not None
    async with database.read() as tx:
        found = (await tx.execute(select(Session).where(Session.id == session["id"]))).scalar_one()
    assert found.ended_at is not None
    assert (await client.get("/api/sessions")).json() == []
    assert await culler.cull(later) == []
    assert (await row_of(database, "elsewhere")).ended_at is None


async def test_busy_and_connected_kernels_where_the_settings_allow(client, database, settings):
    settings.cull_busy = settings.cull_connected = True
    kernel = await start_kernel(client)
    now = await idle(client, database, kernel)
    await change(database, kernel, execution_state="busy", connections=2)
    assert await client.app.state.culler.cull(now) == [kernel]


async def test_a_dead_kernel_is_culled_and_keeps_its_reason(client, database, monkeypatch):
    kernel = await start_kernel(client)
    now = await idle(client, database, kernel)
    await change(database, kernel, execution_state="dead", reason="it crashed", connections=1)
    assert await client.app.state.culler.cull(now) == [kernel]
    row = await row_of(database, kernel)
    assert row.reason == "culled: idle for 61 seconds; it was dead: it crashed"


async def test_it_looks_by_itself_unless_it_is_off(settings, database_url, database, tmp_path):
    settings.cull_idle_timeout, settings.cull_interval = 0.05, 0.05
    async with serving(settings, database_url, tmp_path / "data") as client:
        kernel = await start_kernel(client)

        async def gone():
            return (await client.get(f"/api/kernels/{kernel}")).status_code == 404

        await until(gone)
        await until(lambda: reason_of(database, kernel))
    settings.cull_idle_timeout = 0
    async with serving(settings, database_url, tmp_path / "data") as client:
        assert client.app.state.culler._task is None


async def reason_of(database, kernel_id):
    reason = (await row_of(database, kernel_id)).reason
    return reason and reason.startswith("culled: idle for")
