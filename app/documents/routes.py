"""HTTP of documents: the cells of a notebook, edited one by one, and each user's undo and redo."""

import json
import uuid
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response

from app.auth.access import allow
from app.auth.identity import Identity
from app.db.engine import Database
from app.documents import cells
from app.documents.editor import NotebookEditor
from app.documents.store import DocumentStore
from app.documents.undo import Undo
from app.errors import BadRequestError
from app.web import json_body
from models import Cell

router = APIRouter()

Reader = Annotated[Identity, allow("read", "documents")]
Writer = Annotated[Identity, allow("write", "documents")]
_STEPS_LIMIT = 1000


@router.get("/api/documents/{document_id}/cells")
async def get_cells(
    document_id: str,
    request: Request,
    identity: Reader,  # noqa: ARG001 (who may ask)
) -> Response:
    """Answer a notebook's cells in order; 404 when there is no such document."""
    documents: DocumentStore = request.app.state.documents
    found = await documents.find(document_id=document_id)
    document, path, rows = await documents.cells(found.id)
    answer = {
        "document_id": str(document.id),
        "path": path,
        "version": document.version,
        "cells": [_cell(row) for row in rows],
    }
    return Response(json.dumps(answer), media_type="application/json")


@router.post("/api/documents/{document_id}/cells", status_code=201)
async def post_cell(document_id: str, request: Request, identity: Writer) -> Response:
    """Insert a cell; answer it. See `cells.insert` for the body."""
    body = await json_body(request)
    return await _edited(
        request, document_id, identity, lambda editor: cells.insert(editor, body), status=201
    )


@router.patch("/api/documents/{document_id}/cells/{cell_id}")
async def patch_cell(
    document_id: str, cell_id: str, request: Request, identity: Writer
) -> Response:
    """Change a cell; answer it. See `cells.change` for the body."""
    body = await json_body(request)

    def change(editor: NotebookEditor) -> str:
        cells.change(editor, cell_id, body)
        return cell_id

    return await _edited(request, document_id, identity, change)


@router.post("/api/documents/{document_id}/cells/{cell_id}/move")
async def move_cell(document_id: str, cell_id: str, request: Request, identity: Writer) -> Response:
    """Move a cell; answer it. See `cells.move` for the body."""
    body = await json_body(request)

    def move(editor: NotebookEditor) -> str:
        cells.move(editor, cell_id, body)
        return cell_id

    return await _edited(request, document_id, identity, move)


@router.delete("/api/documents/{document_id}/cells/{cell_id}", status_code=204)
async def delete_cell(
    document_id: str, cell_id: str, request: Request, identity: Writer
) -> Response:
    """Delete a cell; its executions stay."""

    def delete(editor: NotebookEditor) -> None:
        cells.delete(editor, cell_id)

    return await _edited(request, document_id, identity, delete, status=204)


async def _edited(
    request: Request,
    document_id: str,
    identity: Identity,
    edit: Callable[[NotebookEditor], str | None],
    *,
    status: int = 200,
) -> Response:
    """Edit a notebook; answer the cell whose id `edit` returns, with the document's version."""
    documents: DocumentStore = request.app.state.documents
    database: Database = request.app.state.database
    document = await documents.find(document_id=document_id)
    async with database.transaction() as tx:
        editor = await documents.edit(tx, document.id, origin="api", actor_id=identity.id)
        cell_id = edit(editor)
        await editor.flush()
        row = editor.row(cell_id) if cell_id is not None else None
        answer = {"document_id": str(document.id), "document_version": editor.version}
        if row is not None:
            answer |= _cell(row) | {"position": row.position}
    if status == 204:
        return Response(status_code=204)
    return Response(json.dumps(answer), media_type="application/json", status_code=status)


@router.get("/api/documents/{document_id}/undo")
async def get_undo(document_id: str, request: Request, identity: Reader) -> Response:
    """Answer how many steps the asker can undo and redo."""
    undo: Undo = request.app.state.undo
    document = await _any(request, document_id)
    counts = await undo.counts(document, identity.id)
    return Response(json.dumps(counts), media_type="application/json")


@router.post("/api/documents/{document_id}/undo")
async def post_undo(document_id: str, request: Request, identity: Writer) -> Response:
    """Take back the asker's last `steps` (1); answer the version and what is possible now."""
    return await _take_back(request, document_id, identity, redo=False)


@router.post("/api/documents/{document_id}/redo")
async def post_redo(document_id: str, request: Request, identity: Writer) -> Response:
    """Do again the asker's last `steps` (1) undone; answer as undo does."""
    return await _take_back(request, document_id, identity, redo=True)


async def _take_back(
    request: Request, document_id: str, identity: Identity, *, redo: bool
) -> Response:
    undo: Undo = request.app.state.undo
    body = await json_body(request) if (await request.body()).strip() else {}
    steps = body.get("steps", 1)
    if type(steps) is not int or not 1 <= steps <= _STEPS_LIMIT:
        raise BadRequestError(f"steps must be a number from 1 to {_STEPS_LIMIT}")
    document = await _any(request, document_id)
    done = await undo.perform(document, identity.id, redo=redo, steps=steps)
    return Response(json.dumps(done), media_type="application/json")


@router.post("/api/documents/{document_id}/overwrite")
async def post_overwrite(document_id: str, request: Request, _: Writer) -> Response:
    """Save a document over a file that another program made unreadable, and keep that beside it.

    Answers `kept`, the copy's path, null when the file could be merged or was gone.
    """
    documents: DocumentStore = request.app.state.documents
    kept = await documents.overwrite(await _any(request, document_id))
    return Response(json.dumps({"kept": kept}), media_type="application/json")


async def _any(request: Request, document_id: str) -> uuid.UUID:
    documents: DocumentStore = request.app.state.documents
    return (await documents.find(document_id=document_id, any_type=True)).id


def _cell(row: Cell) -> dict[str, Any]:
    return {
        "id": row.cell_id,
        "type": row.cell_type,
        "source": row.source,
        "version": row.version,
        "metadata": row.metadata_,
        "execution_count": row.execution_count,
        "execution_state": row.execution_state,
        "execution_id": str(row.execution_id) if row.execution_id else None,
    }
