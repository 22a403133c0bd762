"""A day's history as tables: what is in them, for a terminal and for a page alike."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.analytics.day import Day


@dataclass(frozen=True)
class Section:
    """A table with its title; `right` are the columns of numbers, by their place."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    right: frozenset[int]


def seconds(value: float | None) -> str:
    """Return a time as people say it: 0.42 s, 3 min 05 s, 2 h 10 min."""
    if value is None:
        return ""
    if value < 99.5:
        return f"{value:.2f} s" if value < 9.995 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def size(value: int) -> str:
    """Return a number of bytes in the unit that suits it."""
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def count(value: int) -> str:
    """Return a number with its thousands apart."""
    return f"{value:,}"


def text(value: Any) -> str:
    """Return a text on one line."""
    return " ".join(str("" if value is None else value).split())


_Column = tuple[str, str, Callable[[Any], str]]
_SECTIONS: list[tuple[str, str, list[_Column]]] = [
    (
        "People",
        "people",
        [
            ("Person", "person", text),
            ("Executions", "executions", count),
            ("Failed", "failed", count),
            ("Notebooks", "notebooks", count),
            ("Run", "run_seconds", seconds),
            ("Output", "output_bytes", size),
        ],
    ),
    (
        "Notebooks",
        "notebooks",
        [
            ("Notebook", "notebook_path", text),
            ("Executions", "executions", count),
            ("Failed", "failed", count),
            ("Cells", "cells", count),
            ("Run", "run_seconds", seconds),
            ("Output", "output_bytes", size),
        ],
    ),
    (
        "Slowest cells",
        "cells",
        [
            ("Notebook", "notebook_path", text),
            ("Cell", "first_line", text),
            ("Runs", "runs", count),
            ("Slowest", "slowest_seconds", seconds),
            ("Average", "average_seconds", seconds),
        ],
    ),
    (
        "Errors",
        "errors",
        [
            ("Error", "error_name", text),
            ("Raised in", "library", text),
            ("Times", "errors", count),
            ("People", "people", count),
            ("Latest", "latest", text),
        ],
    ),
]


def sections(day: Day) -> Iterator[Section]:
    """Yield the day's tables; one without rows is left out."""
    for title, name, columns in _SECTIONS:
        rows = getattr(day, name)
        if rows:
            yield Section(
                title,
                [heading for heading, _, _ in columns],
                [[show(row[key]) for _, key, show in columns] for row in rows],
                frozenset(i for i, (_, _, show) in enumerate(columns) if show is not text),
            )


_ONE = {
    "executions": "execution",
    "people": "person",
    "notebooks": "notebook",
    "kernels": "kernel",
}


def summary(day: Day) -> list[tuple[str, str]]:
    """Return the day's totals as (what, value)."""
    totals = day.totals
    facts = [
        ("executions", count(totals["executions"])),
        ("ok", count(totals["ok"])),
        ("failed", count(totals["failed"])),
        ("not run", count(totals["not_run"])),
        ("unfinished", count(totals["unfinished"])),
        ("people", count(totals["people"])),
        ("notebooks", count(totals["notebooks"])),
        ("kernels", count(totals["kernels"])),
        ("run time", seconds(float(totals["run_seconds"]))),
        ("output", size(totals["output_bytes"])),
    ]
    return [fact for fact in facts if fact[0] != "unfinished" or totals["unfinished"]]


def print_day(day: Day, console: Console) -> None:
    """Print the day's tables."""
    console.print(f"[bold]{day.begins:%A, %-d %B %Y}[/bold]", highlight=False)
    facts = [
        f"{value} {_ONE.get(what, what) if value == '1' else what}" for what, value in summary(day)
    ]
    console.print("  ".join(facts), highlight=False)
    if day.totals["executions"]:
        console.print(_hours(day), highlight=False)
    for section in sections(day):
        table = Table(title=section.title, title_justify="left", title_style="bold", box=None)
        for place, heading in enumerate(section.columns):
            number = place in section.right
            widest = max(len(row[place]) for row in [section.columns, *section.rows])
            table.add_column(
                heading,
                justify="right" if number else "left",
                no_wrap=True,
                overflow="ellipsis",
                # A number that is cut off is another number.
                min_width=widest if number else None,
            )
        for row in section.rows:
            table.add_row(*(escape(value) for value in row))
        console.print()
        console.print(table)


def _hours(day: Day) -> str:
    """Return a line with a bar for each hour: how many executions were asked for in it."""
    most = max(row["executions"] for row in day.hours) or 1
    bars = "".join(
        " ▁▂▃▄▅▆▇█"[-(-8 * row["executions"] // most)]
        for row in day.hours  # rounded up
    )
    return f"0 h │{bars}│ 24 h, at most {most:,} an hour"
