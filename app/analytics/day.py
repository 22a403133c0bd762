"""What happened on one day, read from the views of the schema `analytics`.

The executions themselves are read, not the roll-ups: a report made right after a run has it.
"""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from app.db.engine import sync_url
from models import sql

Row = dict[str, Any]


@dataclass(frozen=True)
class Day:
    """A day's history. Times are in seconds, `hours` begin at local midnight."""

    begins: datetime
    ends: datetime
    totals: Row
    hours: list[Row]
    people: list[Row]
    notebooks: list[Row]
    cells: list[Row]
    errors: list[Row]


def bounds(day: date) -> tuple[datetime, datetime]:
    """Return the day's beginning and end in this machine's time zone, also where clocks change."""
    begins = datetime.combine(day, time()).astimezone()
    return begins, datetime.combine(day + timedelta(days=1), time()).astimezone()


def read_day(url: str, day: date, *, rows: int = 10) -> Day:
    """Return a day's history with at most so many people, notebooks, cells and errors.

    All of it is of one snapshot.
    """
    begins, ends = bounds(day)
    engine = create_engine(sync_url(url), poolclass=NullPool, isolation_level="REPEATABLE READ")
    with engine.connect() as connection:
        values = {"begins": begins, "ends": ends, "rows": rows}
        found = {
            name: _rows(connection, name, values)
            for name in ("totals", "hours", "people", "notebooks", "cells", "errors")
        }
    (totals,) = found.pop("totals")
    return Day(begins=begins, ends=ends, totals=totals, **found)


def _rows(connection: Connection, name: str, values: dict[str, Any]) -> list[Row]:
    query = text(sql.report(name))
    wanted = {key: value for key, value in values.items() if f":{key}" in str(query)}
    return [dict(row) for row in connection.execute(query, wanted).mappings()]
