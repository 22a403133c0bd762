"""The body of jupyter-server-documents' executor: cells with hashes of their text.

`{"document_id", "cells": [{"cell_id", "source_hash"}], ...}`; the answer is `null` once all are
queued. Its `previous_request_id` is not needed: a request is queued whole, in the order of arrival.
"""

from typing import Any

from fastapi import Request, Response

from app.auth.access import require
from app.auth.identity import Identity
from app.documents.editor import NotebookEditor
from app.errors import BadRequestError, ConflictError
from app.executions.submit import Options, run_chosen
from app.web import ExactJSONResponse, text_field

_MASK = 0xFFFFFFFF
_MULTIPLIER = 0x5BD1E995
_SHIFT = 24


class SourceMismatchError(ConflictError):
    """A cell has another text than the front end saw."""

    def __init__(self, cell_id: str) -> None:
        super().__init__("The cell has changed", reason=f"source_mismatch: {cell_id}")
        self.cell_id = cell_id


async def accept_server_documents(
    request: Request, identity: Identity, kernel_id: str, body: dict[str, Any]
) -> Response:
    """Queue all cells or none; 409 with `source_mismatch` when one has another text by now."""
    cells, document_id = body["cells"], text_field(body, "document_id")
    if not document_id:
        raise BadRequestError("document_id is required")
    if not isinstance(cells, list) or not cells or not all(isinstance(c, dict) for c in cells):
        raise BadRequestError("cells must be a list of {cell_id, source_hash} that is not empty")
    hashes = {str(cell.get("cell_id")): cell.get("source_hash") for cell in cells}

    def choose(editor: NotebookEditor) -> list[str]:
        for cell_id, expected in hashes.items():
            row = editor.row(cell_id)
            if row is not None and str(murmur2(row.source)) != str(expected):
                raise SourceMismatchError(cell_id)
        return list(hashes)

    state = request.app.state
    await require(state.database, identity, "execute", "documents", document_id)
    document = await state.documents.find(document_id=document_id)
    try:
        await run_chosen(state, identity, kernel_id, document, choose, options=Options())
    except SourceMismatchError as error:
        return ExactJSONResponse({"error": "source_mismatch", "cell_id": error.cell_id}, 409)
    return ExactJSONResponse(None)


def murmur2(text: str) -> int:
    """Return MurmurHash2 (32 bits, seed 0) of the text in UTF-8, as JupyterLab's coreutils do."""
    data = text.encode("utf-8", "surrogatepass")
    mixed = len(data)
    whole = len(data) - len(data) % 4
    for start in range(0, whole, 4):
        part = int.from_bytes(data[start : start + 4], "little") * _MULTIPLIER & _MASK
        part = (part ^ part >> _SHIFT) * _MULTIPLIER & _MASK
        mixed = (mixed * _MULTIPLIER & _MASK) ^ part
    if rest := data[whole:]:
        mixed = (mixed ^ int.from_bytes(rest, "little")) * _MULTIPLIER & _MASK
    mixed = (mixed ^ mixed >> 13) * _MULTIPLIER & _MASK
    return mixed ^ mixed >> 15
