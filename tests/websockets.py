"""The application on a real port, and a client of its kernels' websockets."""

import asyncio
import contextlib
import itertools
import json
import struct
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from app.limits import websocket_options
from app.main import create_app
from app.settings import Settings
from tests.conftest import TOKEN

V1 = "v1.kernel.websocket.jupyter.org"


@contextlib.asynccontextmanager
async def listening(
    settings: Settings, database_url: str, data_dir: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the application on a free port of this process; yield a client of it."""
    app = create_app(settings, database_url=database_url, token=TOKEN, data_dir=data_dir)
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        log_config=None,
        lifespan="on",
        timeout_graceful_shutdown=5,
        **websocket_options(settings),
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done(), task.result()
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    headers = {"Authorization": f"token {TOKEN}"}
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60
        ) as client:
            client.app = app  # type: ignore[attr-defined]
            yield client
    finally:
        server.should_exit = True
        await task


class Front:
    """A front end on a kernel's websocket, in either framing."""

    def __init__(self, connection: ClientConnection, session: str) -> None:
        self.connection = connection
        self.session = session
        self.is_v1 = connection.subprotocol == V1

    def message(self, msg_type: str, content: dict, *, channel: str = "shell", **more) -> dict:
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": msg_type,
            "session": self.session,
            "username": "someone",
            "version": "5.4",
            "date": "2026-01-01T00:00:00.000000Z",
        }
        rest = {"parent_header": {}, "metadata": {}, "buffers": []}
        return {"channel": channel, "header": header, "content": content, **rest, **more}

    async def send(self, msg_type: str, content: dict | None = None, **more) -> str:
        """Send a message and return its id."""
        message = self.message(msg_type, content or {}, **more)
        await self.connection.send(encode_v1(message) if self.is_v1 else encode_default(message))
        return message["header"]["msg_id"]

    async def execute(self, code: str, *, metadata: dict | None = None, **options) -> str:
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": True}
        content |= {"user_expressions": {}, "stop_on_error": True, **options}
        return await self.send("execute_request", content, metadata=metadata or {})

    async def receive(self, seconds: float = 30) -> dict:
        async with asyncio.timeout(seconds):
            frame = await self.connection.recv()
        return decode_v1(frame) if self.is_v1 else decode_default(frame)

    async def until(self, check, seconds: float = 30) -> list[dict]:
        """Return all messages up to the first that `check` is true of."""
        found = []
        async with asyncio.timeout(seconds):
            while not found or not check(found[-1]):
                found.append(await self.receive(seconds))
        return found

    async def closed(self) -> ConnectionClosed:
        """Return how the server closed the connection, whatever it says before."""
        try:
            while True:
                await self.receive()
        except ConnectionClosed as closed:
            return closed

    async def reply(self, msg_id: str) -> dict:
        """Return the reply to a message."""
        return (await self.until(lambda m: is_reply(m, msg_id)))[-1]

    async def done(self, msg_id: str) -> list[dict]:
        """Return all messages until an execution's reply and `idle` are here."""
        left = {"reply", "idle"}

        def over(message: dict) -> bool:
            if is_reply(message, msg_id):
                left.discard("reply")
            if is_idle(message, msg_id):
                left.discard("idle")
            return not left

        return await self.until(over)

    async def run(self, code: str, **options) -> list[dict]:
        msg_id = await self.execute(code, **options)
        return [m for m in await self.done(msg_id) if parent_id(m) == msg_id]


def parent_id(message: dict) -> str | None:
    return message["parent_header"].get("msg_id")


def is_reply(message: dict, msg_id: str) -> bool:
    return message["channel"] in ("shell", "control") and parent_id(message) == msg_id


def is_idle(message: dict, msg_id: str) -> bool:
    return parent_id(message) == msg_id and message["content"].get("execution_state") == "idle"


def streamed(messages: list[dict]) -> str:
    return "".join(m["content"]["text"] for m in messages if m["header"]["msg_type"] == "stream")


@contextlib.asynccontextmanager
async def front(
    client: httpx.AsyncClient,
    kernel_id: str,
    *,
    subprotocol: str | None = V1,
    session: str | None = None,
    **options,
) -> AsyncIterator[Front]:
    """Connect to a kernel's websocket."""
    session = session or uuid.uuid4().hex
    async with connect(
        url_of(client, kernel_id, session_id=session),
        subprotocols=[subprotocol] if subprotocol else None,
        additional_headers={"Authorization": f"token {TOKEN}"},
        max_size=None,
        **options,
    ) as connection:
        yield Front(connection, session)


def url_of(client: httpx.AsyncClient, kernel_id: str, **query: str) -> str:
    url = client.base_url.copy_with(scheme="ws", path=f"/api/kernels/{kernel_id}/channels")
    return str(url.copy_merge_params(query))


def encode_v1(message: dict) -> bytes:
    parts = [message["channel"].encode()]
    names = ("header", "parent_header", "metadata", "content")
    parts += [json.dumps(message[name]).encode() for name in names]
    parts += message["buffers"]
    offsets = [8 * (len(parts) + 2)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets) + b"".join(parts)


def decode_v1(frame: bytes) -> dict:
    (count,) = struct.unpack_from("<Q", frame)
    offsets = struct.unpack_from(f"<{count}Q", frame, 8)
    assert offsets[-1] == len(frame)
    channel, *parts = [frame[a:b] for a, b in itertools.pairwise(offsets)]
    names = ("header", "parent_header", "metadata", "content")
    message = {name: json.loads(part) for name, part in zip(names, parts, strict=False)}
    return {"channel": channel.decode(), "buffers": parts[4:], **message}


def encode_default(message: dict) -> str | bytes:
    buffers = message["buffers"]
    text = json.dumps({**message, "buffers": []})
    if not buffers:
        return text
    parts = [text.encode(), *buffers]
    offsets = [4 * (len(parts) + 1)]
    for part in parts[:-1]:
        offsets.append(offsets[-1] + len(part))
    return struct.pack(f"!{len(parts) + 1}I", len(parts), *offsets) + b"".join(parts)


def decode_default(frame: str | bytes) -> dict:
    if isinstance(frame, str):
        return json.loads(frame)
    (count,) = struct.unpack_from("!I", frame)
    offsets = [*struct.unpack_from(f"!{count}I", frame, 4), len(frame)]
    text, *buffers = [frame[a:b] for a, b in itertools.pairwise(offsets)]
    return {**json.loads(text), "buffers": buffers}
