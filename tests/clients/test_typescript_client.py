"""The TypeScript client: types, lint, unit tests; in node and in Chromium on a real server."""

import asyncio
import functools
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import LAG_SECONDS, Restartable
from tests.clients.slow import write_much, writing
from tests.clients.wire import Wire
from tests.servers import TOKEN, wait_for

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "clients" / "typescript"
SECONDS = 90


def node_version() -> int:
    if not (shutil.which("node") and shutil.which("npm")):
        return 0
    said = subprocess.run(["node", "--version"], stdout=subprocess.PIPE, text=True, check=True)
    return int(said.stdout.lstrip("v").split(".")[0])


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    node_version() < 20, reason="needs node 20 or newer, and npm, which build the client"
)
FLAGS = [
    "--no-sandbox",  # the tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def run(*command: str, **environment: str) -> str:
    """Run a command in the package and return its output, which is shown when it fails."""
    done = subprocess.run(
        command,
        cwd=PACKAGE,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """What the package is built with, as the lock file has it."""
    lock, made = PACKAGE / "package-lock.json", PACKAGE / "node_modules" / ".package-lock.json"
    if not made.exists() or made.stat().st_mtime < lock.stat().st_mtime:
        run("npm", "ci")


@pytest.fixture(scope="module")
def dist(installed) -> Path:
    shutil.rmtree(PACKAGE / "dist", ignore_errors=True)
    run("npm", "run", "build")
    return PACKAGE / "dist"


@pytest.fixture(scope="module")
def built_tests(installed) -> Path:
    """The state machine's unit tests pass, and the programs beside them are compiled."""
    shutil.rmtree(PACKAGE / "build", ignore_errors=True)
    said = run("npm", "test")
    assert re.search(r"^# pass [1-9]", said, re.MULTILINE), said
    assert re.search(r"^# (fail|skipped) 0$", said, re.MULTILINE)
    return PACKAGE / "build" / "test"


def test_it_is_built_and_has_no_dependencies(dist: Path):
    described = json.loads((PACKAGE / "package.json").read_text("utf-8"))
    assert "dependencies" not in described
    for target in described["exports"]["."].values():
        assert (PACKAGE / target).is_file()
    imported = {
        name
        for script in dist.glob("*.js")
        for name in re.findall(r'from "([^"]+)"', script.read_text("utf-8"))
    }
    assert imported
    assert all(name.startswith("./") for name in imported)


def test_the_lock_file_names_no_registry():
    lock = (PACKAGE / "package-lock.json").read_text("utf-8")
    assert not re.search(r'"resolved"|https?://[^"]*registry', lock)


def test_lint():
    run("npm", "run", "lint")


def test_unit_tests(built_tests: Path):
    assert (built_tests / "scenarios.test.js").is_file()


class Program:
    """A program in node, and what it says."""

    def __init__(self, script: Path, url: str) -> None:
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            ["node", str(script)],
            cwd=PACKAGE,
            env={**os.environ, "DATASTORE_URL": url, "DATASTORE_TOKEN": TOKEN},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        self._lines.extend(self._process.stdout)

    @property
    def said(self) -> str:
        return "".join(self._lines)

    def wait_until(self, line: str) -> None:
        wait_for(lambda: f"{line}\n" in self._lines or self._process.poll() is not None, SECONDS)
        assert f"{line}\n" in self._lines, self.said

    def close(self) -> str:
        """Wait for its end, which must be a good one."""
        try:
            status = self._process.wait(SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            self._process.stdout.close()
        assert status == 0, self.said
        return self.said


def test_in_node_over_the_death_of_the_server(built_tests: Path, server: Restartable):
    program = Program(built_tests / "live" / "follow.js", server.url)
    try:
        program.wait_until("ready")
        server.process.stop(signal.SIGKILL)
        server.start()
        program.wait_until("done")
    finally:
        said = program.close()
    assert said.splitlines() == ["ready", "done"]


async def test_in_node_falling_behind_and_being_dropped(built_tests: Path, impatient: Restartable):
    async with writing(impatient) as sql, Wire(impatient.port) as wire:
        program = Program(built_tests / "live" / "slow.js", wire.url)

        async def until(line: str) -> None:
            await asyncio.to_thread(program.wait_until, line)

        try:
            await until("0")
            wire.freeze()
            await write_much(sql, "slow5")
            wire.thaw()
            await until("slow5")
            wire.freeze()
            await write_much(sql, "slow4")
            await asyncio.sleep(LAG_SECONDS + 1)
            connections = wire.connections
            wire.thaw()
            await until("slow4")
        finally:
            said = await asyncio.to_thread(program.close)
        assert wire.connections > connections
    assert said.splitlines() == ["0", "slow5", "slow4"]


def test_the_readmes_example(dist: Path, server: Restartable):
    readme = (PACKAGE / "README.md").read_text("utf-8")
    (example,) = re.findall(r"^```ts\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    # Within the package, where its own name is known.
    folder = PACKAGE / "build" / "readme"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "example.ts").write_text(example, "utf-8")
    settings = {
        "extends": "../../tsconfig.json",
        "compilerOptions": {"types": ["node"], "rootDir": ".", "outDir": "made"},
        "include": ["example.ts"],
    }
    (folder / "tsconfig.json").write_text(json.dumps(settings), "utf-8")
    run("npx", "tsc", "-p", str(folder))
    assert Program(folder / "made" / "example.js", server.url).close() == "hello\n\n42\nok 2\n"


# --- in Chromium ---------------------------------------------------------------------------------

BODY = """<pre id="outputs"></pre><p id="kernel"></p><p id="question"></p><p id="status"></p>"""
SCRIPT = """
addEventListener("error", (event) => { window.failed = String(event.message); });
addEventListener("unhandledrejection", (event) => { window.failed = String(event.reason); });
import { Datastore } from "./client/index.js";
const query = new URLSearchParams(location.search);
const token = query.get("token");
const store = new Datastore(query.get("server") ?? location.origin, token ? { token } : {});
const show = (id, text) => { document.getElementById(id).textContent = text; };
store.listenStatus((status) => show("status", status));
const outputs = await store.table("outputs").live();
const kernels = await store.table("kernels").live();
const questions = await store.table("input_requests").live();
const say = () => {
  const pieces = [...outputs.records].sort((one, other) => one.id - other.id);
  show("outputs", pieces.map((piece) => piece.text ?? "").join(""));
  show("kernel", [...kernels.records].map((kernel) => kernel.execution_state).join());
  const waiting = questions.records.filter((question) => question.status === "pending");
  show("question", waiting.map((question) => question.prompt).join());
};
for (const table of [outputs, kernels, questions]) { table.listen(say); }
say();
Object.assign(window, { store, outputs, kernels, questions, ready: true });
"""
PAGE = f"""<!doctype html><title>client</title><link rel="icon" href="data:,">{BODY}
<script type="module">{SCRIPT}</script>"""


@pytest.fixture(scope="module")
def another_site(dist: Path, server: Restartable, tmp_path_factory) -> Iterator[str]:
    """Another site, whose pages the server allows to use its API."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "page.html").write_text(PAGE, "utf-8")
    shutil.copytree(dist, folder / "client")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", server.site_port), handler) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.site_port}"
        site.shutdown()
        thread.join()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_two_pages_in_chromium(dist: Path, server: Restartable, another_site: str):
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=SECONDS * 1000)
    problems: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)

        def open_page(**options):
            context = browser.new_context(**options)
            context.set_default_timeout(SECONDS * 1000)
            page = context.new_page()
            page.on("pageerror", lambda error: problems.append(str(error)))
            return page

        # One is a quiet page of the server's own, logged in by its cookie; the client is put there,
        # since the server has no page with it.
        one = open_page(bypass_csp=True)
        one.goto(f"{server.url}/login")
        one.fill("input[name=password]", TOKEN)
        one.click("form button")
        one.wait_for_url(f"{server.url}/lab*", wait_until="commit")
        one.goto(f"{server.url}/questions")
        one.route(
            f"{server.url}/client/*.js",
            lambda route: route.fulfill(path=dist / route.request.url.rpartition("/")[2]),
        )
        one.evaluate("(body) => { document.body.innerHTML = body; }", BODY)
        one.add_script_tag(content=SCRIPT, type="module")
        # The other is another site's, with a token.
        other = open_page()
        other.goto(f"{another_site}/page.html?server={server.url}&token={TOKEN}")
        for page in (one, other):
            page.wait_for_function("window.ready || window.failed")
            assert page.evaluate("window.failed") is None

        kernel = one.evaluate("store.kernels.start().then((kernel) => kernel.id)")
        code = "print('from one page')\nname = input('Who is there? ')\nprint('hello', name)"
        execution = one.evaluate(
            "([kernel, code]) => store.executions.execute(kernel, code).then((made) => made.id)",
            [kernel, code],
        )
        expect(other.locator("#outputs")).to_contain_text("from one page")
        expect(other.locator("#question")).to_contain_text("Who is there?")
        other.evaluate("(id) => store.executions.input(id, 'the other page')", execution)
        for page in (one, other):
            expect(page.locator("#outputs")).to_contain_text("hello the other page")
            expect(page.locator("#question")).to_have_text("")
            expect(page.locator("#kernel")).to_contain_text("idle")
        finished = one.evaluate("(id) => store.executions.wait(id)", execution)
        assert finished["status"] == "ok"

        # Both go on by themselves when the server is killed and started again.
        server.process.stop(signal.SIGKILL)
        for page in (one, other):
            expect(page.locator("#status")).to_have_text(re.compile("waiting|connecting"))
        server.start()
        for page in (one, other):
            expect(page.locator("#status")).to_have_text("live")
            expect(page.locator("#kernel")).not_to_contain_text("idle")
        other.evaluate(
            "store.kernels.start()"
            ".then((kernel) => store.executions.run(kernel.id, 'print(\"again\")'))"
        )
        for page in (one, other):
            expect(page.locator("#outputs")).to_contain_text("again")
            held = page.evaluate(
                "Promise.all([outputs, kernels, questions].map(async (live) =>"
                " [Object.fromEntries(live), await store.table(live.name).read()]))"
            )
            for mine, fresh in held:
                assert mine == {str(record["id"]): record for record in fresh}
        browser.close()
    assert problems == []
