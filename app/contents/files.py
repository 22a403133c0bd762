"""`/files/{path}`: a file's bytes, whole or in part, as a browser or a download wants them.

What is served cannot act as this site: the Content-Security-Policy puts it into a sandbox.
"""

import asyncio
import contextlib
import mimetypes
import os
import re
from base64 import decodebytes
from email.utils import formatdate, parsedate_to_datetime
from html import escape
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from app.auth.access import allow
from app.auth.identity import Identity
from app.contents import answers  # noqa: F401 (registers `anypath`)
from app.contents.disk import Disk
from app.contents.manager import domain_errors
from app.documents.store import DocumentStore
from app.errors import DomainError, ForbiddenError, NotFoundError

router = APIRouter()

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.ASCII | re.IGNORECASE)

_VIEW = """<!DOCTYPE html>
<html>
<head><meta charset="utf-8"><title>{title}</title></head>
<body style="margin: 0">
<iframe title="{title}" src="{source}" sandbox="allow-scripts"
  style="border: 0; position: fixed; width: 100%; height: 100%"></iframe>
</body>
</html>
"""


@router.get("/files/{path:anypath}")
@router.head("/files/{path:anypath}")
async def get_file(
    request: Request, path: str, _: Annotated[Identity, allow("read", "contents")]
) -> Response:
    """Answer a file's bytes, with `?download=1` to be saved; ranges of bytes are understood."""
    disk: Disk = request.app.state.disk
    documents: DocumentStore = request.app.state.documents
    path = disk.normalized(path)
    if await disk.is_hidden(path):
        raise NotFoundError(f"No such file or directory: {path}")
    if await disk.is_directory(path):
        raise ForbiddenError(f"{path} is not a file")
    with contextlib.suppress(DomainError):  # what the disk has is better than nothing
        await documents.save_below(path)
    headers = _headers(request, path)
    headers["Content-Type"] = _media_type(path)
    if not disk.files:
        return await _from_model(request, disk, path, headers)
    with domain_errors(path, disk.root_dir):
        os_path = disk.os_path(path)
        info = await asyncio.to_thread(os.stat, os_path)
        if not os.access(os_path, os.R_OK):
            raise ForbiddenError(f"Permission denied: {path}")
    headers["Last-Modified"] = formatdate(info.st_mtime, usegmt=True)
    if _not_modified(request, info.st_mtime):
        return Response(None, 304, headers)
    if _range(request, info.st_size) == ():
        return _unsatisfiable(info.st_size)
    answer = FileResponse(os_path, headers=headers, stat_result=info)
    del answer.headers["etag"]  # as Jupyter: the time alone says whether a file changed
    return answer


@router.get("/view/{path:anypath}")
async def view_file(
    request: Request, path: str, _: Annotated[Identity, allow("read", "contents")]
) -> Response:
    """Answer a page that shows a file in a frame, as Jupyter Server has it."""
    disk: Disk = request.app.state.disk
    path = disk.normalized(path)
    if await disk.is_hidden(path) or not await disk.is_file(path):
        raise NotFoundError(f"No such file or directory: {path}")
    base_url = request.app.state.settings.base_url
    title, source = escape(path), escape(f"{base_url}files/{quote(path)}")
    page = _VIEW.format(title=title, source=source)
    return Response(page, media_type="text/html; charset=UTF-8")


async def _from_model(request: Request, disk: Disk, path: str, headers: dict[str, str]) -> Response:
    """Answer what a manager without files gives: all of it is read, whatever the range."""
    model = await disk.model(path, type="file")
    content: Any = model["content"]
    data = decodebytes(content.encode("ascii")) if model["format"] == "base64" else content.encode()
    headers["Accept-Ranges"] = "bytes"
    wanted = _range(request, len(data))
    if wanted is None:
        return Response(data, headers=headers)
    if not wanted:
        return _unsatisfiable(len(data))
    start, end = wanted
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
    return Response(data[start:end], 206, headers)


def _range(request: Request, size: int) -> tuple[int, int] | tuple[()] | None:
    """Return the bytes that are asked for, () when there are none such, None for all.

    A range that makes no sense, and more than one, count as none (RFC 9110, 14.2), as in Jupyter:
    then the request is left without it.
    """
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    first, last = (match[1], match[2]) if match else ("", "")
    if not (first or last) or (first and last and int(last) < int(first)):
        scope = request.scope
        scope["headers"] = [(k, v) for k, v in scope["headers"] if k != b"range"]
        return None
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    return (start, end) if start < end else ()


def _unsatisfiable(size: int) -> Response:
    body = {"message": "There are no such bytes in the file", "reason": None}
    return JSONResponse(body, 416, {"Content-Range": f"bytes */{size}"})


def _headers(request: Request, path: str) -> dict[str, str]:
    base = request.app.state.settings.base_url.rstrip("/")
    headers = {
        "Content-Security-Policy": "frame-ancestors 'self'; "
        f"report-uri {base}/api/security/csp-report; sandbox allow-scripts",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }
    if path.endswith(".ipynb") or request.query_params.get("download"):
        name = quote(path.rpartition("/")[2], safe="")
        headers["Content-Disposition"] = f"attachment; filename*=utf-8''{name}"
    return headers


def _media_type(path: str) -> str:
    name = path.rpartition("/")[2]
    if name.endswith(".ipynb"):
        return "application/x-ipynb+json"
    kind, encoding = mimetypes.guess_type(name)
    if encoding == "gzip":
        return "application/gzip"
    if encoding is not None:
        return "application/octet-stream"
    if kind == "text/plain":
        return "text/plain; charset=UTF-8"
    return kind or "application/octet-stream"


def _not_modified(request: Request, changed: float) -> bool:
    if "range" in request.headers:
        return False
    try:
        since = parsedate_to_datetime(request.headers["if-modified-since"])
        return since.timestamp() >= int(changed)
    except (KeyError, ValueError, TypeError, OverflowError):
        return False
