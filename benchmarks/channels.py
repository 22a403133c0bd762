"""`python -m benchmarks.channels`: kernels' websockets beside jupyter_server's and bare sockets.

All sides run in one process run, in turns, each on a kernel of its own. The websocket sides have
the same client (`websockets`, v1 framing, uvloop, no compression) in this process; bare is
jupyter_client's own sockets. Everything that is sent must be received, or the benchmark ends with
an error; of this server the rows are compared too, after the clock has been stopped.
"""

import asyncio
import gc
import json
import os
import struct
import time
import uuid
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import click
import httpx
import psutil
import uvloop
from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.bare import BareKernel
from benchmarks.report import percentile
from benchmarks.server import Server, interruptible
from benchmarks.stock import StockServer

_SOURCE = Path(__file__).resolve().parent.parent
_V1 = "v1.kernel.websocket.jupyter.org"
_QUEUED = 200
_PRINTS = 20_000
_DISPLAYS = 6_000
_BYTES = 20_000_000
_CLIENTS = (1, 20, 100)
_OUTPUTS = {
    "prints": f"for i in range({_PRINTS}): print(i)",
    "displays": (
        "from IPython.display import HTML, display\n"
        f"for i in range({_DISPLAYS}): display(HTML('<b>x</b>'))"
    ),
    "bytes": f"print('x' * {_BYTES})",
}
_EXPECTED = {
    "prints": sum(len(str(i)) + 1 for i in range(_PRINTS)),
    "displays": _DISPLAYS,
    "bytes": _BYTES + 1,
}
_KINDS = ("round-trips", "queued", *_OUTPUTS, "clients")
Message = tuple[str, str, str, bytes]  # channel, type, id of the parent, content


def _content(code: str) -> dict[str, Any]:
    return {
        "code": code, "silent": False, "store_history": True, "user_expressions": {},
        "allow_stdin": True, "stop_on_error": True,
    }  # fmt: skip


class Side(ABC):
    """One way to a kernel."""

    name: str

    @abstractmethod
    async def send(self, code: str) -> str:
        """Send an execute_request; return its id."""

    @abstractmethod
    async def receive(self) -> Message:
        """Return the next message of any channel."""

    async def until_done(self, msg_id: str) -> tuple[float, float, list[Message]]:
        """Return when the reply and `idle` were here, and all messages up to then."""
        messages = []
        replied = idle = 0.0
        while not (replied and idle):
            message = await self.receive()
            messages.append(message)
            channel, kind, parent, content = message
            if parent != msg_id:
                continue
            if channel == "shell":
                replied = time.perf_counter()
            elif kind == "status" and b'"idle"' in content:
                idle = time.perf_counter()
        return replied, idle, messages

    async def run(self, code: str) -> tuple[float, float, list[Message]]:
        """Run code; return the seconds until the reply and until `idle`, and all messages."""
        start = time.perf_counter()
        replied, idle, messages = await self.until_done(await self.send(code))
        return replied - start, idle - start, messages


class Bare(Side):
    """jupyter_client's own sockets."""

    name = "bare"

    def __init__(self, kernel: BareKernel) -> None:
        self._kernel = kernel
        self._arrived: asyncio.Queue[Message] = asyncio.Queue()
        self._tasks = [
            asyncio.create_task(self._read("shell", kernel._shell)),
            asyncio.create_task(self._read("iopub", kernel._iopub)),
        ]

    async def _read(self, channel: str, socket: Any) -> None:
        while True:
            message = await self._kernel._receive(socket)
            # As its users have it: parsed. The content is kept as JSON would be, for `check`.
            parent = message["parent_header"].get("msg_id", "")
            content = message["content"]
            text = b'"idle"' if content.get("execution_state") == "idle" else b""
            self._arrived.put_nowait((channel, message["msg_type"], parent, text or content))

    async def send(self, code: str) -> str:
        session = self._kernel._manager.session
        message = session.msg("execute_request", _content(code))
        await self._kernel._shell.send_multipart(session.serialize(message))
        return str(message["header"]["msg_id"])

    async def receive(self) -> Message:
        return await self._arrived.get()

    def close(self) -> None:
        """End the readers."""
        for task in self._tasks:
            task.cancel()


