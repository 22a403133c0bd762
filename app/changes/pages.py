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
    """Records as JSON, as they were at a position; `next` is the last id, null on the last page."""

    records: list[str]
    position: Position
    next: str | None


async def read_page(
    connection: Any,
    table: FeedTable,
    where: Where,
    columns: Columns,
    *,
    after: str | None,
    sight: Sight,
    limit: int = PAGE_RECORDS,
) -> Page:
    """Return a page of what the sight's user may see, in a transaction of its own."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        position = await read_position(connection)
        return await read_page_at(
            connection, position, table, where, columns, after=after, sight=sight, limit=limit
        )


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
    """Return a page as `read_page` does, in a transaction that began with reading the position."""
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
    seen = [row.texts[0] for _, row in rows if sight.sees(table, row.values)]
    return Page(seen, position, rows[-1][0] if more else None)
