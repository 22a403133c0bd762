"""Writers that do what makes feeds lose changes, and clients that check what they are told."""

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from app.db.doorbell import LOST, asyncpg_url
from tests.feed import Follower
from tests.live import LiveServer

_RECORDS = 40
_FOLDERS = ("a", "b", "a/c")
_TYPES = ("file", "notebook", "directory")

SUBSCRIPTIONS = [
    {"all": {"table": "contents"}},
    {"a": {"table": "contents", "where": {"path_prefix": "a"}}},
    {
        "files": {"table": "contents", "where": {"type": "file"}},
        "c": {"table": "contents", "where": {"path_prefix": "a/c", "type": "notebook"}},
    },
]


def _version() -> int:
    """A number above all that a record of the same id can have had before."""
    return time.time_ns() // 1_000


class Writer:
    """Random transactions: open for random times, rolled back, with savepoints, deleting and
    inserting again; each version of a record has a larger `size` than the one before."""

    def __init__(self, url: str, seed: int, ids: list[str]) -> None:
        self._url = asyncpg_url(url)
        self._random = random.Random(seed)
        self._ids = ids
        self.committed = 0

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with contextlib.suppress(*LOST):
                connection = await asyncpg.connect(self._url, timeout=5, command_timeout=10)
                try:
                    while not stop.is_set():
                        await self._transact(connection)
                finally:
                    connection.terminate()
            await asyncio.sleep(0.05)

    async def _transact(self, connection: Any) -> None:
        dice = self._random
        transaction = connection.transaction()
        await transaction.start()
        try:
            # In one order, so that writers wait for each other and do not deadlock.
            for record in sorted(dice.sample(self._ids, dice.randint(1, 4))):
                if dice.random() < 0.2:
                    await self._in_savepoint(connection, record)
                else:
                    await self._write(connection, record)
                if dice.random() < 0.3:
                    await asyncio.sleep(dice.random() * 0.03)
            if dice.random() < 0.1:
                await asyncio.sleep(dice.random() * 0.3)
        except BaseException:
            with contextlib.suppress(*LOST):
                await transaction.rollback()
            raise
        if dice.random() < 0.15:
            await transaction.rollback()
        else:
            await transaction.commit()
            self.committed += 1

    async def _in_savepoint(self, connection: Any, record: str) -> None:
        inner = connection.transaction()
        await inner.start()
        await self._write(connection, record)
        if self._random.random() < 0.5:
            await inner.rollback()
        else:
            await inner.commit()

    async def _write(self, connection: Any, record: str) -> None:
        dice = self._random
        path = f"{dice.choice(_FOLDERS)}/{record}"
        kind = dice.choice(_TYPES)
        what = dice.random()
        if what < 0.15:
            await connection.execute("DELETE FROM contents WHERE id = $1", record)
        if what < 0.08 or what >= 0.85:
            await connection.execute(
                "INSERT INTO contents (id, path, name, type, size) VALUES ($1, $2, 'n', $3, $4)"
                " ON CONFLICT (id) DO UPDATE SET size = contents.size + 1",
                record,
                path,
                kind,
                _version(),
            )
        elif what >= 0.6:
            await connection.execute(
                "UPDATE contents SET size = size + 1, path = $2, type = $3 WHERE id = $1",
                record,
                path,
                kind,
            )
        elif what >= 0.15:
            await connection.execute("UPDATE contents SET size = size + 1 WHERE id = $1", record)


