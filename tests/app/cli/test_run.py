"""`run` as a person at a terminal, a pipe and a script see it, against a scripted server.

The server here speaks docs/api.md as far as `run` asks; what a real one does with a notebook is
tested end to end elsewhere.
"""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from app.cli.connection import (
    CommandError,
    ServerInfo,
    find_server,
    path_below,
    remove_server_file,
    write_server_file,
)
from app.cli.follow import StreamLines, clean_line, duration, first_line
from app.cli.run import run

REPOSITORY = Path(__file__).resolve().parents[3]
START = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE_SECONDS = 15
TOKEN = "s3cret"


def stamp(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


class FakeServer:
    """Executions whose course a test writes; answers long polls as soon as something is new."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.executions: list[dict] = []
        self.pieces: dict[str, list[dict]] = {}
        self.course: list = []  # per cell: (source, pieces, status, fields), played by POST run
        self.requests: list[tuple[str, str, dict | None]] = []
        self.tokens: list[str | None] = []
        self.answers: list[str] = []
        self.kernelspec: str | None = "python3"
        self.session_kernel: str | None = None
        self.token = TOKEN
        self.page = 500
        self.drop: list[str] = []  # one request to each of these is not answered
        self.refuse_input = False
        self.failures: list[int] = []  # statuses of the next answers
        self._serve(0)

    def _serve(self, port: int) -> None:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                fake.answer(self, "GET")

            def do_POST(self) -> None:
                fake.answer(self, "POST")

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that detached

        self.http = Server(("127.0.0.1", port), Handler)
        self.open = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        with self.changed:
            self.open = False
            self.changed.notify_all()
        self.http.shutdown()
        self.http.server_close()

    def restart(self) -> None:
        self._serve(0)

    # --- what a test does

    def queue(self, *sources: str, at: float = 0, session: str = "s1") -> None:
        with self.changed:
            for source in sources:
                seq = len(self.executions) + 1
                self.executions.append({
                    "id": f"e{seq}", "seq": seq, "session_id": session, "cell_id": f"c{seq}",
                    "code": source, "status": "queued", "reason": None, "execution_count": None,
                    "queued_at": stamp(at), "started_at": None, "finished_at": None, "ename": None,
                    "evalue": None, "input_request": None, "path": "a.ipynb",
                })  # fmt: skip
                self.pieces[f"e{seq}"] = []
            self.changed.notify_all()

    def update(self, number: int, **fields: object) -> None:
        with self.changed:
            self.executions[number - 1].update(fields)
            self.changed.notify_all()

    def start(self, number: int) -> None:
        self.update(number, status="running", started_at=stamp(number), execution_count=number)

    def finish(self, number: int, status: str = "ok", **fields: object) -> None:
        end = stamp(number + 0.5)
        self.update(number, status=status, finished_at=end, input_request=None, **fields)

    def output(self, number: int, *pieces: dict) -> None:
        with self.changed:
            kept = self.pieces[f"e{number}"]
            for piece in pieces:
                kept.append({"seq": len(kept) + 1, **piece})
            self.changed.notify_all()

    def ask(self, number: int, prompt: str, *, password: bool = False, name: str = "i1") -> None:
        request = {"id": name, "prompt": prompt, "password": password, "created_at": stamp(0)}
        self.update(number, input_request=request)

    def wait_until(self, condition) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE_SECONDS)

    def seen(self, method: str, part: str) -> list[dict | None]:
        return [body for how, path, body in self.requests if how == method and part in path]

    def wait_for_request(self, method: str, part: str) -> None:
        self.wait_until(lambda: self.seen(method, part))

    # --- what it answers

    def answer(self, handler: BaseHTTPRequestHandler, method: str) -> None:
        raw = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        body = json.loads(raw) if raw else None
        with self.changed:
            self.requests.append((method, unquote(handler.path), body))
            self.tokens.append(handler.headers["Authorization"])
            self.changed.notify_all()
            dropped = [part for part in self.drop if part in handler.path][:1]
            self.drop = [part for part in self.drop if part not in dropped]
            failure = self.failures.pop(0) if self.failures and not dropped else None
        if dropped:
            handler.close_connection = True
            return
        if failure:
            status, answer = failure, {"message": "The database is away", "reason": None}
        elif handler.headers["Authorization"] != f"token {self.token}" and handler.path != "/api":
            status, answer = 403, {"message": "Forbidden", "reason": None}
        else:
            status, answer = self.route(method, urlsplit(handler.path), body)
        if status == 0:
            handler.close_connection = True
            return
        data = json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def route(self, method: str, parts, body) -> tuple[int, object]:  # noqa: PLR0911
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        match [method, *unquote(parts.path).strip("/").split("/")]:
            case ["GET", "api"]:
                return 200, {"version": "0"}
            case ["GET", "api", "contents", "a.ipynb"] | ["GET", "api", "contents", "sub", _]:
                kernel = {"kernelspec": {"name": self.kernelspec}} if self.kernelspec else {}
                return 200, {"type": "notebook", "content": {"metadata": kernel, "cells": []}}
            case ["GET", "api", "contents", "text.txt"]:
                return 200, {"type": "file", "content": ""}
            case ["POST", "api", "sessions"]:
                name = self.session_kernel or body["kernel"].get("name") or "default"
                return 201, {"id": "s1", "kernel": {"id": "k1", "name": name}}
            case ["POST", "api", "sessions", "s1", "run"]:
                return 202, {"executions": self.play()}
            case ["POST", "api", "kernels", "k1", "restart"]:
                return 200, {"id": "k1", "name": "python3"}
            case ["GET", "api", "executions"]:
                return self.listed(query)
            case ["GET", "api", "executions", execution_id, "outputs"]:
                return self.outputs(execution_id, query)
            case ["POST", "api", "executions", execution_id, "input"]:
                return self.take_answer(execution_id, body)
        return 404, {"message": f"No such thing: {parts.path}", "reason": None}

    def play(self) -> list[dict]:
        self.queue(*(source for source, *_ in self.course))
        queued = [dict(execution) for execution in self.executions]
        for number, (_, pieces, status, fields) in enumerate(self.course, 1):
            if status is None:
                continue
            if status in {"ok", "error"}:
                self.start(number)
            self.output(number, *pieces)
            self.finish(number, status, **fields)
        return queued

    def listed(self, query: dict) -> tuple[int, object]:
        newest = [e for e in reversed(self.executions) if e["path"] == query["path"]]
        before = int(query.get("cursor", len(newest) + 1))
        rest = [e for e in newest if e["seq"] < before]
        page = rest[: min(self.page, int(query["limit"]))]
        return 200, {"executions": page, "next": page[-1]["seq"] if page != rest else None}

    def outputs(self, execution_id: str, query: dict) -> tuple[int, object]:
        number = int(execution_id[1:])
        limit = time.monotonic() + float(query.get("wait", 0))
        with self.changed:
            while True:
                execution = self.executions[number - 1]
                kept = self.pieces[execution_id]
                at = int(query.get("cursor", "0").partition(".")[0])
                new = kept[at : at + self.page]
                asking = (execution["input_request"] or {}).get("id", "")
                cursor = f"{at + len(new)}.{execution['status']}.{asking}"
                if not self.open:
                    return 0, None
                left = limit - time.monotonic()
                if cursor != query.get("cursor") or execution["finished_at"] or left <= 0:
                    return 200, {"outputs": new, "cursor": cursor, "execution": dict(execution)}
                self.changed.wait(left)

    def take_answer(self, execution_id: str, body: dict) -> tuple[int, object]:
        number = int(execution_id[1:])
        if self.refuse_input or self.executions[number - 1]["input_request"] is None:
            return 409, {"message": "Nothing asks", "reason": None}
        self.answers.append(body["value"])
        self.update(number, input_request=None)
        return 201, {}


@pytest.fixture(autouse=True)
def runtime_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    for name in ("DATASTORE_URL", "DATASTORE_TOKEN", "FORCE_COLOR", "NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "runtime"


@pytest.fixture
def server():
    fake = FakeServer()
    yield fake
    if fake.open:
        fake.stop()


def invoke(server: FakeServer, *arguments: str, notebook: str = "a.ipynb") -> Result:
    arguments = ("--url", server.url, "--token", TOKEN, *arguments, notebook)
    return CliRunner().invoke(run, arguments)


class Meanwhile:
    """Acts on the server from another thread while the command runs; fails when that fails."""

    def __init__(self, act) -> None:
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self.guarded, args=(act,), daemon=True)

    def guarded(self, act) -> None:
        try:
            act()
        except BaseException as error:
            self.error = error

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.thread.join(PATIENCE_SECONDS)
        assert self.error is None
        assert not self.thread.is_alive()


def stream(text: str, name: str = "stdout") -> dict:
    return {"output_type": "stream", "name": name, "text": text}


def shown(**data: object) -> dict:
    mimes = {name.replace("_", "/"): value for name, value in data.items()}
    return {"output_type": "display_data", "data": mimes, "metadata": {}}


DIVISION = {
    "output_type": "error",
    "ename": "ZeroDivisionError",
    "evalue": "division by zero",
    "traceback": ["\x1b[31mZeroDivisionError\x1b[39m", "----> 1 1/0"],
}
FAILED = {"ename": "ZeroDivisionError", "evalue": "division by zero"}


# --- what reaches the terminal


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
        ("a\x1b[2Jb\x1b[10;20Hc\x1b[?25ld\x1b[Ke", "abcde"),
        ("a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c", "abc"),
        ("a\x1b]52;c;cGFzdGU=", "a"),
        ("a\x1bP1$r\x1b\\b\x1b_x\x1b\\c\x1b^y\x1b\\d", "abcd"),
        ("a\x1b[>4;2mb\x1b[!pc\x1bcd\x1b(0e\x1b7f", "abcdef"),
        ("a\x9b2Jb\x9d0;t\x9cc\x07d\x00e\x7f", "abcde"),
        ("\x1b\x00[2J", "[2J"),
        ("\x1b[" + "1" * 5000 + "mx", "x"),
        ("10%\r20%\r100%", "100%"),
        ("done\r", "done"),
        ("10%\b\b\b20%", "20%"),
        ("\b\bx\ty", "x\ty"),
        ("caf\u00e9 \ud800", "caf\u00e9 ?"),
    ],
)
def test_of_control_sequences_only_colours_stay(raw, clean):
    assert clean_line(raw, colours=True) == clean
    assert clean_line(raw) == re.sub(r"\x1b\[[0-9;]*m", "", clean)


@given(st.text(alphabet="\x1b\x9b\x9d[]?;0123mJ\\P\x07\x08\r\x9cax\n", max_size=40))
def test_no_text_gets_a_control_through(text):
    left = re.sub(r"\x1b\[[0-9;:]*m", "", clean_line(text, colours=True))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", left)
    assert "\x1b" not in clean_line(text)


@pytest.mark.parametrize(
    ("pieces", "lines", "tail"),
    [
        (["a", "b\nc", "\n", "d"], ["ab", "c"], "d"),
        (["\r 1%", "\r 2%", "\r", "100%\n"], ["100%"], ""),
        (["x\r", "\n", "y\r"], ["x\r"], "y\r"),
        (["\x1b[3", "1mred\n"], ["\x1b[31mred"], ""),
    ],
)
def test_lines_come_together_from_pieces(pieces, lines, tail):
    stream_lines = StreamLines("")
    assert [line for piece in pieces for line in stream_lines.feed(piece)] == lines
    assert stream_lines.tail() == tail
    assert stream_lines.rest() == tail
    assert stream_lines.rest() == ""


def test_sources_and_times_in_short():
    assert first_line("\n  \n  x = 1\x1b[2J\ny") == "x = 1"
    assert first_line("") == ""
    assert [duration(s) for s in (None, 0.014, 12.34, 75, 3725)] == [
        "", "0.01 s", "12.3 s", "1:15", "1:02:05",
    ]  # fmt: skip


# --- a run through a pipe


def test_a_run_prints_its_outputs_and_a_table(server):
    server.course = [
        ("\nx = 1\ny", [stream("a\tb\n\x1b[31mred\x1b[0m"), stream("log\n", "stderr")], "ok", {}),
        ("plot()", [
            shown(text_plain="<Figure>", image_png="A" * 4000),
            shown(text_html="<b>hi</b>"),
            shown(text_plain=["1\n", "2"], text_html="<table>"),
        ], "ok", {}),
    ]  # fmt: skip
    result = invoke(server)
    assert result.exit_code == 0, result.stderr
    outputs, _, table = result.stdout.partition("\n\n")
    assert outputs.splitlines() == [
        "a\tb", "log", "red",
        "<Figure>", "[image/png, 3 kB]", "[text/html, 9 B]", "1", "2",
    ]  # fmt: skip
    assert re.search(r"1 +x = 1 +ok +0\.50 s", table)
    assert "Total: 2 ok in 1.50 s" in table
    assert "\x1b" not in result.stdout
    assert result.stderr == ""
    assert server.seen("POST", "api/sessions")[0] == {
        "path": "a.ipynb", "name": "a.ipynb", "type": "notebook", "kernel": {"name": "python3"},
    }  # fmt: skip
    assert server.seen("POST", "/run") == [
        {"cells": "all", "stop_on_error": True, "allow_stdin": True}
    ]
    assert not server.seen("POST", "/restart")
    assert set(server.tokens) == {f"token {TOKEN}"}


def test_a_failing_cell_ends_with_status_1_and_says_why(server):
    why = {"reason": "an earlier cell failed"}
    server.course = [
        ("1/0", [DIVISION], "error", FAILED),
        ("a", [], "aborted", why),
        ("b", [], "aborted", why),
    ]
    result = invoke(server)
    assert result.exit_code == 1
    assert result.stdout.startswith("ZeroDivisionError\n----> 1 1/0\n")
    assert "Total: 1 error, 2 aborted" in result.stdout
    assert result.stdout.endswith(
        "Cell 1: ZeroDivisionError: division by zero\nCell 2: aborted: an earlier cell failed\n"
    )


def test_options_reach_the_server(server):
    server.course = [("a", [], "ok", {})]
    result = invoke(
        server, "--kernel", "ir", "--cell", "c9", "--cell", "c2", "--restart", "--allow-errors"
    )
    assert result.exit_code == 0, result.stderr
    assert server.seen("POST", "api/sessions")[0]["kernel"] == {"name": "ir"}
    assert server.seen("POST", "/run")[0]["cells"] == ["c9", "c2"]
    assert server.seen("POST", "/run")[0]["stop_on_error"] is False
    order = [path for method, path, _ in server.requests if method == "POST"]
    assert order == ["/api/sessions", "/api/kernels/k1/restart", "/api/sessions/s1/run"]


def test_a_notebook_that_names_no_kernel_gets_the_servers_default(server):
    server.kernelspec = None
    assert invoke(server).stdout == "There are no code cells to run.\n"
    assert server.seen("POST", "api/sessions")[0]["kernel"] == {}


def test_more_outputs_than_one_answer_holds_are_all_shown(server):
    server.page = 2
    server.course = [("a", [stream(f"{i}\n") for i in range(7)], "ok", {})]
    assert invoke(server).stdout.split()[:7] == list("0123456")


def test_json_leaves_stdout_to_the_result(server):
    server.course = [("print(1)", [stream("1\n")], "ok", {}), ("1/0", [DIVISION], "error", FAILED)]
    result = invoke(server, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert (report["path"], report["ok"], report["seconds"]) == ("a.ipynb", False, 1.5)
    assert [cell["state"] for cell in report["cells"]] == ["ok", "error"]
    assert report["cells"][1]["ename"] == "ZeroDivisionError"
    assert report["cells"][0]["cell_id"] == "c1"
    assert result.stderr.startswith("1\nZeroDivisionError\n")


@pytest.mark.parametrize(
    ("arguments", "notebook", "sentence"),
    [
        ((), "b.ipynb", "There is no notebook b.ipynb at http"),
        ((), "text.txt", "text.txt is a file, not a notebook."),
        (("--kernel", "ir"), "sub/x.ipynb", "has a session with the kernel python3"),
        (("--token", "wrong"), "a.ipynb", "does not allow this: Forbidden (see --token)."),
        (("--token", "n\u00f6"), "a.ipynb", "The token has characters that no token has."),
        (("--url", "localhost:1"), "a.ipynb", "'localhost:1' is not a URL such as"),
        (("--url", "http://127.0.0.1:1/"), "a.ipynb", "Cannot reach the server at http://127"),
        (("--attach", "--restart"), "a.ipynb", "--attach starts nothing"),
        (("--attach",), "never.ipynb", "Nothing has been run of never.ipynb"),
        (("--retry-seconds", "-1"), "a.ipynb", "--retry-seconds"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_status_2(server, arguments, notebook, sentence):
    server.session_kernel = "python3"
    result = invoke(server, *arguments, notebook=notebook)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not server.seen("POST", "/run")


# --- lost connections


def test_lost_connections_are_tried_again_and_said(server):
    def act() -> None:
        server.wait_for_request("GET", "e1/outputs")
        with server.changed:
            server.drop, server.failures = ["e1/outputs"], [503, 500]
        server.output(1, stream("first\n"))
        server.wait_until(lambda: not server.drop and not server.failures)
        server.output(1, stream("second\n"))
        server.finish(1)

    server.course = [("a", [], None, {})]
    with Meanwhile(act):
        result = invoke(server)
    assert result.exit_code == 0
    assert result.stdout.startswith("first\nsecond\n")
    assert "trying again for 60 s." in result.stderr
    assert result.stderr.endswith("Connected again.\n")


def test_a_server_that_stays_away_ends_the_command_not_the_run(server):
    server.course = [("a", [], None, {})]
    with Meanwhile(lambda: (server.wait_for_request("GET", "e1/outputs"), server.stop())):
        result = invoke(server, "--retry-seconds", "0.3")
    assert result.exit_code == 2
    assert "also after 0.3 s of trying." in result.stderr
    assert f"jupyter-datastore run --attach --url {server.url} a.ipynb" in result.stderr


def test_a_run_whose_answer_got_lost_is_not_asked_for_twice(server):
    server.drop = ["/run"]
    result = invoke(server)
    assert result.exit_code == 2
    assert "may or may not have started" in result.stderr
    assert len(server.seen("POST", "/run")) == 1


def test_a_refused_run_does_not_speak_of_coming_back(server):
    server.drop = []
    server.play = lambda: (_ for _ in ()).throw(AssertionError)  # not reached
    original = server.route
    server.route = lambda method, parts, body: (
        (400, {"message": "No cell c9", "reason": None})
        if parts.path.endswith("/run")
        else original(method, parts, body)
    )
    result = invoke(server, "--cell", "c9")
    assert result.exit_code == 2
    assert result.stderr == f"Error: {server.url} answered: No cell c9.\n"


# --- finding the server


def info(server: FakeServer, root: Path, **fields: object) -> ServerInfo:
    values = {"url": server.url, "token": server.token, "pid": os.getpid(), "root_dir": root}
    return ServerInfo(**{**values, "started": START, "data_dir": root, **fields})


def file_of(found: ServerInfo, runtime_dir: Path, name: int) -> None:
    """A file whose name is another process's, so that one process can stand for several servers."""
    path = runtime_dir / f"jupyter-datastore-{name}.json"
    runtime_dir.mkdir(exist_ok=True)
    path.write_text(found.model_dump_json())


def test_the_file_is_whole_private_and_goes(server, tmp_path, runtime_dir):
    path = write_server_file(info(server, tmp_path, base_url="/x/"))
    assert path == runtime_dir / f"jupyter-datastore-{os.getpid()}.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert set(json.loads(path.read_text())) == {
        "url", "token", "pid", "root_dir", "base_url", "data_dir", "version", "started", "sock",
        "certfile",
    }  # fmt: skip
    assert find_server().token == TOKEN
    assert list(runtime_dir.iterdir()) == [path]
    remove_server_file(path)
    remove_server_file(path)
    with pytest.raises(CommandError, match="start one with `jupyter-datastore serve`"):
        find_server()


