"""A real JupyterHub with its proxy; left out where there is no node."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

from tests.conftest import copied

HERE = Path(__file__).parent
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# The machine may be crowded.
expect.set_options(timeout=30_000)
PASSWORD = "a-password-for-tests"
MISSING = [
    program
    for program, found in (
        ("node and npm", shutil.which("node") and shutil.which("npm")),
        ("Chromium", CHROMIUM),
    )
    if not found
]


def pytest_collection_modifyitems(items):
    if MISSING:
        reason = f"needs {' and '.join(MISSING)}: apt-get install nodejs npm chromium"
        for item in items:
            if item.path == HERE / "test_hub.py":
                item.add_marker(pytest.mark.skip(reason=reason))


def free_ports(count: int) -> list[int]:
    import socket

    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def wait_until(check, seconds: float = 40):
    """Return what `check` returns once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


class Process:
    """Something started, which ends with all that it has started."""

    def __init__(self, command: list[str], folder: Path, name: str, **environment: str) -> None:
        self.log_path = folder / f"{name}.log"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "DATASTORE_"))}
        with self.log_path.open("a") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**kept, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, url: str) -> None:
        def is_up():
            assert self.process.poll() is None, self.log_path.read_text()[-5000:]
            return answers(url)

        wait_until(is_up, 150)

    def stop(self) -> None:
        if self.process.poll() is not None:
            return
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        _, alive = psutil.wait_procs(family, 15)
        for left in [*alive, *([self.process] if self.process.poll() is None else [])]:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        assert not alive, f"left running: {alive}"


@dataclass
class Hub:
    """A hub, the addresses of its services, and what tests ask it."""

    folder: Path
    given: dict
    processes: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{self.given['port']}/base"
        self.api = f"http://127.0.0.1:{self.given['hub_port']}/base/hub/api"
        self.root = self.folder / "managed"

    def start(self) -> None:
        command = [sys.executable, "-m", "jupyterhub", "-f", str(HERE / "jupyterhub_config.py")]
        self.hub = Process(command, self.folder, "hub", HUB_TEST=json.dumps(self.given))
        self.processes.append(self.hub)
        self.hub.wait_for(f"{self.url}/hub/health")

    def ask(self, method: str, path: str, **more) -> httpx.Response:
        """Ask the hub's API as its administrator."""
        headers = {"Authorization": f"token {self.given['tester_token']}"}
        answer = httpx.request(method, f"{self.api}/{path}", headers=headers, timeout=20, **more)
        assert answer.status_code < 400, answer.text
        return answer

    def token(self, name: str, *scopes: str) -> str:
        """Return a new API token of a user's."""
        body = {"scopes": list(scopes)} if scopes else {}
        return self.ask("POST", f"users/{name}/tokens", json=body).json()["token"]

    def client(self, service: str, token: str, scheme: str = "token") -> httpx.Client:
        return httpx.Client(
            base_url=f"{self.url}/services/{service}",
            headers={"Authorization": f"{scheme} {token}"},
            timeout=60,
        )


@pytest.fixture(scope="module")
def proxy() -> list[str]:
    """The command of the hub's proxy, installed once from the lock file beside this."""
    script = HERE / "node_modules/.bin/configurable-http-proxy"
    if not script.exists():
        done = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund"], cwd=HERE, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    return [shutil.which("node") or "node", str(script)]


@pytest.fixture(scope="module")
def hub(proxy, postgres_url, template, tmp_path_factory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    names = ("port", "hub_port", "proxy_port", "managed_port", "external_port")
    given: dict = dict(zip(names, free_ports(len(names)), strict=True))
    command = [sys.executable, "-m", "app", "serve"]
    with copied(postgres_url, template) as managed, copied(postgres_url, template) as external:

        def environment(name: str, url: str) -> dict[str, str]:
            (folder / name).mkdir()
            return {
                "DATASTORE_DATABASE_URL": url,
                "DATASTORE_ROOT_DIR": str(folder / name),
                "DATASTORE_DATA_DIR": str(folder / f"{name}-data"),
                "DATASTORE_OWNER": "local",
                "DATASTORE_HUB_CACHE_SECONDS": "1",
                "DATASTORE_HUB_ACTIVITY_SECONDS": "0.5",
                "DATASTORE_KERNEL_POLL_SECONDS": "0.2",
            }

        given |= {
            "proxy": proxy,
            "password": PASSWORD,
            "command": command,
            "environment": {**environment("managed", managed), "PATH": os.environ["PATH"]},
            "external_token": "external-token-for-tests",
            "tester_token": "tester-token-for-tests",
            "machine_token": "machine-token-for-tests",
        }
        made = Hub(folder, given)
        outside = {
            "JUPYTERHUB_SERVICE_NAME": "external",
            "JUPYTERHUB_API_TOKEN": given["external_token"],
            "JUPYTERHUB_API_URL": made.api,
            "JUPYTERHUB_BASE_URL": "/base/",
            "JUPYTERHUB_SERVICE_PREFIX": "/base/services/external/",
            "DATASTORE_HUB_CUSTOM_SCOPES": "true",
            "DATASTORE_PORT": str(given["external_port"]),
            "DATASTORE_HOST": "127.0.0.1",
        }
        try:
            made.external = Process(
                [*command, "--no-browser"],
                folder,
                "external",
                **environment("external", external),
                **outside,
            )
            made.processes.append(made.external)
            made.start()
            for service in ("managed", "external"):
                made.hub.wait_for(f"{made.url}/services/{service}/api")
            yield made
        finally:
            for process in reversed(made.processes):
                process.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def window(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1000, "height": 700})
    context.set_default_timeout(30_000)
    yield context
    context.close()
