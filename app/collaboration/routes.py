"""HTTP and websockets of rooms, as jupyter-collaboration's front end calls them."""

import asyncio
import contextlib
import json
import logging
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from starlette.websockets import WebSocket

from app.auth.access import allow
from app.auth.identity import Identity
from app.auth.revocations import Revocations
from app.collaboration import notices, protocol
from app.collaboration.forks import Forks
from app.collaboration.peer import Peer
from app.collaboration.protocol import BadFrameError
from app.collaboration.room import UNSOUND, DocumentRoom, RoomBase
from app.collaboration.rooms import FORBIDDEN, GLOBAL_AWARENESS, REVOKED, Rooms
from app.collaboration.text_view import TextView
from app.documents import trust
from app.documents.cells import begin_if_empty
from app.documents.store import DocumentStore
from app.errors import BadRequestError, DomainError, NotFoundError
from app.events.events import Events
from app.web import json_body, text_field
from models import Document

log = logging.getLogger(__name__)
router = APIRouter()

# What the front end takes as an answer to opening: it gives up and says why.
_CLOSE_CODES = {400: 4400, 403: 4403, 404: 4404}
_FAILED = 4500
# The id in the room's name of a file that cannot be opened.
_UNOPENED = "unopened"
_CLOSE_SECONDS = 5.0
_SAVE_SECONDS = 60.0


@router.put("/api/collaboration/session/{path:path}")
async def put_session(
    path: str, request: Request, identity: Annotated[Identity, allow("read", "contents")]
) -> Response:
    """Open a document for a room: answer its id and the session's; 201 when it is new.

    404 when there is no such file. A notebook may be opened as text, too. When a file cannot be
    edited in this form the answer has a `message`, and its room closes with 4400: front ends
    show that, and would wait for ever for what was answered with an error.
    """
    rooms: Rooms = request.app.state.rooms
    documents: DocumentStore = request.app.state.documents
    body = await json_body(request)
    form, kind = text_field(body, "format"), text_field(body, "type")
    path = path.lstrip("/")
    if kind is None or (form, kind) not in (("json", "notebook"), ("text", "file")):
        raise BadRequestError(f"A {kind} cannot be edited together in format {form}")
    answer = {"format": form, "type": kind, "sessionId": rooms.session_id}
    try:
        document, is_new = await _opened(rooms, documents, path, kind, identity)
    except BadRequestError as error:
        answer |= {"fileId": _UNOPENED, "message": error.message}
        return Response(json.dumps(answer), media_type="application/json")
    right = await rooms.rights(identity, document.id)
    if right is None:
        raise NotFoundError(f"No such file or directory: {path}")
    if kind == "notebook" and document.id not in rooms.open_rooms():
        if right == "write":
            await begin_if_empty(documents, document.id)
        if not is_new:
            await trust.mark_if_signed(documents, request.app.state.disk, document.id)
    if kind == "file" and document.type == "notebook":
        answer["sessionId"] = (await rooms.views.enter(document.id, path)).session_id
    answer["fileId"] = str(document.id)
    return Response(
        json.dumps(answer), media_type="application/json", status_code=201 if is_new else 200
    )


async def _opened(
    rooms: Rooms, documents: DocumentStore, path: str, kind: str, identity: Identity
) -> tuple[Document, bool]:
    """Return the document for a room of a type, and whether it was just loaded.

    BadRequestError when it cannot be of that type. A notebook's file has one document, that of the
    notebook, also for who wants its text. One whose file another program has made unreadable is
    what it was before.
    """
    is_notebook = kind == "notebook" or path.endswith(".ipynb")
    try:
        wanted = "notebook" if is_notebook else "file"
        return await documents.open_for_room(path, wanted, actor_id=identity.id)
    except BadRequestError:
        known = await documents.type_at(path)
        if known == "notebook":
            return await documents.at(path), False
        if kind == "file" and is_notebook:
            return await documents.open_for_room(path, "file", actor_id=identity.id)
        if known != "file" or kind == "file":
            raise
    # It was repaired as text.
    room = rooms.open_rooms().get((await documents.at(path)).id)
    if room is not None and room.peers:
        raise BadRequestError(f"{path} is open as text: close that first")
    await documents.forget_text(path)
    return await documents.open_for_room(path, "notebook", actor_id=identity.id)


@router.websocket("/api/collaboration/room/{room_name:path}")
async def enter_room(
    websocket: WebSocket,
    room_name: str,
    identity: Annotated[Identity, allow("read", "documents")],
) -> None:
    """Let a peer into a room until either leaves.

    Closes with 1003 when the session is not this database's, with 4404 without a document, 4400
    when the document has another form; reasons are JSON.
    """
    name = room_name
    rooms: Rooms = websocket.app.state.rooms
    await websocket.accept()
    room: RoomBase
    right: Any = "write"
    if name == GLOBAL_AWARENESS:
        room = rooms.everywhere
    else:
        session_id = websocket.query_params.get("sessionId")
        if session_id and session_id != rooms.session_of(name):
            reason = {"reason": "unknown_session", "sessionId": session_id[:40], "reloadable": True}
            await _close(websocket, UNSOUND, json.dumps(reason))
            return
        try:
            if ":" in name:
                room, right = await _document_room(websocket, name, identity)
            else:
                room, right = await _apart(websocket, name, identity)
        except DomainError as error:
            code = _CLOSE_CODES.get(error.status, _FAILED)
            await _close(websocket, code, json.dumps({"reason": error.message[:80]}))
            return
    peer = rooms.peer(identity, right)
    events: Events = websocket.app.state.events
    revocations: Revocations = websocket.app.state.revocations
    notices.tell_presence(events, name, identity.name, "join")
    try:
        # The token, and whether its user is one; what they may in the room, `Rooms` asks.
        with revocations.watch(
            identity, "read", "api", on_ended=lambda: peer.end(FORBIDDEN, REVOKED)
        ):
            await _serve(websocket, room, peer)
    finally:
        room.leave(peer)
        rooms.left(room)
        websocket.app.state.forks.left(name)
        notices.tell_presence(events, name, identity.name, "leave")


