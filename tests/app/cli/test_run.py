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
        self.answers: list[str] = []
        self.kernelspec: str | None = "python3"
        self.session_kernel: str | None = None
        self.token = TOKEN
        self.page = 500
        self.drop = 0  # requests whose connection is closed without an answer
        self.unavailable = 0  # requests answered with 503
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
            self.changed.notify_all()
            dropped, self.drop = self.drop > 0, max(0, self.drop - 1)
            refused, self.unavailable = self.unavailable > 0, max(0, self.unavailable - 1)
        if dropped:
            handler.close_connection = True
            return
        if refused:
            status, answer = 503, {"message": "The database is away", "reason": None}
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

    def route(self, method: str, parts, body) -> tuple[int, object]:
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
        if self.executions[number - 1]["input_request"] is None:
            return 409, {"message": "Nothing asks", "reason": None}
        self.answers.append(body["value"])
        self.update(number, input_request=None)
        return 201, {}
