"""`/api/datastore`: the feed over a websocket and as events, and plain reads (docs/feed.md)."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response, WebSocket

from app.auth.access import allow
from app.auth.identity import Identity
from app.auth.revocations import Revocations
from app.changes.changes import Changes
from app.changes.cursor import encode
from app.changes.events import EventStream, events_of
from app.changes.feed import Feed
from app.changes.pages import read_seen
from app.changes.tables import TABLES, FeedTable, FeedTableError, table_named
from app.changes.websocket import FeedSocket
from app.errors import UnavailableError
from app.web import ExactJSONResponse

router = APIRouter()

_MAX_RECORDS = 10_000
# Query parameters that are no filters.
_PLAIN = frozenset({"table", "limit", "after", "columns", "token", "cursor", "subscribe"})

# What the routes read from the request themselves, for the OpenAPI document.
_COLUMNS = {
    "name": "columns",
    "in": "query",
    "description": "The columns wanted, with commas between; all that are sent when it is left out",
    "schema": {"type": "string"},
}
_FILTERS = {
    "name": "filters",
    "in": "query",
    "description": "The table's filters by name, `path_prefix` among them",
    "style": "form",
    "explode": True,
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}
_EVENTS = [
    {
        "name": "table",
        "in": "query",
        "description": "The table to follow, unless there is a `subscribe`",
        "schema": {"type": "string"},
    },
    {
        "name": "subscribe",
        "in": "query",
        "description": "The JSON of a subscribe message without `type`",
        "schema": {"type": "array", "items": {"type": "string"}},
    },
    {
        "name": "cursor",
        "in": "query",
        "description": "Go on from here",
        "schema": {"type": "string"},
    },
    {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "The same, as browsers send it",
        "schema": {"type": "string"},
    },
]


@router.websocket("/api/datastore/feed")
async def feed(websocket: WebSocket, identity: Annotated[Identity, allow("read", "api")]) -> None:
    """Follow tables over a websocket."""
    await FeedSocket(websocket, websocket.app.state.changes, identity).run()


@router.get("/api/datastore/tables")
async def list_tables(_: Annotated[Identity, allow("read", "api")]) -> dict[str, Any]:
    """List the tables that can be followed, with their columns and filters."""
    return {
        "tables": [
            {
                "table": table.name,
                "id": list(table.published.id),
                "columns": list(table.published.sent),
                "announced": list(table.published.announced),
                "filters": list(table.published.filters),
            }
            for table in TABLES.values()
        ]
    }


@router.get("/api/datastore/tables/{table}", openapi_extra={"parameters": [_COLUMNS, _FILTERS]})
async def read_table(
    table: str,
    request: Request,
    identity: Annotated[Identity, allow("read", "api")],
    *,
    limit: Annotated[int, Query(ge=1, le=_MAX_RECORDS)] = 1000,
    after: str | None = None,
) -> Response:
    """Read a page of a table's records that match the filters in the query."""
    changes: Changes = request.app.state.changes
    found = table_named(table)
    where, columns = found.where(_filters(found, request)), found.columns(_columns(request))
    if after is not None:
        found.page(where, columns, after, 1)  # refuses what is no id
    if not changes.epoch:
        raise UnavailableError("The database cannot be reached now")
    async with changes.connection() as connection:
        page = await read_seen(
            connection,
            found,
            where,
            columns,
            after=after,
            sight=changes.sight(identity),
            limit=limit,
        )
    ends = {"table": table, "next": page.next, "cursor": encode(changes.epoch, page.position)}
    text = f'{json.dumps(ends)[:-1]},"records":[{",".join(page.records)}]}}'
    return Response(text, media_type=ExactJSONResponse.media_type)


@router.get("/api/datastore/events", openapi_extra={"parameters": [*_EVENTS, _COLUMNS, _FILTERS]})
async def events(
    request: Request, identity: Annotated[Identity, allow("read", "api")]
) -> EventStream:
    """Follow tables by server-sent events."""
    changes: Changes = request.app.state.changes
    revocations: Revocations = request.app.state.revocations
    wanted = _subscriptions(request)
    cursor = request.headers.get("last-event-id") or request.query_params.get("cursor") or None
    opened = changes.open(identity)
    made: Feed = await opened.__aenter__()
    try:
        for message in wanted:
            made.subscribe(
                message.get("id"), {**message, "cursor": cursor or message.get("cursor")}
            )
    except BaseException:
        await opened.__aexit__(None, None, None)
        raise

    async def stream() -> AsyncGenerator[bytes]:
        with revocations.watch(identity, "read", "api") as watch:
            async with aclosing(events_of(changes, made, watch.ended)) as made_events:
                async for event in made_events:
                    yield event

    return EventStream(stream(), opened, changes.settings.feed_lag_seconds)


def _subscriptions(request: Request) -> list[dict[str, Any]]:
    """Return the subscribe messages of a request for events."""
    found = []
    for text in request.query_params.getlist("subscribe"):
        try:
            message = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FeedTableError("subscribe must be JSON", reason="bad_message") from error
        if not isinstance(message, dict):
            raise FeedTableError("subscribe must be an object", reason="bad_message")
        found.append(message)
    if not found:
        table = table_named(request.query_params.get("table"))
        found = [
            {
                "id": "events",
                "table": table.name,
                "where": _filters(table, request),
                "columns": _columns(request),
            }
        ]
    return found


def _filters(table: FeedTable, request: Request) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, text in request.query_params.multi_items():
        if name in _PLAIN:
            continue
        if name in found:
            raise FeedTableError(f"{name} is there twice", reason="bad_value")
        found[name] = table.parse(name, text)
    return found


def _columns(request: Request) -> list[str] | None:
    text = request.query_params.get("columns")
    return None if text is None else [name for name in text.split(",") if name]
