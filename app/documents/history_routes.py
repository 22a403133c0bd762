"""HTTP of documents' histories: changes, content as it was, named versions, restoring."""

import json
import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from app.auth.access import allow
from app.auth.identity import Identity
from app.documents.history import History, Moment
from app.documents.store import DocumentStore
from app.errors import BadRequestError
from app.web import isoformat, json_body, text_field

router = APIRouter()

Reader = Annotated[Identity, allow("read", "documents")]
Writer = Annotated[Identity, allow("write", "documents")]
_LIMIT = 1000


@router.get("/api/documents/{document_id}/history")
async def get_history(
    document_id: str,
    request: Request,
    _: Reader,
    before: Annotated[int | None, Query(ge=1)] = None,
    limit: Annotated[int, Query(ge=1, le=_LIMIT)] = 100,
) -> Response:
    """Answer who changed what and when, the latest first; `before` a version for what is older."""
    history, key = await _history(request, document_id)
    return _json(await history.changes(key, before=before, limit=limit))


@router.get("/api/documents/{document_id}/content")
async def get_content(
    document_id: str,
    request: Request,
    _: Reader,
    version: int | None = None,
    at: datetime | None = None,
    name: str | None = None,
) -> Response:
    """Answer a document as it was at a version, a time, or a named version; as it is without."""
    history, key = await _history(request, document_id)
    found, content = await history.content(key, _moment(version, at, name))
    return _json({"document_id": str(key), "version": found, "content": content})


@router.get("/api/documents/{document_id}/versions")
async def get_versions(document_id: str, request: Request, _: Reader) -> Response:
    """Answer the named versions, the latest first."""
    history, key = await _history(request, document_id)
    return _json({"versions": await history.versions(key)})


@router.post("/api/documents/{document_id}/versions", status_code=201)
async def post_version(document_id: str, request: Request, identity: Writer) -> Response:
    """Name a version: `name`, and which (`version` or `at`, else the present)."""
    history, key = await _history(request, document_id)
    body = await json_body(request)
    name = text_field(body, "name") or ""
    version = await history.name(key, name, _wanted(body, with_name=False), actor_id=identity.id)
    return _json({"name": name, "version": version}, status=201)


@router.delete("/api/documents/{document_id}/versions/{name:path}", status_code=204)
async def delete_version(document_id: str, name: str, request: Request, _: Writer) -> Response:
    """Take a version's name away."""
    history, key = await _history(request, document_id)
    await history.forget(key, name)
    return Response(status_code=204)


@router.post("/api/documents/{document_id}/restore")
async def post_restore(document_id: str, request: Request, identity: Writer) -> Response:
    """Make a document what it was at `version`, `at` or `name`, as a new edit."""
    history, key = await _history(request, document_id)
    moment = _wanted(await json_body(request), with_name=True)
    if moment == Moment():
        raise BadRequestError("Which: version, at or name")
    return _json(await history.restore(key, moment, actor_id=identity.id))


async def _history(request: Request, document_id: str) -> tuple[History, uuid.UUID]:
    documents: DocumentStore = request.app.state.documents
    document = await documents.find(document_id=document_id, any_type=True)
    history: History = request.app.state.history
    return history, document.id


def _wanted(body: dict[str, Any], *, with_name: bool) -> Moment:
    version, at = body.get("version"), text_field(body, "at")
    if version is not None and type(version) is not int:
        raise BadRequestError("version must be a number")
    try:
        time = datetime.fromisoformat(at) if at is not None else None
    except ValueError:
        raise BadRequestError("at must be a time in ISO 8601") from None
    return _moment(version, time, text_field(body, "name") if with_name else None)


def _moment(version: int | None, at: datetime | None, name: str | None) -> Moment:
    if sum(one is not None for one in (version, at, name)) > 1:
        raise BadRequestError("Only one of version, at and name")
    if at is not None and at.tzinfo is None:
        raise BadRequestError("at must have its offset from UTC")
    return Moment(version, at, name)


def _json(answer: dict[str, Any], status: int = 200) -> Response:
    def other(value: object) -> str:
        assert isinstance(value, datetime)
        return isoformat(value)

    content = json.dumps(answer, default=other)
    return Response(content, media_type="application/json", status_code=status)
