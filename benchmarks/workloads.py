"""The code that is run, the same on every side, and what it must have said."""

LINES = 100_000
DISPLAYS = 3_000

ROUND_TRIP = "1+1"
WARM_UP = """
from IPython.display import HTML, display
for i in range(200): print(i)
display(HTML("<b>a</b>"))
"""


def lines_code(count: int) -> str:
    """Return code that prints this many lines."""
    return f"for i in range({count}): print(i)"


def lines_text(count: int) -> str:
    """Return what it prints."""
    return "".join(f"{i}\n" for i in range(count))


def displays_code(count: int) -> str:
    """Return code that shows this many displays."""
    return (
        "from IPython.display import HTML, display\n"
        f"for i in range({count}): display(HTML(f'<b>{{i}}</b>'))"
    )


def displays_html(count: int) -> list[str]:
    """Return the HTML of its displays, in order."""
    return [f"<b>{i}</b>" for i in range(count)]


class IncompleteError(AssertionError):
    """What was recorded or received is not what the code said."""


def require_lines(text: str, count: int, side: str) -> None:
    """Raise IncompleteError unless `text` is all lines and nothing else."""
    if text != lines_text(count):
        raise IncompleteError(f"{side}: {text.count(chr(10))} of {count} lines")


def require_displays(html: list[str], count: int, side: str) -> None:
    """Raise IncompleteError unless `html` is all displays in order."""
    if html != displays_html(count):
        raise IncompleteError(f"{side}: {len(html)} of {count} displays")
