"""`jupyter-datastore serve`: PostgreSQL if none is named, its schema, and the HTTP server.

As a service of JupyterHub (its environment tells) it is where the hub says, and nowhere else.
"""

import asyncio
import contextlib
import logging
import os
import re
import secrets
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import click
import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError
from sqlalchemy.exc import ArgumentError, OperationalError

from app import __version__
from app.auth.hub_service import HubEnvironmentError, HubService
from app.cli.connection import ServerInfo, remove_server_file, write_server_file
from app.cli.listen import ServeCommand, check_certificate, unix_socket, unix_url
from app.db import migrations
from app.db.embedded import EmbeddedPostgres, EmbeddedPostgresError, default_data_dir
from app.limits import websocket_options
from app.main import create_app
from app.settings import Settings

log = logging.getLogger(__name__)

_SECRETS = ("DATASTORE_TOKEN", "DATASTORE_COOKIE_SECRET", "DATASTORE_DATABASE_URL")
_PORT_RETRIES = 50
_ALL_ADDRESSES = ("", "0.0.0.0", "::")  # noqa: S104 (compared, not bound)
_TOKEN_IN_ADDRESS = re.compile(r"([?&]token=)[^&\s]*")


@click.command(cls=ServeCommand)
@click.option("--root-dir", type=click.Path(path_type=Path), help="The folder of files to serve.")
@click.option("--host", "--ip", "host", help="The address to listen on.  [default: localhost]")
@click.option("--port", type=int, help="The port, or the next free one.  [default: 8888]")
@click.option("--base-url", help="The path below which everything is served.  [default: /]")
@click.option("--sock", type=click.Path(path_type=Path), help="A unix socket, instead of a port.")
@click.option("--sock-mode", help="The socket's permissions.  [default: 0600]")
@click.option("--certfile", type=click.Path(path_type=Path), help="A certificate: serves https.")
@click.option("--keyfile", type=click.Path(path_type=Path), help="The certificate's private key.")
@click.option("--allow-origin", help="Another origin whose pages may use this server, or *.")
@click.option("--allow-origin-pat", help="The same as a regular expression.")
@click.option("--allow-credentials", is_flag=True, default=None, help="... with cookies.")
@click.option(
    "--allow-remote-access/--no-allow-remote-access",
    default=None,
    help="Answer to any Host header.  [default: unless it listens on loopback]",
)
@click.option("--trust-xheaders", is_flag=True, default=None, help="Believe X-Forwarded-*.")
@click.option("--token", help="The token that clients must send.  [default: a new one]")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where PostgreSQL keeps data.")
@click.option("--database-url", help="An external PostgreSQL instead of the embedded one.")
@click.option("--default-url", help="The page to open, below the base URL.  [default: /lab]")
@click.option("--no-browser", is_flag=True, help="Do not open a browser.")
def serve(*, no_browser: bool, **options: Any) -> None:
    """Start the server. Every option has a DATASTORE_* environment variable."""
    try:
        settings = Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise click.ClickException(f"{first['loc'][0]}: {first['msg']}") from error
    _take_secrets()
    hub = _take_hub_service()
    if hub is not None:
        _settle_in(settings, hub)
    settings.base_url = normal_base_url(settings.base_url)
    if hub is not None and settings.base_url != normal_base_url(hub.prefix):
        raise click.ClickException(
            f"The base URL is {settings.base_url}, and JupyterHub's for this service {hub.prefix}"
        )
    check_certificate(settings)
    settings.root_dir = _readable(settings.root_dir)
    logging.basicConfig(
        level=logging.INFO, format="%(levelname).1s %(asctime)s %(name)s] %(message)s"
    )
    for noisy in ("alembic", "httpx", "traitlets"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_hide_tokens)
    _warn_unless_writable(settings.root_dir)
    with contextlib.ExitStack() as stack:
        if settings.sock is not None:
            settings.sock = settings.sock.expanduser().absolute()
            mode = int(settings.sock_mode, 8)
            sockets = [stack.enter_context(unix_socket(settings.sock, mode))]
        else:
            # A hub's proxy knows one port.
            retries = _PORT_RETRIES if hub is None or hub.service_url is None else 0
            sockets = _bind(settings.host, settings.port, retries)
            stack.callback(_close, sockets)
        embedded = None
        try:
            if settings.database_url is None:
                embedded = EmbeddedPostgres(settings.data_dir or default_data_dir())
                stack.callback(embedded.stop)
                embedded.start()
                url = embedded.url
                migrations.upgrade(url)
            else:
                url = settings.database_url
                migrations.require_current(url)
            migrations.require_no_replica(url)
        except (EmbeddedPostgresError, migrations.SchemaBehindError) as error:
            raise click.ClickException(str(error)) from error
        except (OperationalError, ArgumentError) as error:
            reason = str(getattr(error, "orig", None) or error).strip()
            raise click.ClickException(f"The database cannot be used: {reason}") from error
        _run(settings, url, sockets, embedded, hub=hub, open_browser=not no_browser)