def test_of_several_servers_the_one_that_lives_and_holds_the_notebook(
    server, tmp_path, runtime_dir
):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here, there = tmp_path / "here", tmp_path / "there"
    day = timedelta(days=1)
    file_of(info(server, here, token="old"), runtime_dir, 1)
    file_of(info(server, there, token="new", started=START + day), runtime_dir, 2)
    file_of(info(server, here, pid=ended.pid, started=START + 2 * day), runtime_dir, 3)
    silent = info(server, here, url="http://127.0.0.1:1/", started=START + 3 * day)
    file_of(silent, runtime_dir, 4)
    (runtime_dir / "jupyter-datastore-5.json").write_text("{")
    (runtime_dir / "jpserver-6.json").write_text(silent.model_dump_json())
    assert find_server().token == "new"
    assert find_server(str(here / "a.ipynb")).token == "old"
    assert server.tokens == [None, None]  # no token goes to who may not be the server


def test_a_path_on_this_machine_becomes_the_servers(tmp_path, monkeypatch):
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "sub").mkdir(parents=True)
    outside.mkdir()
    (root / "link").symlink_to(outside)
    (tmp_path / "alias").symlink_to(root)
    monkeypatch.chdir(root / "sub")
    assert path_below("a b.ipynb", root) == "sub/a b.ipynb"
    assert path_below("../x.ipynb", root) == "x.ipynb"
    assert path_below(str(root / "link" / "x.ipynb"), root) == "link/x.ipynb"
    assert path_below(str(tmp_path / "alias" / "x.ipynb"), root) == "x.ipynb"
    assert path_below(str(root / "x.ipynb"), tmp_path / "alias") == "x.ipynb"
    assert path_below("../../x.ipynb", root) is None
    assert path_below(str(root), root) is None


