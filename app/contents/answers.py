"""Contents models as JSON, written as Jupyter Server writes them."""

import asyncio
import contextlib
import json
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from pydantic_core import to_json
from starlette.convertors import PathConvertor, register_url_convertor


class _AnyPath(PathConvertor):
    """A path as Starlette's `path`, but with line ends: they may be in a file's name."""

    regex = "(?s:.*)"


# In routes: `{path:anypath}`.
register_url_convertor("anypath", _AnyPath())


def location(request: Request, *parts: str) -> str:
    """Return the URL path of something below `/api/contents`."""
    base = request.app.state.settings.base_url.rstrip("/")
    return "/".join([f"{base}/api/contents", *(quote(part) for part in parts if part)])


async def model_answer(
    request: Request, model: dict[str, Any], *, status: int = 200, with_location: bool = True
) -> Response:
    """Answer a contents model; NaN is written as Jupyter does, which Starlette's own refuses."""
    body = await asyncio.to_thread(_encoded, model)
    headers = {"Location": location(request, model["path"])} if with_location else {}
    if isinstance(changed := model.get("last_modified"), datetime):
        headers["Last-Modified"] = format_datetime(changed.astimezone(UTC), usegmt=True)
    return Response(body, status, headers, media_type="application/json")


def _encoded(model: dict[str, Any]) -> bytes:
    """Return a model as JSON; a notebook, whose times are all in the model itself, sooner."""
    if isinstance(model.get("content"), dict):
        plain = {
            key: _time(value) if isinstance(value, datetime) else value
            for key, value in model.items()
        }
        # What has no form in UTF-8 is left to `dumps`.
        with contextlib.suppress(ValueError):
            return to_json(plain, inf_nan_mode="constants")
    return dumps(model).encode()


def dumps(value: Any) -> str:
    """Return a model, or several, as JSON text in ASCII, in which every file name has a form."""
    return json.dumps(value, default=_time)


def _time(value: Any) -> str:
    """Return a time as Jupyter writes it: without microseconds when there are none."""
    if not isinstance(value, datetime):
        raise TypeError(f"{type(value).__name__} is not JSON")
    if value.tzinfo is not UTC:
        value = value.astimezone(UTC)
    return f"{value.isoformat()[:-6]}Z"
