"""HTTP of timelines and forks, as jupyter-collaboration's front end calls them."""

import json
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response

from app.auth.access import allow
from app.auth.identity import Identity
from app.collaboration import notices
from app.collaboration.forks import Forks
from app.collaboration.rooms import Rooms
from app.documents.store import DocumentStore
from app.errors import BadRequestError, ForbiddenError, NotFoundError
from app.web import json_body, text_field
from models import Document, DocumentFork

router = APIRouter()

Reader = Annotated[Identity, allow("read", "documents")]
Writer = Annotated[Identity, allow("write", "documents")]


@router.get("/api/collaboration/timeline/{path:path}")
async def get_timeline(
    path: str, request: Request, identity: Annotated[Identity, allow("read", "contents")]
) -> Response:
    """Make a room in which a document's history can be walked; answer it, and when things changed.

    Whatever the query says, the document is that of the file.
    """
    rooms: Rooms = request.app.state.rooms
    forks: Forks = request.app.state.forks
    documents: DocumentStore = request.app.state.documents
    path = path.lstrip("/")
    if await documents.type_at(path) is None:
        raise NotFoundError(f"No document is open at {path}")
    await documents.follow(path, actor_id=identity.id)
    document = await documents.at(path)
    if document.type == "notebook" and "type=file" in request.url.query:
        raise NotFoundError("The history of a notebook is that of its cells, not of its text")
    await _require(rooms, identity, document.id)
    name, timeline = await forks.timeline(document.id)
    return _json(
        {
            "roomId": _room(document),
            "timestamps": timeline.timestamps,
            "forkRoom": name,
            "sessionId": rooms.session_id,
        }
    )


@router.put("/api/collaboration/undo_redo/{room_name:path}")
async def walk_timeline(
    room_name: str,  # noqa: ARG001 (front ends send another's)
    request: Request,
    identity: Reader,
) -> Response:
    """Walk a timeline, `forkRoom`: `action` undo or redo by `steps`, or restore, which ends it."""
    forks: Forks = request.app.state.forks
    query = request.query_params
    timeline = forks.timelines.get(query.get("forkRoom", ""))
    rooms: Rooms = request.app.state.rooms
    if timeline is None or await rooms.rights(identity, timeline.document_id) is None:
        # The front end reads `error`; every error has Jupyter's `message` too.
        missing = "Fork document not found"
        answer = {"code": 404, "error": missing, "message": missing, "reason": None}
        return _json(answer, status=404)
    action = query.get("action")
    if action == "restore":
        # The front end connects to the document's room and uploads what it has.
        return _json({"code": 200, "status": "restored"})
    if action not in ("undo", "redo"):
        raise BadRequestError(f"action cannot be {action}")
    steps = query.get("steps", "1")
    if not steps.isdigit() or len(steps) > 6:
        raise BadRequestError("steps must be a number")
    if not timeline.walk(back=action == "undo", steps=int(steps)):
        return _json({"error": f"Nothing more to {action}"})
    return _json({"status": "undone" if action == "undo" else "redone"})


@router.get("/api/collaboration/fork/{document_id:path}")
async def get_forks(document_id: str, request: Request, identity: Reader) -> Response:
    """Answer a room's forks by the names of their rooms."""
    forks: Forks = request.app.state.forks
    document = await _document(request, document_id, identity)
    return _json({one.id.hex: _info(one, document_id) for one in await forks.of(document.id)})


@router.put("/api/collaboration/fork/{document_id:path}", status_code=201)
async def put_fork(document_id: str, request: Request, identity: Writer) -> Response:
    """Fork a room's document: `title`, `description`, `synchronize`."""
    forks: Forks = request.app.state.forks
    rooms: Rooms = request.app.state.rooms
    document = await _document(request, document_id, identity)
    body = await json_body(request) if (await request.body()).strip() else {}
    fork = await forks.create(
        document.id,
        title=text_field(body, "title") or "",
        description=text_field(body, "description") or "",
        synchronize=bool(body.get("synchronize", False)),
        actor_id=identity.id,
    )
    info = _info(fork, document_id)
    notices.tell_fork(request.app.state.events, fork.id.hex, info, identity.name, "create")
    answer = {"sessionId": rooms.session_id, "fork_roomid": fork.id.hex, "fork_info": info}
    return _json(answer, status=201)


@router.delete("/api/collaboration/fork/{fork_id}")
async def delete_fork(
    fork_id: str, request: Request, identity: Writer, merge: str = "false"
) -> Response:
    """Drop a fork, with `merge=true` after its edits were made in its document."""
    forks: Forks = request.app.state.forks
    documents: DocumentStore = request.app.state.documents
    found = await forks.find(fork_id)
    document = await documents.find(document_id=str(found.document_id), any_type=True)
    right = await request.app.state.rooms.rights(identity, document.id)
    if right is None:
        raise NotFoundError(f"No such fork: {fork_id}")
    if right != "write":
        raise ForbiddenError("You may not change this document")
    fork = await forks.delete(fork_id, merge=merge == "true", actor_id=identity.id)
    info = _info(fork, _room(document))
    notices.tell_fork(request.app.state.events, fork_id, info, identity.name, "delete")
    return Response(status_code=200)


async def _document(request: Request, name: str, identity: Identity) -> Document:
    documents: DocumentStore = request.app.state.documents
    document = await documents.find(document_id=name, any_type=True)
    await _require(request.app.state.rooms, identity, document.id)
    return document


async def _require(rooms: Rooms, identity: Identity, document_id: uuid.UUID) -> None:
    if await rooms.rights(identity, document_id) is None:
        raise NotFoundError(f"No such document: {document_id}")


def _room(document: Document) -> str:
    return f"{document.format}:{document.type}:{document.id}"


def _info(fork: DocumentFork, root: str) -> dict[str, Any]:
    return {
        "root_roomid": root,
        "synchronize": fork.synchronize,
        "title": fork.title,
        "description": fork.description,
    }


def _json(answer: Any, status: int = 200) -> Response:
    return Response(json.dumps(answer), media_type="application/json", status_code=status)
