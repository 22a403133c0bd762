"""A real server in its own process, for tests that kill it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

TOKEN = "a-token-for-tests"


class ServerProcess:
    """`jupyter-datastore serve` on its own embedded PostgreSQL, or on `database_url`."""

    def __init__(self, root_dir: Path, data_dir: Path, *options: str, **environment: str) -> None:
        self.data_dir = data_dir
        self._log_path = data_dir.with_name(data_dir.name + ".log")
        command = [sys.executable, "-m", "app", "serve", "--root-dir", str(root_dir)]
        command += ["--data-dir", str(data_dir), "--port", "0", "--token", TOKEN, "--no-browser"]
        # PYTEST_CURRENT_TEST would make ipykernel behave as under test.
        inherited = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
        with self._log_path.open("w") as log:
            self.process = subprocess.Popen(
                [*command, *options],
                env={**inherited, "DATASTORE_OWNER": "ada", **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log_path.read_text()

    def wait_until_up(self, seconds: float = 60) -> httpx.Client:
        """Return a client of the server once it listens."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := re.search(r"^ +(http\S+/)(?:lab)?\?token=", self.log, re.MULTILINE):
                headers = {"Authorization": f"token {TOKEN}"}
                self.url = found[1]
                return httpx.Client(base_url=found[1], headers=headers, timeout=60)
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"not up:\n{self.log}")

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = 60) -> int:
        """Send a signal and return the exit status; what it had started must end too."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(how)
        status = self.process.wait(seconds)
        _, alive = psutil.wait_procs(family, seconds)
        assert not alive, f"left running: {alive}"
        return status

    def close(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            if self.process.poll() is None:
                self.stop(signal.SIGKILL)


@contextlib.contextmanager
def serving_process(
    root_dir: Path, data_dir: Path, *options: str, **environment: str
) -> Iterator[ServerProcess]:
    server = ServerProcess(root_dir, data_dir, *options, **environment)
    try:
        yield server
    finally:
        server.close()


def wait_for(check, seconds: float = 30):
    """Return what `check` returns once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def outputs_on_disk(path: Path, index: int = 0) -> list[dict]:
    return json.loads(path.read_text("utf-8"))["cells"][index]["outputs"]
