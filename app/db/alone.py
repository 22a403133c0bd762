"""One statement that is a transaction of its own, given to the driver as it is.

A session of SQLAlchemy's and what it does around each statement take this process five times as
long as the driver, and those that an execution consists of stand between a person and the result
(docs/decisions/0069). The statement is SQLAlchemy's all the same: put together by it, compiled by
its dialect, with its types' conversions, on a connection of its pool.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Dialect, Insert, Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db.doorbell import LOST
from app.db.together import Write

Statement = Write | Select[*tuple[Any, ...]]
_Conversion = Callable[[Any], Any] | None


@dataclass(frozen=True)
class _Compiled:
    """SQL with `$1` and so on, and the names and conversions of what goes in and comes back."""

    sql: str
    literals: dict[str, Any]
    given: tuple[tuple[str, _Conversion], ...]
    returned: tuple[tuple[str, _Conversion], ...]

    def arguments(self, values: dict[str, Any]) -> list[Any]:
        """Return the values in the statement's order, as the driver takes them."""
        known = self.literals | values
        return [
            known[name] if convert is None else convert(known[name]) for name, convert in self.given
        ]

    def row(self, record: Any) -> dict[str, Any]:
        """Return a row that the driver has returned."""
        return {
            name: value if convert is None else convert(value)
            for (name, convert), value in zip(self.returned, record, strict=True)
        }


@lru_cache(maxsize=512)
def _compiled(statement: Statement, names: tuple[str, ...], dialect: Dialect) -> _Compiled:
    """Compile a statement for parameters with these names."""
    if isinstance(statement, Insert) and not statement.exported_columns:
        statement = statement.inline()  # or SQLAlchemy asks for the primary key
    keys = None if isinstance(statement, Select) else list(names)
    compiled = statement.compile(dialect=dialect, column_keys=keys)
    if compiled.insert_prefetch or compiled.update_prefetch:
        raise TypeError("a write that is alone must be given all that Python would add")
    order = compiled.positiontup or ()
    if missing := [name for name in order if name not in names and compiled.binds[name].required]:
        raise TypeError(f"no value is given for {', '.join(missing)}")
    kinds = {name: compiled.binds[name].type.dialect_impl(dialect) for name in order}
    given = [(name, kinds[name].bind_processor(dialect)) for name in order]
    returned = [
        (column.name, column.type.dialect_impl(dialect).result_processor(dialect, None))
        for column in statement.exported_columns
    ]
    literals = {name: value for name, value in compiled.params.items() if name not in names}
    return _Compiled(str(compiled), literals, tuple(given), tuple(returned))


async def execute_alone(
    engine: AsyncEngine, statement: Statement, values: dict[str, Any]
) -> list[dict[str, Any]]:
    """Commit a statement and return its rows, or those of its RETURNING, by the columns' names.

    Raises DBAPIError; after one that leaves open whether the write was committed, it may have been.
    What a conversion raises of a value that cannot be stored is raised as it is.
    """
    compiled = _compiled(statement, tuple(values), engine.dialect)
    arguments = compiled.arguments(values)
    try:
        pooled = await engine.raw_connection()
    except engine.dialect.loaded_dbapi.Error as error:
        raise DBAPIError(compiled.sql, None, error) from error
    driver = pooled.driver_connection
    assert driver is not None
    try:
        found = await driver.fetch(compiled.sql, *arguments)
    except LOST as error:
        if lost := driver.is_closed():
            pooled.invalidate(error)
            await engine.dispose()  # the others are, most likely, dead too
        raise DBAPIError(compiled.sql, None, error, connection_invalidated=lost) from error
    except BaseException as error:
        pooled.invalidate(error)  # its answer is still to come
        raise
    finally:
        pooled.close()
    return [compiled.row(record) for record in found]
