"""Peers of rooms as browsers are: a Yjs document each, kept in step over a real websocket."""

import asyncio
import contextlib
import json
from urllib.parse import quote

from pycrdt import Array, Doc, Map, Text
from websockets.exceptions import ConnectionClosed

from app.collaboration import protocol
from app.collaboration.protocol import PeerState, Reader


async def session(http, path, *, form="json", kind="notebook"):
    """Return what opening a file for a room answers."""
    answer = await http.put(
        f"/api/collaboration/session/{quote(path, safe='')}",
        content=json.dumps({"format": form, "type": kind}),
        headers={"Content-Type": "text/plain;charset=UTF-8"},
    )
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


class RoomPeer:
    """A peer; `doc` outlives connections, as that of a browser that is away does."""

    def __init__(self, server, found, *, token=None):
        self.server = server
        self.found = found
        self.token = token
        self.doc = Doc()
        self.cells = self.doc.get("cells", type=Array)
        self.meta = self.doc.get("meta", type=Map)
        self.state = self.doc.get("state", type=Map)
        self.source = self.doc.get("source", type=Text)
        self.awareness = {}
        self.raw = []
        self.synced = asyncio.Event()
        self.changed = asyncio.Condition()
        self.closed = None
        self._applying = False
        self._websocket = None
        self._reading = None
        self._sending = []
        self._subscription = self.doc.observe(self._mine)

    @property
    def name(self):
        return f"{self.found['format']}:{self.found['type']}:{self.found['fileId']}"

    def _mine(self, event):
        if not self._applying:
            self.send(protocol.sync(protocol.UPDATE, event.update))

    def send(self, frame):
        if self._websocket is not None:
            self._sending.append(frame)

    async def flush(self):
        """Send what was done to the document."""
        while self._sending:
            await self._websocket.send(self._sending.pop(0))

    async def __aenter__(self):
        await self.connect()
        return self

    async def __aexit__(self, *_):
        await self.disconnect()

    async def connect(self, *, session_id=None):
        path = f"/api/collaboration/room/{self.name}?sessionId="
        path += session_id or self.found["sessionId"]
        options = {"token": self.token} if self.token else {}
        self.synced.clear()
        self.closed = None
        self._websocket = await self.server.connect(path, **options)
        self._reading = asyncio.create_task(self._read())
        with contextlib.suppress(ConnectionClosed):
            await self._websocket.send(protocol.sync(protocol.STEP1, self.doc.get_state()))
        done = asyncio.create_task(self.synced.wait())
        await asyncio.wait({done, self._reading}, timeout=30, return_when="FIRST_COMPLETED")
        done.cancel()

    async def disconnect(self):
        if self._websocket is None:
            return
        if self.closed is None:
            with contextlib.suppress(ConnectionClosed):
                await self.flush()
        await self._websocket.close()
        await self._reading
        self._websocket = None
        self._sending.clear()

    async def _read(self):
        try:
            async for frame in self._websocket:
                await self._take(frame)
        except ConnectionClosed:
            pass
        self.closed = (self._websocket.close_code, self._websocket.close_reason)
        async with self.changed:
            self.changed.notify_all()

    async def _take(self, frame):
        reader = Reader(frame)
        kind = reader.number()
        if kind == protocol.SYNC:
            step, content = reader.number(), reader.bytes()
            if step == protocol.STEP1:
                update = self.doc.get_update(content)
                await self._websocket.send(protocol.sync(protocol.STEP2, update))
            else:
                self._applying = True
                try:
                    self.doc.apply_update(content)
                finally:
                    self._applying = False
                if step == protocol.STEP2:
                    self.synced.set()
        elif kind == protocol.AWARENESS:
            for one in protocol.read_awareness(reader.bytes()):
                known = self.awareness.get(one.client_id)
                if known is None or one.clock > known.clock or one.state == "null":
                    self.awareness[one.client_id] = one
        else:
            self.raw.append(json.loads(reader.text()))
        async with self.changed:
            self.changed.notify_all()

    async def until(self, check, seconds=30):
        """Wait until something is true of what the peer has."""
        async with asyncio.timeout(seconds), self.changed:
            await self.changed.wait_for(lambda: check() or self.closed is not None)
        assert check(), self.closed

    async def ended(self, seconds=30):
        """Return code and reason with which the server closed the connection."""
        async with asyncio.timeout(seconds), self.changed:
            await self.changed.wait_for(lambda: self.closed is not None)
        return self.closed

    async def save(self, number=1):
        """Have the document saved; return the answer's status."""
        await self.flush()
        await self._websocket.send(b"\x02\x04save" + protocol.number(number))
        await self.until(lambda: any(message.get("responseTo") == number for message in self.raw))
        return next(m["status"] for m in self.raw if m.get("responseTo") == number)

    async def announce(self, state, *, clock=1, client_id=None):
        """Say who one is."""
        client_id = self.doc.client_id if client_id is None else client_id
        one = PeerState(client_id, clock, json.dumps(state))
        await self._websocket.send(protocol.awareness([one]))

    # What people do

    def ids(self):
        return [cell["id"] for cell in self.cells]

    def text(self, place=0):
        return str(self.cells[place]["source"])

    async def type(self, text, *, place=0, at=0):
        self.cells[place]["source"].insert(at, text)
        await self.flush()
