"""`python -m benchmarks.feed`: the change feed of a server as people start it, in one run.

Subscribers are bare sockets that note when bytes with a marker come, so that the clock measures
the server and not a thousand Python websocket clients. Writers are connections of their own, as
another program's, unless said otherwise.
"""

import asyncio
import base64
import contextlib
import json
import os
import re
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import click
import httpx
import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.report import percentile
from benchmarks.server import Server, interruptible

_SOURCE = Path(__file__).resolve().parent.parent
_KINDS = ("latency", "routing", "kernel", "rows", "writers")
_WRITERS = 16
_CHANGES = 400
_OTHERS = 9_990
# The server's ping; in the JSON that it sends there is no such byte.
_PING = re.compile(rb"\x89\x04(....)", re.DOTALL)


class Subscriber(asyncio.Protocol):
    """A websocket that counts and times what comes, and reads none of it."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._transport: Any = None
        # At once: the greeting may come before whoever connects is told of the connection.
        self.marker = b'"type":"hello"'
        self.seen = 0
        self.times: dict[bytes, float] = {}
        self.wanted: bytes | None = None
        self.got = asyncio.Event()
        self._tail = b""

    def connection_made(self, transport: Any) -> None:
        """Shake hands."""
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Note when the marker came."""
        for ping in _PING.finditer(data):
            # Unanswered, the server would take the client for gone; a mask of zeros as below.
            self._transport.write(b"\x8a\x84\0\0\0\0" + ping[1])
        joined = self._tail + data
        found = joined.count(self.marker)
        self._tail = joined[-(len(self.marker) - 1) :] if len(self.marker) > 1 else b""
        if found:
            self.seen += found
            self.last = time.perf_counter()
            self.got.set()

    def send(self, message: dict[str, Any]) -> None:
        """Send a masked text frame; a mask of zeros leaves the text as it is."""
        text = json.dumps(message).encode()
        size = len(text)
        head = bytes([0x81, 0x80 | size]) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
        self._transport.write(head + b"\0\0\0\0" + text)

    def expect(self, marker: bytes) -> None:
        """Count and time this text from now on."""
        self.marker = marker
        self._tail = b""
        self.seen = 0
        self.got.clear()

    async def until(self, count: int, seconds: float = 200) -> None:
        """Wait until the marker has come so often."""
        async with asyncio.timeout(seconds):
            while self.seen < count:
                self.got.clear()
                await self.got.wait()

    def close(self) -> None:
        """Drop the connection."""
        self._transport.abort()