def test_the_server_on_this_machine_is_found_and_followed_to_its_new_address(
    server, tmp_path, monkeypatch
):
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    write_server_file(info(server, tmp_path))

    def act() -> None:
        server.wait_for_request("GET", "e1/outputs")
        server.stop()
        server.token = "another"
        server.restart()
        write_server_file(info(server, tmp_path))
        server.finish(1)

    server.course = [("a", [], None, {})]
    with Meanwhile(act):
        result = CliRunner().invoke(run, ["a b.ipynb"])
    assert result.exit_code == 0, result.stderr
    assert server.seen("POST", "api/sessions")[0]["path"] == "sub/a b.ipynb"
    assert "Connected again." in result.stderr


def test_a_file_outside_the_servers_root_is_not_taken_for_another(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root").mkdir()
    (tmp_path / "a.ipynb").write_text("{}")
    write_server_file(info(server, tmp_path / "root"))
    result = CliRunner().invoke(run, ["a.ipynb"])
    assert result.exit_code == 2
    assert f"a.ipynb does not lie below {tmp_path / 'root'}" in result.stderr
    (tmp_path / "a.ipynb").unlink()
    assert CliRunner().invoke(run, ["a.ipynb"]).exit_code == 0  # no file here: a path over there


def test_a_url_with_its_token_as_serve_prints_it(server):
    result = CliRunner().invoke(run, [f"--url={server.url}?token={TOKEN}", "/a.ipynb"])
    assert result.exit_code == 0, result.stderr


# --- coming back


def test_attach_follows_what_is_unfinished_and_its_run(server):
    server.queue("old", at=0)
    server.queue("done", "going", "next", at=5)
    for number in (1, 2):
        server.output(number, stream("not again\n"))
        server.finish(number)
    server.start(3)
    server.output(3, stream("from the start\n"))

    def act() -> None:
        server.wait_for_request("GET", "e3/outputs")
        server.finish(3)
        server.finish(4)

    server.page = 2
    with Meanwhile(act):
        result = invoke(server, "--attach", notebook="/a.ipynb")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("from the start\n")
    assert re.findall(r"^ *(\d) +(\w+)", result.stdout, re.MULTILINE) == [
        ("1", "done"), ("2", "going"), ("3", "next"),
    ]  # fmt: skip
    assert not [body for method, _, body in server.requests if method == "POST"]


def test_attach_to_a_finished_run_shows_its_table_and_what_failed(server):
    server.queue("older")
    server.finish(1)
    server.queue("fine", "1/0", at=5)
    server.output(2, stream("not again\n"))
    server.finish(2)
    server.output(3, DIVISION)
    server.finish(3, "error", **FAILED)
    result = invoke(server, "--attach")
    assert result.exit_code == 1
    assert result.stdout.startswith("ZeroDivisionError\n")
    assert "older" not in result.stdout
    assert "fine" in result.stdout


# --- questions and signals


def test_a_question_that_no_one_can_be_asked_says_how_to_answer_it(server):
    def act() -> None:
        server.wait_for_request("GET", "e1/outputs")
        server.ask(1, "Name: \x1b[2J")
        server.wait_until(lambda: "i1" in server.requests[-1][1])
        server.output(1, stream("printed meanwhile\n"))
        server.wait_until(lambda: "cursor=1." in server.requests[-1][1])
        server.finish(1)

    server.course = [("input()", [], None, {})]
    with Meanwhile(act):
        result = invoke(server)
    assert result.exit_code == 0
    assert result.stderr.count("Execution e1 waits for input: Name:") == 1
    assert f"{server.url}api/executions/e1/input" in result.stderr
    assert "run --attach" in result.stderr
    assert TOKEN not in result.stderr
    assert "\x1b" not in result.stderr


COMMAND = (
    "import os, signal, sys\n"
    # nohup, and a shell for what it runs in the background, hand down signals that are ignored.
    "for number in (signal.SIGHUP, signal.SIGINT):\n"
    "    if signal.getsignal(number) is signal.SIG_IGN: signal.signal(number, signal.SIG_DFL)\n"
    "if os.isatty(0): os.open(os.ttyname(0), os.O_RDWR)\n"  # makes it the controlling terminal
    "from app.cli.run import run\n"
    "run(prog_name='run')"
)


def launch(server: FakeServer, *arguments: str, **options: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "--url", server.url, *arguments, "a.ipynb"],
        cwd=REPOSITORY,
        env={**os.environ, "DATASTORE_TOKEN": TOKEN, "TERM": "xterm-256color"},
        start_new_session=True,
        **options,
    )


