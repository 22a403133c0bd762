"""A stock jupyter_server in its own process, as the peer that ours is compared with."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

TOKEN = "a-token-for-the-stock-server"


@contextlib.contextmanager
def stock_server(root_dir: Path, state_dir: Path, *options: str) -> Iterator[httpx.Client]:
    """Run `jupyter server` on a free port with all it writes under `state_dir`."""
    names = ("CONFIG", "DATA", "RUNTIME")
    places = {f"JUPYTER_{name}_DIR": str(state_dir / name.lower()) for name in names}
    log_path = state_dir / "log"
    state_dir.mkdir()
    command = [sys.executable, "-m", "jupyter_server", "--allow-root", "--port=0", "--no-browser"]
    command += [f"--ServerApp.root_dir={root_dir}", f"--IdentityProvider.token={TOKEN}"]
    inherited = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    with log_path.open("w") as log:
        process = subprocess.Popen(
            [*command, "--ServerApp.jpserver_extensions={}", *options],
            env={**inherited, **places, "HOME": str(state_dir)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = _url(process, Path(places["JUPYTER_RUNTIME_DIR"]), log_path)
        with httpx.Client(
            base_url=url, headers={"Authorization": f"token {TOKEN}"}, timeout=30
        ) as client:
            yield client
    finally:
        process.terminate()
        process.wait(20)


def _url(process: subprocess.Popen[bytes], runtime: Path, log: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        found = list(runtime.glob("jpserver-*.json"))
        with contextlib.suppress(ValueError, httpx.TransportError):
            if found:
                url = json.loads(found[0].read_text())["url"]
                httpx.get(f"{url}api")
                return url
        time.sleep(0.05)
    raise AssertionError(f"not up:\n{log.read_text()}")
