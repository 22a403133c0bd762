"""The application: its parts, put together for as long as it runs, and how errors are answered."""

import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app import __version__
from app.auth.access import check_declarations
from app.auth.identity import TokenAuthenticator, ensure_owner
from app.comms.routes import router as comms
from app.contents.disk import Disk
from app.contents.routes import router as contents
from app.db.engine import Database, is_transient
from app.documents.routes import router as documents
from app.documents.store import DocumentStore
from app.errors import DomainError
from app.executions.routes import router as executions
from app.kernels.culling import Culler
from app.kernels.host import KernelHost
from app.kernels.requests import router as kernel_requests
from app.kernels.routes import router as kernels
from app.kernels.websocket import router as channels
from app.kernelspecs.routes import router as kernelspecs
from app.limits import BodyLimit
from app.recorder.waiters import Waiters
from app.sessions.routes import router as sessions
from app.settings import Settings
from app.status.routes import router as status
from app.web import ExactJSONResponse

log = logging.getLogger(__name__)


def create_app(settings: Settings, *, database_url: str, token: str, data_dir: Path) -> FastAPI:
    """Return the application on a migrated database; `data_dir` is for kernels' logs."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = Database(
            database_url,
            pool_size=settings.database_pool_size,
            recorder_pool_size=settings.recorder_pool_size,
        )
        async with database.transaction() as tx:
            owner = await ensure_owner(tx, settings.owner)
        disk = Disk(settings.root_dir)
        store = DocumentStore(database, disk, settings)
        waiters = Waiters()
        host = KernelHost(database, store, waiters, settings, data_dir=data_dir)
        app.state.settings = settings
        app.state.database = database
        app.state.authenticator = TokenAuthenticator(database, token=token, owner=owner)
        app.state.disk = disk
        app.state.documents = store
        app.state.waiters = waiters
        app.state.kernels = host
        app.state.culler = culler = Culler(database, host, waiters, settings)
        app.state.session_locks = WeakValueDictionary()
        # What dead servers left is settled first: documents are then saved as they are now.
        await host.open()
        await store.start()
        # What has been imported and made so far stays: a full collection that walks it takes as
        # long as a hundred messages.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)
        culler.start()
        try:
            yield
        finally:
            await culler.close()
            await host.close()
            await store.close()
            await database.close()

    app = FastAPI(
        title="Jupyter Datastore",
        version=__version__,
        lifespan=lifespan,
        default_response_class=ExactJSONResponse,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.settings = settings
    prefix = settings.base_url.rstrip("/")
    for router in (
        status, kernelspecs, kernels, channels, sessions, executions, documents, contents
    ):  # fmt: skip
        app.include_router(router, prefix=prefix)
    for router in (kernel_requests, comms):
        app.include_router(router, prefix=prefix)
    app.add_middleware(BodyLimit, limit_bytes=settings.max_body_bytes)
    app.add_exception_handler(DomainError, _domain_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(WebSocketRequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _client_gone)
    # By name: what is left to the handler of every Exception is raised again, for the log.
    for expected in (SQLAlchemyError, OSError):
        app.add_exception_handler(expected, _database_error)
    app.add_exception_handler(Exception, _unexpected_error)
    check_declarations(app)
    return app


def _answer(status_code: int, message: str, reason: Any = None) -> JSONResponse:
    return ExactJSONResponse({"message": message, "reason": reason}, status_code)


async def _domain_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DomainError)
    return _answer(error.status, error.message, error.reason)


async def _validation_error(_: Request, error: Exception) -> JSONResponse:
    """Answer 400 as Jupyter does, 404 for an id in the path that cannot be one."""
    assert isinstance(error, RequestValidationError | WebSocketRequestValidationError)
    first = error.errors()[0]
    place, name = first["loc"][0], ".".join(str(part) for part in first["loc"][1:])
    if place == "path":
        return _answer(404, f"There is nothing with this {name}")
    return _answer(400, f"{name}: {first['msg']}", jsonable_encoder(first.get("type")))


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _answer(error.status_code, str(error.detail))


async def _client_gone(_: Request, error: Exception) -> JSONResponse:  # noqa: ARG001 (as called)
    return _answer(400, "The client went away")


async def _database_error(request: Request, error: Exception) -> JSONResponse:
    if is_transient(error) or isinstance(error, PoolTimeoutError):
        log.warning("%s %s: %s", request.method, request.url.path, error)
        return _answer(503, "The database cannot be reached now", "try again")
    if isinstance(error, DBAPIError) and _is_data_exception(error):
        # Names, paths and ids are kept as plain text; code and outputs take everything.
        return _answer(400, "A value of the request is not one that PostgreSQL can hold")
    return await _unexpected_error(request, error)


def _is_data_exception(error: DBAPIError) -> bool:
    """Tell whether the database, or its driver, refused a value: NUL, lone surrogates, ranges.

    Class 22 of https://www.postgresql.org/docs/current/errcodes-appendix.html
    """
    cause = getattr(error.orig, "__cause__", None)
    code = getattr(error.orig, "sqlstate", None) or getattr(cause, "sqlstate", None)
    return str(code).startswith("22")


async def _unexpected_error(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    return _answer(500, "Internal server error")
