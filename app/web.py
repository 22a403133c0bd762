"""Reading request bodies and writing times as Jupyter does; shared by the routes of all slices."""

import asyncio
import json
import mimetypes
import re
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.websockets import WebSocket, WebSocketState

from app.errors import BadRequestError, ClientGoneError

Answer = TypeVar("Answer")

_CONVERTER = re.compile(r":\w+}")


async def json_body(request: Request) -> dict[str, Any]:
    """Return the request's JSON object, `{}` without a body.

    The content type is not looked at: JupyterLab sends JSON as `text/plain`. Raises
    BadRequestError for anything but a JSON object.
    """
    raw = await request.body()
    if not raw.strip():
        return {}
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadRequestError("Invalid JSON in body of request") from error
    if not isinstance(body, dict):
        raise BadRequestError("The body of the request must be a JSON object")
    return body


def text_field(body: dict[str, Any], name: str, *, any_text: bool = False) -> str | None:
    """Return a string field, None when it is absent or null.

    BadRequestError for another type, and for what no name can have unless `any_text`.
    """
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequestError(f"{name} must be a string")
    return value if value is None or any_text else storable(value, name)


def storable(value: str, name: str) -> str:
    """Return a text that files and tables can hold; BadRequestError for NUL and lone surrogates."""
    if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise BadRequestError(f"{name} has a character that no name can have")
    return value


def object_field(body: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an object field, `{}` when absent or null; BadRequestError for another type."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequestError(f"{name} must be an object")
    return value


def route_template(scope: Mapping[str, Any]) -> str:
    """Return the path of a request's route as `/api/kernels/{kernel_id}`, "" when there is none.

    The base URL is not in it. For middleware, once the request has been routed.
    """
    return _CONVERTER.sub("}", getattr(scope.get("route"), "path", None) or "")


async def refuse_websocket(websocket: WebSocket, answer: Response) -> None:
    """Refuse a handshake with an HTTP answer; close with 1008 what has been accepted."""
    extensions = websocket.scope.get("extensions") or {}
    if websocket.application_state == WebSocketState.DISCONNECTED:
        return
    if (
        websocket.application_state == WebSocketState.CONNECTING
        and "websocket.http.response" in extensions
    ):
        await websocket.send_denial_response(answer)
    else:
        await websocket.close(1008)


async def while_connected(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
    """Return what `work` returns; when the client goes away first, cancel it.

    The request's body must have been read. Raises ClientGoneError, which nobody sees.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError("The client has gone")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def file_answer(
    request: Request,
    file: Path,
    *,
    media_type: str | None = None,
    headers: Mapping[str, str] | None = None,
    cache_control: str | None = None,
) -> Response:
    """Return a file, or 304 when the client has it already.

    Without `media_type` it is told from the name.
    """
    stat = await asyncio.to_thread(file.stat)
    kind = media_type or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    answer = FileResponse(file, headers=headers, media_type=kind, stat_result=stat)
    if cache_control is not None:
        answer.headers["Cache-Control"] = cache_control
    if _is_known(request, answer):
        kept = ("etag", "last-modified", "cache-control")
        found = {name: answer.headers[name] for name in kept if name in answer.headers}
        return Response(status_code=304, headers=found)
    return answer


def _is_known(request: Request, answer: Response) -> bool:
    """Tell whether the client has this file already (RFC 9110, section 13.2.2)."""
    if (tags := request.headers.get("if-none-match")) is not None:
        known = {tag.strip().removeprefix("W/") for tag in tags.split(",")}
        return "*" in known or answer.headers["etag"].removeprefix("W/") in known
    if (since := request.headers.get("if-modified-since")) is None:
        return False
    try:
        return parsedate_to_datetime(answer.headers["last-modified"]) <= parsedate_to_datetime(
            since
        )
    except (TypeError, ValueError):
        return False


class ExactJSONResponse(JSONResponse):
    """JSON as ASCII, in which every string has a form: kernels print lone surrogates too."""

    def render(self, content: Any) -> bytes:
        """Return the content as JSON text."""
        return json.dumps(content, separators=(",", ":"), allow_nan=True).encode("ascii")


def isoformat(value: datetime) -> str:
    """Return a time as Jupyter writes it: UTC with microseconds and `Z`."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
