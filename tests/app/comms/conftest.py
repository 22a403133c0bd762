"""A server on a real port, in this process, since websockets need one."""

import asyncio
import contextlib
import itertools
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from app.main import create_app
from tests.conftest import TOKEN


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):
        yield


@pytest.fixture
async def client(settings, database_url, tmp_path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that listens; `client.connect(path)` opens a websocket."""
    app = create_app(settings, database_url=database_url, token=TOKEN, data_dir=tmp_path / "data")
    config = uvicorn.Config(
        app, port=0, log_config=None, lifespan="on", timeout_graceful_shutdown=5
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done(), "the server did not start"
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    headers = {"Authorization": f"token {TOKEN}"}
    url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as made:
        made.app = app
        made.connect = lambda path, **options: connect(
            f"ws://127.0.0.1:{port}{path}",
            additional_headers=options.pop("headers", headers),
            max_queue=None,  # else closing waits for frames that nobody reads
            **options,
        )
        yield made
    server.should_exit = True
    await serving


def packed(head: dict[str, Any], *buffers: bytes) -> bytes:
    """The binary frame of a message, made independently of the server's code."""
    parts = [json.dumps(head).encode(), *buffers]
    frame = struct.pack("!I", len(parts))
    start = 4 + 4 * len(parts)
    for part in parts:
        frame += struct.pack("!I", start)
        start += len(part)
    return frame + b"".join(parts)


def unpacked(frame: str | bytes) -> dict[str, Any]:
    """A frame's JSON object, with its `buffers`."""
    if isinstance(frame, str):
        return {**json.loads(frame), "buffers": []}
    (count,) = struct.unpack_from("!I", frame)
    bounds = [*struct.unpack_from(f"!{count}I", frame, 4), len(frame)]
    parts = [frame[a:b] for a, b in itertools.pairwise(bounds)]
    return {**json.loads(parts[0]), "buffers": parts[1:]}


async def received(channel: ClientConnection, seconds: float = 10) -> dict[str, Any]:
    """The next message of a websocket."""
    async with asyncio.timeout(seconds):
        return unpacked(await channel.recv())


async def ending(channel):
    """Read to the end; the last message, the close code and its reason."""
    last = None
    while True:
        try:
            last = await received(channel)
        except ConnectionClosed as ended:
            return last, ended.rcvd.code, ended.rcvd.reason
