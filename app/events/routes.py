"""`/api/events` and `/api/events/subscribe` as Jupyter Server answers them."""

import asyncio
import json
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.auth.access import allow, may
from app.auth.identity import Identity
from app.auth.revocations import CLOSE_CODE, CLOSE_REASON, Revocations
from app.db.engine import Database
from app.errors import BadRequestError
from app.events.events import Events, Subscription
from app.web import json_body

router = APIRouter()

_TRY_AGAIN_LATER = 1013


@router.post("/api/events", status_code=204)
async def publish_event(request: Request, _: Annotated[Identity, allow("write", "events")]) -> None:
    """Publish an event: `schema_id` and `version` of a registered schema, `data`, `timestamp`."""
    events: Events = request.app.state.events
    body = await json_body(request)
    for field in ("schema_id", "version", "data"):
        if field not in body:
            raise BadRequestError(f"Missing `{field}` in the JSON request body.")
    if not isinstance(body["schema_id"], str):
        raise BadRequestError("schema_id must be a string")
    timestamp = _timestamp(body.get("timestamp")) if "timestamp" in body else None
    events.publish(body["schema_id"], str(body["version"]), body["data"], timestamp)


def _timestamp(value: object) -> datetime:
    try:
        if not isinstance(value, str):
            raise TypeError
        # Jupyter's form has an offset and a Z.
        return datetime.strptime(value, "%Y-%m-%dT%H:%M:%S%zZ")
    except (TypeError, ValueError) as error:
        raise BadRequestError(
            "The timestamp must be a time with its UTC offset, as 2022-05-26T13:50:00+05:00Z"
        ) from error


@router.websocket("/api/events/subscribe")
async def subscribe(
    websocket: WebSocket, identity: Annotated[Identity, allow("execute", "events")]
) -> None:
    """Send events as they come: JSON objects with the event's data and its `schema_id`.

    A subscriber that is too slow is disconnected with 1013: it has missed something.
    """
    events: Events = websocket.app.state.events
    revocations: Revocations = websocket.app.state.revocations
    with (
        events.subscribe() as subscription,
        revocations.watch(identity, "execute", "events") as access,
    ):
        await websocket.accept()
        parts = (
            _send(websocket, subscription, identity),
            _wait_left(websocket),
            subscription.overflowed.wait(),
            access.ended.wait(),
        )
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    if access.ended.is_set():
        await websocket.close(CLOSE_CODE, CLOSE_REASON)
    elif subscription.overflowed.is_set():
        await websocket.close(_TRY_AGAIN_LATER, "too slow: events were missed")


async def _send(websocket: WebSocket, subscription: Subscription, identity: Identity) -> None:
    database: Database = websocket.app.state.database
    while True:
        event = await subscription.events.get()
        if await _may_see(database, identity, event):
            await websocket.send_text(json.dumps(event))


async def _may_see(database: Database, identity: Identity, event: dict[str, Any]) -> bool:
    """Tell whether somebody may know of an event: of what it is about, or else of the server."""
    about = [("contents", event[name]) for name in ("path", "source_path") if event.get(name)]
    if event.get("kernel_id"):
        about.append(("kernels", event["kernel_id"]))
    for resource, target in about:
        if not isinstance(target, str) or not await may(
            database, identity, "read", resource, target
        ):
            return False
    return bool(about) or await may(database, identity, "read", "server")


async def _wait_left(websocket: WebSocket) -> None:
    """Return when the client leaves; what it sends is not heeded, as in Jupyter."""
    try:
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass
    except (WebSocketDisconnect, RuntimeError):
        return
