"""The rounds: who is measured when, and what is kept.

Sides take turns within each round and the order turns too, so that a busy moment of the machine
meets all of them. The benchmark's garbage collector rests while it measures; the server's and the
kernels' are as everybody has them.
"""

import gc
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from benchmarks import ours, workloads
from benchmarks.bare import BareKernel
from benchmarks.ours import Notebook, OurKernel

Progress = Callable[[str], None]
Turn = TypeVar("Turn")


@dataclass
class Samples:
    """Seconds by name of what was measured, in the order they were taken."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, value: float) -> None:
        """Keep one measurement."""
        self.seconds[name].append(value)


@dataclass(frozen=True)
class Sides:
    """What is compared: warmed-up kernels of the same environment."""

    bare: BareKernel
    code: OurKernel
    cell: OurKernel
    round_trip: Notebook
    lines: Notebook
    displays: Notebook


async def warm_up(sides: Sides, line_count: int, display_count: int) -> None:
    """Run each kind of code on every side."""
    for _ in range(2):
        await sides.bare.run(workloads.WARM_UP)
        await sides.code.committed(workloads.WARM_UP)
        await sides.cell.committed(workloads.WARM_UP)
    for _ in range(20):
        await sides.bare.round_trip()
        await sides.code.round_trip()
        await sides.cell.round_trip(sides.round_trip)
    await _lines_of_cell(sides, Samples(), line_count)
    await _displays_of_cell(sides, Samples(), display_count)
    await sides.cell.saved(sides.round_trip)


async def measure_round_trips(
    sides: Sides, samples: Samples, rounds: int, block: int, progress: Progress
) -> None:
    """Measure `rounds` blocks of `block` round trips of each side."""
    turns: list[tuple[str, Callable[[], Awaitable[None]]]] = [
        ("round trip, bare", sides.bare.round_trip),
        ("round trip, code", sides.code.round_trip),
        ("round trip, code by SQL", sides.code.round_trip_by_sql),
        ("round trip, cell", lambda: sides.cell.round_trip(sides.round_trip)),
    ]
    for number in range(rounds):
        progress(f"round trips, round {number + 1} of {rounds}")
        for name, once in _turned(turns, number):
            with _resting_collector():
                for _ in range(block):
                    start = time.perf_counter()
                    await once()
                    samples.add(name, time.perf_counter() - start)
            # The cell's file is saved after its block, not during another side's.
            await sides.cell.saved(sides.round_trip)


async def measure_lines(
    sides: Sides, samples: Samples, rounds: int, count: int, progress: Progress
) -> None:
    """Measure `rounds` times the printing of `count` lines on each side."""

    async def bare() -> None:
        start = time.perf_counter()
        await sides.bare.lines(count)
        samples.add("lines, bare", time.perf_counter() - start)

    async def code() -> None:
        start = time.perf_counter()
        execution_id = await sides.code.committed(workloads.lines_code(count))
        samples.add("lines, code", time.perf_counter() - start)
        await sides.code.require_lines(execution_id, count)
        samples.add("lines, answer", await sides.code.answer_seconds(execution_id))

    async def cell() -> None:
        await _lines_of_cell(sides, samples, count)

    for number in range(rounds):
        progress(f"lines, round {number + 1} of {rounds}")
        for once in _turned([bare, code, cell], number):
            with _resting_collector():
                await once()


async def _lines_of_cell(sides: Sides, samples: Samples, count: int) -> None:
    start = time.perf_counter()
    execution_id = await sides.cell.committed(sides.lines)
    samples.add("lines, cell", time.perf_counter() - start)
    await sides.cell.saved(sides.lines)
    samples.add("lines, cell and file", time.perf_counter() - start)
    await sides.cell.require_lines(execution_id, count)
    await sides.cell.require_shown(execution_id)
    ours.require_lines_in_file(sides.lines, count)


async def measure_displays(
    sides: Sides, samples: Samples, rounds: int, count: int, progress: Progress
) -> None:
    """Measure `rounds` times the showing of `count` displays on each side."""

    async def bare() -> None:
        start = time.perf_counter()
        await sides.bare.displays(count)
        samples.add("displays, bare", time.perf_counter() - start)

    async def code() -> None:
        start = time.perf_counter()
        execution_id = await sides.code.committed(workloads.displays_code(count))
        samples.add("displays, code", time.perf_counter() - start)
        await sides.code.require_displays(execution_id, count)
        samples.add("displays, answer", await sides.code.answer_seconds(execution_id))

    async def cell() -> None:
        await _displays_of_cell(sides, samples, count)

    for number in range(rounds):
        progress(f"displays, round {number + 1} of {rounds}")
        for once in _turned([bare, code, cell], number):
            with _resting_collector():
                await once()


async def _displays_of_cell(sides: Sides, samples: Samples, count: int) -> None:
    start = time.perf_counter()
    execution_id = await sides.cell.committed(sides.displays)
    samples.add("displays, cell", time.perf_counter() - start)
    await sides.cell.saved(sides.displays)
    samples.add("displays, cell and file", time.perf_counter() - start)
    await sides.cell.require_displays(execution_id, count)
    await sides.cell.require_shown(execution_id)
    ours.require_displays_in_file(sides.displays, count)


def _turned(turns: list[Turn], number: int) -> list[Turn]:
    first = number % len(turns)
    return turns[first:] + turns[:first]


@contextmanager
def _resting_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
