"""What processes tell each other of rooms: that a document has a new version, and who is there.

PostgreSQL's NOTIFY on a connection of its own, after commits and coalesced, so that it costs
writers nothing (a NOTIFY within their transactions would put their commits in a row). What gets
lost is found by polling versions; awareness is renewed by browsers all the time.
"""

import asyncio
import base64
import contextlib
import json
import logging
import uuid
from collections.abc import Callable
from typing import Any

import asyncpg
from sqlalchemy import make_url

log = logging.getLogger(__name__)

_CHANNEL = "datastore_rooms"
# https://www.postgresql.org/docs/current/sql-notify.html: a payload is shorter than 8,000 bytes.
_PAYLOAD_LIMIT = 7900
_DOCUMENTS_AT_ONCE = 100
_WAITING_LIMIT = 1000
_RETRY_SECONDS = 1.0
_NOTIFY = "SELECT pg_notify($1, $2)"


class Relay:
    """Sends and receives notices; `on_versions` and `on_awareness` are called with others'."""

    def __init__(
        self,
        url: str,
        on_versions: Callable[[dict[uuid.UUID, int]], None],
        on_awareness: Callable[[str, bytes], None],
    ) -> None:
        self._url = make_url(url).set(drivername="postgresql")
        self._me = uuid.uuid4().hex
        self._on_versions = on_versions
        self._on_awareness = on_awareness
        self._versions: dict[uuid.UUID, int] = {}
        self._frames: list[tuple[str, bytes]] = []
        self._waiting = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.connected = asyncio.Event()

    def start(self) -> None:
        """Connect, and connect again whenever the connection is lost."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def tell_version(self, document_id: uuid.UUID, version: int) -> None:
        """Tell others of a document's new version."""
        self._versions[document_id] = version
        self._waiting.set()

    def tell_awareness(self, room: str, frame: bytes) -> None:
        """Tell others who is in a room; left out when it is too long, or too much waits."""
        if len(frame) * 4 // 3 + 200 < _PAYLOAD_LIMIT and len(self._frames) < _WAITING_LIMIT:
            self._frames.append((room, frame))
            self._waiting.set()

    async def _run(self) -> None:
        while True:
            try:
                await self._connected()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                log.warning("processes do not hear of each other's rooms now: %r", error)
            self.connected.clear()
            await asyncio.sleep(_RETRY_SECONDS)

    async def _connected(self) -> None:
        dsn = self._url.render_as_string(hide_password=False)
        connection = await asyncpg.connect(
            dsn, server_settings={"application_name": "jupyter-datastore rooms"}, timeout=10
        )
        lost = asyncio.Event()

        def ended(_: Any) -> None:
            lost.set()
            self._waiting.set()

        try:
            connection.add_termination_listener(ended)
            await connection.add_listener(_CHANNEL, self._received)
            self.connected.set()
            while not lost.is_set():
                await self._waiting.wait()
                self._waiting.clear()
                if lost.is_set():
                    return
                for payload in self._payloads():
                    await connection.execute(_NOTIFY, _CHANNEL, payload)
        finally:
            connection.terminate()

    def _payloads(self) -> list[str]:
        """Return what waits, as payloads."""
        versions, self._versions = list(self._versions.items()), {}
        frames, self._frames = self._frames, []
        found = []
        for start in range(0, len(versions), _DOCUMENTS_AT_ONCE):
            part = versions[start : start + _DOCUMENTS_AT_ONCE]
            content: dict[str, Any] = {"versions": {str(key): version for key, version in part}}
            found.append(json.dumps({"from": self._me, **content}))
        for room, frame in frames:
            text = base64.b64encode(frame).decode()
            found.append(json.dumps({"from": self._me, "room": room, "awareness": text}))
        return found

    def _received(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        try:
            message = json.loads(str(payload))
            if message["from"] == self._me:
                return
            if "versions" in message:
                self._on_versions(
                    {uuid.UUID(key): int(version) for key, version in message["versions"].items()}
                )
            else:
                self._on_awareness(message["room"], base64.b64decode(message["awareness"]))
        except Exception:
            log.exception("a notice of another process cannot be read: %r", payload)
