"""`/api/sessions` as Jupyter Server answers it, and running a notebook's cells in one request."""

import asyncio
import uuid
from typing import Annotated, Any
from weakref import WeakValueDictionary

from fastapi import APIRouter, Request, Response
from sqlalchemy import Select, func, select

from app.auth.access import allow
from app.auth.identity import Identity
from app.db.engine import Database, Transaction
from app.documents.store import DocumentStore
from app.errors import BadRequestError, ConflictError, DomainError, NotFoundError
from app.executions.schemas import execution_model
from app.executions.submit import Options, run_cells
from app.kernels.host import KernelHost, check_kernel_id
from app.kernels.routes import kernel_model
from app.web import json_body, object_field, storable, text_field
from models import Kernel, Session

router = APIRouter()


class KernelUnavailableError(DomainError):
    """The kernel a session asks for cannot be started; Jupyter Server's status for it."""

    status = 501


def _living() -> Select[Session, Kernel]:
    return (
        select(Session, Kernel)
        .join(Kernel, Kernel.id == Session.kernel_id)
        .where(Session.ended_at.is_(None))
        .order_by(Session.created_at, Session.id)
    )


async def read_session(tx: Transaction, session_id: str) -> tuple[Session, Kernel]:
    """Return a living session and its kernel; 404 when there is none."""
    found = (await tx.execute(_living().where(Session.id == session_id))).one_or_none()
    if found is None:
        raise NotFoundError(f"Session not found: session_id='{session_id}'")
    return found[0], found[1]


def session_model(session: Session, kernel: Kernel) -> dict[str, Any]:
    """Return a session as clients see it; notebooks have the field `notebook` too."""
    model: dict[str, Any] = {
        "id": session.id,
        "path": session.path,
        "name": session.name,
        "type": session.type,
        "kernel": kernel_model(kernel),
    }
    if session.type == "notebook":
        model["notebook"] = {"path": session.path, "name": session.name}
    return model


@router.get("/api/sessions")
async def list_sessions(
    request: Request, _: Annotated[Identity, allow("read", "sessions")]
) -> list[dict[str, Any]]:
    """List the sessions that run."""
    async with request.app.state.database.read() as tx:
        return [session_model(*pair) for pair in (await tx.execute(_living()))]


@router.post("/api/sessions", status_code=201)
async def create_session(
    request: Request,
    response: Response,
    identity: Annotated[Identity, allow("write", "sessions")],
) -> dict[str, Any]:
    """Start a session, or answer the one that the path has."""
    body = _without_notebook(await json_body(request))
    for field in ("path", "type"):
        if not isinstance(body.get(field), str):
            raise BadRequestError(f"Missing field in JSON data: {field}")
        storable(body[field], field)
    path, kind = body["path"].lstrip("/"), body["type"]
    # One request at a time makes the session of a path: two windows opening it share a kernel.
    locks: WeakValueDictionary[str, asyncio.Lock] = request.app.state.session_locks
    lock = locks.setdefault(path, asyncio.Lock())
    async with lock:
        model = await _existing(request, path)
        if model is None:
            model = await _create(request, identity, body, path, kind)
    base_url = request.app.state.settings.base_url
    response.headers["Location"] = f"{base_url}api/sessions/{model['id']}"
    return model