class Front(Side):
    """A websocket of a server."""

    def __init__(self, name: str, connection: ClientConnection) -> None:
        self.name = name
        self._connection = connection
        self._session = uuid.uuid4().hex

    @classmethod
    async def open(cls, name: str, port: int, token: str, kernel_id: str) -> "Front":
        """Connect to a kernel."""
        url = f"ws://127.0.0.1:{port}/api/kernels/{kernel_id}/channels"
        connection = await connect(
            f"{url}?session_id={uuid.uuid4()}",
            subprotocols=[_V1],
            additional_headers={"Authorization": f"token {token}"},
            compression=None,
            max_size=None,
            max_queue=None,
        )
        return cls(name, connection)

    async def close(self) -> None:
        """Disconnect."""
        await self._connection.close()

    async def send(self, code: str) -> str:
        msg_id = uuid.uuid4().hex
        header = {
            "msg_id": msg_id, "msg_type": "execute_request", "session": self._session,
            "username": "benchmark", "version": "5.4", "date": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        parts = [b"shell", *(json.dumps(p).encode() for p in (header, {}, {}, _content(code)))]
        offsets = [8 * (len(parts) + 2)]
        for part in parts:
            offsets.append(offsets[-1] + len(part))
        head = struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets)
        await self._connection.send(head + b"".join(parts))
        return msg_id

    async def receive(self) -> Message:
        frame = await self._connection.recv()
        assert isinstance(frame, bytes)
        (count,) = struct.unpack_from("<Q", frame)
        at = struct.unpack_from(f"<{count}Q", frame, 8)
        header, parent = json.loads(frame[at[1] : at[2]]), json.loads(frame[at[2] : at[3]])
        channel = frame[at[0] : at[1]].decode()
        return channel, header["msg_type"], parent.get("msg_id", ""), frame[at[4] : at[5]]


def _amount(kind: str, messages: list[Message]) -> int:
    """Return how many displays, or characters of the stream, have been received."""
    if kind == "displays":
        return sum(message[1] == "display_data" for message in messages)
    contents = [message[3] for message in messages if message[1] == "stream"]
    return sum(len((json.loads(c) if isinstance(c, bytes) else c)["text"]) for c in contents)


class Measurement:
    """All samples, in seconds by line and side."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.samples: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.rss: dict[str, dict[str, float]] = defaultdict(dict)
        self._say = say

    async def round_trips(self, sides: list[Side], count: int) -> None:
        """Measure `1+1` in blocks, the sides taking turns."""
        for number in range(10):
            self._say(f"round trips, block {number + 1} of 10")
            for side in _turned(sides, number):
                gc.collect()
                for _ in range(count // 10):
                    reply, idle, _messages = await side.run("1+1")
                    self.samples["1+1 to reply"][side.name].append(reply)
                    self.samples["1+1 to idle"][side.name].append(idle)

    async def queued(self, sides: list[Side], rounds: int) -> None:
        """Measure many executions sent at once, until all is said."""
        for number in range(rounds):
            self._say(f"queued, round {number + 1} of {rounds}")
            for side in _turned(sides, number):
                start = time.perf_counter()
                ids = [await side.send("1+1") for _ in range(_QUEUED)]
                *_, messages = await side.until_done(ids[-1])
                self.samples[f"{_QUEUED} queued"][side.name].append(time.perf_counter() - start)
                replies = [m[2] for m in messages if m[0] == "shell"]
                if replies != ids:
                    raise RuntimeError(f"{side.name}: {len(replies)} replies of {_QUEUED}")

    async def outputs(self, sides: list[Side], kind: str, rounds: int) -> None:
        """Measure a large output."""
        for number in range(rounds):
            self._say(f"{kind}, round {number + 1} of {rounds}")
            for side in _turned(sides, number):
                gc.collect()
                *times, messages = await side.run(_OUTPUTS[kind])
                self.samples[_LABELS[kind]][side.name].append(max(times))
                amount = _amount(kind, messages)
                if amount != _EXPECTED[kind]:
                    raise RuntimeError(f"{side.name}: {amount} of {_EXPECTED[kind]} {kind}")

    async def audience(self, name: str, port: int, token: str, kernel_id: str, rounds: int) -> None:
        """Measure until all of many clients of one kernel have seen `idle`."""
        for count in _CLIENTS:
            self._say(f"{count} clients of {name}")
            fronts = [await Front.open(name, port, token, kernel_id) for _ in range(count)]
            for number in range(rounds + 3):
                gc.collect()
                start = time.perf_counter()
                msg_id = await fronts[0].send("1+1")
                await asyncio.gather(*(_idle(front, msg_id) for front in fronts))
                if number >= 3:
                    line = f"{count} clients all see idle"
                    self.samples[line][name].append(time.perf_counter() - start)
            for front in fronts:
                await front.close()

    def remember_rss(self, name: str, when: str, pid: int) -> None:
        """Note the resident memory of a server."""
        self.rss[when][name] = psutil.Process(pid).memory_info().rss / 1e6


_LABELS = {
    "prints": f"{_PRINTS:,} prints",
    "displays": f"{_DISPLAYS:,} displays",
    "bytes": "20 MB printed",
}


async def _idle(front: Front, msg_id: str) -> None:
    """Wait for `idle`, with as little work of the client's own as can be."""
    wanted = msg_id.encode()
    while True:
        frame = await front._connection.recv()
        if b'"idle"' in frame[-100:] and wanted in frame:
            return


def _turned(sides: list[Side], number: int) -> list[Side]:
    first = number % len(sides)
    return sides[first:] + sides[:first]


