"""Reading the records that match, page by page in the order of their ids."""

from dataclasses import dataclass
from typing import Any

from app.changes.cursor import Position
from app.changes.log import Row, read_position, row_of
from app.changes.tables import Columns, FeedTable, Where
from app.changes.visibility import Sight, scopes_of

PAGE_RECORDS = 1_000
# A page ends early once it has so many characters: outputs may be large.
PAGE_CHARACTERS = 512 * 1024
_PREFETCH = 50


@dataclass(frozen=True, slots=True)
class Page:
    """Records as JSON, as they were at a position; `next` is where the next page begins, if any."""

    records: list[str]
    position: Position
    next: str | None


async def read_seen(
    connection: Any,
    table: FeedTable,
    where: Where,
    columns: Columns,
    *,
    after: str | None,
    sight: Sight,
    limit: int,
) -> Page:
    """Return a page of what the sight's user may see, in a transaction of its own.

    It ends with a record that they see, and has a `next` only if they see another: where it ends
    tells nothing of the records between.
    """
    seen: list[tuple[str, str]] = []
    size = 0
    place = after
    scanned = limit + 1
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        position = await read_position(connection)
        while True:
            found, place = await _scan(
                connection, table, where, columns, after=place, sight=sight, limit=scanned
            )
            for key, text in found:
                if len(seen) == limit or size > PAGE_CHARACTERS:
                    return Page([text for _, text in seen], position, seen[-1][0])
                seen.append((key, text))
                size += len(text)
            if place is None:
                return Page([text for _, text in seen], position, None)
            is_full = len(seen) == limit or size > PAGE_CHARACTERS
            scanned = 1 if is_full and scanned > limit else min(2 * scanned, PAGE_RECORDS)


async def read_page_at(
    connection: Any,
    position: Position,
    table: FeedTable,
    where: Where,
    columns: Columns,
    *,
    after: str | None,
    sight: Sight,
    limit: int = PAGE_RECORDS,
) -> Page:
    """Return a page, in a transaction that began with reading the position.

    `next` is the id of the last record that was looked at, seen or not: not for clients.
    """
    seen, place = await _scan(
        connection, table, where, columns, after=after, sight=sight, limit=limit
    )
    return Page([text for _, text in seen], position, place)


async def _scan(
    connection: Any,
    table: FeedTable,
    where: Where,
    columns: Columns,
    *,
    after: str | None,
    sight: Sight,
    limit: int,
) -> tuple[list[tuple[str, str]], str | None]:
    """Look at so many records; return ids and JSON of those seen, and where to go on, if at all."""
    query, parameters = table.page(where, columns, after, limit + 1)
    rows: list[tuple[str, Row]] = []
    size = 0
    more = False
    async for record in connection.cursor(query, *parameters, prefetch=_PREFETCH):
        if len(rows) == limit or size > PAGE_CHARACTERS:
            more = True
            break
        key, row = row_of(table.name, record)
        rows.append((key, row))
        size += len(row.texts[0])
    scopes = {scope for _, row in rows for scope in scopes_of(table, row.values)}
    await sight.learn(scopes)
    seen = [(key, row.texts[0]) for key, row in rows if sight.sees(table, row.values)]
    return seen, rows[-1][0] if more else None
