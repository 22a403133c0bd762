"""The table and the JSON: medians and tails of the samples, beside the bare ones."""

import math
import statistics
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measure import Samples

AIM_MILLISECONDS = 5.0
AIM_RATIO = 1.3


@dataclass(frozen=True)
class Line:
    """One line of the table; values in seconds."""

    what: str
    bare: float
    ours: float
    count: int

    @property
    def difference(self) -> float:
        """How much longer this server takes."""
        return self.ours - self.bare

    @property
    def ratio(self) -> float:
        """How many times as long this server takes."""
        return self.ours / self.bare


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def round_trip_lines(samples: Samples) -> list[Line]:
    """Return p50 and p99 of each kind of round trip."""
    bare = samples.seconds["round trip, bare"]
    lines = []
    for name, label in (
        ("round trip, code", "1+1, POST until GET ?wait answers"),
        ("round trip, code by SQL", "1+1, POST until SQL sees it finished"),
        ("round trip, cell", "1+1 as a notebook's cell, until GET ?wait answers"),
    ):
        values = samples.seconds[name]
        for share, share_name in ((0.5, "p50"), (0.99, "p99")):
            pair = percentile(bare, share), percentile(values, share)
            lines.append(Line(f"{label}, {share_name}", *pair, len(values)))
    return lines


def streaming_lines(samples: Samples, kind: str, label: str) -> list[Line]:
    """Return the medians of one kind of large output."""
    bare = statistics.median(samples.seconds[f"{kind}, bare"])
    return [
        Line(
            f"{label}{suffix}",
            bare,
            statistics.median(samples.seconds[f"{kind}, {name}"]),
            len(samples.seconds[f"{kind}, {name}"]),
        )
        for name, suffix in (
            ("code", ", committed"),
            ("cell", " of a notebook's cell, committed"),
            ("cell and file", " of a notebook's cell, committed and its file saved"),
        )
    ]


def print_table(console: Console, title: str, lines: list[Line], *, milliseconds: bool) -> None:
    """Print lines; the aim is in the title."""
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    for column in ("bare", "this server", "difference", "ratio", "n"):
        table.add_column(column, justify="right")
    for line in lines:
        times = [line.bare, line.ours, line.difference]
        shown = [f"{t * 1000:.2f} ms" if milliseconds else f"{t:.3f} s" for t in times]
        shown[2] = f"+{shown[2]}" if line.difference >= 0 else shown[2]
        table.add_row(line.what, *shown, f"{line.ratio:.2f}", str(line.count))
    console.print(table)


def as_json(machine: dict[str, Any], lines: list[Line], samples: Samples) -> dict[str, Any]:
    """Return all that was measured; times in seconds."""
    return {
        "machine": machine,
        "lines": [
            {**asdict(line), "difference": line.difference, "ratio": line.ratio} for line in lines
        ],
        "samples": samples.seconds,
    }
