"""`/api/kernels/{kernel_id}/channels`: a kernel's messages over a websocket, both ways.

What a client sends goes to the kernel as it is, signed; of it only the header is read, and what an
execution needs for its row. What the kernel sends comes from `Clients`, encoded once for all.
"""

import asyncio
import contextlib
import logging
from typing import Annotated

from fastapi import APIRouter, WebSocket, WebSocketException
from sqlalchemy import update
from starlette.requests import HTTPConnection

from app.auth.access import allow
from app.auth.identity import Identity
from app.auth.revocations import CLOSE_CODE, CLOSE_REASON, Revocations
from app.db.engine import Database
from app.documents.store import DocumentStore
from app.errors import NotFoundError
from app.kernels.clients import Client
from app.kernels.host import KernelHost
from app.kernels.running import RunningKernel
from app.kernels.wire import V1, IgnoredError, MalformedError, decode, encoder
from models import Kernel

log = logging.getLogger(__name__)
router = APIRouter()

# A client that reads nothing does not read that it is closed either.
_CLOSE_SECONDS = 2.0
# How long opening waits for the row that counts connections; the kernel matters more.
_COUNT_SECONDS = 2.0


def check_origin(connection: HTTPConnection) -> None:
    """Raise ForbiddenError for a websocket that another site's page opens.

    `app.state.check_origin` decides, if there is one.
    """
    check = getattr(connection.app.state, "check_origin", None)
    if check is not None:
        check(connection)


@router.websocket("/api/kernels/{kernel_id}/channels")
async def kernel_channels(
    websocket: WebSocket,
    kernel_id: str,
    identity: Annotated[Identity, allow("execute", "kernels")],
) -> None:
    """Connect a client to a kernel until either goes; 404 when there is none or it is dead."""
    check_origin(websocket)
    host: KernelHost = websocket.app.state.kernels
    kernel = host.get(kernel_id)
    if kernel.state == "dead":
        raise NotFoundError(f"Kernel is dead: {kernel_id}", reason=kernel.reason)
    session_id = websocket.query_params.get("session_id") or None
    subprotocol = V1 if V1 in websocket.scope["subprotocols"] else None
    revocations: Revocations = websocket.app.state.revocations
    client = kernel.clients.attach(identity, session_id)
    database: Database = websocket.app.state.database
    documents: DocumentStore = websocket.app.state.documents
    try:
        await _count(database, kernel)
        await websocket.accept(subprotocol)
        with revocations.watch(
            identity,
            "execute",
            "kernels",
            kernel_id,
            on_ended=lambda: client.end(CLOSE_CODE, CLOSE_REASON),
        ):
            await _serve(websocket, kernel, client, subprotocol)
    finally:
        kernel.clients.detach(client)
        for document_id in client.keeper.documents:
            documents.touch(document_id)
        client.keeper.documents = set()
        await _count(database, kernel)


async def _count(database: Database, kernel: RunningKernel) -> None:
    """Store how many websockets the kernel has; the last to write knows best."""

    async def store() -> None:
        async with kernel.counting, database.transaction(as_server=True) as tx:
            await tx.execute(
                update(Kernel)
                .where(Kernel.id == kernel.id)
                .values(connections=kernel.clients.count)
                .execution_options(synchronize_session=False)
            )

    task = asyncio.create_task(store())
    done, _ = await asyncio.wait({task}, timeout=_COUNT_SECONDS)
    if done and (error := task.exception()) is not None:
        log.warning("kernel %s: counting connections: %s", kernel.id, error)


async def _serve(
    websocket: WebSocket, kernel: RunningKernel, client: Client, subprotocol: str | None
) -> None:
    """Pass messages on until the client leaves or is to be closed."""
    reading = asyncio.create_task(_read(websocket, kernel, client, subprotocol))
    writing = asyncio.create_task(_write(websocket, client, subprotocol))
    ending = asyncio.create_task(client.ended.wait())
    tasks = {reading, writing, ending}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            writing.cancel()
            await _close(websocket, *client.ending)
        elif reading.done() and (error := reading.exception()) is not None:
            writing.cancel()
            if not isinstance(error, WebSocketException):
                raise error
            await _close(websocket, error.code, error.reason)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _close(websocket: WebSocket, code: int, reason: str) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CLOSE_SECONDS):
            # A reason has at most 123 bytes (RFC 6455, section 5.5).
            short = reason.encode()[:123].decode(errors="ignore")
            await websocket.send({"type": "websocket.close", "code": code, "reason": short})


async def _write(websocket: WebSocket, client: Client, subprotocol: str | None) -> None:
    """Send what is queued, each message when the one before is out of this process's hands."""
    encode = encoder(subprotocol)
    send = websocket.send
    while True:
        while client.queue:
            message = client.queue[0]
            frame = encode(message)
            kind = "text" if isinstance(frame, str) else "bytes"
            await send({"type": "websocket.send", kind: frame})
            client.sent(message)
        await client.wait()


async def _read(
    websocket: WebSocket, kernel: RunningKernel, client: Client, subprotocol: str | None
) -> None:
    """Send the client's messages to the kernel; returns when the client has gone."""
    while True:
        event = await websocket.receive()
        if event["type"] == "websocket.disconnect":
            return
        text = event.get("text")
        try:
            message = decode(subprotocol, text if text is not None else event["bytes"])
            await kernel.clients.take(client, message)
        except MalformedError as error:
            log.warning("kernel %s: a malformed message: %s", kernel.id, error)
            raise WebSocketException(error.code, str(error)) from error
        except IgnoredError as error:
            log.warning("kernel %s: a message is ignored: %s", kernel.id, error)
