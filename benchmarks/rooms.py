"""`python -m benchmarks.rooms`: rooms beside jupyter_server with jupyter-collaboration, in one run.

One client process, raw websockets, the same notebooks. Measured: the time from one peer's
keystroke to each of the others; opening a large notebook (session, websocket, whole document);
memory that a server takes for an open document; bytes stored per thousand edits. The stock server
stores nothing before it sends and by default keeps updates in an SQLite file; this one stores
every edit in PostgreSQL, durably.
"""

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import asyncpg
import click
import psutil
from pycrdt import Array, Doc
from websockets.asyncio.client import ClientConnection, connect

from app.collaboration import protocol
from app.collaboration.protocol import Reader
from benchmarks.server import Server

_SOURCE = Path(__file__).resolve().parent.parent
_WAIT_SECONDS = 120


class Stock:
    """jupyter_server with jupyter-collaboration, of some Python."""

    name = "jupyter-collaboration"

    def __init__(self, python: str) -> None:
        self._python = python
        self.token = secrets.token_hex(16)
        self.folder = Path(tempfile.mkdtemp(prefix="jds-stock-", dir="/tmp"))
        self.root_dir = self.folder / "root"
        self.port = 0

    def __enter__(self) -> "Stock":
        self.root_dir.mkdir()
        command = [self._python, "-m", "jupyter_server", "--no-browser", "--allow-root"]
        command += ["--ip=127.0.0.1", "--port=0", f"--IdentityProvider.token={self.token}"]
        command += [f"--ServerApp.root_dir={self.root_dir}"]
        command += ["--ServerApp.jpserver_extensions={'jupyter_server_ydoc': True}"]
        env = {**os.environ, "JUPYTER_DATA_DIR": str(self.folder / "data")}
        env |= {"JUPYTER_RUNTIME_DIR": str(self.folder / "run")}
        log = self.folder / "log"
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                env=env,
                cwd=self.folder,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/", log.read_text()):
                self.port = int(found[1])
                return self
            time.sleep(0.05)
        print(log.read_text()[-3000:], file=sys.stderr)
        self.__exit__()
        raise RuntimeError("jupyter_server did not start")

    @property
    def pid(self) -> int:
        return self._process.pid

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def stored_bytes(self) -> int:
        """The size of the SQLite file that updates are kept in."""
        return sum(path.stat().st_size for path in self.folder.rglob("*ystore*.db*"))


class Ours(Server):
    """This server, with its embedded PostgreSQL as people have it."""

    name = "Jupyter Datastore"

    async def stored_bytes(self) -> int:
        """The size of the tables with updates and snapshots, with their indexes."""
        connection = await asyncpg.connect(self.database_url)
        try:
            query = (
                "SELECT pg_total_relation_size('document_updates')"
                " + pg_total_relation_size('document_snapshots')"
            )
            return int(await connection.fetchval(query))
        finally:
            await connection.close()


