"""`/api/terminals` and `/terminals/websocket/{name}` as Jupyter Server answers them."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Request
from starlette.websockets import WebSocket

from app.auth.access import allow
from app.auth.identity import Identity
from app.auth.revocations import Revocations
from app.errors import BadRequestError, NotFoundError
from app.terminals.client import serve_client
from app.terminals.terminals import Terminals
from app.web import json_body, storable, text_field

router = APIRouter()

_NAME = re.compile(r"\w{1,100}")


def _terminals(state: Any) -> Terminals:
    terminals: Terminals = state.terminals
    if not terminals.enabled:
        raise NotFoundError("Terminals are disabled on this server")
    return terminals


@router.get("/api/terminals")
async def list_terminals(
    request: Request, _: Annotated[Identity, allow("read", "terminals")]
) -> list[dict[str, Any]]:
    """List the terminals that run."""
    return await _terminals(request.app.state).list()


@router.post("/api/terminals")
async def create_terminal(
    request: Request, identity: Annotated[Identity, allow("write", "terminals")]
) -> dict[str, Any]:
    """Start a terminal, named by a number unless the body has a `name`, in the folder `cwd`."""
    terminals = _terminals(request.app.state)
    body = await json_body(request)
    name, cwd = text_field(body, "name"), text_field(body, "cwd")
    if name is not None and not _NAME.fullmatch(storable(name, "name")):
        raise BadRequestError("name must be made of letters, digits and underscores")
    if cwd is not None:
        storable(cwd, "cwd")
    return await terminals.create(identity, name=name, cwd=cwd)


@router.get("/api/terminals/{terminal_id}")
async def get_terminal(
    terminal_id: str, request: Request, _: Annotated[Identity, allow("read", "terminals")]
) -> dict[str, Any]:
    """Return one terminal."""
    return await _terminals(request.app.state).model(terminal_id)


@router.delete("/api/terminals/{terminal_id}", status_code=204)
async def delete_terminal(
    terminal_id: str, request: Request, _: Annotated[Identity, allow("write", "terminals")]
) -> None:
    """End a terminal and what runs in it."""
    await _terminals(request.app.state).delete(terminal_id)


@router.websocket("/terminals/websocket/{terminal_id}")
async def connect_terminal(
    terminal_id: str,
    websocket: WebSocket,
    identity: Annotated[Identity, allow("execute", "terminals")],
) -> None:
    """See and type into a terminal, in terminado's protocol."""
    pty = _terminals(websocket.app.state).get(terminal_id)
    await websocket.accept()
    revocations: Revocations = websocket.app.state.revocations
    with revocations.watch(identity, "execute", "terminals", terminal_id) as access:
        await serve_client(websocket, pty, access)