async def _apart(websocket: WebSocket, name: str, identity: Identity) -> tuple[RoomBase, str]:
    """Return the room of a fork or a timeline."""
    forks: Forks = websocket.app.state.forks
    document_id, room = await forks.enter(name)
    right = await websocket.app.state.rooms.rights(identity, document_id)
    if right is None:
        raise NotFoundError(f"No such fork: {name}")
    return room, right


async def _document_room(
    websocket: WebSocket, name: str, identity: Identity
) -> tuple[DocumentRoom | TextView, str]:
    rooms: Rooms = websocket.app.state.rooms
    documents: DocumentStore = websocket.app.state.documents
    form, _, rest = name.partition(":")
    kind, _, file_id = rest.partition(":")
    if file_id == _UNOPENED:
        raise BadRequestError("It cannot be opened in this form")
    document = await documents.find(document_id=file_id, any_type=True)
    right = await rooms.rights(identity, document.id)
    if right is None:
        raise NotFoundError(f"No such document: {file_id}")
    views = rooms.views
    if (form, kind) == ("text", "file") and document.id in views.open_rooms():
        return await views.enter(document.id), right
    if (document.format, document.type) != (form, kind):
        raise BadRequestError(f"It is open as {document.format}:{document.type}")
    return await rooms.enter(name, document.id), right


async def _serve(websocket: WebSocket, room: RoomBase, peer: Peer) -> None:
    room.join(peer)
    tasks = [
        asyncio.create_task(_read(websocket, room, peer)),
        asyncio.create_task(_write(websocket, peer)),
        asyncio.create_task(peer.ended.wait()),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        tasks[1].cancel()
        if peer.ended.is_set():
            await _close(websocket, *peer.ending)
        elif tasks[0].done() and (error := tasks[0].exception()) is not None:
            log.error("room %s", room.name, exc_info=error)
            await _close(websocket, 1011, "the server failed")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _write(websocket: WebSocket, peer: Peer) -> None:
    while True:
        frame = await peer.next()
        await websocket.send({"type": "websocket.send", "bytes": frame})
        peer.sent()


async def _read(websocket: WebSocket, room: RoomBase, peer: Peer) -> None:
    """Take the peer's frames until it leaves, or sends what is none."""
    saving: set[asyncio.Task[None]] = set()
    try:
        while True:
            event = await websocket.receive()
            if event["type"] == "websocket.disconnect":
                return
            frame = event.get("bytes")
            try:
                if frame is None:
                    raise BadFrameError("a room's frames are binary")
                number = room.receive(peer, frame)
            except BadFrameError as error:
                log.warning("room %s: %s sent %s", room.name, peer.identity.name, error)
                reason = {"reason": "bad_message", "message": str(error)[:60], "reloadable": True}
                peer.end(UNSOUND, json.dumps(reason))
                return
            if number is not None and isinstance(room, DocumentRoom | TextView):
                task = asyncio.create_task(_save(websocket, room, peer, number))
                saving.add(task)
                task.add_done_callback(saving.discard)
    finally:
        for task in saving:
            task.cancel()
        await asyncio.gather(*saving, return_exceptions=True)


async def _save(
    websocket: WebSocket, room: DocumentRoom | TextView, peer: Peer, number: int
) -> None:
    """Save a document at a peer's request, and answer how that went."""
    documents: DocumentStore = websocket.app.state.documents
    status = "failed"
    if peer.may_write:
        try:
            async with asyncio.timeout(_SAVE_SECONDS):
                await room.drained()
                await documents.save_now(room.document_id)
            status = "success"
        except Exception as error:  # noqa: BLE001 (whatever it is, the peer is told)
            log.warning("room %s is not saved: %s", room.name, error)
    peer.put(protocol.raw({"type": "save", "responseTo": number, "status": status}))
    if status == "success" and room.name.startswith("json:notebook:"):
        try:
            await trust.sign_if_trusted(documents, websocket.app.state.disk, room.document_id)
        except Exception as error:  # noqa: BLE001 (it is saved all the same)
            log.warning("room %s is not signed: %s", room.name, error)


async def _close(websocket: WebSocket, code: int, reason: str) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CLOSE_SECONDS):
            # A reason has at most 123 bytes (RFC 6455, section 5.5).
            short = reason.encode()[:123].decode(errors="ignore")
            await websocket.send({"type": "websocket.close", "code": code, "reason": short})
