"""HTTP of contents, as Jupyter Server answers it: reading and writing notebooks and files.

Notebooks go through their document, so that what is answered has the outputs of this moment;
everything else is what the disk says.
"""

import asyncio
import json
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from app.auth.access import allow
from app.auth.identity import Identity
from app.contents.disk import Disk, as_notebook
from app.documents.store import DocumentStore
from app.errors import BadRequestError
from app.web import isoformat, json_body, text_field

router = APIRouter()

_TYPES = ("directory", "file", "notebook")
_FORMATS = ("json", "text", "base64")


@router.get("/api/contents")
@router.get("/api/contents/{path:path}")
async def get_contents(  # noqa: PLR0917 (FastAPI passes them by name)
    request: Request,
    identity: Annotated[Identity, allow("read", "contents")],
    path: str = "",
    type: Annotated[str | None, Query()] = None,  # noqa: A002 (Jupyter's name)
    format: Annotated[str | None, Query()] = None,  # noqa: A002 (Jupyter's name)
    content: Annotated[str, Query()] = "1",
    hash: Annotated[str, Query()] = "0",  # noqa: A002 (Jupyter's name)
) -> Response:
    """Answer the model of a file, folder or notebook."""
    disk: Disk = request.app.state.disk
    if type is not None and type not in _TYPES:
        raise BadRequestError(f"Type {type!r} is invalid")
    if format is not None and format not in _FORMATS:
        raise BadRequestError(f"Format {format!r} is invalid")
    with_content, with_hash = _flag("content", content), _flag("hash", hash)
    path = disk.normalized(path)
    is_notebook = type == "notebook" or (type is None and path.endswith(".ipynb"))
    if with_content and is_notebook and not await disk.is_directory(path):
        return await _notebook(request, identity, path, with_hash=with_hash)
    model = await disk.model(path, content=with_content, type=type, format=format, hash=with_hash)
    return await _answer(model)


async def _notebook(
    request: Request, identity: Identity, path: str, *, with_hash: bool
) -> Response:
    disk: Disk = request.app.state.disk
    documents: DocumentStore = request.app.state.documents
    document = await documents.open_notebook(path, actor_id=identity.id)
    notebook = await documents.notebook(document.id)
    if not disk.exists(path):
        # Deleted by another program while it had unsaved changes: it is written again.
        await documents.save_now(document.id)
    model = await disk.model(path, content=False, type="notebook", hash=with_hash)
    content, message = await disk.for_client(path, notebook)
    model.update(content=content, format="json")
    if message:
        model["message"] = message
    return await _answer(model)


@router.put("/api/contents/{path:path}")
async def put_contents(
    request: Request,
    path: str,
    identity: Annotated[Identity, allow("write", "contents")],
) -> Response:
    """Save a notebook, a file (whole or in chunks) or make a folder; answer its model."""
    disk: Disk = request.app.state.disk
    documents: DocumentStore = request.app.state.documents
    model = await json_body(request)
    kind = model.get("type")
    text_field(model, "format")
    if kind is None:
        raise BadRequestError("No file type provided")
    if kind not in _TYPES:
        raise BadRequestError(f"Unhandled contents type: {kind}")
    if kind != "directory" and model.get("content") is None:
        raise BadRequestError("No file content provided")
    path = disk.normalized(path)
    if kind == "notebook":
        notebook, message = await asyncio.to_thread(as_notebook, model["content"])
        new = not disk.exists(path)
        await documents.put_notebook(path, model["content"], actor_id=identity.id)
        await disk.sign(path, _with_trust(notebook, model["content"]))
        saved = await disk.model(path, content=False, type="notebook")
        if message:
            saved["message"] = message
    else:
        saved, new = await disk.save_model(path, model)
        if await documents.is_open(path):
            await documents.open_notebook(path, actor_id=identity.id)
    headers = {"Location": f"{request.url.path}"} if new else None
    return await _answer(saved, status=201 if new else 200, headers=headers)


def _with_trust(notebook: dict[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a notebook whose cells are as trusted as those that the client sent."""
    cells = []
    for cell, original in zip(notebook["cells"], sent.get("cells") or [], strict=False):
        trusted = (original.get("metadata") or {}).get("trusted", False)
        cells.append({**cell, "metadata": {**cell["metadata"], "trusted": trusted}})
    return {**notebook, "cells": cells}


def _flag(name: str, value: str) -> bool:
    if value not in ("0", "1"):
        raise BadRequestError(f"{name.capitalize()} {value!r} is invalid")
    return value == "1"


async def _answer(
    model: dict[str, Any], *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Answer a model; NaN is written as Jupyter does, which Starlette's own response refuses."""
    text = await asyncio.to_thread(json.dumps, _plain(model))
    return Response(text, status, headers, media_type="application/json")


def _plain(model: dict[str, Any]) -> dict[str, Any]:
    """Return a model with its times as Jupyter writes them, also in a folder's entries."""
    plain = {
        key: isoformat(value) if isinstance(value, datetime) else value
        for key, value in model.items()
    }
    if model.get("type") == "directory" and isinstance(model.get("content"), list):
        plain["content"] = [_plain(entry) for entry in model["content"]]
    return plain
