"""A database that is slow, full of other people's locks, or gone: what was said is kept, once."""

import asyncio
from contextlib import asynccontextmanager

import asyncpg
import psycopg
import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.db.embedded import EmbeddedPostgres
from app.db.engine import Database, Transaction
from tests.conftest import serving
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

LINES = "".join(f"{number}\n" for number in range(40))
PRINT = "import time\nfor i in range(40): print(i, flush=True); time.sleep(0.02)"


def driver_url(database):
    return database.url.replace("+asyncpg", "")


async def test_statements_that_time_out_and_locks_that_are_held(client, database):
    """Neither may cost a message: a batch is tried again, piece by piece if need be."""
    kernel = await start_kernel(client)
    await run(client, kernel, "1")
    connection = await psycopg.AsyncConnection.connect(driver_url(database))
    name = connection.info.dbname
    await connection.execute(f"ALTER DATABASE \"{name}\" SET statement_timeout = '150ms'")
    await connection.commit()
    # Connections take the new setting when they are made.
    await client.app.state.database._recorders.dispose()
    async with connection:
        execution = await execute(client, kernel, PRINT)
        for _ in range(2):
            await connection.execute("LOCK TABLE outputs IN SHARE MODE")
            await asyncio.sleep(0.5)
            await connection.rollback()
        record = await finished(client, execution, 20)
    assert (record["status"], text_of(record)) == ("ok", LINES)
    assert len(record["outputs"]) == 1, "no note of a refusal"


async def test_a_pool_that_is_exhausted_costs_nothing(client, monkeypatch):
    kernel = await start_kernel(client)
    await run(client, kernel, "1")
    real, real_alone, failed = Database.transaction, Database.write_alone, []

    def fail(recorder):
        if recorder and len(failed) < 4:
            failed.append(1)
            raise PoolTimeoutError("QueuePool limit reached")

    @asynccontextmanager
    async def transaction(self, *, recorder=False):
        fail(recorder)
        async with real(self, recorder=recorder) as tx:
            yield tx

    async def write_alone(self, *given, recorder=False, **more):
        fail(recorder)
        return await real_alone(self, *given, recorder=recorder, **more)

    monkeypatch.setattr(Database, "transaction", transaction)
    monkeypatch.setattr(Database, "write_alone", write_alone)
    record = await run(client, kernel, PRINT)
    assert (record["status"], text_of(record)) == ("ok", LINES)
    assert len(failed) == 4


async def test_connections_that_are_killed_again_and_again(client, database):
    kernel = await start_kernel(client)
    execution = await execute(client, kernel, PRINT)
    kill = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'jupyter-datastore'"
    )
    async with await psycopg.AsyncConnection.connect(driver_url(database)) as connection:
        await connection.set_autocommit(True)
        for _ in range(10):
            await connection.execute(kill)
            await asyncio.sleep(0.1)

    async def ended():
        response = await client.get(f"/api/executions/{execution['id']}")
        assert response.status_code in (200, 503), response.text
        return response.status_code == 200 and response.json()["finished_at"] and response.json()

    record = await until(ended)
    assert (record["status"], text_of(record)) == ("ok", LINES)
    assert record["output_bytes"] == len(LINES)


async def test_a_server_ends_though_its_database_is_gone(short_tmp, settings, tmp_path):
    from app.db import migrations

    settings.shutdown_timeout_seconds = 1
    with EmbeddedPostgres(short_tmp / "gone") as postgres:
        migrations.upgrade(postgres.url)
        async with asyncio.timeout(30):
            async with serving(settings, postgres.url, tmp_path / "data") as client:
                kernel = await start_kernel(client)
                await execute(client, kernel, "while True: print('x' * 100, flush=True)")
                postgres.stop()


async def test_waiting_for_what_was_said_does_not_wait_for_what_comes(client):
    """A kernel that never stops talking must not hold up who cancels what waits behind it."""
    kernel = await start_kernel(client)
    running = await execute(client, kernel, "while True: print('x' * 1000, flush=True)")
    waiting = await execute(client, kernel, "1")
    await status_is(client, running, "running")
    await asyncio.sleep(0.5)
    async with asyncio.timeout(5):
        assert (await client.delete(f"/api/executions/{waiting['id']}")).status_code == 204
        assert (await finished(client, waiting))["status"] == "cancelled"
        assert (await client.delete(f"/api/executions/{running['id']}")).status_code == 204
        assert (await finished(client, running))["status"] in ("error", "interrupted")


@pytest.mark.parametrize("what", ["code", "cell"])
async def test_what_was_stored_though_it_seemed_not_does_not_wait_for_ever(
    client, root_dir, monkeypatch, what
):
    """The answer to the commit of a new execution is lost: it is not sent, and its row says so."""
    (cell,) = write_notebook(root_dir / "a.ipynb", "1")
    kernel = await start_kernel(client)
    body = {"code": "1"} if what == "code" else {"path": "a.ipynb", "cell_id": cell}
    await finished(client, await execute(client, kernel, **body))
    # Code is committed by its one statement, a cell by COMMIT.
    where, name = (asyncpg.Connection, "fetch") if what == "code" else (Transaction, "commit")
    real, armed = getattr(where, name), [True]

    async def lost(self, *given):
        answer = await real(self, *given)
        if armed and (what == "cell" or "INSERT INTO executions" in str(given[0])):
            armed.clear()
            raise ConnectionResetError("the answer was lost")
        return answer

    monkeypatch.setattr(where, name, lost)
    response = await client.post(f"/api/kernels/{kernel}/execute", json=body)
    assert (response.status_code, armed) == (503, [])
    monkeypatch.undo()

    async def ended() -> dict | None:
        found = (await client.get("/api/executions", params={"limit": 1})).json()["executions"]
        return found[0] if found[0]["finished_at"] else None

    record = await until(ended)
    assert record["status"] == "interrupted"
    assert "database failed" in record["reason"]
    assert (await finished(client, await execute(client, kernel, **body)))["status"] == "ok"
    if what == "cell":
        cells = (await client.get(f"/api/documents/{record['document_id']}/cells")).json()["cells"]
        assert cells[0]["execution_state"] == "idle"