async def subscriber(server: Server, *wanted: dict[str, Any]) -> Subscriber:
    """Return a connected subscriber with its snapshots read."""
    key = base64.b64encode(os.urandom(16)).decode()
    request = (
        f"GET /api/datastore/feed?token={server.token} HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{server.port}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()
    loop = asyncio.get_running_loop()
    _, made = await loop.create_connection(lambda: Subscriber(request), "127.0.0.1", server.port)
    await made.until(1)
    made.expect(b'"type":"snapshot"')
    for number, message in enumerate(wanted):
        made.send({"type": "subscribe", "id": str(number), **message})
        if number % 500 == 499:
            await made.until(number)
    await made.until(len(wanted))
    return made


async def latency(server: Server, sql: Any, say: Callable[[str], None]) -> list[tuple[str, ...]]:
    """The time from a commit that has returned to each subscriber's socket."""
    lines = []
    folder = uuid.uuid4().hex
    row = await _content(sql, folder)
    subscribers: list[Subscriber] = []
    for count in (1, 100, 1000):
        say(f"latency with {count} subscribers")
        while len(subscribers) < count:
            part = min(20, count - len(subscribers))
            where = {"table": "contents", "where": {"path_prefix": folder}}
            subscribers += await asyncio.gather(*(subscriber(server, where) for _ in range(part)))
        rounds = 150 if count < 1000 else 20
        times = []
        for number in range(rounds):
            for one in subscribers:
                one.expect(b'"size" : %d,' % (count * 10_000 + number))
            await sql.execute(
                "UPDATE contents SET size = $2 WHERE id = $1", row, count * 10_000 + number
            )
            begun = time.perf_counter()
            for one in subscribers:
                await one.until(1)
            times += [1000 * max(0.0, one.last - begun) for one in subscribers]
            await asyncio.sleep(0.005 if count < 1000 else 0.05)
        lines.append(
            (
                f"commit to subscriber, {count} subscribers",
                f"p50 {percentile(times, 0.5):.1f} ms, p99 {percentile(times, 0.99):.1f} ms",
            )
        )
    for one in subscribers:
        one.close()
    return lines


async def _content(sql: Any, path: str) -> uuid.UUID:
    found: uuid.UUID = await sql.fetchval(
        "INSERT INTO contents (id, path, name, type, size)"
        " VALUES (gen_random_uuid(), $1, 'n', 'file', 0) RETURNING id",
        path,
    )
    return found


async def routing(server: Server, sql: Any, say: Callable[[str], None]) -> list[tuple[str, ...]]:
    """What a change costs the server with 10 subscriptions that match, alone and among 10,000.

    In turns, since a disk that others use is fast and slow for seconds. One writer's commits bound
    how many changes a second there are, so that the server's processor time says more.
    """
    folder = uuid.uuid4().hex
    row = await _content(sql, folder)
    match = {"table": "contents", "where": {"id": str(row)}}
    one = await subscriber(server, *[match] * 10)
    found: dict[int, list[tuple[float, float]]] = {0: [], _OTHERS: []}
    made: list[float] = []
    process = psutil.Process(server.pid)
    last = 0

    async def change(measured: list[tuple[float, float]]) -> None:
        """Change the record many times; note changes a second and the server's ms for each."""
        nonlocal last
        first, last = last + 1, last + _CHANGES
        one.expect(b'"size" : %d,' % last)
        begun, used = time.perf_counter(), sum(process.cpu_times()[:2])
        for number in range(first, last + 1):
            await sql.execute("UPDATE contents SET size = $2 WHERE id = $1", row, number)
        await one.until(1)
        elapsed, spent = time.perf_counter() - begun, sum(process.cpu_times()[:2]) - used
        measured.append((_CHANGES / elapsed, 1000 * spent / _CHANGES))

    await change([])
    for _turn in range(3):
        for others, measured in found.items():
            say(f"routing with {others} others")
            noise = [
                {"table": "contents", "where": {"id": str(uuid.uuid4())}} for _ in range(others)
            ]
            begun = time.perf_counter()
            crowd = [
                await subscriber(server, *noise[n : n + 1_110]) for n in range(0, others, 1_110)
            ]
            if others:
                made.append(time.perf_counter() - begun)
            for _attempt in range(4):
                await change(measured)
            for member in crowd:
                member.close()
            await asyncio.sleep(0.5)
    one.close()
    lines: list[tuple[str, ...]] = [
        ("10,000 subscriptions made and their snapshots sent", f"{statistics.median(made):.1f} s")
    ]
    for others, name in ((0, "10 subscriptions, all"), (_OTHERS, "10,000 subscriptions, 10")):
        rate, cost = (statistics.median(values) for values in zip(*found[others], strict=True))
        lines.append(
            (
                f"one writer, {name} match",
                f"{rate:.0f} changes/s, {cost:.2f} ms of the server's processor each",
            )
        )
    return lines


async def kernel(server: Server, _: Any, say: Callable[[str], None]) -> list[tuple[str, ...]]:
    """From a kernel's print to another client's feed; and many outputs, recorded and delivered."""
    say("kernel")
    headers = {"Authorization": f"token {server.token}"}
    address = f"http://127.0.0.1:{server.port}"
    lines = []
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=120) as client:
        kernel_id = (await client.post("/api/kernels", json={})).json()["id"]

        async def run(code: str) -> None:
            made = await client.post(f"/api/kernels/{kernel_id}/execute", json={"code": code})
            execution = made.json()["id"]
            await client.get(f"/api/executions/{execution}", params={"wait": 100})

        await run("1")
        second = await subscriber(server, {"table": "outputs", "where": {"kernel_id": kernel_id}})
        times = []
        for _number in range(60):
            second.expect(b"MARK")
            running = asyncio.create_task(
                run("import time; print('MA' + 'RK', time.time(), flush=True)")
            )
            await second.until(1)
            came = time.time() - (time.perf_counter() - second.last)
            await running
            answer = await client.get(
                "/api/datastore/tables/outputs",
                params={"kernel_id": kernel_id, "limit": 10_000, "columns": "text"},
            )
            printed = float(answer.json()["records"][-1]["text"].split()[1])
            times.append(1000 * (came - printed))
        lines.append(
            (
                "a kernel's print to a second client",
                f"p50 {percentile(times, 0.5):.1f} ms, p99 {percentile(times, 0.99):.1f} ms",
            )
        )
        count = 10_000
        second.expect(b'"output_type" : "display_data"')
        begun = time.perf_counter()
        await run(
            "from IPython.display import HTML, display\n"
            f"for i in range({count}): display(HTML('<b>x</b>'))"
        )
        await second.until(count)
        lines.append(
            ("output rows/s, recorded and delivered", f"{count / (second.last - begun):.0f}")
        )
        say("kernel that need not work")
        second.expect(b'"output_type" : "display_data"')
        begun = time.perf_counter()
        await run(_SAID_AGAIN % count)
        with contextlib.suppress(TimeoutError):
            await second.until(count, seconds=5)
        lines.append(
            (
                "the same of a kernel that sends one message again and again",
                f"{second.seen / (second.last - begun):.0f}; {second.seen} of {count} arrived",
            )
        )
        second.close()
        await client.delete(f"/api/kernels/{kernel_id}")
    return lines


