import json
import os
import signal
import socket
import uuid
from datetime import UTC, datetime

import httpx
import psutil
import pytest
from sqlalchemy import select, update

from models import Execution, Kernel, Kernelspec, ServerProcess, Session, Terminal, User
from tests.kernels import (
    execute,
    finished,
    run,
    start_kernel,
    status_is,
    text_of,
    until,
    write_notebook,
)

NAMES = ("kernelspecs", "status", "kernels", "sessions")


@pytest.fixture
def database(client):
    return client.app.state.database


async def add(database, *rows):
    for row in rows:
        async with database.transaction() as tx:
            tx.add(row)


async def owner(client):
    async with client.app.state.database.read() as tx:
        return (await tx.execute(select(User.id).where(User.name == "ada"))).scalar_one()


async def all_of(database, model):
    async with database.read() as tx:
        return {row.id: row for row in (await tx.execute(select(model))).scalars()}


async def dead_server(client, database):
    """Rows of a server of this machine that was killed while a kernel ran a cell."""
    server = ServerProcess(
        id=uuid.uuid4(),
        hostname=socket.gethostname(),
        pid=2**22 + 1,  # above the largest pid
        process_started_at=datetime.now(UTC),
        version="0",
    )
    await add(database, server)
    user = await owner(client)
    values = {"name": "python3", "owner_id": user, "server_id": server.id}
    await add(database, Kernel(id="lost", execution_state="busy", **values))
    await add(
        database,
        Session(id="s", path="a.ipynb", type="notebook", kernel_id="lost", owner_id=user),
        Terminal(name="7", cwd="/", owner_id=user, server_id=server.id),
        Execution(
            kernel_id="lost",
            incarnation=1,
            actor_id=user,
            run_as_id=user,
            client="api",
            msg_id="m",
            code="1",
            source_hash="h",
            status="running",
            started_at=datetime.now(UTC),
        ),
    )
    return server.id


async def test_kernelspecs_follow_the_disk(client, database, tmp_path, monkeypatch):
    folder = tmp_path / "share" / "kernels" / "new"
    folder.mkdir(parents=True)
    spec = {"argv": ["true"], "display_name": "New", "language": "x"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    answer = (await client.post("/api/kernelspecs/refresh")).json()
    assert answer == (await client.get("/api/kernelspecs")).json()
    assert answer["kernelspecs"]["new"]["spec"]["display_name"] == "New"
    assert "new" in {row.name for row in (await all_of(database, Kernelspec)).values()}
    (folder / "kernel.json").unlink()
    folder.rmdir()
    answer = (await client.post("/api/kernelspecs/refresh")).json()
    assert "new" not in answer["kernelspecs"]
    assert "new" not in {row.name for row in (await all_of(database, Kernelspec)).values()}


async def test_status_settles_dead_servers(client, database):
    server = await dead_server(client, database)
    assert (await client.get("/api/status")).json()["kernels"] == 1
    answer = (await client.post("/api/status/refresh")).json()
    assert answer["kernels"] == 0
    assert set(answer) == {"started", "last_activity", "connections", "kernels"}
    assert (await all_of(database, ServerProcess))[server].stopped_at
    assert all(row.ended_at for row in (await all_of(database, Kernel)).values())
    assert all(row.ended_at for row in (await all_of(database, Session)).values())
    assert all(row.ended_at for row in (await all_of(database, Terminal)).values())
    [execution] = (await all_of(database, Execution)).values()
    assert execution.status == "interrupted"
    assert (await client.get("/api/terminals")).json() == []


@pytest.mark.parametrize("what", ["kernels", "sessions"])
async def test_kernels_and_sessions_of_dead_servers(client, database, what):
    await dead_server(client, database)
    assert len((await client.get(f"/api/{what}")).json()) == 1
    assert (await client.post(f"/api/{what}/refresh")).json() == []
    assert (await client.get("/api/sessions")).json() == []


async def test_a_row_of_this_server_without_a_kernel(client, database, root_dir):
    kernel = await start_kernel(client)
    here = client.app.state.kernels.server_id
    values = {"name": "python3", "owner_id": await owner(client), "server_id": here}
    await add(database, Kernel(id="phantom", execution_state="idle", **values))
    [left] = (await client.post("/api/kernels/refresh")).json()
    assert left["id"] == kernel
    phantom = (await all_of(database, Kernel))["phantom"]
    assert (phantom.execution_state, phantom.reason) == ("dead", "its process has gone")
    assert phantom.ended_at


def _has_ended(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_a_killed_kernel_is_seen_at_once_and_others_are_left_alone(
    client, settings, root_dir
):
    settings.kernel_poll_seconds = 1.0
    kernels = [await start_kernel(client) for _ in range(2)]
    pid = int(text_of(await run(client, kernels[0], "import os; print(os.getpid())")))
    running = await execute(client, kernels[1], "input()")
    await status_is(client, running, "running")
    os.kill(pid, signal.SIGKILL)
    await until(lambda: _has_ended(pid))
    models = {k["id"]: k for k in (await client.post("/api/kernels/refresh")).json()}
    assert set(models) == set(kernels)
    assert "SIGKILL" in models[kernels[0]]["reason"]
    assert models[kernels[1]]["execution_state"] == "busy"
    assert "reason" not in models[kernels[1]]
    record = (await client.get(f"/api/executions/{running['id']}")).json()
    assert record["status"] == "running"
    await client.post(f"/api/executions/{running['id']}/input", json={"value": "x"})
    assert (await finished(client, running))["status"] == "ok"


async def test_a_session_whose_kernel_has_ended(client, database, root_dir):
    write_notebook(root_dir / "a.ipynb", "1")
    ids = []
    for path in ("a.ipynb", "b.ipynb"):
        body = {"path": path, "type": "notebook", "kernel": {"name": "python3"}}
        ids.append((await client.post("/api/sessions", json=body)).json())
    async with database.transaction() as tx:
        await tx.execute(
            update(Kernel)
            .where(Kernel.id == ids[1]["kernel"]["id"])
            .values(execution_state="dead", ended_at=datetime.now(UTC))
        )
    left = (await client.post("/api/sessions/refresh")).json()
    assert [session["id"] for session in left] == [ids[0]["id"]]
    assert (await client.get(f"/api/sessions/{ids[1]['id']}")).status_code == 404


async def test_anonymous(client):
    transport = httpx.ASGITransport(client.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as nobody:
        for name in NAMES:
            assert (await nobody.post(f"/api/{name}/refresh")).status_code == 403
