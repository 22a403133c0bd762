"""`/api/sessions` as Jupyter Server answers it, and running a notebook's cells in one request."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from weakref import WeakValueDictionary

from fastapi import APIRouter, Request, Response
from sqlalchemy import Select, func, select

from app.auth.access import allow, may, require
from app.auth.identity import Identity
from app.db.engine import Database, Transaction
from app.documents.store import DocumentStore
from app.errors import BadRequestError, ConflictError, DomainError, NotFoundError
from app.executions.schemas import execution_model
from app.executions.submit import Options, run_cells
from app.kernels.host import KernelHost, end_sessions, is_kernel_id
from app.kernels.process import NoSuchKernelspecError
from app.kernels.routes import kernel_model
from app.web import ExactJSONResponse, json_body, object_field, storable, text_field
from models import Kernel, Session
from models.codec import encode_text

router = APIRouter()

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


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
    _check_texts(body)
    if kind == "notebook":
        await _require_notebook(request, identity, path, text_field(body, "name"))
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


async def _require_notebook(
    request: Request, identity: Identity, path: str, name: str | None
) -> None:
    """Raise unless somebody may run the notebook that a new session is for.

    JupyterLab makes a session under a path of its own making, a UUID beside the notebook, with the
    notebook's name, and gives it the notebook's path afterwards.
    """
    database: Database = request.app.state.database
    folder, slash, last = path.rpartition("/")
    if (
        name
        and "/" not in name
        and _UUID.fullmatch(last)
        and not await may(database, identity, "execute", "contents", path)
    ):
        path = f"{folder}{slash}{name}"
    await require(database, identity, "execute", "contents", path)


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
    session_id = str(uuid.uuid4())
    async with _kernel_for(request, identity, object_field(body, "kernel"), path) as kernel_id:
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
            model = session_model(*await read_session(tx, session_id))
        await _require_hosted(request, kernel_id)
    return model


async def _require_hosted(request: Request, kernel_id: str) -> None:
    """End the sessions of a kernel whose shutdown began while one was being made; 404."""
    host: KernelHost = request.app.state.kernels
    if kernel_id not in host.ids():
        async with request.app.state.database.transaction(as_server=True) as tx:
            await end_sessions(tx, [kernel_id])
        raise NotFoundError(f"Kernel does not exist: {kernel_id}")


def _check_texts(body: dict[str, Any]) -> None:
    """Raise BadRequestError for wrong types and for text that a column of names cannot hold."""
    for field in ("path", "type", "name"):
        value = text_field(body, field)
        if value is not None and encode_text(value) != value:
            raise BadRequestError(f"{field} has a character that it must not have")
    kernel = object_field(body, "kernel")
    text_field(kernel, "id")
    text_field(kernel, "name")


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


@asynccontextmanager
async def _kernel_for(
    request: Request, identity: Identity, wanted: dict[str, Any], path: str
) -> AsyncIterator[str]:
    """Yield the id of the kernel asked for; one just started is ended when the block fails."""
    host: KernelHost = request.app.state.kernels
    kernel_id = text_field(wanted, "id") or None
    if kernel_id in host.ids():
        database: Database = request.app.state.database
        if await may(database, identity, "read", "kernels", kernel_id):
            # A session shows the kernel to whoever sees the session's document.
            await require(database, identity, "share", "kernels", kernel_id)
            yield kernel_id
            return
    if kernel_id is not None and not (identity.admin and is_kernel_id(kernel_id)):
        # As Jupyter, an id that is no kernel's is not heeded; and whether another has a kernel
        # with this id is not to be found out.
        kernel_id = None
    name = text_field(wanted, "name")
    folder = path.rpartition("/")[0]

    async def start(chosen_id: str | None) -> str:
        kernel = await host.start(
            identity, name=name, path=folder, kernel_id=chosen_id, session_name=path
        )
        return kernel.id

    try:
        try:
            kernel_id = await start(kernel_id)
        except ConflictError:  # a kernel of the past: a window that was open for long knows it
            kernel_id = await start(None)
    except NoSuchKernelspecError as error:
        raise KernelUnavailableError(
            f"The '{name}' kernel is not available. Please pick another suitable kernel instead, "
            "or install that kernel."
        ) from error
    try:
        yield kernel_id
    except BaseException:
        if kernel_id in host.ids():
            await host.shutdown(kernel_id, "its session could not be made")
        raise


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
    _check_texts(body)
    host: KernelHost = request.app.state.kernels
    database: Database = request.app.state.database
    async with database.read() as tx:
        before, old_kernel = await read_session(tx, session_id)
    path = (text_field(body, "path") or before.path).lstrip("/")
    kind = text_field(body, "type") or before.type
    if kind == "notebook":
        await require(database, identity, "execute", "contents", path)
    document_id = await _document_of(request, identity, path, kind)
    async with _changed_kernel(request, identity, body, old_kernel.id, path) as kernel_id:
        async with database.transaction() as tx:
            session, _ = await read_session(tx, session_id)
            session.path, session.type, session.document_id = path, kind, document_id
            session.name = body["name"] if text_field(body, "name") is not None else session.name
            session.kernel_id = kernel_id
            await tx.flush()
            model = session_model(*await read_session(tx, session_id))
        if kernel_id != old_kernel.id:
            await _require_hosted(request, kernel_id)
    if kernel_id != old_kernel.id and old_kernel.id in host.ids():
        await require(database, identity, "write", "kernels", old_kernel.id)
        await host.shutdown(old_kernel.id, "its session changed to another kernel")
    return model


@asynccontextmanager
async def _changed_kernel(
    request: Request, identity: Identity, body: dict[str, Any], current: str, path: str
) -> AsyncIterator[str]:
    wanted = object_field(body, "kernel")
    if not text_field(wanted, "id") and not text_field(wanted, "name"):
        yield current
        return
    host: KernelHost = request.app.state.kernels
    if (kernel_id := text_field(wanted, "id")) and not (
        kernel_id in host.ids()
        and await may(request.app.state.database, identity, "read", "kernels", kernel_id)
    ):
        raise BadRequestError(f"No such kernel: {kernel_id}")
    async with _kernel_for(request, identity, wanted, path) as changed:
        yield changed


@router.delete("/api/sessions/{session_id}", status_code=204)
async def delete_session(
    session_id: str, request: Request, identity: Annotated[Identity, allow("write", "sessions")]
) -> None:
    """End a session and its kernel."""
    host: KernelHost = request.app.state.kernels
    database: Database = request.app.state.database
    async with database.read() as tx:
        kernel = (await read_session(tx, session_id))[1]
    if kernel.id in host.ids():
        await require(database, identity, "write", "kernels", kernel.id)
        await host.shutdown(kernel.id)
        return
    async with database.transaction(as_server=True) as tx:
        session = (await read_session(tx, session_id))[0]
        session.ended_at = func.now()


@router.post("/api/sessions/{session_id}/run", status_code=202)
async def run(
    session_id: str, request: Request, identity: Annotated[Identity, allow("execute", "sessions")]
) -> Response:
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
    if options.idempotency_key is not None or options.cell_version is not None:
        raise BadRequestError("idempotency_key and cell_version are for one execution")
    executions = await run_cells(request.app.state, identity, session, cells, options)
    models = [execution_model(execution) for execution in executions]
    return ExactJSONResponse({"executions": models}, 202)