# Each display costs ipykernel more than it costs the server. At most 20,000 a second: what is sent
# much faster than it is read, a kernel's socket drops.
_SAID_AGAIN = """
import threading, time
kernel = get_ipython().kernel
content = {"data": {"text/html": "<b>x</b>", "text/plain": "x"}, "metadata": {}, "transient": {}}
message = kernel.session.msg("display_data", content, parent=kernel.get_parent("shell"))
frames = kernel.session.serialize(message, ident=b"display_data")
said = threading.Event()
def say():
    for number in range(%d):
        kernel.iopub_thread.socket.send_multipart(frames)
        if number %% 100 == 99:
            time.sleep(0.005)
    said.set()
kernel.iopub_thread.schedule(say)
said.wait()
"""


async def rows(server: Server, sql: Any, say: Callable[[str], None]) -> list[tuple[str, ...]]:
    """Inserted rows a second that reach a subscriber, from one writer that commits 100 at once."""
    say("rows")
    folder = uuid.uuid4().hex
    one = await subscriber(server, {"table": "contents", "where": {"path_prefix": folder}})
    one.expect(b'"op":"upsert"')
    count = 20_000
    begun = time.perf_counter()
    for number in range(0, count, 100):
        await sql.execute(
            "INSERT INTO contents (id, path, name, type, size)"
            " SELECT gen_random_uuid(), $1 || '/' || n, 'n', 'file', 0"
            " FROM generate_series($2::int, $2::int + 99) n",
            folder,
            number,
        )
    written = time.perf_counter() - begun
    await one.until(count)
    one.close()
    return [
        (
            "inserted rows/s, 100 a commit: committed; delivered to a subscriber",
            f"{count / written:.0f}; {count / (one.last - begun):.0f}",
        )
    ]


async def writers(server: Server, sql: Any, say: Callable[[str], None]) -> list[tuple[str, ...]]:
    """Commits a second of 16 writers that insert outputs: without the feed, with both bells."""
    lines = []
    follower = await subscriber(server, {"table": "comm_messages"})
    for slow in (False, True):
        # commit_delay makes each flush of the WAL wait, as a slow disk does.
        await sql.execute(f"ALTER SYSTEM SET commit_delay = {3_000 if slow else 0}")
        await sql.execute(f"ALTER SYSTEM SET commit_siblings = {0 if slow else 5}")
        await sql.execute("SELECT pg_reload_conf()")
        rates: dict[str, list[float]] = {"off": [], "doorbell": [], "NOTIFY": []}
        costs: dict[str, list[float]] = {mode: [] for mode in rates}
        for attempt in range(4):
            for mode, found in rates.items():
                say(f"16 writers, {'slow' if slow else 'this'} disk, {mode}")
                rate, cost = await _commits(server, sql, mode, 1.5)
                if attempt:
                    found.append(rate)
                    costs[mode].append(cost)
        off = statistics.median(rates["off"])
        least = statistics.median(costs["off"])
        disk = "flush slowed by 3 ms" if slow else "this disk"
        lines.append(
            (
                f"commits/s of 16 writers, {disk}, without triggers",
                f"{off:.0f}; {least:.0f} us of all processors each",
            )
        )
        for mode in ("doorbell", "NOTIFY"):
            rate, cost = statistics.median(rates[mode]), statistics.median(costs[mode])
            lines.append(
                (
                    f"commits/s of 16 writers, {disk}, triggers and {mode}",
                    f"{rate:.0f} ({100 * rate / off:.0f} %); {cost:.0f} us"
                    f" ({100 * least / cost:.0f} % as many for the same)",
                )
            )
    await sql.execute("ALTER SYSTEM RESET commit_delay")
    await sql.execute("ALTER SYSTEM RESET commit_siblings")
    await sql.execute("SELECT pg_reload_conf()")
    follower.close()
    return lines