class Checked(Follower):
    """A client to which no record may ever go back to an older version, or come back to life."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.faults: list[str] = []
        self._seen: dict[tuple[str, str], int] = {}
        self.on_change = self._check

    def _check(self, name: str, op: str, record_id: str, record: dict[str, Any] | None) -> None:
        key = (name, record_id)
        if op == "delete":
            return
        assert record is not None
        seen = self._seen.get(key, 0)
        if record["size"] < seen:
            self.faults.append(f"{key} went back from {seen} to {record['size']}")
        self._seen[key] = record["size"]

    async def follow(self, dice: random.Random, stop: asyncio.Event, *, restless: bool) -> None:
        """Stay connected; leave and come back now and then if `restless`."""
        stopping = asyncio.ensure_future(stop.wait())
        while True:
            self.running = asyncio.create_task(self.run())
            leaving = 0.2 + dice.random() * 1.5 if restless else None
            await asyncio.wait(
                {self.running, stopping}, timeout=leaving, return_when=asyncio.FIRST_COMPLETED
            )
            if stop.is_set():
                return
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)
            if dice.random() < 0.2:
                self.complete.clear()  # a client that has lost its cursor
            await asyncio.sleep(0.02)

    def stay(self) -> None:
        """Connect again if the connection has ended."""
        if self.running.done():
            self.running = asyncio.create_task(self.run())


async def rows(url: str) -> dict[str, tuple[str, str, int]]:
    connection = await asyncpg.connect(asyncpg_url(url), timeout=5)
    found = await connection.fetch("SELECT id::text, path, type, size FROM contents")
    await connection.close()
    return {row["id"]: (row["path"], row["type"], row["size"]) for row in found}


def expected(table: dict[str, tuple[str, str, int]], where: dict[str, str]) -> dict[str, int]:
    prefix = where.get("path_prefix")
    return {
        record: size
        for record, (path, kind, size) in table.items()
        if (prefix is None or path == prefix or path.startswith(prefix + "/"))
        and where.get("type", kind) == kind
    }


def differences(follower: Follower, table: dict[str, tuple[str, str, int]]) -> list[str]:
    found = []
    for name, wanted in follower.subscriptions.items():
        should = expected(table, wanted.get("where", {}))
        has = {record: values["size"] for record, values in follower.records[name].items()}
        found += [
            f"{name} {record}: {has.get(record)} for {should.get(record)}"
            for record in sorted(should.keys() | has.keys())
            if should.get(record) != has.get(record)
        ]
    return found


async def scenario(
    seed: int,
    server: LiveServer,
    url: str,
    *,
    seconds: float,
    writers: int = 6,
    chaos: Callable[[random.Random], Awaitable[None]] | None = None,
    restless: bool = True,
    settle_seconds: float = 20,
) -> list[str]:
    """Run writers and clients for some time; return what is wrong with what clients were told."""
    dice = random.Random(seed)
    ids = [str(uuid.UUID(int=dice.getrandbits(128), version=4)) for _ in range(_RECORDS)]
    stop, still = asyncio.Event(), asyncio.Event()
    made = [Writer(url, dice.getrandbits(32), ids) for _ in range(writers)]
    clients = [
        Checked(lambda: server.connect("/api/datastore/feed"), dict(wanted))
        for wanted in SUBSCRIPTIONS
    ]
    writing = [asyncio.create_task(writer.run(stop)) for writer in made]
    following = [
        asyncio.create_task(
            client.follow(random.Random(dice.getrandbits(32)), still, restless=restless)
        )
        for client in clients
    ]
    end = asyncio.get_running_loop().time() + seconds
    while (left := end - asyncio.get_running_loop().time()) > 0:
        await asyncio.sleep(min(left, 0.3 + dice.random() * 0.7))
        if chaos is not None:
            await chaos(dice)
    stop.set()
    await asyncio.gather(*writing)
    still.set()
    await asyncio.gather(*following)
    assert sum(writer.committed for writer in made) > 20
    table = await rows(url)
    wrong = [fault for client in clients for fault in client.faults]
    try:
        async with asyncio.timeout(settle_seconds):
            while any(differences(client, table) for client in clients):
                await asyncio.sleep(0.05)
                for client in clients:
                    client.stay()
    except TimeoutError:
        wrong += [fault for client in clients for fault in differences(client, table)]
    for client in clients:
        client.running.cancel()
    await asyncio.gather(*(client.running for client in clients), return_exceptions=True)
    return wrong + [fault for client in clients for fault in client.faults]
