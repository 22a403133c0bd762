"""The application: its parts, put together for as long as it runs, and how errors are answered."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote
from weakref import WeakValueDictionary

from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.websockets import WebSocket

from app import __version__
from app.auth import pages
from app.auth.access import check_declarations
from app.auth.cookies import LoginCookies, read_secret
from app.auth.guard import Guard
from app.auth.hub import HubAuthenticator
from app.auth.hub_service import HubClient, HubService
from app.auth.identity import TokenAuthenticator, ensure_owner
from app.auth.revocations import Revocations
from app.changes.changes import Changes
from app.changes.routes import router as feed
from app.collaboration import notices
from app.collaboration.fork_routes import router as forks_of_documents
from app.collaboration.rooms import Rooms
from app.collaboration.routes import router as collaboration
from app.comms.routes import router as comms
from app.config.routes import router as config
from app.contents.actions import Actions
from app.contents.checkpoints import Checkpoints
from app.contents.disk import Disk
from app.contents.files import router as files
from app.contents.following import Following
from app.contents.routes import router as contents
from app.contents.watcher import Watcher
from app.db import asker
from app.db.engine import Database, is_transient
from app.documents.history import History
from app.documents.history_routes import router as histories
from app.documents.routes import router as documents
from app.documents.store import DocumentStore
from app.documents.undo import Undo
from app.errors import DomainError
from app.events.actions import TellActions
from app.events.events import Events
from app.events.routes import router as events
from app.executions.gathering import Gathering
from app.executions.nbmodel import router as nbmodel
from app.executions.questions import router as questions
from app.executions.routes import router as executions
from app.identity.routes import router as identity
from app.kernels.culling import Culler
from app.kernels.host import KernelHost
from app.kernels.requests import router as kernel_requests
from app.kernels.routes import router as kernels
from app.kernels.websocket import router as channels
from app.kernelspecs.resources import router as kernelspec_resources
from app.kernelspecs.routes import router as kernelspecs
from app.lab.assets import find_assets
from app.lab.installed_routes import router as lab_installed
from app.lab.page import Pages
from app.lab.routes import router as lab_pages
from app.lab.setting_schemas import SettingSchemas
from app.lab.settings_routes import router as lab_settings
from app.lab.workspaces_routes import router as lab_workspaces
from app.limits import BodyLimit, LastResort
from app.metrics.metrics import MeasureRequests, Metrics
from app.metrics.routes import make_router as make_metrics
from app.nbconvert.routes import router as nbconvert
from app.people.homes import Homes
from app.people.hub import HubPeople
from app.people.password_page import router as password_page
from app.people.routes import router as people
from app.people.sharing import router as sharing
from app.recorder.waiters import Waiters
from app.refresh.routes import router as refresh
from app.sessions.routes import router as sessions
from app.settings import Settings
from app.spec.routes import router as spec
from app.status.paths import router as paths
from app.status.routes import router as status
from app.terminals.routes import router as terminals
from app.terminals.terminals import Terminals
from app.upkeep.upkeep import Upkeep
from app.web import ExactJSONResponse, refuse_websocket

log = logging.getLogger(__name__)

# insufficient_privilege: a policy or a missing grant refused what a route had let through.
_NOT_ALLOWED = "42501"


@asynccontextmanager
async def _running(
    app: FastAPI,
    settings: Settings,
    *,
    database_url: str,
    token: str,
    data_dir: Path,
    hub: HubService | None,
    has_own_database: bool,
) -> AsyncIterator[None]:
    """Put the parts together, run them, and end them in the reverse order."""
    # Tasks that are started here, not by requests, work for the server.
    asker.act_for(asker.Server.ITSELF)
    database = Database(
        database_url,
        pool_size=settings.database_pool_size,
        recorder_pool_size=settings.recorder_pool_size,
    )
    upkeep = Upkeep(database, settings)
    await upkeep.start()
    disk = Disk(settings.root_dir, settings)
    store = DocumentStore(database, disk, settings)
    following = Following(database, disk, store, folder_limit=settings.watch_folder_limit)
    watcher = Watcher(disk, following, settings)
    waiters = Waiters()
    host = KernelHost(
        database, store, waiters, settings, data_dir=data_dir, has_own_database=has_own_database
    )
    app.state.database = database
    authenticator = await _add_people(app, database, data_dir=data_dir, token=token, hub=hub)
    app.state.disk, app.state.documents, app.state.following = disk, store, following
    rooms = _add_rooms(app, settings, database, store)
    app.state.contents = Actions(disk, store, following)
    app.state.checkpoints = Checkpoints(database, disk, store, following)
    app.state.gathering = Gathering()
    app.state.watcher, app.state.waiters, app.state.kernels = watcher, waiters, host
    app.state.session_locks = WeakValueDictionary()
    app.state.culler = culler = Culler(database, host, waiters, settings)
    app.state.changes = changes = Changes(database, settings, host.server_id)
    app.state.revocations = revocations = Revocations(
        database, authenticator, on_told=[app.state.homes.make, changes.see_again, rooms.look]
    )
    # What dead servers left is settled first: documents are then saved as they are now.
    await host.open()
    await store.start()
    await rooms.start()
    app.state.terminals = Terminals(
        database, settings, host.server_id, server_url=app.state.server_url
    )
    await app.state.terminals.open()
    await app.state.changes.start()
    await app.state.homes.make()
    revocations.start()
    authenticator.start(revocations.open_tokens)
    watcher.start()
    culler.start()
    _spare_collections()
    try:
        yield
    finally:
        await authenticator.close()
        await revocations.close()
        await culler.close()
        await watcher.close()
        await app.state.changes.close()
        await app.state.terminals.close()
        await rooms.close()
        await host.close()
        await store.close()
        await upkeep.close()
        await database.close()


def _spare_collections() -> None:
    """Leave alone what has been imported and made so far.

    It stays, and a full collection that walks it takes as long as a hundred messages.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