@pytest.fixture
def launched():
    """Processes to end when the test does."""
    processes: list[subprocess.Popen] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_detaches_and_says_how_to_come_back(server, launched, number):
    server.course = [("a", [], None, {})]
    process = launch(server, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    launched.append(process)
    server.wait_for_request("GET", "e1/outputs")
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 128 + number
    assert stdout == ""
    assert "Detached: the run goes on" in stderr
    assert f"jupyter-datastore run --attach --url {server.url} a.ipynb" in stderr


def test_a_closed_pipe_detaches(server, launched):
    server.course = [("a", [], None, {})]
    process = launch(server, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    launched.append(process)
    server.wait_for_request("GET", "e1/outputs")
    process.stdout.close()
    server.output(1, stream("no one reads this\n"))
    assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGPIPE
    error = process.stderr.read()
    assert "Detached" in error
    assert "Traceback" not in error
    assert "Exception" not in error


@pytest.mark.parametrize("option", ["--no-progress", "--json"])
def test_a_pipe_that_closes_after_the_run_changes_nothing(server, launched, option):
    server.course = [("a", [], None, {})]
    process = launch(server, option, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    launched.append(process)
    server.wait_for_request("GET", "e1/outputs")
    process.stdout.close()
    server.finish(1)
    assert process.wait(PATIENCE_SECONDS) == 0
    assert process.stderr.read() == ""


# --- at a terminal


class Terminal:
    """The command on a pseudo-terminal, and what it wrote there."""

    def __init__(self, server: FakeServer, launched: list, *arguments: str) -> None:
        self.main, side = pty.openpty()
        termios.tcsetwinsize(side, (24, 60))
        self.process = launch(server, *arguments, stdin=side, stdout=side, stderr=side)
        launched.append(self.process)
        os.close(side)
        self.text = ""

    def read_until(self, *parts: str) -> str:
        """What came until all of `parts` have; they are used up."""
        limit = time.monotonic() + PATIENCE_SECONDS
        while not all(part in self.text for part in parts):
            ready, _, _ = select.select([self.main], [], [], max(0, limit - time.monotonic()))
            assert ready, f"{parts} did not come: {self.text!r}"
            if not self.more():
                pytest.fail(f"ended without {parts}: {self.text!r}")
        text, self.text = self.text, ""
        return text

    def more(self) -> bool:
        try:
            data = os.read(self.main, 65536)
        except OSError:  # Linux says EIO when the other side is closed
            return False
        self.text += data.decode()
        return bool(data)

    def type(self, text: str) -> None:
        os.write(self.main, text.encode())

    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self.main)[3] & termios.ECHO)

    def end(self) -> tuple[int, str]:
        while self.more():
            pass
        return self.process.wait(PATIENCE_SECONDS), self.text


@pytest.fixture
def terminal(server, launched):
    terminals: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        terminals.append(Terminal(server, launched, *arguments))
        return terminals[-1]

    yield start
    for one in terminals:
        one.process.kill()
        os.close(one.main)


def test_the_bar_shows_the_cell_below_coloured_outputs(server, terminal):
    server.course = [("first = 1", [], "ok", {}), ("second()", [], None, {})]
    screen = terminal()
    screen.read_until("1/2", "Cell 2", "second()", "queued")
    server.start(2)
    server.output(2, stream("\x1b[32mgreen\x1b[0m\x1b[2J\x1b]0;title\x07\nunfinished"))
    text = screen.read_until("\x1b[32mgreen", "unfinished")
    server.output(2, stream("warning\n", "stderr"))
    text += screen.read_until("\x1b[31mwarning")
    assert "\x1b[2J" not in text
    assert "title" not in text
    server.finish(2)
    code, text = screen.end()
    assert code == 0
    assert text.endswith("Total: 2 ok in 1.50 s\r\n")
    assert "\x1b[?25h" in text  # the cursor is shown again


def test_no_progress_keeps_the_colours(server, terminal):
    server.course = [("a", [stream("\x1b[32mgreen\x1b[0m\n")], "ok", {})]
    code, text = terminal("--no-progress").end()
    assert code == 0
    assert "\x1b[32mgreen" in text
    assert "Cell 1" not in text


def test_ctrl_c_detaches_and_leaves_the_terminal_as_it_was(server, terminal):
    server.course = [("a", [], None, {})]
    screen = terminal()
    screen.read_until("queued")
    server.ask(1, "Password: ", password=True)
    screen.read_until("Password: ")
    server.wait_until(lambda: "wait=2&" in server.requests[-1][1])
    assert not screen.echoes()
    screen.type("\x03")
    screen.read_until("Detached: the run goes on")
    assert screen.echoes()
    assert screen.process.wait(PATIENCE_SECONDS) == 130


def test_answers_typed_at_the_terminal_reach_the_server(server, terminal):
    server.course = [("input()", [], None, {})]
    screen = terminal()
    screen.read_until("queued")
    server.ask(1, "Name: \x1b[2J")
    screen.read_until("Name: ")
    server.output(1, stream("printed meanwhile\n"))
    screen.read_until("printed meanwhile", "Name: ")
    screen.type("Ada\n")
    server.wait_until(lambda: server.answers == ["Ada"])
    server.ask(1, "Password: ", password=True, name="i2")
    screen.read_until("Password: ")
    server.wait_until(lambda: "i2" in server.requests[-1][1])
    screen.type("hunter2\n")
    server.wait_until(lambda: server.answers == ["Ada", "hunter2"])
    server.finish(1)
    code, text = screen.end()
    assert code == 0
    assert "hunter2" not in text


def test_an_answer_that_came_too_late_is_said(server, terminal):
    server.refuse_input = True
    server.course = [("input()", [], None, {})]
    screen = terminal()
    screen.read_until("queued")
    server.ask(1, "Name: ")
    screen.read_until("Name: ")
    screen.type("Ada\n")
    screen.read_until("It was answered elsewhere before.")
    server.finish(1)
    assert screen.end()[0] == 0


def test_an_answer_from_elsewhere_ends_the_question(server, terminal):
    server.course = [("input()", [], None, {})]
    screen = terminal()
    screen.read_until("queued")
    server.ask(1, "Name: ")
    screen.read_until("Name: ")
    screen.type("half an ans")
    screen.read_until("half an ans")
    server.update(1, input_request=None)
    screen.read_until("It was answered elsewhere.")
    server.ask(1, "Again: ", name="i2")
    screen.read_until("Again: ")
    screen.type("yes\n")
    server.wait_until(lambda: server.answers == ["yes"])  # not "half an ansyes"
    server.finish(1)
    assert screen.end()[0] == 0


def test_an_answer_that_a_lost_connection_swallowed_is_asked_again(server, terminal):
    server.course = [("input()", [], None, {})]
    server.drop = ["/input"]
    screen = terminal()
    screen.read_until("queued")
    server.ask(1, "Name: ")
    screen.read_until("Name: ")
    screen.type("Ada\n")
    screen.read_until("The answer was not taken. Lost the connection", "Name: ")
    screen.type("\x04")
    screen.read_until("Execution e1 waits for input: Name:")
    server.finish(1)
    assert screen.end()[0] == 0
    assert server.answers == []
