"""Merging what another program did to a text file with what happened to its document meanwhile.

Line by line, going back to the text as it was last read or written here. Lines that only one side
changed are that side's. Where both changed the same lines differently, both are kept between
conflict markers as version control writes them, so that whoever looks at the text sees it.
"""

from difflib import SequenceMatcher
from itertools import pairwise
from typing import NamedTuple

_OURS, _MIDDLE, _THEIRS = "<<<<<<< document", "=======", ">>>>>>> disk"


class _Change(NamedTuple):
    """Lines `low` to `high` of the base were replaced."""

    low: int
    high: int
    lines: list[str]


def merge_text(base: str | None, document: str, disk: str) -> str:
    """Return the text that has both sides' changes; without a base, all that differs conflicts."""
    if document == disk or (base is not None and disk == base):
        return document
    if document == base:
        return disk
    if base is None:
        base = _common(document, disk)
    old = base.splitlines(keepends=True)
    ours = _changes(old, document.splitlines(keepends=True))
    theirs = _changes(old, disk.splitlines(keepends=True))
    merged: list[str] = []
    at = 0
    while ours or theirs:
        mine, other = _next_group(ours, theirs)
        low = min(change.low for change in mine + other)
        high = max(change.high for change in mine + other)
        merged += old[at:low]
        at = high
        my_lines, other_lines = _applied(old, low, high, mine), _applied(old, low, high, other)
        if not other or my_lines == other_lines:
            merged += my_lines
        elif not mine:
            merged += other_lines
        else:
            merged += _both(my_lines, other_lines)
    return "".join(merged + old[at:])


def merge_apart(base: str, document: str, disk: str) -> str | None:
    """Return the text that has both sides' changes if no line was changed by both, else None.

    Nor may both have added lines at one place, of which nobody knows the order.
    """
    old = base.split("\n")
    ours, theirs = _changes(old, document.split("\n")), _changes(old, disk.split("\n"))
    grown = [
        {place for low, high, lines in side if len(lines) > high - low for place in (low, high)}
        for side in (ours, theirs)
    ]
    if grown[0] & grown[1]:
        return None
    merged: list[str] = []
    at = 0
    while ours or theirs:
        mine, other = _next_group(ours, theirs)
        if mine and other:
            return None
        low = min(change.low for change in mine + other)
        high = max(change.high for change in mine + other)
        merged += old[at:low] + _applied(old, low, high, mine + other)
        at = high
    return "\n".join(merged + old[at:])


def changed_lines(base: str, text: str) -> int:
    """Return how many lines have to go and to come to make one text the other."""
    changes = _changes(base.split("\n"), text.split("\n"))
    return sum(change.high - change.low + len(change.lines) for change in changes)


def _common(left: str, right: str) -> str:
    """Return the lines that both texts have, in order."""
    lines, others = left.splitlines(keepends=True), right.splitlines(keepends=True)
    blocks = SequenceMatcher(None, lines, others, autojunk=False).get_matching_blocks()
    return "".join(line for block in blocks for line in lines[block.a : block.a + block.size])


def _changes(old: list[str], new: list[str]) -> list[_Change]:
    return [
        _Change(low, high, new[new_low:new_high])
        for tag, low, high, new_low, new_high in SequenceMatcher(
            None, old, new, autojunk=False
        ).get_opcodes()
        if tag != "equal"
    ]


def _next_group(ours: list[_Change], theirs: list[_Change]) -> tuple[list[_Change], list[_Change]]:
    """Take the first changes, of both sides, that touch the same lines out of the lists."""
    mine: list[_Change] = []
    other: list[_Change] = []
    first_is_mine = not theirs or (bool(ours) and ours[0].low <= theirs[0].low)
    (mine if first_is_mine else other).append((ours if first_is_mine else theirs).pop(0))
    while True:
        low = min(change.low for change in mine + other)
        high = max(change.high for change in mine + other)
        if ours and _touches(ours[0], low, high):
            mine.append(ours.pop(0))
        elif theirs and _touches(theirs[0], low, high):
            other.append(theirs.pop(0))
        else:
            return mine, other


def _touches(change: _Change, low: int, high: int) -> bool:
    """Tell whether a later change overlaps lines, or inserts at the very same place."""
    return change.low < high or (change.low == low == high)


def _applied(old: list[str], low: int, high: int, changes: list[_Change]) -> list[str]:
    lines: list[str] = []
    at = low
    for change in changes:
        lines += old[at : change.low] + change.lines
        at = change.high
    return lines + old[at:high]


def _both(mine: list[str], other: list[str]) -> list[str]:
    """Return both versions of some lines between markers, without what they begin and end with."""
    start = 0
    while start < min(len(mine), len(other)) and mine[start] == other[start]:
        start += 1
    end = 0
    while end < min(len(mine), len(other)) - start and mine[-1 - end] == other[-1 - end]:
        end += 1
    tail = mine[len(mine) - end :]
    mine_lines = [*mine[:start], f"{_OURS}\n", *mine[start : len(mine) - end]]
    other_lines = [f"{_MIDDLE}\n", *other[start : len(other) - end], f"{_THEIRS}\n"]
    lines = [*mine_lines, *other_lines, *tail]
    # A side's last line may have had no end.
    return [
        line if line.endswith("\n") or not following else f"{line}\n"
        for line, following in pairwise([*lines, ""])
    ]