async def _add_people(
    app: FastAPI, database: Database, *, data_dir: Path, token: str, hub: HubService | None
) -> TokenAuthenticator:
    """Add what knows people: by our own tokens, and by the hub's where there is one."""
    settings: Settings = app.state.settings
    secret = read_secret(settings, data_dir)
    app.state.cookies = LoginCookies(secret, settings)
    app.state.homes = homes = Homes(database, settings.root_dir)
    async with database.transaction(as_server=True) as tx:
        owner = await ensure_owner(tx, settings.owner)
    if hub is None:
        authenticator = TokenAuthenticator(database, token=token, owner=owner, secret=secret)
    else:
        app.state.hub = client = HubClient(hub, timeout_seconds=settings.hub_timeout_seconds)
        people_of_hub = HubPeople(database, homes, fresh_seconds=settings.hub_cache_seconds)
        authenticator = HubAuthenticator(
            database,
            token=token,
            owner=owner,
            secret=secret,
            client=client,
            settings=settings,
            take_in=people_of_hub.take_in,
        )
    app.state.authenticator = authenticator
    return authenticator


def _add_rooms(app: FastAPI, settings: Settings, database: Database, store: DocumentStore) -> Rooms:
    app.state.rooms = rooms = Rooms(database, store, settings)
    app.state.forks = rooms.forks
    app.state.undo = Undo(database, store)
    app.state.history = History(database, store, app.state.undo)
    return rooms


