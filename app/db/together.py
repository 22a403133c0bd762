"""Several writes as one statement of PostgreSQL's: one way there and back for all of them.

Each way costs more than the write itself when the write is a row. The writes become parts of a
`WITH`: https://www.postgresql.org/docs/current/queries-with.html#QUERIES-WITH-MODIFYING
They all see the state before the statement, and take effect in no order that can be relied on, so
no two of them may be about one row.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from sqlalchemy import BindParameter, Insert, Update, bindparam, func, insert, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

Write = Insert | Update


def parameter(table: Any, column: str) -> BindParameter[Any]:
    """Return the parameter for a new value of a column."""
    return bindparam(f"{table.name}__{column}", type_=table.c[column].type)


def parameters(table: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of `parameter`s for new values of columns, by the columns' names."""
    return {f"{table.name}__{column}": value for column, value in values.items()}


def row_insert(table: Any, columns: Iterable[str]) -> Insert:
    """Return the insertion of a row with values for these columns, as `parameters` makes them."""
    return insert(table).values({column: parameter(table, column) for column in columns})


def rows_insert(table: Any, columns: Iterable[str]) -> Insert:
    """Return the insertion of many rows: each column's name is the parameter of its values.

    One statement whatever their number, and so one call of the triggers, one row of the change log.
    """
    names = tuple(columns)
    values = (bindparam(name, type_=ARRAY(table.c[name].type, dimensions=1)) for name in names)
    rows = func.unnest(*values).table_valued(*names).render_derived("given")
    return insert(table).from_select(names, select(*(rows.c[name] for name in names)))


def row_update(table: Any, columns: Iterable[str]) -> Update:
    """Return the update of these columns of the row with the `id` in `parameters`."""
    return (
        update(table)
        .where(table.c.id == parameter(table, "id"))
        .values({column: parameter(table, column) for column in columns})
    )


class Together:
    """Collects writes; `execute` does all of them at once, `take` gives them away as one."""

    def __init__(self) -> None:
        self._writes: list[Write] = []
        self._parameters: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._writes)

    def has_table_of(self, values: dict[str, Any]) -> bool:
        """Tell whether a row of the table with these `parameters` is among the writes."""
        return not self._parameters.keys().isdisjoint(values)

    def add(self, write: Write, values: dict[str, Any]) -> None:
        """Add the write of one row, with its `parameters`; only one row of each table.

        Writes are made once and kept, since each combination of them is put together once.
        """
        self._writes.append(write)
        self._parameters |= values

    def take(self) -> tuple[Write, dict[str, Any]]:
        """Return all writes added since the last time as one, with its parameters."""
        write, values = _joined(tuple(self._writes)), self._parameters
        self._writes, self._parameters = [], {}
        return write, values

    async def execute(self, connection: AsyncConnection) -> None:
        """Do all writes added since the last time."""
        await connection.execute(*self.take())


@lru_cache(maxsize=512)
def _joined(writes: tuple[Write, ...]) -> Write:
    """Return the last of the writes with the others as parts of its WITH."""
    *others, last = writes
    parts = [write.cte(f"part_{number}") for number, write in enumerate(others)]
    return last.add_cte(*parts) if parts else last
