"""The stock jupyter_server that the channels benchmark compares with.

Its defaults would prove nothing: Nagle's algorithm costs each reply up to 40 ms, and its rate
limit loses output. So every kernel websocket gets TCP_NODELAY here (one line in the handler's
`open`), and `ZMQChannelsWebsocketConnection.limit_rate` is off. Nothing else is changed.
"""

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
from pathlib import Path
from typing import Any, Self


def main() -> None:
    """Run the server with the arguments of the command line."""
    from jupyter_server.serverapp import ServerApp
    from jupyter_server.services.kernels.websocket import KernelWebsocketHandler

    opened = KernelWebsocketHandler.open

    async def without_nagle(self: KernelWebsocketHandler, kernel_id: str) -> Any:
        self.set_nodelay(True)
        return await opened(self, kernel_id)

    KernelWebsocketHandler.open = without_nagle
    ServerApp.launch_instance()


class StockServer:
    """A running jupyter_server in a process and folder of its own."""

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env
        self.token = secrets.token_hex(16)
        self._folder = Path(tempfile.mkdtemp(prefix="jds-stock-", dir="/tmp"))
        self._log = self._folder / "log"
        self.root_dir = self._folder / "root"
        self.port = 0

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benchmarks.stock", "--no-browser", "--allow-root"]
        command += ["--ip=127.0.0.1", "--port=0", f"--IdentityProvider.token={self.token}"]
        self.root_dir.mkdir()
        command += [f"--ServerApp.root_dir={self.root_dir}", "--ServerApp.log_level=INFO"]
        command += ["--ZMQChannelsWebsocketConnection.limit_rate=False"]
        env = {**self._env, "JUPYTER_CONFIG_DIR": str(self._folder), "JUPYTER_NO_CONFIG": "1"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/", self._log.read_text()):
                self.port = int(found[1])
                return self
            time.sleep(0.05)
        self.__exit__()
        raise RuntimeError("jupyter_server did not start")

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._process.pid

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


if __name__ == "__main__":
    main()