def create_app(
    settings: Settings,
    *,
    database_url: str,
    token: str,
    data_dir: Path,
    hub: HubService | None = None,
    has_own_database: bool = False,
) -> FastAPI:
    """Return the application on a migrated database, of a hub if it is a service of one.

    `data_dir` is for kernels' logs. `has_own_database`: only this machine's servers can reach it.
    """
    app = FastAPI(
        title="Jupyter Datastore",
        version=__version__,
        lifespan=partial(
            _running,
            settings=settings,
            database_url=database_url,
            token=token,
            data_dir=data_dir,
            hub=hub,
            has_own_database=has_own_database,
        ),
        default_response_class=ExactJSONResponse,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.settings = settings
    app.state.events = Events()
    notices.register(app.state.events)
    app.state.metrics = Metrics()
    app.state.nbconvert_slots = asyncio.Semaphore(settings.nbconvert_concurrency)
    app.state.lab_assets = assets = find_assets()
    app.state.lab_pages = Pages(assets, settings)
    default = settings.default_url.lstrip("/")
    is_there = assets.lab is not None or not default.startswith("lab")
    # Below the base URL: where people who come to the server are sent.
    app.state.front_end = default if default and is_there else None
    app.state.lab_schemas = SettingSchemas(assets)
    # What runs the application says how to stop it, and where it is.
    app.state.request_shutdown = None
    app.state.hub = None
    app.state.server_url = None
    _include_routes(app, settings)
    app.add_middleware(BodyLimit, limit_bytes=settings.max_body_bytes)
    app.add_middleware(TellActions, events=app.state.events, base_url=settings.base_url)
    app.add_middleware(MeasureRequests, metrics=app.state.metrics)
    app.add_middleware(LastResort)
    app.add_middleware(Guard, settings=settings)  # added last: outermost
    _answer_errors(app)
    check_declarations(app)
    return app


def _include_routes(app: FastAPI, settings: Settings) -> None:
    prefix = settings.base_url.rstrip("/")
    routers = (
        executions,  # first, since routes are tried in order and no request is more frequent
        status,
        kernelspecs,
        kernelspec_resources,
        kernels,
        channels,
        kernel_requests,
        comms,
        sessions,
        nbmodel,
        questions,
        documents,
        histories,
        collaboration,
        forks_of_documents,
        contents,
        files,
        terminals,
        config,
        identity,
        people,
        password_page,
        sharing,
        nbconvert,
        events,
        feed,
        refresh,
        spec,
        paths,
        lab_settings,
        lab_workspaces,
        lab_installed,
        lab_pages,  # takes all that is left below /lab
        make_metrics(for_everyone=settings.metrics_public),
    )
    for router in routers:
        app.include_router(router, prefix=unquote(prefix))
    pages.add_to(app, prefix=unquote(prefix))


def _answer_errors(app: FastAPI) -> None:
    for expected, answer in (
        (DomainError, _domain_error),
        (RequestValidationError, _validation_error),
        (WebSocketRequestValidationError, _validation_error),
        (HTTPException, _http_error),
        (ClientDisconnect, _client_gone),
        # By name: what is left to the handler of every Exception is raised again (see LastResort).
        (SQLAlchemyError, _database_error),
        (OSError, _database_error),
        (Exception, _unexpected_error),
    ):
        app.add_exception_handler(expected, cast("Any", partial(_refuse, answer)))


async def _refuse(
    answer: Callable[[HTTPConnection, Exception], Awaitable[JSONResponse]],
    connection: HTTPConnection,
    error: Exception,
) -> JSONResponse | None:
    """Answer a request; refuse a websocket that is not accepted yet with the same answer.

    A websocket's is sent here: Starlette would send a second one, which the server takes amiss.
    """
    answered = await answer(connection, error)
    if not isinstance(connection, WebSocket):
        return answered
    await refuse_websocket(connection, answered)
    return None


def _answer(status_code: int, message: str, reason: Any = None) -> JSONResponse:
    return ExactJSONResponse({"message": message, "reason": reason}, status_code)


async def _domain_error(_: HTTPConnection, error: Exception) -> JSONResponse:
    assert isinstance(error, DomainError)
    return _answer(error.status, error.message, error.reason)


async def _validation_error(_: HTTPConnection, error: Exception) -> JSONResponse:
    """Answer 400 as Jupyter does, 404 for an id in the path that cannot be one."""
    assert isinstance(error, RequestValidationError | WebSocketRequestValidationError)
    first = error.errors()[0]
    place, name = first["loc"][0], ".".join(str(part) for part in first["loc"][1:])
    if place == "path":
        return _answer(404, f"There is nothing with this {name}")
    return _answer(400, f"{name}: {first['msg']}", jsonable_encoder(first.get("type")))


async def _http_error(_: HTTPConnection, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _answer(error.status_code, str(error.detail))


async def _client_gone(_: HTTPConnection, error: Exception) -> JSONResponse:  # noqa: ARG001 (as called)
    return _answer(400, "The client went away")


async def _database_error(connection: HTTPConnection, error: Exception) -> JSONResponse:
    if is_transient(error) or isinstance(error, PoolTimeoutError):
        log.warning("%s: %s", _asked(connection), error)
        return _answer(503, "The database cannot be reached now", "try again")
    if isinstance(error, DBAPIError) and _code(error) == _NOT_ALLOWED:
        log.warning("%s: %s", _asked(connection), error.orig)
        return _answer(403, "Forbidden", "the database refused")
    if isinstance(error, DBAPIError) and _is_data_exception(error):
        # Names, paths and ids are kept as plain text; code and outputs take everything.
        return _answer(400, "A value of the request is not one that PostgreSQL can hold")
    return await _unexpected_error(connection, error)


def _is_data_exception(error: DBAPIError) -> bool:
    """Tell whether the database, or its driver, refused a value: NUL, lone surrogates, ranges.

    Class 22 of https://www.postgresql.org/docs/current/errcodes-appendix.html
    """
    return _code(error).startswith("22")


def _code(error: DBAPIError) -> str:
    """Return the SQLSTATE of the database's error, "" without one."""
    cause = getattr(error.orig, "__cause__", None)
    return str(getattr(error.orig, "sqlstate", None) or getattr(cause, "sqlstate", None) or "")


async def _unexpected_error(connection: HTTPConnection, error: Exception) -> JSONResponse:
    log.error("%s", _asked(connection), exc_info=error)
    return _answer(500, "Internal server error")


def _asked(connection: HTTPConnection) -> str:
    return f"{connection.scope.get('method', 'websocket')} {connection.url.path}"