def notebook(cells: int, output_bytes: int) -> dict[str, Any]:
    """Return a notebook with as many code cells, each with some output."""
    text = "x" * 79 + "\n"
    output = {"output_type": "stream", "name": "stdout", "text": text * (output_bytes // 80)}
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {},
        "cells": [
            {
                "id": f"c{number}",
                "cell_type": "code",
                "metadata": {},
                "source": "x = 1",
                "execution_count": None,
                "outputs": [output] if output_bytes else [],
            }
            for number in range(cells)
        ],
    }


def put_session(server: Any, path: str) -> dict[str, Any]:
    """Open a file for its room."""
    request = Request(
        f"http://127.0.0.1:{server.port}/api/collaboration/session/{path}",
        data=json.dumps({"format": "json", "type": "notebook"}).encode(),
        method="PUT",
        headers={"Authorization": f"token {server.token}", "Content-Type": "application/json"},
    )
    with urlopen(request, timeout=_WAIT_SECONDS) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


async def enter(server: Any, found: dict[str, Any]) -> tuple[ClientConnection, Doc[Any], int]:
    """Enter a room and get its document; return the size of that too."""
    name = f"json:notebook:{found['fileId']}"
    url = f"ws://127.0.0.1:{server.port}/api/collaboration/room/{name}"
    url += f"?sessionId={found['sessionId']}&token={server.token}"
    websocket = await connect(url, max_size=None, compression=None, ping_interval=None)
    doc: Doc[Any] = Doc()
    await websocket.send(protocol.sync(protocol.STEP1, doc.get_state()))
    async with asyncio.timeout(_WAIT_SECONDS):
        while True:
            reader = Reader(bytes(await websocket.recv()))
            if reader.number() == protocol.SYNC and reader.number() == protocol.STEP2:
                content = reader.bytes()
                doc.apply_update(content)
                return websocket, doc, len(content)


async def keystrokes(server: Any, found: dict[str, Any], peers: int, count: int) -> list[float]:
    """Return the seconds from a keystroke to each other peer, sorted."""
    writer, doc, _ = await enter(server, found)
    others = [(await enter(server, found))[0] for _ in range(peers)]
    updates: list[bytes] = []
    subscription = doc.observe(lambda event: updates.append(event.update))
    source = doc.get("cells", type=Array)[0]["source"]
    samples: list[float] = []

    async def drain(websocket: ClientConnection) -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(0.3):
                    await websocket.recv()

    async def arrival(websocket: ClientConnection, marker: bytes) -> float:
        while marker not in bytes(await websocket.recv()):
            pass
        return time.perf_counter()

    await asyncio.gather(*(drain(one) for one in others))
    for number in range(count):
        marker = f"k{number:04d}"
        updates.clear()
        source.insert(0, marker)
        waiting = [asyncio.create_task(arrival(one, marker.encode())) for one in others]
        await asyncio.sleep(0.02)
        start = time.perf_counter()
        await writer.send(protocol.sync(protocol.UPDATE, updates[0]))
        async with asyncio.timeout(30):
            samples += [arrived - start for arrived in await asyncio.gather(*waiting)]
    del subscription
    for websocket in (writer, *others):
        await websocket.close()
    return sorted(samples)


async def edits(server: Any, found: dict[str, Any], count: int) -> float:
    """Return the bytes that a server stores for each edit."""
    writer, doc, _ = await enter(server, found)
    updates: list[bytes] = []
    subscription = doc.observe(lambda event: updates.append(event.update))
    source = doc.get("cells", type=Array)[0]["source"]
    before = await server.stored_bytes()
    for _ in range(count):
        source.insert(0, "a")
        await writer.send(protocol.sync(protocol.UPDATE, updates.pop()))
        await asyncio.sleep(0.005)  # one edit each: a person types no faster
    await asyncio.sleep(3)
    del subscription
    await writer.close()
    return (await server.stored_bytes() - before) / count


@contextlib.contextmanager
def heartbeat(server: Any) -> Iterator[list[float]]:
    """Ask the server for its version again and again; yield the seconds that each answer took.

    The longest is how long one opening keeps everybody else waiting. A thread asks, which the
    benchmark's own work on a large document does not hold up much.
    """
    request = Request(f"http://127.0.0.1:{server.port}/api")
    request.add_header("Authorization", f"token {server.token}")
    waits: list[float] = []
    done = threading.Event()

    def beat() -> None:
        while not done.wait(0.02):
            start = time.perf_counter()
            with urlopen(request, timeout=_WAIT_SECONDS) as answer:
                answer.read()
            waits.append(time.perf_counter() - start)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield waits
    finally:
        done.set()
        thread.join()


def memory(server: Any) -> int:
    """Return the bytes of memory that the server's own process has."""
    return int(psutil.Process(server.pid).memory_info().rss)


async def measured(server: Any, peers: list[int], count: int, large: tuple[int, int]) -> None:
    """Measure one server, and print what was found."""
    cells, megabytes = large
    (server.root_dir / "small.ipynb").write_text(json.dumps(notebook(20, 0)))
    (server.root_dir / "large.ipynb").write_text(
        json.dumps(notebook(cells, megabytes * 1024 * 1024 // cells))
    )
    found = put_session(server, "small.ipynb")
    for number in peers:
        samples = await keystrokes(server, found, number, count)
        p50, p99 = samples[len(samples) // 2], samples[int(len(samples) * 0.99)]
        print(
            f"{server.name}: keystroke to {number}: p50 {p50 * 1000:.2f} ms,"
            f" p99 {p99 * 1000:.2f} ms ({len(samples)} samples)"
        )
    per_edit = await edits(server, found, 1000)
    print(f"{server.name}: {per_edit:.0f} kB stored per thousand edits")
    before, start = memory(server), time.perf_counter()
    with heartbeat(server) as waits:
        found = await asyncio.to_thread(put_session, server, "large.ipynb")
        websocket, _, size = await enter(server, found)
        first = time.perf_counter() - start
    await websocket.close()
    start = time.perf_counter()
    found = await asyncio.to_thread(put_session, server, "large.ipynb")
    websocket, _, size = await enter(server, found)
    second = time.perf_counter() - start
    print(
        f"{server.name}: {cells} cells, {megabytes} MB: first opening {first:.2f} s,"
        f" again {second:.2f} s ({size / 1e6:.0f} MB sent);"
        f" others waited {max(waits):.2f} s at most"
    )
    print(f"{server.name}: {(memory(server) - before) / 1e6:.0f} MB of memory for it, open")
    await websocket.close()


def processor_seconds(server: Any) -> tuple[float, float]:
    """Return what the server's own process has used, and those that it started (PostgreSQL)."""

    def used(process: psutil.Process) -> float:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            return float(times.user + times.system)
        return 0.0

    own = psutil.Process(server.pid)
    return used(own), sum(used(child) for child in own.children(recursive=True))


async def opening(server: Any, number: int, large: tuple[int, int]) -> None:
    """Open a large notebook that is new to the server, and print what that took."""
    cells, megabytes = large
    path = f"large{number}.ipynb"
    content = notebook(cells, megabytes * 1024 * 1024 // cells)
    (server.root_dir / path).write_text(json.dumps(content))
    await asyncio.sleep(1)
    before, start = processor_seconds(server), time.perf_counter()
    with heartbeat(server) as waits:
        found = await asyncio.to_thread(put_session, server, path)
        websocket, _, _ = await enter(server, found)
        first = time.perf_counter() - start
    after = processor_seconds(server)
    await websocket.close()
    start = time.perf_counter()
    found = await asyncio.to_thread(put_session, server, path)
    websocket, _, _ = await enter(server, found)
    second = time.perf_counter() - start
    await websocket.close()
    print(
        f"{server.name}: first {first:.2f} s, again {second:.2f} s; others waited"
        f" {max(waits):.2f} s at most; processor: {after[0] - before[0]:.2f} s of its own,"
        f" {after[1] - before[1]:.2f} s of PostgreSQL"
    )


async def in_turn(servers: list[Any], rounds: int, large: tuple[int, int]) -> None:
    """Open large notebooks on all servers in turn: a busy moment of the machine meets all."""
    for number in range(rounds):
        for server in servers:
            await opening(server, number, large)


@click.command()
@click.option("--stock-python", default=sys.executable, help="A Python with jupyter-collaboration.")
@click.option("--peers", default="1,20,100")
@click.option("--count", default=200, help="Keystrokes for each number of peers.")
@click.option("--cells", default=1000)
@click.option("--megabytes", default=50)
@click.option("--only", type=click.Choice(["ours", "stock"]))
@click.option("--openings", default=0, help="Open so many large notebooks on both in turn instead.")
def main(  # noqa: PLR0917 (click passes them by name)
    stock_python: str,
    peers: str,
    count: int,
    cells: int,
    megabytes: int,
    only: str | None,
    openings: int,
) -> None:
    """Measure rooms of both servers, one after the other."""
    if openings:
        with Ours(_SOURCE, dict(os.environ)) as server, Stock(stock_python) as stock:
            asyncio.run(in_turn([server, stock], openings, (cells, megabytes)))
        return
    numbers = [int(number) for number in peers.split(",")]
    if only != "stock":
        with Ours(_SOURCE, dict(os.environ)) as server:
            asyncio.run(measured(server, numbers, count, (cells, megabytes)))
    if only != "ours":
        with Stock(stock_python) as stock:
            asyncio.run(measured(stock, numbers, count, (cells, megabytes)))


if __name__ == "__main__":
    main()