def _readable(folder: Path) -> Path:
    """Return the absolute path of a folder that can be served; ClickException for another."""
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise click.ClickException(f"The root directory does not exist: {folder}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise click.ClickException(
            f"The root directory may not be read by user id {os.geteuid()}: {folder}"
        )
    return folder


def _warn_unless_writable(folder: Path) -> None:
    """Log when nothing can be made in a folder: of another account, as a container's often is."""
    if not os.access(folder, os.W_OK):
        log.warning("User id %d may not write in %s", os.geteuid(), folder)


def _hide_tokens(record: logging.LogRecord) -> bool:
    """Take tokens out of the addresses of websockets, which uvicorn logs: logs are read by many."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            _TOKEN_IN_ADDRESS.sub(r"\1[secret]", arg) if isinstance(arg, str) else arg
            for arg in record.args
        )
    return True


def _take_secrets() -> None:
    """Take what would make a reader of the environment an owner out of what kernels inherit."""
    for name in list(os.environ):
        if name.upper() in _SECRETS:
            del os.environ[name]


def _take_hub_service() -> HubService | None:
    """Return what JUPYTERHUB_* says, and take it out of what kernels and terminals inherit."""
    try:
        hub = HubService.from_environment(os.environ)
    except HubEnvironmentError as error:
        raise click.ClickException(str(error)) from error
    if hub is not None:
        for name in list(os.environ):
            if name.startswith("JUPYTERHUB_") or name == "JPY_API_TOKEN":
                del os.environ[name]
    return hub


def _settle_in(settings: Settings, hub: HubService) -> None:
    """Take from the hub what neither an option nor a DATASTORE_* variable says."""
    # Browsers name the hub's host, and what they may is asked of the hub.
    wanted: dict[str, Any] = {"base_url": hub.prefix, "allow_remote_access": True}
    place = urlsplit(hub.service_url or "")
    if place.scheme == "http+unix":
        wanted |= {"sock": Path(unquote(place.netloc)), "trust_xheaders": True}
    elif place.hostname:
        wanted |= {"host": place.hostname, "port": place.port or 8888}
        # Only the hub's proxy is on this machine's loopback with it.
        wanted["trust_xheaders"] = place.hostname in ("localhost", "127.0.0.1", "::1")
        if place.scheme == "https" and hub.certfile and hub.keyfile:
            wanted |= {"certfile": Path(hub.certfile), "keyfile": Path(hub.keyfile)}
    if settings.model_fields_set & {"sock", "host", "port"}:
        wanted = {name: wanted[name] for name in wanted if name not in ("sock", "host", "port")}
    for name, value in wanted.items():
        if name not in settings.model_fields_set:
            setattr(settings, name, value)


def normal_base_url(base_url: str) -> str:
    """Return the base URL as it stands in links: percent-encoded, a slash at both ends."""
    path = quote(unquote(base_url.strip("/")), safe="/")
    return f"/{path}/" if path else "/"


def _bind(host: str, port: int, retries: int = _PORT_RETRIES) -> list[socket.socket]:
    """Return listening sockets on the first free port, for every address of the host."""
    for candidate in range(port, port + retries + 1):
        bound: list[socket.socket] = []
        try:
            for family, kind, protocol, _, address in _addresses(
                host, bound_port(bound) or candidate
            ):
                # Without its protocol asyncio's own loop leaves Nagle's algorithm on.
                listener = socket.socket(family, kind, protocol)
                bound.append(listener)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                # With port 0 the first address chooses; the others follow.
                place = (address[0], bound_port(bound[:-1]) or candidate, *address[2:])
                listener.bind(place)
        except OSError as error:
            _close(bound)
            if port == 0 or candidate == port + retries:
                raise click.ClickException(
                    f"Cannot listen on {host}:{candidate}: {error}"
                ) from error
            continue
        if candidate != port:
            click.echo(f"Port {port} is in use, listening on {candidate}.", err=True)
        return bound
    raise AssertionError


def _close(sockets: list[socket.socket]) -> None:
    for bound in sockets:
        bound.close()


def _addresses(host: str, port: int) -> list[Any]:
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise click.ClickException(f"Cannot listen on {host}: {error}") from error
    usable = []
    for entry in dict.fromkeys(found):
        # A machine may know `::1` without having it.
        with contextlib.suppress(OSError), socket.socket(entry[0], entry[1]) as probe:
            probe.bind((entry[4][0], 0, *entry[4][2:]))
            usable.append(entry)
    if not usable:
        raise click.ClickException(f"Cannot listen on {host}: no such address on this machine")
    return usable


def bound_port(sockets: list[socket.socket]) -> int:
    """Return the port that the first socket is bound to, 0 without sockets."""
    return int(sockets[0].getsockname()[1]) if sockets else 0


class _Server(uvicorn.Server):
    """Announces itself once it listens; keeps the embedded PostgreSQL up."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: FastAPI,
        info: ServerInfo,
        embedded: EmbeddedPostgres | None,
        hub: HubService | None,
    ) -> None:
        super().__init__(config)
        self._app = app
        self._info = info
        self._embedded = embedded
        self._hub = hub
        self.open_browser = False
        self.local_url: str | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM end the server in order.

        uvicorn's own raises the signal again afterwards, and the process would end before
        PostgreSQL was stopped.
        """
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """Have the server end in order, as on SIGTERM."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell people and commands where."""
        await super().startup(sockets)
        if self.should_exit:
            return
        self.server_file = write_server_file(self._info)
        front_end = self._app.state.front_end or ""
        page = f"{front_end}?token={self._info.token}"
        address = f"{self._info.url}{page}"
        if self.local_url is not None:
            address += f"\n    {self.local_url}{page}"
        if self._hub is not None:
            address = f"{self._info.url} as JupyterHub's service {self._hub.name}"
        click.echo(
            f"\nJupyter Datastore {__version__} serves {self._info.root_dir}\n    {address}\n"
        )
        if self.open_browser:
            threading.Thread(
                target=webbrowser.open, args=(address.split()[0],), daemon=True
            ).start()
        if self._embedded is not None:
            self._watcher = asyncio.create_task(_keep_running(self._embedded))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; PostgreSQL stays until all is written."""
        if path := getattr(self, "server_file", None):
            remove_server_file(path)
        if waiters := getattr(self._app.state, "waiters", None):
            waiters.close()  # open polls would hold the shutdown up
        if changes := getattr(self._app.state, "changes", None):
            changes.end_feeds()  # and so would events, which never end by themselves
        await super().shutdown(sockets)
        if watcher := getattr(self, "_watcher", None):
            watcher.cancel()


async def _keep_running(embedded: EmbeddedPostgres) -> None:
    """Start PostgreSQL again when it has died.

    This is the main thread, as its supervisor needs; requests wait meanwhile, as they must.
    """
    while True:
        await asyncio.sleep(1)
        if not embedded.is_running():
            log.warning("PostgreSQL has ended; starting it again")
            try:
                embedded.start()
            except EmbeddedPostgresError as error:
                log.error("%s", error)


def _run(
    settings: Settings,
    url: str,
    sockets: list[socket.socket],
    embedded: EmbeddedPostgres | None,
    *,
    hub: HubService | None,
    open_browser: bool,
) -> None:
    token = settings.token or secrets.token_hex(24)
    data_dir = settings.data_dir or default_data_dir()
    app = create_app(
        settings,
        database_url=url,
        token=token,
        data_dir=data_dir,
        hub=hub,
        has_own_database=embedded is not None,
    )
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        **websocket_options(settings),
        timeout_graceful_shutdown=int(settings.shutdown_timeout_seconds),
        lifespan="on",
        proxy_headers=False,  # app.auth.addresses reads them, where the settings trust them
        ssl_certfile=settings.certfile,
        ssl_keyfile=settings.keyfile,
    )
    info = ServerInfo(
        url=_address(settings, sockets),
        token=token,
        pid=os.getpid(),
        root_dir=settings.root_dir,
        base_url=settings.base_url,
        data_dir=data_dir,
        version=__version__,
        started=datetime.now(UTC),
        sock=settings.sock,
        certfile=settings.certfile.absolute() if settings.certfile else None,
    )
    server = _Server(config, app, info, embedded, hub)
    server.open_browser = (
        open_browser and sys.stdout.isatty() and settings.sock is None and hub is None
    )
    if settings.sock is None and settings.host in _ALL_ADDRESSES:
        # A container's name means nothing to the machine that it runs on.
        server.local_url = _address(settings, sockets, host="127.0.0.1")
    app.state.request_shutdown = server.stop
    app.state.server_url = info.url
    server.run(sockets=sockets)
    if not server.started:
        raise click.ClickException("The server could not start; the reason is above.")


def _address(settings: Settings, sockets: list[socket.socket], host: str | None = None) -> str:
    if settings.sock is not None:
        return unix_url(settings.sock, settings.base_url)
    if host is None:
        host = socket.gethostname() if settings.host in _ALL_ADDRESSES else settings.host
    if ":" in host:
        host = f"[{host}]"
    scheme = "https" if settings.certfile else "http"
    return f"{scheme}://{host}:{bound_port(sockets)}{settings.base_url}"
