"""What undo knows of a document: who inserted and deleted which character, cell and field.

Deleted characters and cells stay at their places as dead ones, so that taking back an edit is
bringing them back, and killing what the edit had inserted, wherever others have moved things since.
A field (metadata, type, outputs) goes back only while it has the value that the edit gave it.
Nothing here knows Yjs or the database.
"""

import itertools
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from app.documents.splices import changes, kept_in_place
from app.documents.values import same

# A cell's id and a field's name; the notebook's own fields have no cell.
FieldKey = tuple[str | None, str]
METADATA = "metadata."
# By a character's number: the version that inserted it, and whose that was.
Authors = dict[int, tuple[int, uuid.UUID | None]]


@dataclass
class Entry:
    """What one update did; characters by number, `moved` with the cell before the old place."""

    version: int
    actor_id: uuid.UUID | None
    inserted: dict[str, set[int]] = field(default_factory=dict)
    deleted: dict[str, set[int]] = field(default_factory=dict)
    cells_inserted: set[str] = field(default_factory=set)
    cells_deleted: set[str] = field(default_factory=set)
    moved: dict[str, str | None] = field(default_factory=dict)
    fields: dict[FieldKey, tuple[Any, Any]] = field(default_factory=dict)

    def did_anything(self) -> bool:
        """Tell whether there is anything to take back."""
        return any(
            (
                *self.inserted.values(),
                *self.deleted.values(),
                self.cells_inserted,
                self.cells_deleted,
                self.moved,
                self.fields,
            )
        )

    def summary(self) -> dict[str, list[str]]:
        """Return by cell's id what was done to it; the notebook's own fields have no id."""
        found: dict[str, set[str]] = {}
        for what, cell_ids in (
            ("inserted", self.cells_inserted),
            ("deleted", self.cells_deleted),
            ("moved", self.moved),
            ("text", [one for one, numbers in self.inserted.items() if numbers]),
            ("text", [one for one, numbers in self.deleted.items() if numbers]),
        ):
            for cell_id in cell_ids:
                found.setdefault(cell_id, set()).add(what)
        for owner, name in self.fields:
            found.setdefault(owner or "", set()).add(name.partition(".")[0])
        return {cell_id: sorted(what) for cell_id, what in found.items()}


class Track:
    """A text with its dead characters; each character has a number that is used once."""

    def __init__(self) -> None:
        self.characters: list[str] = []
        self.numbers: list[int] = []
        self.alive = bytearray()

    def copy(self) -> "Track":
        """Return a copy."""
        made = Track()
        made.characters, made.numbers = self.characters.copy(), self.numbers.copy()
        made.alive = bytearray(self.alive)
        return made

    def text(self) -> str:
        """Return the text as it is shown."""
        return "".join(itertools.compress(self.characters, self.alive))

    def living(self) -> Iterable[int]:
        """Return the numbers of the characters that are shown."""
        return itertools.compress(self.numbers, self.alive)

    def insert(self, shown_at: int, text: str, first: int) -> None:
        """Insert characters, numbered from `first`, after the first `shown_at` that are shown."""
        at = self._place(shown_at)
        self.characters[at:at] = text
        self.numbers[at:at] = range(first, first + len(text))
        self.alive[at:at] = b"\x01" * len(text)

    def delete(self, shown_at: int, count: int) -> set[int]:
        """Kill characters that are shown; return their numbers."""
        at = self._place(shown_at)
        gone: set[int] = set()
        while len(gone) < count:
            at = self.alive.index(1, at)
            self.alive[at] = 0
            gone.add(self.numbers[at])
        return gone

    def turn(self, numbers: set[int], *, alive: bool) -> set[int]:
        """Bring characters back, or kill them; return those that were otherwise before."""
        turned = set()
        for at, number in enumerate(self.numbers):
            if number in numbers and bool(self.alive[at]) != alive:
                self.alive[at] = alive
                turned.add(number)
        return turned

    def _place(self, shown: int) -> int:
        """Return the place after as many characters that are shown."""
        at = 0
        while shown:
            count = self.alive.count(1, at, at + shown)
            at += shown
            shown -= count
        return at


