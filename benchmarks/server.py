"""This server as people start it: a process of its own with its embedded, durable PostgreSQL."""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from app.db import embedded

_START_SECONDS = 90
_STOP_SECONDS = 30
# The settings that decide whether a commit is on the disk when it says so.
DURABILITY = ("fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "wal_level")


class ServerStartError(RuntimeError):
    """The server did not start; the message has the end of its log."""


class Server:
    """A running `python -m app serve` of the source in a folder, and its own temporary folders.

    A context manager; the process gets a session of its own, so that Ctrl-C reaches it through
    `stop` alone, after the measurement has ended.
    """

    def __init__(
        self, source: Path, env: dict[str, str], *, program: tuple[str, ...] = ("-m", "app")
    ) -> None:
        self._source = source
        self._env = env
        self._program = program
        self.token = secrets.token_hex(16)
        self.folder = Path(tempfile.mkdtemp(prefix="jds-bench-", dir="/tmp"))
        # PostgreSQL refuses root: its unprivileged account must get through.
        self.folder.chmod(0o755)
        self.root_dir = self.folder / "root"
        self._data_dir = self.folder / "data"
        self._log = self.folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id of the server."""
        assert self._process is not None
        return self._process.pid

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def database_url(self) -> str:
        """The URL of its PostgreSQL."""
        url = embedded.read_url(self._data_dir)
        assert url is not None
        return url

    def _start(self) -> None:
        self.root_dir.mkdir()
        command = [sys.executable, *self._program, "serve", "--host", "127.0.0.1", "--port", "0"]
        command += ["--root-dir", str(self.root_dir), "--data-dir", str(self._data_dir)]
        command += ["--no-browser", "--token", self.token]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._source,
                env={**self._env, "PYTHONPATH": str(self._source), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            text = self._log.read_text("utf-8", "replace")
            found = re.search(rf"(http://\S+)\?token={self.token}", text)
            if found:
                self._port = urlsplit(found[1]).port or 0
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        raise ServerStartError(f"the server did not start:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        with contextlib.suppress(OSError):
            return self._log.read_text("utf-8", "replace")[-3_000:]
        return ""

    def complaints(self) -> list[str]:
        """Return the warnings and errors that the server has logged."""
        lines = self._log.read_text("utf-8", "replace").splitlines()
        return [line for line in lines if line.startswith(("W ", "E "))]

    def stop(self) -> None:
        """End the server and all it started, and remove its folders."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM end the program as Ctrl-C does, so that everything is put away."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
