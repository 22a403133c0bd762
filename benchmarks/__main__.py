"""`python -m benchmarks`: this server beside bare jupyter_client, on this machine, in one run."""

import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import click
import uvloop
from rich.console import Console

from benchmarks import measure, report, workloads
from benchmarks.bare import BareKernel
from benchmarks.http import Connection, overhead_seconds
from benchmarks.measure import Samples, Sides
from benchmarks.ours import Notebook, OurKernel
from benchmarks.server import DURABILITY, Server, interruptible

_SOURCE = Path(__file__).resolve().parent.parent
_KINDS = ("round-trips", "lines", "displays")


@click.command()
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write all samples to this file.",
)
@click.option(
    "--only", type=click.Choice(_KINDS), multiple=True, help="Measure this only; may be repeated."
)
@click.option("--rounds", default=5, show_default=True, help="Rounds of the large outputs.")
@click.option("--round-trips", default=400, show_default=True, help="How many `1+1` of each kind.")
@click.option(
    "--source",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=_SOURCE,
    help="The server's source, to compare two.  [default: this one]",
)
def main(
    json_file: Path | None, only: tuple[str, ...], rounds: int, round_trips: int, source: Path
) -> None:
    """Measure this server beside bare jupyter_client; prints a table."""
    kinds = only or _KINDS
    console = Console()
    progress = Console(stderr=True)
    try:
        with interruptible(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(_run(source.resolve(), kinds, rounds, round_trips, progress))
    except KeyboardInterrupt:
        progress.print("Interrupted; everything was put away.")
        sys.exit(130)
    machine, samples = result
    lines = _print(console, machine, samples, kinds)
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_json(machine, lines, samples), indent=1))


async def _run(
    source: Path, kinds: tuple[str, ...], rounds: int, round_trips: int, progress: Console
) -> tuple[dict[str, Any], Samples]:
    samples = Samples()

    def say(text: str) -> None:
        progress.print(f"[dim]{text}[/dim]", highlight=False)

    say("starting the server and the kernels")
    before = os.getloadavg()
    async with _sides(source) as (server, http, sql, sides):
        machine = await _machine(server, http, sql, before)
        say("warming up")
        await measure.warm_up(sides, workloads.LINES, workloads.DISPLAYS)
        if "round-trips" in kinds:
            blocks = max(1, min(10, round_trips // 20))
            block = -(-round_trips // blocks)
            await measure.measure_round_trips(sides, samples, blocks, block, say)
        if "lines" in kinds:
            await measure.measure_lines(sides, samples, rounds, workloads.LINES, say)
        if "displays" in kinds:
            await measure.measure_displays(sides, samples, rounds, workloads.DISPLAYS, say)
        machine["load_after"] = os.getloadavg()[0]
        machine["complaints"] = server.complaints()
        say("stopping")
    return machine, samples


@asynccontextmanager
async def _sides(
    source: Path,
) -> AsyncIterator[tuple[Server, Connection, "asyncpg.Connection[Any]", Sides]]:
    """Start everything that is compared, and put it away in the end."""
    # What the server gives its kernels too: one environment on both sides.
    env = {**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    async with AsyncExitStack() as stack:
        server = stack.enter_context(Server(source, env))
        http = await Connection.open("127.0.0.1", server.port, server.token)
        stack.push_async_callback(http.close)
        # Planned once: to plan anew at each look takes PostgreSQL longer than to look.
        settings = {"plan_cache_mode": "force_generic_plan"}
        sql = await asyncpg.connect(server.database_url, server_settings=settings)
        stack.push_async_callback(sql.close)
        notebooks = [
            Notebook(server.root_dir, name, code)
            for name, code in (
                ("round-trip", workloads.ROUND_TRIP),
                ("lines", workloads.lines_code(workloads.LINES)),
                ("displays", workloads.displays_code(workloads.DISPLAYS)),
            )
        ]
        bare = await BareKernel.start(env, str(server.root_dir))
        stack.push_async_callback(bare.stop)
        code = await OurKernel.start(http, sql)
        cell = await OurKernel.start_for(http, sql, notebooks[0])
        yield server, http, sql, Sides(bare, code, cell, *notebooks)


async def _machine(
    server: Server, http: Connection, sql: "asyncpg.Connection[Any]", load: tuple[float, ...]
) -> dict[str, Any]:
    """Return what the figures depend on."""
    settings = {name: await sql.fetchval(f"SHOW {name}") for name in DURABILITY}
    answer = await http.request("GET", "/api")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "load_before": load[0],
        "postgresql": await sql.fetchval("SHOW server_version"),
        "settings": settings,
        "http_client_seconds": await overhead_seconds(answer),
        "http_answer_seconds": await _answer_seconds(http),
        "fdatasync_seconds": await asyncio.to_thread(_fdatasync_seconds, server.folder),
        "sql_read_seconds": await _sql_seconds(sql),
    }


async def _answer_seconds(http: Connection) -> float:
    """Return the median time of the server's least answer."""
    times = []
    for _ in range(200):
        start = time.perf_counter()
        await http.request("GET", "/api")
        times.append(time.perf_counter() - start)
    return statistics.median(times)


async def _sql_seconds(sql: "asyncpg.Connection[Any]") -> float:
    """Return the median time of a query that reads nothing."""
    times = []
    for _ in range(200):
        start = time.perf_counter()
        await sql.fetchval("SELECT 1")
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _fdatasync_seconds(folder: Path) -> float:
    """Return the median time of writing one WAL page durably: what a commit cannot undercut."""
    page = b"\0" * 8192
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(page * 64)
        os.fsync(file.fileno())
        times = []
        for number in range(100):
            start = time.perf_counter()
            os.pwrite(file.fileno(), page, number % 64 * 8192)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def _print(
    console: Console, machine: dict[str, Any], samples: Samples, kinds: tuple[str, ...]
) -> list[report.Line]:
    settings = ", ".join(f"{name} {value}" for name, value in machine["settings"].items())
    client, answer, query, write = (
        f"{machine[name] * 1000:.2f} ms"
        for name in (
            "http_client_seconds",
            "http_answer_seconds",
            "sql_read_seconds",
            "fdatasync_seconds",
        )
    )
    console.print(
        f"{machine['cpus']} CPUs, load {machine['load_before']:.1f} before and "
        f"{machine['load_after']:.1f} after; Python {machine['python']}; "
        f"PostgreSQL {machine['postgresql']} ({settings}).\n"
        f"The HTTP client itself costs {client} a request (a constant answer). The server's least "
        f"answer (GET /api) takes {answer}, SELECT 1 {query}, a durable write of 8 kB {write}.",
        highlight=False,
    )
    lines: list[report.Line] = []
    if "round-trips" in kinds:
        found = report.round_trip_lines(samples)
        title = f"Round trips (aim: within {report.AIM_MILLISECONDS:g} ms of bare)"
        report.print_table(console, title, found, milliseconds=True)
        lines += found
    found = []
    if "lines" in kinds:
        found += report.streaming_lines(samples, "lines", f"{workloads.LINES:,} lines")
    if "displays" in kinds:
        found += report.streaming_lines(samples, "displays", f"{workloads.DISPLAYS:,} displays")
    if found:
        title = f"Large outputs, medians (aim: within {report.AIM_RATIO:g} times bare)"
        report.print_table(console, title, found, milliseconds=False)
    for complaint in machine["complaints"]:
        console.print(f"The server logged: {complaint}", style="yellow", highlight=False)
    return lines + found


if __name__ == "__main__":
    main()