class UndoState:
    """A document's characters, cells and fields, living and dead."""

    def __init__(self) -> None:
        self.tracks: dict[str, Track] = {}
        self.places: list[str] = []
        self.cells: set[str] = set()
        self.fields: dict[FieldKey, Any] = {}
        self._next = 1

    def copy(self) -> "UndoState":
        """Return a copy; the values of fields are shared."""
        made = UndoState()
        made.tracks = {cell_id: track.copy() for cell_id, track in self.tracks.items()}
        made.places, made.cells = self.places.copy(), self.cells.copy()
        made.fields = self.fields.copy()
        made._next = self._next
        return made

    def order(self) -> list[str]:
        """Return the ids of the cells that are shown, in order."""
        return [cell_id for cell_id in self.places if cell_id in self.cells]

    # What an update did

    def take_order(self, order: list[str], entry: Entry) -> None:
        """Take over which cells there are now, in which order."""
        before = self.order()
        if before == order:
            return
        present, known = set(order), self.cells
        entry.cells_deleted |= known - present
        entry.cells_inserted |= present - known
        kept = kept_in_place(before, order)
        for cell_id in known & present - kept:
            place = before.index(cell_id)
            entry.moved[cell_id] = before[place - 1] if place else None
        self.cells = present
        self._arrange(order)

    def _arrange(self, order: list[str]) -> None:
        """Put the cells that are shown in order; dead ones stay behind those that they followed."""
        former = self.places
        places = list(order)
        present = set(order)
        for at, cell_id in enumerate(former):
            if cell_id not in present:
                before = former[at - 1] if at else None
                places.insert(0 if before is None else places.index(before) + 1, cell_id)
        self.places = places

    def take_text(self, cell_id: str, text: str, entry: Entry) -> None:
        """Take over a cell's text."""
        track = self.tracks.setdefault(cell_id, Track())
        before = track.text()
        if before == text:
            return
        inserted = entry.inserted.setdefault(cell_id, set())
        deleted = entry.deleted.setdefault(cell_id, set())
        for low, high, new in reversed(changes(before, text)):
            gone = track.delete(low, high - low)
            deleted |= gone - inserted
            inserted -= gone
            track.insert(low, new, self._next)
            inserted |= set(range(self._next, self._next + len(new)))
            self._next += len(new)

    def take_fields(self, cell_id: str | None, values: dict[str, Any], entry: Entry) -> None:
        """Take over a cell's fields, all of them."""
        known = {key[1] for key in self.fields if key[0] == cell_id}
        for name in known | values.keys():
            key = (cell_id, name)
            old, new = self.fields.get(key), values.get(name)
            if not same(old, new):
                first = entry.fields[key][0] if key in entry.fields else old
                entry.fields[key] = (first, new)
                self._set(key, new)

    def _set(self, key: FieldKey, value: Any) -> None:
        if value is None:
            self.fields.pop(key, None)
        else:
            self.fields[key] = value

    # Taking it back

    def take_back(self, old: Entry, entry: Entry, authors: Authors) -> None:
        """Take back what an update did; `entry` gets what that does.

        A cell in which others typed since stays.
        """
        for cell_id, numbers in old.inserted.items():
            gone = self.tracks[cell_id].turn(numbers, alive=False)
            entry.deleted.setdefault(cell_id, set()).update(gone)
        for cell_id, numbers in old.deleted.items():
            back = self.tracks[cell_id].turn(numbers, alive=True)
            entry.inserted.setdefault(cell_id, set()).update(back)
        for cell_id in sorted(old.cells_deleted - self.cells):
            if cell_id in self.places:
                self.cells.add(cell_id)
                entry.cells_inserted.add(cell_id)
        for cell_id in old.cells_inserted & self.cells:
            if not self._others_typed(cell_id, old, authors):
                self.cells.discard(cell_id)
                entry.cells_deleted.add(cell_id)
        for cell_id, before in old.moved.items():
            self._move_back(cell_id, before, entry)
        self._take_back_fields(old, entry)

    def _others_typed(self, cell_id: str, old: Entry, authors: Authors) -> bool:
        for number in self.tracks[cell_id].living() if cell_id in self.tracks else ():
            version, actor_id = authors.get(number, (0, None))
            if version > old.version and actor_id != old.actor_id:
                return True
        return False

    def _take_back_fields(self, old: Entry, entry: Entry) -> None:
        for key, (first, last) in old.fields.items():
            # An inserted cell's go with it, and come back with it.
            if key[0] not in old.cells_inserted and same(self.fields.get(key), last):
                self._set(key, first)
                entry.fields[key] = (last, first)

    def _move_back(self, cell_id: str, before: str | None, entry: Entry) -> None:
        order = self.order()
        if cell_id not in order or (before is not None and before not in self.places):
            return
        at = order.index(cell_id)
        entry.moved[cell_id] = order[at - 1] if at else None
        self.places.remove(cell_id)
        self.places.insert(0 if before is None else self.places.index(before) + 1, cell_id)
