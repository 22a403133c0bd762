"""No client ever misses a change or goes back, whatever writers, listener, database and it do.

`DATASTORE_STRESS_SEEDS` (2) says how many seeds are run, `DATASTORE_STRESS_SECONDS` (5) how long.
"""

import asyncio
import contextlib
import os
import random
import signal
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import psycopg
import pytest
from sqlalchemy import make_url

from app.changes.cursor import Position
from app.changes.log import Reading, reading_of
from app.db import migrations
from app.db.doorbell import asyncpg_url
from app.db.embedded import EmbeddedPostgres
from app.settings import Settings
from tests.app.changes.stress import scenario
from tests.live import LiveServer, live

SEEDS = int(os.environ.get("DATASTORE_STRESS_SEEDS", "2"))
SECONDS = float(os.environ.get("DATASTORE_STRESS_SECONDS", "5"))


@pytest.fixture(scope="module")
def postgres(short_tmp: Path) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL of our own, which may be killed."""
    folder = short_tmp / f"stress-{uuid.uuid4().hex[:8]}"
    with EmbeddedPostgres(folder, settings={"fsync": "off"}) as embedded:
        migrations.upgrade(embedded.url)
        yield embedded


@pytest.fixture
def settings(root_dir: Path) -> Settings:
    return Settings(
        root_dir=root_dir,
        owner="ada",
        feed_poll_seconds=0.5,
        feed_heartbeat_seconds=1,
        watch_files=False,
    )


@pytest.fixture(autouse=True)
def empty(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("TRUNCATE contents CASCADE")


def crash(postgres: EmbeddedPostgres) -> None:
    """Kill PostgreSQL as a power cut would, and start it again."""
    assert postgres.pid is not None
    postmaster = psutil.Process(postgres.pid)
    for process in [postmaster, *postmaster.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    postmaster.wait(10)
    postgres.start()


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_every_client_ends_with_what_the_table_holds(
    seed: int, postgres: EmbeddedPostgres, settings: Settings, tmp_path: Path
):
    restarts = 0

    async def chaos(dice: random.Random) -> None:
        nonlocal restarts
        what = dice.random()
        if what < 0.4:
            with contextlib.suppress(OSError, asyncpg.PostgresError):
                connection = await asyncpg.connect(asyncpg_url(postgres.url), timeout=5)
                names = ["change reader"] if what < 0.25 else ["change reader", "feed", "doorbell"]
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = ANY ($1)",
                    [f"jupyter-datastore {name}" for name in names],
                )
                await connection.close()
        elif what < 0.6 and restarts < 2:
            restarts += 1
            if what < 0.5:
                postgres.stop()
                postgres.start()
            else:
                crash(postgres)

    async with live(settings, postgres.url, tmp_path / "data") as server:
        wrong = await scenario(seed, server, postgres.url, seconds=SECONDS, chaos=chaos)
        if not restarts:
            crash(postgres)
    assert wrong == []


async def _since_last_id(connection: Any, previous: Position, _: Sequence[str]) -> Reading:
    """The reader that everybody writes first: what has a larger id than the last one seen."""
    rows = await connection.fetch(
        "SELECT pg_current_snapshot()::text AS snapshot, coalesce(c.xid::text, '0') AS last_xid,"
        " c.id AS last_id, c.at AS last_at, c.xid::text AS xid, c.id, c.table_name, c.op,"
        " c.record_ids, c.columns, c.keys::text[] AS keys"
        " FROM (SELECT) AS always LEFT JOIN"
        " (SELECT * FROM changes WHERE id > $1 ORDER BY id) AS c ON true",
        previous.last_id,
    )
    reading = reading_of(rows, previous, 10**9)
    newest = max((row["id"] for row in rows if row["id"] is not None), default=previous.last_id)
    position = reading.position
    return Reading(
        Position(position.snapshot, position.last_xid, newest, position.last_at),
        reading.deltas,
        reading.tables,
        reading.emptied,
        too_many=False,
    )


async def test_the_test_finds_a_reader_that_goes_by_ids(
    postgres: EmbeddedPostgres, settings: Settings, tmp_path: Path
):
    async with live(settings, postgres.url, tmp_path / "data") as server:
        server.app.state.changes.reader.read_since = _since_last_id
        wrong = await scenario(1, server, postgres.url, seconds=4, restless=False, settle_seconds=2)
    assert wrong != []


class Proxy:
    """Stands between the reader and PostgreSQL, and can stop passing anything on."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self._socket = f"{parsed.query['host']}/.s.PGSQL.{parsed.query.get('port', 5432)}"
        self._url = parsed
        self._flowing: list[asyncio.Event] = []
        self.frozen = 0

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[str]:
        async with await asyncio.start_server(self._pass, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            user = self._url.username
            yield f"postgresql://{user}@127.0.0.1:{port}/{self._url.database}?sslmode=disable"

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flowing = asyncio.Event()
        flowing.set()
        self._flowing.append(flowing)
        to_reader, to_writer = await asyncio.open_unix_connection(self._socket)

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    await flowing.wait()
                    target.write(data)
                    await target.drain()
            target.close()

        await asyncio.gather(pump(reader, to_writer), pump(to_reader, writer))

    def freeze(self) -> None:
        """Have the present connections say nothing any more, and stay open."""
        for flowing in self._flowing:
            self.frozen += flowing.is_set()
            flowing.clear()

    def thaw(self) -> None:
        for flowing in self._flowing:
            flowing.set()


async def test_a_frozen_connection_is_noticed_and_replaced(
    postgres: EmbeddedPostgres, settings: Settings, tmp_path: Path
):
    proxy = Proxy(postgres.url)

    async def freeze(dice: random.Random) -> None:
        if dice.random() < 0.5:
            proxy.freeze()

    async with proxy.run() as url, live(settings, postgres.url, tmp_path / "data") as server:
        reader = server.app.state.changes.reader
        reader.patience_seconds = 1.0
        reader._url = url
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'jupyter-datastore change reader'"
            )
        try:
            wrong = await scenario(7, server, postgres.url, seconds=4, chaos=freeze, restless=False)
        finally:
            proxy.thaw()
    assert proxy.frozen > 0
    assert wrong == []


async def test_the_log_survives_idle_servers(
    postgres: EmbeddedPostgres, settings: Settings, tmp_path: Path
):
    """While nobody follows nothing is read; who comes then starts from what is there."""
    async with live(settings, postgres.url, tmp_path / "data") as server:
        assert isinstance(server, LiveServer)
        wrong = await scenario(3, server, postgres.url, seconds=1.5)
        await asyncio.sleep(0)
        assert wrong == []
        assert await scenario(4, server, postgres.url, seconds=1.5) == []
