"""The smallest edits that turn one text or one order into another.

Yjs merges concurrent edits by what was inserted and deleted, so a text that is replaced whole
loses what somebody else is typing in it.
"""

from bisect import bisect_left
from collections.abc import Sequence
from difflib import SequenceMatcher

from app.documents.stream import Splice

# difflib is quadratic at worst: characters are compared up to this product of lengths, lines
# up to the other; what is more is replaced between the common start and end.
_CHARACTERS_LIMIT = 4_000_000
_LINES_LIMIT = 4_000_000


def text_splices(old: str, new: str) -> list[Splice]:
    """Return the splices that turn `old` into `new`, from its end to its start."""
    return [
        Splice(len(old[:low].encode()), len(old[low:high].encode()), text)
        for low, high, text in reversed(changes(old, new))
    ]


def changes(old: str, new: str) -> list[tuple[int, int, str]]:
    """Return what turns `old` into `new`: from and to which character what text comes instead."""
    start = _common(old, new)
    end = _common(old[: start - 1 : -1] if start else old[::-1], new[::-1], len(new) - start)
    end = min(end, len(old) - start)
    middle_old, middle_new = old[start : len(old) - end], new[start : len(new) - end]
    if not middle_old or not middle_new:
        found = [(0, len(middle_old), middle_new)] if middle_old or middle_new else []
    elif len(middle_old) * len(middle_new) <= _CHARACTERS_LIMIT:
        found = _changes(middle_old, middle_new, 0)
    else:
        found = _line_changes(middle_old, middle_new)
    return [(start + low, start + high, text) for low, high, text in found]


def _common(left: str, right: str, limit: int | None = None) -> int:
    """Return the length of the common start."""
    size = min(len(left), len(right))
    if limit is not None:
        size = min(size, limit)
    if left[:size] == right[:size]:
        return size
    low, high = 0, size  # left[:low] is common, left[:high] is not
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _changes(old: str, new: str, at: int) -> list[tuple[int, int, str]]:
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    return [
        (at + low, at + high, new[new_low:new_high])
        for tag, low, high, new_low, new_high in matcher.get_opcodes()
        if tag != "equal"
    ]


def _line_changes(old: str, new: str) -> list[tuple[int, int, str]]:
    old_lines, new_lines = old.splitlines(keepends=True), new.splitlines(keepends=True)
    if len(old_lines) * len(new_lines) > _LINES_LIMIT:
        return [(0, len(old), new)]
    places = [0]
    for line in old_lines:
        places.append(places[-1] + len(line))
    changes = []
    matcher = SequenceMatcher(None, old_lines, new_lines, autojunk=False)
    for tag, low, high, new_low, new_high in matcher.get_opcodes():
        if tag != "equal":
            text = "".join(new_lines[new_low:new_high])
            changes.append((places[low], places[high], text))
    return changes


def kept_in_place(old: Sequence[str], new: Sequence[str]) -> set[str]:
    """Return the largest set of ids that are in both orders and need not move.

    Ids are unique in each. This is the longest increasing subsequence of old places.
    """
    places = {item: place for place, item in enumerate(old)}
    common = [item for item in new if item in places]
    tails: list[int] = []
    tail_items: list[int] = []
    previous: list[int] = []
    for number, item in enumerate(common):
        at = bisect_left(tails, places[item])
        previous.append(tail_items[at - 1] if at else -1)
        tails[at : at + 1] = [places[item]]
        tail_items[at : at + 1] = [number]
    kept = set()
    number = tail_items[-1] if tail_items else -1
    while number >= 0:
        kept.add(common[number])
        number = previous[number]
    return kept
