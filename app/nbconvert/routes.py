"""`/api/nbconvert` and `/nbconvert/...` as Jupyter Server answers them.

A notebook is converted from its document, so that the outputs of this moment are in it.
"""

import asyncio
import posixpath
from email.utils import format_datetime
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from app.auth.access import allow
from app.auth.identity import Identity
from app.contents.disk import Disk
from app.contents.notebook_format import as_notebook
from app.documents.store import DocumentStore
from app.errors import BadRequestError
from app.nbconvert.convert import Converted, Source, convert, exporters
from app.web import json_body, text_field

router = APIRouter()

# A notebook's HTML may have scripts: they run in an origin of their own, away from the server.
_SANDBOX = "frame-ancestors 'self'; sandbox allow-scripts"


@router.get("/api/nbconvert")
async def list_exporters(
    _: Annotated[Identity, allow("read", "nbconvert")],
) -> dict[str, dict[str, str]]:
    """List the formats that notebooks can be converted to."""
    return await asyncio.to_thread(exporters)


@router.get("/nbconvert/{format}/{path:path}")
async def convert_file(  # noqa: PLR0917 (FastAPI passes them by name)
    format: str,  # noqa: A002 (Jupyter's name)
    path: str,
    request: Request,
    identity: Annotated[Identity, allow("read", "nbconvert")],
    download: str = "false",
    sanitize_html: str | None = None,
) -> Response:
    """Convert a notebook file, as it is now; `download=true` makes it an attachment.

    With `sanitize_html=true`, HTML is cleaned of scripts. What is not a notebook is redirected to.
    """
    disk: Disk = request.app.state.disk
    documents: DocumentStore = request.app.state.documents
    path = disk.normalized(path)
    if await disk.is_directory(path):
        raise BadRequestError(f"{path} is a directory", reason="bad type")
    if not path.endswith(".ipynb"):
        await disk.model(path, content=False)  # 404 when there is no such file
        base_url = request.app.state.settings.base_url
        return RedirectResponse(f"{base_url}files/{quote(path)}", 302)
    document = await documents.open_notebook(path, actor_id=identity.id)
    notebook = await documents.notebook(document.id)
    model = await disk.model(path, content=False, type="notebook")
    folder, name = posixpath.split(path)
    options: dict[str, Any] = {}
    if format == "html" and sanitize_html is not None:
        options["sanitize_html"] = sanitize_html.lower() == "true"
    source = Source(
        notebook=notebook,
        name=name,
        modified=model["last_modified"],
        folder=str(disk.root_dir / folder),
        options=options,
    )
    converted = await _convert(request, format, source)
    headers = {
        "Last-Modified": format_datetime(model["last_modified"], usegmt=True),
        "Cache-Control": "no-store, no-cache, must-revalidate, max-age=0",
    }
    return _answer(converted, headers, download=download.lower() == "true")


@router.post("/nbconvert/{format}")
async def convert_sent(
    format: str,  # noqa: A002 (Jupyter's name)
    request: Request,
    _: Annotated[Identity, allow("write", "nbconvert")],
) -> Response:
    """Convert the notebook in the body: `{"name": "a.ipynb", "content": {...}}`."""
    body = await json_body(request)
    name = text_field(body, "name") or "notebook.ipynb"
    notebook, _message = await asyncio.to_thread(as_notebook, body.get("content"))
    return _answer(await _convert(request, format, Source(notebook, posixpath.basename(name))), {})


async def _convert(request: Request, format_name: str, source: Source) -> Converted:
    slots: asyncio.Semaphore = request.app.state.nbconvert_slots
    async with slots:
        return await asyncio.to_thread(convert, format_name, source)


def _answer(converted: Converted, headers: dict[str, str], *, download: bool = False) -> Response:
    headers = {
        **headers,
        "Content-Security-Policy": _SANDBOX,
        "X-Content-Type-Options": "nosniff",
    }
    if converted.is_zip or download:
        filename = quote(converted.filename.encode("utf-8", "replace"), safe="")
        headers["Content-Disposition"] = f"attachment; filename*=utf-8''{filename}"
    media_type = converted.media_type or "text/plain"
    if not converted.is_zip:
        media_type = f"{media_type}; charset=utf-8"
    # Given as a header: Starlette would add another charset to text.
    return Response(converted.content, headers={**headers, "Content-Type": media_type})
