"""The application on a real port in this process, for tests that need websockets."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
import websockets
from fastapi import FastAPI

from app.main import create_app
from app.settings import Settings
from tests.conftest import TOKEN


@dataclass
class LiveServer:
    app: FastAPI
    http: httpx.AsyncClient
    address: str

    def slow_socket(self) -> socket.socket:
        """Return a connected socket that takes little before it is read."""
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        host, port = self.address.split(":")
        made.connect((host, int(port)))
        made.setblocking(False)
        return made

    def connect(self, path: str, *, token: str | None = TOKEN, **options: Any):
        """Return a websocket to be entered; `path` starts with /."""
        headers = {"Authorization": f"token {token}"} if token else {}
        return websockets.connect(
            f"ws://{self.address}{path}", additional_headers=headers, max_size=None, **options
        )


@contextlib.asynccontextmanager
async def live(
    settings: Settings, database_url: str, data_dir: Path, *, send_buffer: int = 0, **config: Any
) -> AsyncIterator[LiveServer]:
    app = create_app(settings, database_url=database_url, token=TOKEN, data_dir=data_dir)
    # Said to be TCP, or asyncio leaves Nagle's algorithm on: 40 ms more for each answer.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        if send_buffer:  # what one connection's socket takes, for tests of slow clients
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(
            uvicorn.Config(
                app, log_config=None, lifespan="on", timeout_graceful_shutdown=5, **config
            )
        )
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            async with asyncio.timeout(30):
                while not server.started:
                    assert not serving.done(), "the server did not start"
                    await asyncio.sleep(0.01)
            async with httpx.AsyncClient(
                base_url=f"http://{address}",
                headers={"Authorization": f"token {TOKEN}"},
                timeout=60,
            ) as client:
                yield LiveServer(app, client, address)
        finally:
            server.should_exit = True
            await serving


async def refused(server: LiveServer, path: str, **options: Any) -> int:
    """Return the status with which a websocket is refused."""
    try:
        async with server.connect(path, **options):
            return 101
    except websockets.InvalidStatus as error:
        return error.response.status_code


async def receive_json(websocket: Any, seconds: float = 20) -> Any:
    async with asyncio.timeout(seconds):
        return json.loads(await websocket.recv())
