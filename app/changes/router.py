"""Finding the subscriptions that a record matches, at a cost that does not grow with the others.

Each subscription is kept under one thing it compares: a column and value, a path prefix, or
nothing. A record looks under its own values and the folders above its path.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.changes.tables import Columns, FeedTable, Value, Where

if TYPE_CHECKING:
    from app.changes.feed import Feed


@dataclass(eq=False, slots=True)
class Subscription:
    """What one client follows under one name.

    `started`: its first page was queued, so changes make sense to the client. `live`: its snapshot
    is complete. `arrived`: the end of its snapshot was sent, so that a cursor resumes it.
    """

    feed: "Feed"
    name: str
    table: FeedTable
    where: Where
    columns: Columns
    cursor: str | None = None
    started: bool = False
    live: bool = False
    arrived: bool = False
    ended: bool = False
    refetch: str | None = field(default=None)


class _OfTable:
    def __init__(self) -> None:
        self.everything: set[Subscription] = set()
        self.by_value: dict[str, dict[Value, set[Subscription]]] = {}
        self.by_prefix: dict[str, set[Subscription]] = {}
        self.column_sets: dict[Columns, int] = defaultdict(int)
        self.count = 0


class Router:
    """The subscriptions of a process, by what they match."""

    def __init__(self) -> None:
        self._tables: dict[str, _OfTable] = {}

    def __bool__(self) -> bool:
        return bool(self._tables)

    def add(self, subscription: Subscription) -> None:
        """Have records routed to a subscription."""
        of_table = self._tables.setdefault(subscription.table.name, _OfTable())
        of_table.count += 1
        of_table.column_sets[subscription.columns] += 1
        where = subscription.where
        if where.equals:
            name, value = where.equals[0]
            of_table.by_value.setdefault(name, {}).setdefault(value, set()).add(subscription)
        elif where.prefix:
            of_table.by_prefix.setdefault(where.prefix, set()).add(subscription)
        else:
            of_table.everything.add(subscription)

    def remove(self, subscription: Subscription) -> None:
        """End what `add` began."""
        name = subscription.table.name
        of_table = self._tables[name]
        where = subscription.where
        if where.equals:
            column, value = where.equals[0]
            of_value = of_table.by_value[column]
            of_value[value].discard(subscription)
            if not of_value[value]:
                del of_value[value]
            if not of_value:
                del of_table.by_value[column]
        elif where.prefix:
            of_table.by_prefix[where.prefix].discard(subscription)
            if not of_table.by_prefix[where.prefix]:
                del of_table.by_prefix[where.prefix]
        else:
            of_table.everything.discard(subscription)
        of_table.column_sets[subscription.columns] -= 1
        if not of_table.column_sets[subscription.columns]:
            del of_table.column_sets[subscription.columns]
        of_table.count -= 1
        if not of_table.count:
            del self._tables[name]

    def tables(self) -> set[str]:
        """Return the tables to which there are subscriptions."""
        return set(self._tables)

    def follows(self, table: str) -> bool:
        """Tell whether any subscription is to this table."""
        return table in self._tables

    def column_sets(self, table: str) -> tuple[Columns, ...]:
        """Return the sets of columns that a table's subscriptions want, sorted."""
        return tuple(sorted(self._tables[table].column_sets))

    def match(self, table: str, values: Mapping[str, Value]) -> set[Subscription]:
        """Return the subscriptions that a record with these values matches."""
        of_table = self._tables.get(table)
        if of_table is None:
            return set()
        found = set(of_table.everything)
        for name, of_value in of_table.by_value.items():
            found.update(
                subscription
                for subscription in of_value.get(values.get(name), ())
                if subscription.where.matches(values)
            )
        if of_table.by_prefix:
            for prefix in _prefixes(values.get("path")):
                found.update(of_table.by_prefix.get(prefix, ()))
        return found

    def of(self, table: str) -> Iterator[Subscription]:
        """Yield all subscriptions to a table, to all tables for an empty name."""
        for name in [table] if table else list(self._tables):
            of_table = self._tables.get(name)
            if of_table is None:
                continue
            yield from list(of_table.everything)
            for of_value in list(of_table.by_value.values()):
                for subscriptions in list(of_value.values()):
                    yield from list(subscriptions)
            for subscriptions in list(of_table.by_prefix.values()):
                yield from list(subscriptions)


def _prefixes(path: Value) -> Iterator[str]:
    if not isinstance(path, str):
        return
    yield path
    end = path.rfind("/")
    while end > 0:
        yield path[:end]
        end = path.rfind("/", 0, end)