async def _commits(server: Server, sql: Any, mode: str, seconds: float) -> tuple[float, float]:
    """Commits a second, each a transaction of ten inserted rows; and processor time for each in us.

    The time is the server's, PostgreSQL's and this process's: what others do at the same time
    changes it less than how many commits there are.
    """
    await sql.execute(
        f"ALTER TABLE contents {'DISABLE' if mode == 'off' else 'ENABLE'} TRIGGER USER"
    )
    settings = {"datastore.doorbell": "server"} if mode == "doorbell" else {}
    connections = [
        await asyncpg.connect(server.database_url, server_settings=settings)
        for _ in range(_WRITERS)
    ]
    bell = asyncio.create_task(_ring(server, mode))
    end = time.perf_counter() + seconds

    async def write(connection: Any) -> int:
        count = 0
        insert = await connection.prepare(
            "INSERT INTO contents (id, path, name, type, size)"
            " SELECT i, i::text, 'n', 'file', 0"
            " FROM (SELECT gen_random_uuid() FROM generate_series(1, 10)) AS new (i)"
        )
        while time.perf_counter() < end:
            await insert.fetch()
            count += 1
        return count

    begun, used = time.perf_counter(), _processor_seconds(server)
    counts = await asyncio.gather(*(write(connection) for connection in connections))
    elapsed, spent = time.perf_counter() - begun, _processor_seconds(server) - used
    bell.cancel()
    for connection in connections:
        await connection.close()
    await sql.execute("ALTER TABLE contents DISABLE TRIGGER USER")
    await sql.execute("DELETE FROM contents WHERE name = 'n'")
    await sql.execute("ALTER TABLE contents ENABLE TRIGGER USER")
    return sum(counts) / elapsed, 1e6 * spent / sum(counts)


def _processor_seconds(server: Server) -> float:
    """What the server, its PostgreSQL and this process have used so far."""
    process = psutil.Process(server.pid)
    used = 0.0
    for each in (psutil.Process(), process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            used += sum(each.cpu_times()[:2])
    return used


async def _ring(server: Server, mode: str) -> None:
    """Ring as the server does after commits, every few milliseconds."""
    if mode != "doorbell":
        return
    connection = await asyncpg.connect(
        server.database_url, server_settings={"synchronous_commit": "off"}
    )
    try:
        while True:
            await connection.execute("SELECT pg_notify('datastore_changes', '')")
            await asyncio.sleep(0.003)
    finally:
        connection.terminate()


_MEASURES: dict[str, Callable[..., Awaitable[list[tuple[str, ...]]]]] = {
    "latency": latency,
    "routing": routing,
    "kernel": kernel,
    "rows": rows,
    "writers": writers,
}


async def _run(kinds: tuple[str, ...], progress: Console) -> list[tuple[str, ...]]:
    def say(text: str) -> None:
        progress.print(f"[dim]{text}[/dim]", highlight=False)

    lines: list[tuple[str, ...]] = []
    with Server(_SOURCE, dict(os.environ)) as server:
        sql = await asyncpg.connect(server.database_url)
        for kind in kinds:
            lines += await _MEASURES[kind](server, sql, say)
        await sql.close()
    return lines


@click.command()
@click.option(
    "--only", type=click.Choice(_KINDS), multiple=True, help="Measure this only; may be repeated."
)
def main(only: tuple[str, ...]) -> None:
    """Measure the change feed; prints a table."""
    with interruptible(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        load = os.getloadavg()[0]
        lines = runner.run(_run(only or _KINDS, Console(stderr=True)))
    table = Table("measured", "result", title=f"load before: {load:.1f}, {os.cpu_count()} CPUs")
    for line in lines:
        table.add_row(*line)
    Console().print(table)


if __name__ == "__main__":
    main()
