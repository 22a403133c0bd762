"""HTTP of documents: the cells of a notebook as rows, with their versions."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response

from app.auth.access import allow
from app.auth.identity import Identity
from app.documents.store import DocumentStore
from models import Cell

router = APIRouter()


@router.get("/api/documents/{document_id}/cells")
async def get_cells(
    document_id: str,
    request: Request,
    identity: Annotated[Identity, allow("read", "documents")],  # noqa: ARG001 (who may ask)
) -> Response:
    """Answer a notebook's cells in order; 404 when there is no such document."""
    documents: DocumentStore = request.app.state.documents
    found = await documents.find(document_id=document_id)
    document, path, cells = await documents.cells(found.id)
    answer = {
        "document_id": str(document.id),
        "path": path,
        "version": document.version,
        "cells": [_cell(row) for row in cells],
    }
    return Response(json.dumps(answer), media_type="application/json")


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
