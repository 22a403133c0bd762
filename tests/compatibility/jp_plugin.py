"""Fixtures of Jupyter Server's own test suite, over HTTP to this server.

`jp_fetch`, `jp_ws_fetch` and what belongs to them reach a server of ours on a real port, with its
own root folder and database for each test. `jp_serverapp` is a stand-in: it tells the port, the
token and the folders; a test that reaches into the stock application for anything else is skipped,
with the name of what it wanted. How to run it: docs/compatibility.md and `jp_suite.py`.
"""

import asyncio
import contextlib
import importlib.util
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from app.main import create_app
from app.settings import Settings

# Not imported by name: `tests` is the other suite's package here.
_spec = importlib.util.spec_from_file_location(
    "datastore_conftest", Path(__file__).parents[1] / "conftest.py"
)
assert _spec is not None
assert _spec.loader is not None
_conftest = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_conftest)
postgres_url = _conftest.postgres_url
template = _conftest.template
database_url = _conftest.database_url
short_tmp = _conftest.short_tmp

# Settings of the stock server's traits that have one of ours.
_SETTINGS = {
    ("ServerApp", "allow_origin"): "allow_origin",
    ("ServerApp", "allow_origin_pat"): "allow_origin_pat",
    ("ServerApp", "allow_credentials"): "allow_credentials",
    ("FileContentsManager", "delete_to_trash"): "delete_to_trash",
    ("FileContentsManager", "always_delete_dir"): "always_delete_dir",
    ("AsyncFileContentsManager", "delete_to_trash"): "delete_to_trash",
    ("AsyncFileContentsManager", "always_delete_dir"): "always_delete_dir",
    ("ContentsManager", "allow_hidden"): "allow_hidden",
    ("TerminalManager", "cull_inactive_timeout"): "terminal_cull_inactive_timeout",
    ("TerminalManager", "cull_interval"): "terminal_cull_interval",
}


# Flags that choose between classes or extensions of the stock server.
_UNNEEDED = (
    "--ServerApp.contents_manager_class=",
    "--ContentsManager.files_handler_class=",
    "--ServerApp.jpserver_extensions",
    "jupyter_server_terminals=",
)


class _Missing:
    """Skips a test as soon as it asks for something that is not there over HTTP."""

    def __init__(self, name: str, **known: Any) -> None:
        self.__dict__.update(known, _name=name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        pytest.skip(f"in-process: {self._name}.{name}")

    def __setattr__(self, name: str, value: object) -> None:
        pytest.skip(f"in-process: {self._name}.{name} is set")


class _Kernels(_Missing):
    """What tests read and set of the stock kernel manager."""

    def __init__(self, app: Any) -> None:
        super().__init__("kernel_manager", _app=app, use_pending_kernels=False)

    @property
    def default_kernel_name(self) -> str:
        return self._app.state.kernels.default_name()

    def get_kernel(self, kernel_id: str) -> SimpleNamespace:
        assert self._app.state.kernels.get(kernel_id)
        return SimpleNamespace()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "default_kernel_name":
            self._app.state.kernels.default_name = lambda: value
        else:
            super().__setattr__(name, value)


class _Contents(_Missing):
    """The contents manager that the server under test uses, for the settings of it."""

    def __init__(self, app: Any) -> None:
        super().__init__("contents_manager", _app=app)

    def __setattr__(self, name: str, value: Any) -> None:
        disk = self._app.state.disk
        manager = getattr(disk, "manager", None) or disk._manager
        setattr(manager, name, value)


@pytest.fixture(scope="session", autouse=True)
def _database_first(template: str) -> None:
    """PostgreSQL starts before a test changes HOME and the like."""


@pytest.fixture
def jp_serverapp(  # noqa: PLR0917 (fixtures come by name)
    jp_nbconvert_templates,  # before `jp_environ`, which hides them
    jp_environ,
    jp_server_config,
    jp_base_url,
    jp_root_dir,
    tmp_path,
    database_url,
    jp_argv,
):
    jp_argv = [argument for argument in jp_argv if not argument.startswith(_UNNEEDED)]
    if jp_argv:
        pytest.skip(f"in-process: command line {jp_argv}")
    token = "a-token-for-the-suite"
    settings = Settings(
        root_dir=jp_root_dir, owner="ada", base_url=jp_base_url, save_delay_seconds=0.05
    )
    for (trait_class, trait), name in _SETTINGS.items():
        stock = jp_server_config.get("ServerApp") or {}
        section = jp_server_config.get(trait_class) or stock.get(trait_class) or {}
        if trait in section and name in Settings.model_fields:
            setattr(settings, name, section[trait])
    app = create_app(settings, database_url=database_url, token=token, data_dir=tmp_path / "jds")
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, proxy_headers=False))
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment]
    thread = threading.Thread(target=asyncio.run, args=(server.serve(),))
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield _Missing(
            "serverapp",
            port=port,
            base_url=jp_base_url,
            root_dir=str(jp_root_dir),
            token=token,
            identity_provider=_Missing("identity_provider", token=token),
            kernel_manager=_Kernels(app),
            contents_manager=_Contents(app),
            web_app=_Missing("web_app"),
        )
    finally:
        server.should_exit = True
        thread.join(60)


@pytest.fixture
def jp_http_port(jp_serverapp):
    return jp_serverapp.port


@pytest.fixture
def jp_auth_header(jp_serverapp):
    return {"Authorization": f"token {jp_serverapp.token}"}


@pytest.fixture
def jp_web_app(jp_serverapp):
    return jp_serverapp.web_app


@pytest.fixture
def jp_configurable_serverapp():
    pytest.skip("in-process: jp_configurable_serverapp")


@pytest.fixture(autouse=True)
def jp_server_cleanup():
    """Nothing of the stock application was made."""


@pytest.fixture
def http_server_client(jp_http_port, jp_asyncio_loop):
    """A client whose `fetch` takes a path."""

    async def make() -> SimpleAsyncHTTPClient:
        return SimpleAsyncHTTPClient(force_instance=True)

    client = jp_asyncio_loop.run_until_complete(make())

    def fetch(path: str, **options: Any) -> Any:
        return client.fetch(f"http://127.0.0.1:{jp_http_port}{path}", **options)

    yield SimpleNamespace(fetch=fetch)
    client.close()
