"""A real Chromium on a real server; left out where no Chromium is installed."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from tests.browser.window import FLAGS, PATIENCE, Window
from tests.conftest import database_named
from tests.servers import TOKEN, ServerProcess

HERE = Path(__file__).parent
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def pytest_collection_modifyitems(items):
    if CHROMIUM is None:
        reason = "needs Chromium: apt-get install chromium"
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


class Site:
    """A server on a port and database of its own, which a test may stop and start again."""

    def __init__(self, folder: Path, database_url: str, **environment: str) -> None:
        self.root_dir = folder / "root"
        self.root_dir.mkdir()
        self._folder = folder
        self.database_url = database_url
        self._options = ["--database-url", database_url, "--port", str(free_port())]
        self._environment = environment
        self.start()

    def start(self) -> None:
        self.server = ServerProcess(
            self.root_dir, self._folder / "data", *self._options, **self._environment
        )
        self.http = self.server.wait_until_up()
        self.url = self.server.url

    def restart(self) -> None:
        self.http.close()
        assert self.server.stop() == 0
        self.start()


@pytest.fixture(scope="module")
def make_site(
    postgres_url: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator:
    """Starts servers for a module; all of them end with it."""
    made: list[Site] = []
    databases: list[str] = []

    def make(**environment: str) -> Site:
        name = f"browser_{free_port()}_{len(databases)}"
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        databases.append(name)
        folder = tmp_path_factory.mktemp("site")
        made.append(Site(folder, database_named(postgres_url, name), **environment))
        return made[-1]

    yield make
    for site in made:
        site.http.close()
        site.server.close()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for name in databases:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="module")
def enter(browser: Browser) -> Iterator:
    """Makes browsers' contexts that are logged in, by default with the address that is printed."""
    made: list[BrowserContext] = []

    def enter(site: Site, token: str = TOKEN) -> BrowserContext:
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        context.set_default_timeout(PATIENCE)
        made.append(context)
        assert context.request.get(f"{site.url}lab?token={token}").ok
        return context

    yield enter
    for context in made:
        context.close()


@pytest.fixture(scope="module")
def context(enter, site: Site) -> BrowserContext:
    """One person's browser for a module: JupyterLab's files are fetched and compiled once."""
    return enter(site)


@pytest.fixture
def windows(context: BrowserContext, site: Site, request: pytest.FixtureRequest) -> Iterator:
    """Opens windows on paths, each in a workspace of its own; their consoles must be clean.

    They share cookies and cache unless a window gets a context of its own.
    `DATASTORE_SCREENSHOTS` names a folder for pictures of them, also of a test that fails.
    """
    opened: list[Window] = []

    def open_window(path: str = "", *, context: BrowserContext = context) -> Window:
        window = Window(context, site, name=f"{request.node.name}-{len(opened)}")
        opened.append(window)
        window.go(path)
        return window

    yield open_window
    for window in opened:
        window.picture("end")
        window.close()
    problems = [problem for window in opened for problem in window.problems]
    assert not problems, "\n".join(problems[:20])