def _without_notebook(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body of the time before sessions had paths of their own as one of now."""
    notebook = body.get("notebook")
    if not isinstance(notebook, dict):
        return body
    path = notebook.get("name", notebook.get("path")) if "path" not in body else body["path"]
    return {**body, "path": path, "type": "notebook"}


async def _existing(request: Request, path: str) -> dict[str, Any] | None:
    async with request.app.state.database.read() as tx:
        found = (await tx.execute(_living().where(Session.path == path).limit(1))).first()
    return session_model(*found) if found else None


async def _create(
    request: Request, identity: Identity, body: dict[str, Any], path: str, kind: str
) -> dict[str, Any]:
    document_id = await _document_of(request, identity, path, kind)
    kernel_id = await _kernel_for(request, identity, object_field(body, "kernel"), path)
    session_id = str(uuid.uuid4())
    async with request.app.state.database.transaction() as tx:
        tx.add(
            Session(
                id=session_id,
                path=path,
                name=text_field(body, "name") or "",
                type=kind,
                kernel_id=kernel_id,
                document_id=document_id,
                owner_id=identity.id,
            )
        )
        await tx.flush()
        return session_model(*await read_session(tx, session_id))


async def _document_of(
    request: Request, identity: Identity, path: str, kind: str
) -> uuid.UUID | None:
    """Open the notebook that a session is for; its path may be a mere name (JupyterLab's)."""
    if kind != "notebook":
        return None
    documents: DocumentStore = request.app.state.documents
    try:
        document = await documents.open_notebook(path, actor_id=identity.id)
    except (NotFoundError, BadRequestError):
        return None
    return document.id


async def _kernel_for(
    request: Request, identity: Identity, wanted: dict[str, Any], path: str
) -> str:
    host: KernelHost = request.app.state.kernels
    kernel_id = text_field(wanted, "id") or None
    if kernel_id in host.ids():
        return kernel_id
    if kernel_id is not None:
        check_kernel_id(kernel_id)
    name = text_field(wanted, "name")
    folder = path.rpartition("/")[0]

    async def start(chosen_id: str | None) -> str:
        kernel = await host.start(
            identity, name=name, path=folder, kernel_id=chosen_id, session_name=path
        )
        return kernel.id

    try:
        try:
            return await start(kernel_id)
        except ConflictError:  # a kernel of the past: a window that was open for long knows it
            return await start(None)
    except BadRequestError as error:
        raise KernelUnavailableError(
            f"The '{name}' kernel is not available. Please pick another suitable kernel instead, "
            "or install that kernel."
        ) from error


@router.get("/api/sessions/{session_id}")
async def get_session(
    session_id: str, request: Request, _: Annotated[Identity, allow("read", "sessions")]
) -> dict[str, Any]:
    """Return one session."""
    async with request.app.state.database.read() as tx:
        return session_model(*await read_session(tx, session_id))


@router.patch("/api/sessions/{session_id}")
async def update_session(
    session_id: str, request: Request, identity: Annotated[Identity, allow("write", "sessions")]
) -> dict[str, Any]:
    """Change a session's path, name, type or kernel; a kernel that it leaves is shut down."""
    body = _without_notebook(await json_body(request))
    host: KernelHost = request.app.state.kernels
    database: Database = request.app.state.database
    async with database.read() as tx:
        before, old_kernel = await read_session(tx, session_id)
    path = (text_field(body, "path") or before.path).lstrip("/")
    kind = text_field(body, "type") or before.type
    document_id = await _document_of(request, identity, path, kind)
    kernel_id = await _changed_kernel(request, identity, body, old_kernel.id, path)
    async with database.transaction() as tx:
        session, _ = await read_session(tx, session_id)
        session.path, session.type, session.document_id = path, kind, document_id
        session.name = body["name"] if text_field(body, "name") is not None else session.name
        session.kernel_id = kernel_id
        await tx.flush()
        model = session_model(*await read_session(tx, session_id))
    if kernel_id != old_kernel.id and old_kernel.id in host.ids():
        await host.shutdown(old_kernel.id, "its session changed to another kernel")
    return model


async def _changed_kernel(
    request: Request, identity: Identity, body: dict[str, Any], current: str, path: str
) -> str:
    wanted = object_field(body, "kernel")
    if not text_field(wanted, "id") and not text_field(wanted, "name"):
        return current
    host: KernelHost = request.app.state.kernels
    if (kernel_id := text_field(wanted, "id")) and kernel_id not in host.ids():
        raise BadRequestError(f"No such kernel: {kernel_id}")
    return await _kernel_for(request, identity, wanted, path)


@router.delete("/api/sessions/{session_id}", status_code=204)
async def delete_session(
    session_id: str, request: Request, _: Annotated[Identity, allow("write", "sessions")]
) -> None:
    """End a session and its kernel."""
    host: KernelHost = request.app.state.kernels
    database: Database = request.app.state.database
    async with database.read() as tx:
        kernel = (await read_session(tx, session_id))[1]
    if kernel.id in host.ids():
        await host.shutdown(kernel.id)
        return
    async with database.transaction() as tx:
        session = (await read_session(tx, session_id))[0]
        session.ended_at = func.now()


@router.post("/api/sessions/{session_id}/run", status_code=202)
async def run(
    session_id: str, request: Request, identity: Annotated[Identity, allow("execute", "sessions")]
) -> dict[str, Any]:
    """Queue cells of the session's notebook, in order, in one transaction."""
    body = await json_body(request)
    cells = body.get("cells")
    if cells != "all" and not (
        isinstance(cells, list) and all(isinstance(cell, str) for cell in cells)
    ):
        raise BadRequestError('cells must be "all" or a list of cell ids')
    async with request.app.state.database.read() as tx:
        session, _ = await read_session(tx, session_id)
    options = Options.from_body(body)
    executions = await run_cells(request.app.state, identity, session, cells, options)
    return {"executions": [execution_model(execution) for execution in executions]}
