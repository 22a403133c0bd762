"""A stock `jupyter server` in a process of its own, to compare answers with."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

TOKEN = "a-token-for-tests"


@contextlib.contextmanager
def stock_server(
    root_dir: Path, home: Path, *options: str, **environment: str
) -> Iterator[httpx.Client]:
    """Run it on a free port and yield a client of it."""
    home.mkdir(parents=True, exist_ok=True)
    log_path = home / "server.log"
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root"]
    command += [
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port=0",
        f"--ServerApp.root_dir={root_dir}",
    ]
    command += [f"--IdentityProvider.token={TOKEN}", *options]
    inherited = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    with log_path.open("w") as log:
        process = subprocess.Popen(
            command,
            env={**inherited, "HOME": str(home), "JUPYTER_RUNTIME_DIR": str(home), **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with httpx.Client(
            base_url=_wait(process, log_path),
            headers={"Authorization": f"token {TOKEN}"},
            timeout=60,
        ) as client:
            yield client
    finally:
        family = (
            psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        )
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
        for child in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(family, 20)


def _wait(process: subprocess.Popen, log_path: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        log = log_path.read_text()
        if found := re.search(r"(http://127\.0\.0\.1:\d+/)\S*\?token=", log):
            with contextlib.suppress(httpx.TransportError):
                httpx.get(found[1] + "api")
                return found[1]
        assert process.poll() is None, log
        time.sleep(0.05)
    raise AssertionError(log_path.read_text())
