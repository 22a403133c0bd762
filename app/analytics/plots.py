"""A day's history as plots: SVG made by matplotlib, for a page that needs no network."""

from io import StringIO
from typing import Any

from app.analytics.day import Day
from app.analytics.tables import text

_OK, _FAILED, _OTHER, _LINE, _GRID = "#2f7d6d", "#c8553d", "#b9b4a7", "#3a5a8c", "#dddad2"
_STYLE: Any = {
    "svg.fonttype": "path",  # the same on a machine without these fonts
    "svg.hashsalt": "jupyter-datastore",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8779",
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "xtick.color": "#55534a",
    "ytick.color": "#55534a",
    "axes.axisbelow": True,
}


def plots(day: Day) -> list[str]:
    """Return SVG elements: executions and waiting by hour, slowest cells, errors.

    Raises ImportError without matplotlib (the extra `report`).
    """
    import matplotlib as mpl  # noqa: PLC0415 (an extra, and slow to import)

    with mpl.rc_context(_STYLE):
        made = [_by_hour(day), _waiting(day)]
        if day.cells:
            labels = [f"{text(row['first_line'])}" for row in day.cells]
            values = [row["slowest_seconds"] for row in day.cells]
            made.append(_bars("Slowest cells (seconds)", labels, values, _LINE))
        if day.errors:
            labels = [f"{row['error_name']} · {row['library']}" for row in day.errors]
            values = [row["errors"] for row in day.errors]
            made.append(_bars("Errors, and the library that raised them", labels, values, _FAILED))
    return made


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # noqa: PLC0415

    # Not pyplot's: nothing is kept, no display is looked for.
    figure = Figure(figsize=(7.2, height), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Any) -> str:
    written = StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None}, transparent=True)
    return "<svg" + written.getvalue().split("<svg", 1)[1]


def _hour_axis(axes: Any, day: Day) -> list[float]:
    places = [(row["hour"] - day.begins).total_seconds() / 3600 for row in day.hours]
    axes.set_xlim(-0.6, len(places) - 0.4)
    axes.set_xticks(range(0, len(places), 3))
    axes.set_xlabel("hour of the day")
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    return places


def _by_hour(day: Day) -> str:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    figure, axes = _figure(2.6)
    places = _hour_axis(axes, day)
    below = [0] * len(places)
    for name, color, label in (
        ("ok", _OK, "ok"),
        ("failed", _FAILED, "failed"),
        ("other", _OTHER, "others"),
    ):
        values = [row[name] for row in day.hours]
        axes.bar(places, values, 0.8, bottom=below, color=color, label=label)
        below = [a + b for a, b in zip(below, values, strict=True)]
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("Executions")
    axes.legend(frameon=False, ncols=3, loc="upper right", bbox_to_anchor=(1, 1.16))
    return _svg(figure)


def _waiting(day: Day) -> str:
    figure, axes = _figure(2.6)
    places = _hour_axis(axes, day)
    for name, style, label in (("wait_p95", "-", "95 %"), ("wait_seconds", "--", "average")):
        values = [row[name] if row["executions"] else float("nan") for row in day.hours]
        axes.plot(places, values, style, color=_LINE, marker="o", markersize=3, label=label)
    axes.set_ylim(bottom=0)
    axes.set_title("Seconds from being asked for until running")
    axes.legend(frameon=False, ncols=2, loc="upper right", bbox_to_anchor=(1, 1.16))
    return _svg(figure)


def _bars(title: str, labels: list[str], values: list[float], color: str) -> str:
    figure, axes = _figure(0.9 + 0.27 * len(labels))
    places = range(len(labels))
    axes.barh(places, values, 0.7, color=color)
    # A dollar sign is not the beginning of a formula here.
    axes.set_yticks(places, [_short(label).replace("$", r"\$") for label in labels])
    axes.invert_yaxis()
    axes.set_title(title, x=-0.02)
    axes.grid(axis="x", color=_GRID, linewidth=0.6)
    return _svg(figure)


def _short(label: str, length: int = 46) -> str:
    return label if len(label) <= length else label[: length - 1] + "…"