async def _kernel(port: int, token: str) -> str:
    headers = {"Authorization": f"token {token}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as http:
        answer = await http.post("/api/kernels", json={"name": "python3"}, timeout=60)
        return str(answer.raise_for_status().json()["id"])


async def _run(
    source: Path,
    kinds: tuple[str, ...],
    rounds: int,
    round_trips: int,
    say: Callable[[str], None],
) -> Measurement:
    found = Measurement(say)
    env = {**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    async with AsyncExitStack() as stack:
        say("starting")
        ours = stack.enter_context(Server(source, env))
        say(f"this server's process is {ours.pid}")
        stock = stack.enter_context(StockServer(env))
        for name, server in (("ours", ours), ("jupyter_server", stock)):
            found.remember_rss(name, "resident memory, idle, MB", server.pid)
        kernel = await BareKernel.start(env, str(source))
        stack.push_async_callback(kernel.stop)
        bare = Bare(kernel)
        stack.callback(bare.close)
        sides: list[Side] = [bare]
        ids = {}
        for name, server in (("ours", ours), ("jupyter_server", stock)):
            ids[name] = await _kernel(server.port, server.token)
            front = await Front.open(name, server.port, server.token, ids[name])
            stack.push_async_callback(front.close)
            sides.append(front)
        for side in sides:
            for _ in range(20):
                await side.run("1+1")
        await _measure(found, sides, kinds, rounds, round_trips)
        if "clients" in kinds:
            for name, server in (("ours", ours), ("jupyter_server", stock)):
                await found.audience(name, server.port, server.token, ids[name], 40)
        await _require_recorded(ours, say)
        for name, server in (("ours", ours), ("jupyter_server", stock)):
            found.remember_rss(name, "resident memory, after all, MB", server.pid)
        for complaint in ours.complaints():
            say(f"the server logged: {complaint}")
    return found


async def _measure(
    found: Measurement, sides: list[Side], kinds: tuple[str, ...], rounds: int, round_trips: int
) -> None:
    if "round-trips" in kinds:
        await found.round_trips(sides, round_trips)
    if "queued" in kinds:
        await found.queued(sides, rounds)
    for kind in _OUTPUTS:
        if kind in kinds:
            await found.outputs(sides, kind, rounds)


async def _require_recorded(server: Server, say: Callable[[str], None]) -> None:
    """Raise unless the rows have all that was said, however long recording takes."""
    sql = await asyncpg.connect(server.database_url)
    try:
        start = time.perf_counter()
        while await sql.fetchval("SELECT count(*) FROM executions WHERE finished_at IS NULL"):
            await asyncio.sleep(0.01)
        say(f"recorded {time.perf_counter() - start:.1f} s after the last message")
        for kind, code in _OUTPUTS.items():
            wrong = await sql.fetch(
                "SELECT e.id FROM executions e LEFT JOIN outputs o ON o.execution_id = e.id"
                " WHERE e.code = $1 GROUP BY e.id HAVING e.status <> 'ok' OR $2 <>"
                " CASE WHEN $3 THEN count(o.id) ELSE sum(length(o.text)) END",
                code, _EXPECTED[kind], kind == "displays",
            )  # fmt: skip
            if wrong:
                raise RuntimeError(f"{len(wrong)} runs of {kind} are not recorded whole")
    finally:
        await sql.close()


def _print(console: Console, found: Measurement) -> None:
    table = Table(title="Kernels' messages, milliseconds")
    sides = ("bare", "ours", "jupyter_server")
    for heading in ("", *sides, "ours / bare", "ours / jupyter_server"):
        table.add_column(heading, justify="right" if heading else "left")
    for line, samples in found.samples.items():
        shares = ((0.5, "p50"), (0.99, "p99")) if len(samples["ours"]) >= 40 else ((0.5, "p50"),)
        for share, label in shares:
            values = {name: percentile(s, share) * 1000 for name, s in samples.items()}
            ratios = [
                f"{values['ours'] / values[other]:.2f}" if other in values else ""
                for other in ("bare", "jupyter_server")
            ]
            cells = [f"{values[side]:,.1f}" if side in values else "" for side in sides]
            table.add_row(f"{line}, {label}", *cells, *ratios)
    for when, rss in found.rss.items():
        table.add_row(when, "", f"{rss['ours']:.0f}", f"{rss['jupyter_server']:.0f}", "", "")
    console.print(table)


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Rounds of the large outputs.")
@click.option("--round-trips", default=400, show_default=True, help="How many `1+1` of each side.")
@click.option(
    "--only", type=click.Choice(_KINDS), multiple=True, help="Measure this only; may be repeated."
)
@click.option(
    "--source",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=_SOURCE,
    help="The server's source, to compare two.  [default: this one]",
)
def main(rounds: int, round_trips: int, only: tuple[str, ...], source: Path) -> None:
    """Measure this server's kernel websockets; prints a table."""
    progress = Console(stderr=True)

    def say(text: str) -> None:
        progress.print(f"[dim]{text}[/dim]", highlight=False)

    with interruptible(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(_run(source.resolve(), only or _KINDS, rounds, round_trips, say))
    load = os.getloadavg()[0]
    console = Console(width=120)
    console.print(f"{os.cpu_count()} CPUs, load {load:.1f}")
    _print(console, found)


if __name__ == "__main__":
    main()
