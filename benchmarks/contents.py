"""`python -m benchmarks.contents`: the contents API and kernel starts beside jupyter_server.

Both servers run at once, in turns, each on its own folder with the same files: a folder of 500
files is listed, a 10 MB notebook is read and written, by one client and by 16 at once, and kernels
are started until they have answered. Every answer is compared with what was asked for, or the
benchmark ends with an error.
"""

import asyncio
import gc
import json
import os
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
import httpx
import psutil
import uvloop
from nbformat.v4 import new_code_cell, new_notebook, new_output
from rich.console import Console
from rich.table import Table

from benchmarks.channels import Front
from benchmarks.report import percentile
from benchmarks.server import Server, interruptible
from benchmarks.stock import StockServer

_SOURCE = Path(__file__).resolve().parent.parent
_FILES = 500
_CELLS = 100
_CELL_BYTES = 100_000
_AT_ONCE = 16
_NAMES = ("ours", "jupyter_server")
# Rewritten by each write, so that there is something to save.
_NUMBER = "the number of the write"


def notebook(number: int) -> dict[str, Any]:
    """Return a notebook of about 10 MB: many cells, each with one long output."""
    cells = [
        new_code_cell(
            f"print({index})",
            id=f"cell-{index}",
            outputs=[new_output("stream", name="stdout", text="x" * _CELL_BYTES)],
        )
        for index in range(_CELLS)
    ]
    made = new_notebook(cells=cells, metadata={_NUMBER: number})
    return dict(json.loads(json.dumps(made)))


@dataclass
class Side:
    """One server, a client of it, and how often its notebook was written."""

    name: str
    pid: int
    port: int
    token: str
    http: httpx.AsyncClient
    writes: int = 0
    kernels: list[str] = field(default_factory=list)

    async def list_folder(self) -> None:
        """List the folder of many files."""
        answer = await self.http.get("/api/contents/folder")
        if len(answer.raise_for_status().json()["content"]) != _FILES:
            raise RuntimeError(f"{self.name}: not all files are listed")

    async def read(self) -> None:
        """Read the notebook."""
        answer = await self.http.get("/api/contents/large.ipynb")
        # What reading JSON costs the client is not the server's.
        if len(answer.raise_for_status().content) < _CELLS * _CELL_BYTES:
            raise RuntimeError(f"{self.name}: the notebook is not whole")

    async def write(self, body: bytes) -> None:
        """Save the notebook."""
        (await self.http.put("/api/contents/large.ipynb", content=body)).raise_for_status()

    def body(self) -> bytes:
        """Return what the next write sends; made before the clock starts."""
        self.writes += 1
        content = notebook(self.writes)
        return json.dumps({"type": "notebook", "format": "json", "content": content}).encode()

    async def start_kernel(self) -> None:
        """Start a kernel and run `1` on it."""
        answer = await self.http.post("/api/kernels", json={"name": "python3"})
        kernel_id = answer.raise_for_status().json()["id"]
        front = await Front.open(self.name, self.port, self.token, kernel_id)
        await front.run("1")
        await front.close()
        self.kernels.append(kernel_id)

    async def stop_kernels(self) -> None:
        """End what was started."""
        while self.kernels:
            (await self.http.delete(f"/api/kernels/{self.kernels.pop()}")).raise_for_status()


class Measurement:
    """All samples, in seconds by line and side; and resident memory in MB."""

    def __init__(self, sides: list[Side], say: Callable[[str], None]) -> None:
        self.sides = sides
        self.samples: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.rss: dict[str, dict[str, float]] = defaultdict(dict)
        self._say = say

    async def run(self, rounds: int) -> None:
        """Measure everything, the sides taking turns."""
        for number in range(rounds):
            self._say(f"round {number + 1} of {rounds}")
            for side in self.sides if number % 2 else self.sides[::-1]:
                for _ in range(5):
                    await self._time(side, f"list a folder of {_FILES} files", side.list_folder)
                await self._time(side, "read a notebook of 10 MB", side.read)
                body = side.body()
                await self._time(side, "write a notebook of 10 MB", partial(side.write, body))
                await self._time(
                    side, f"{_AT_ONCE} clients list it at once", _at_once(side.list_folder)
                )
                await self._time(
                    side, f"{_AT_ONCE} clients read the notebook at once", _at_once(side.read)
                )
                await self._time(side, "start a kernel until it has run `1`", side.start_kernel)
                await side.stop_kernels()

    async def _time(self, side: Side, line: str, work: Callable[[], Awaitable[object]]) -> None:
        gc.collect()
        start = time.perf_counter()
        await work()
        self.samples[line][side.name].append(time.perf_counter() - start)

    def remember_rss(self, when: str) -> None:
        """Note the resident memory of the servers."""
        for side in self.sides:
            self.rss[when][side.name] = psutil.Process(side.pid).memory_info().rss / 1e6


def _at_once(work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[object]]:
    return lambda: asyncio.gather(*(work() for _ in range(_AT_ONCE)))


def _fill(root: Path) -> None:
    folder = root / "folder"
    folder.mkdir()
    for number in range(_FILES):
        (folder / f"file-{number}.txt").write_text("x")
    (root / "large.ipynb").write_text(json.dumps(notebook(0)))


async def _run(source: Path, rounds: int, say: Callable[[str], None]) -> Measurement:
    env = {**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    async with AsyncExitStack() as stack:
        say("starting")
        ours = stack.enter_context(Server(source, env))
        stock = stack.enter_context(StockServer(env))
        sides = []
        for name, server in zip(_NAMES, (ours, stock), strict=True):
            _fill(server.root_dir)
            http = httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{server.port}",
                headers={"Authorization": f"token {server.token}"},
                timeout=120,
            )
            await stack.enter_async_context(http)
            sides.append(Side(name, server.pid, server.port, server.token, http))
        found = Measurement(sides, say)
        found.remember_rss("resident memory, idle, MB")
        for side in sides:
            await side.list_folder()
            await side.read()
        await found.run(rounds)
        found.remember_rss("resident memory, after all, MB")
        for complaint in ours.complaints():
            say(f"the server logged: {complaint}")
    return found


def _print(console: Console, found: Measurement) -> None:
    table = Table(title="Contents and kernel starts, medians in milliseconds")
    for heading in ("", *_NAMES, "ratio", "n"):
        table.add_column(heading, justify="right" if heading else "left")
    for line, samples in found.samples.items():
        ours, stock = (percentile(samples[name], 0.5) * 1000 for name in _NAMES)
        count = str(len(samples["ours"]))
        table.add_row(line, f"{ours:,.1f}", f"{stock:,.1f}", f"{ours / stock:.2f}", count)
    for when, rss in found.rss.items():
        values = [f"{rss[name]:.0f}" for name in _NAMES]
        table.add_row(when, *values, f"{rss['ours'] / rss['jupyter_server']:.2f}", "")
    console.print(table)


@click.command()
@click.option("--rounds", default=10, show_default=True, help="Rounds of each line.")
@click.option(
    "--source",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=_SOURCE,
    help="The server's source, to compare two.  [default: this one]",
)
def main(rounds: int, source: Path) -> None:
    """Measure this server's contents API beside jupyter_server's; prints a table."""
    progress = Console(stderr=True)

    def say(text: str) -> None:
        progress.print(f"[dim]{text}[/dim]", highlight=False)

    with interruptible(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(_run(source.resolve(), rounds, say))
    console = Console(width=110)
    console.print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    _print(console, found)


if __name__ == "__main__":
    main()
