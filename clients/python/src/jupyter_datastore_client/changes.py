"""A change as listeners see it: what a record was and is, and which of its fields differ."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

R = TypeVar("R")
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change(Generic[R]):
    """One record's change; the record itself must not be modified.

    `record` is null for a delete, `previous` for an insert. `changed` are the fields of an update
    whose values differ, and announced columns, whose values are not sent.
    """

    op: Literal["insert", "update", "delete"]
    id: str
    record: R | None
    previous: R | None
    changed: frozenset[str]


def same(one: Any, other: Any) -> bool:
    """Return whether two JSON values are the same; unlike `==`, true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def difference(
    record_id: str, previous: Record | None, record: Record | None, announced: frozenset[str]
) -> Change[Any] | None:
    """Return the change from one state of a record to another; None when nothing differs."""
    if record is None:
        if previous is None:
            return None
        return Change("delete", record_id, None, previous, frozenset())
    if previous is None:
        return Change("insert", record_id, record, None, frozenset())
    names = {
        name
        for name in record.keys() | previous.keys()
        if name not in record or name not in previous or not same(record[name], previous[name])
    }
    changed = announced | names
    return Change("update", record_id, record, previous, changed) if changed else None


class Batch:
    """The changes of one table that are shown at once; several of one record become one."""

    def __init__(self) -> None:
        self._before: dict[str, Record | None] = {}
        self._after: dict[str, Record | None] = {}
        self._announced: dict[str, frozenset[str]] = {}

    def add(
        self,
        record_id: str,
        previous: Record | None,
        record: Record | None,
        announced: frozenset[str] = frozenset(),
    ) -> None:
        """Note that a record was `previous` and is now `record`."""
        self._before.setdefault(record_id, previous)
        self._after[record_id] = record
        if announced:
            self._announced[record_id] = self._announced.get(record_id, frozenset()) | announced

    def __bool__(self) -> bool:
        return bool(self._before)

    def pop(self) -> Change[Any] | None:
        """Remove and return the first record's change; None when it came to nothing."""
        record_id = next(iter(self._before))
        announced = self._announced.pop(record_id, frozenset())
        return difference(
            record_id, self._before.pop(record_id), self._after.pop(record_id), announced
        )

    def take(self) -> list[Change[Any]]:
        """Remove and return all changes, in the order in which records first changed."""
        taken = []
        while self:
            if (change := self.pop()) is not None:
                taken.append(change)
        return taken


def id_of(record: Mapping[str, Any], key: tuple[str, ...]) -> str:
    """Return a record's id, of the columns that make it up."""
    return "/".join(str(record[name]) for name in key)
