"""A room: the peers of one document, and the document as they see it.

`live` has everything that any peer did, also what is not stored yet: an update is applied to it,
which proves it sound, passed on to the other peers at once, and stored with others that come while
a write is in flight. What others do to the document (REST, kernels, the disk, other processes) is
applied once it is stored. So all peers, and the store, get the same updates, and Yjs sees to it
that they end up with the same document.
"""

import asyncio
import json
import logging
import uuid
from collections.abc import Callable
from itertools import groupby
from typing import Any

from pycrdt import Doc

from app.collaboration import protocol
from app.collaboration.awareness import Awareness
from app.collaboration.peer import Peer
from app.collaboration.protocol import BadFrameError, PeerState, Reader
from app.db.engine import Database, is_transient
from app.documents import queries
from app.documents.merge_state import Stored
from app.documents.store import DocumentStore
from app.errors import NotFoundError

log = logging.getLogger(__name__)

_RETRY_SECONDS = (0.05, 0.2, 1.0, 2.0)
_NEWEST = 2**62
UNSOUND = 1003
# A state vector of a client without a document, and an update that brings nothing.
_KNOWS_NOTHING = b"\x00"
_NOTHING = b"\x00\x00"


class RoomBase:
    """The peers of a room and who is in it; `relay` tells other processes of awareness."""

    def __init__(self, name: str, relay: Callable[[str, bytes], None]) -> None:
        self.name = name
        self.peers: set[Peer] = set()
        self.awareness = Awareness()
        self._relay = relay

    def join(self, peer: Peer) -> None:
        """Let a peer in, and tell it who is here."""
        self.peers.add(peer)
        present = self.awareness.present()
        if present:
            peer.put(protocol.awareness(present))
        if not peer.may_write:
            self.tell_right(peer)

    def tell_right(self, peer: Peer) -> None:
        """Tell a peer whether it may write; if so, ask for what it did while it might not.

        Yjs takes no later edit of a client before it has the earlier ones.
        """
        peer.put(protocol.raw({"type": "rights", "write": peer.may_write}))
        if peer.may_write:
            peer.put(protocol.sync(protocol.STEP1, self.state_vector()))

    def state_vector(self) -> bytes:
        """Return the state vector of the document as peers see it."""
        return b"\x00"

    def leave(self, peer: Peer) -> None:
        """Let a peer go, and tell the others."""
        self.peers.discard(peer)
        gone = self.awareness.leave(peer)
        if gone:
            self._tell(gone)

    def end(self, code: int, reason: dict[str, Any]) -> None:
        """Close all connections."""
        for peer in self.peers:
            peer.end(code, json.dumps(reason))

    def receive(self, peer: Peer, frame: bytes) -> int | None:
        """Take a peer's frame; return the number of a request to save, if it is one.

        BadFrameError when it is no frame.
        """
        reader = Reader(frame)
        kind = reader.number()
        if kind == protocol.SYNC:
            self._sync(peer, reader.number(), reader.bytes())
        elif kind == protocol.AWARENESS:
            self._take_awareness(peer, protocol.read_awareness(reader.bytes()))
        elif kind == protocol.QUERY_AWARENESS:
            peer.put(protocol.awareness(self.awareness.present()))
        elif kind == protocol.RAW:
            return reader.number() if reader.text() == "save" else None
        else:
            raise BadFrameError(f"there is no frame of kind {kind}")
        return None

    def _sync(self, peer: Peer, kind: int, _content: bytes) -> None:
        """Answer as an empty document that takes nothing."""
        if kind == protocol.STEP1:
            peer.put(protocol.sync(protocol.STEP2, b"\x00\x00"))

    def _take_awareness(self, peer: Peer, states: list[PeerState]) -> None:
        # A browser that reconnects before its former connection is known to be gone begins with
        # its own state, alone; what it repeats of others is not taken so.
        if len(states) == 1 and states[0].state != "null" and not peer.announced:
            owner = self.awareness.owner_of(states[0].client_id)
            if owner is not None and owner is not peer and owner.identity == peer.identity:
                self.awareness.take_over(peer, owner)
        peer.announced = True
        news, answers = self.awareness.take(peer, states)
        if news:
            self._tell(news)
        elif not answers:
            # A socket on which nothing comes for half a minute is dropped by y-websocket.
            peer.put(protocol.awareness([one for one in states if one.state != "null"][:1]))
        if answers:
            peer.put(protocol.awareness(answers))

    def _tell(self, states: list[PeerState]) -> None:
        """Tell everyone, the sender too, and other processes."""
        frame = protocol.awareness(states)
        for peer in self.peers:
            peer.put(frame)
        self._relay(self.name, frame)

    def relayed(self, frame: bytes) -> None:
        """Take what another process says of its peers."""
        reader = Reader(frame)
        reader.number()
        news = self.awareness.relay(protocol.read_awareness(reader.bytes()))
        if news:
            for peer in self.peers:
                peer.put(protocol.awareness(news))


class DocumentRoom(RoomBase):
    """The room of a document; `start` it before anybody joins, and `close` it in the end."""

    def __init__(
        self,
        name: str,
        document_id: uuid.UUID,
        database: Database,
        store: DocumentStore,
        relay: Callable[[str, bytes], None],
    ) -> None:
        super().__init__(name, relay)
        self.document_id = document_id
        self.version = -1
        self.path = ""
        self.broken = False
        self._database = database
        self._store = store
        # The document as its store gave it, until somebody changes it: to decode 50 MB takes time.
        self._encoded = b""
        self._vector = b""
        self._live: Doc[Any] | None = None
        self._source: Peer | None = None
        self._pending: list[tuple[uuid.UUID | None, bytes]] = []
        self._changed = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._behind = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._subscription: Any = None

    async def start(self) -> None:
        """Get the document as it is stored; NotFoundError when it has gone."""
        version, found = await self._store.state_for_room(self.document_id)
        self._encoded, self._vector = found
        behind = self.version >= 0  # something was stored meanwhile
        self.version = version
        self._tasks = [asyncio.create_task(self._store_all()), asyncio.create_task(self._follow())]
        if behind:
            self._behind.set()

    async def close(self) -> None:
        """Store what is to be stored, and end."""
        if self._tasks and not self.broken:
            try:
                async with asyncio.timeout(10):
                    await self.drained()
            except TimeoutError:
                log.error("document %s: the last edits are not stored", self.document_id)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def drained(self) -> None:
        """Wait until what peers have done up to now is stored."""
        await self._drained.wait()

    def state_vector(self) -> bytes:
        """Return the state vector of the document as peers see it."""
        return self._vector if self._live is None else self._live.get_state()

    def _decoded(self) -> Doc[Any]:
        """Return the document as peers see it."""
        if self._live is None:
            live: Doc[Any] = Doc()
            live.apply_update(self._encoded)
            self._subscription = live.observe(lambda event: self._news(event.update))
            self._live, self._encoded = live, b""
        return self._live

    def join(self, peer: Peer) -> None:
        """Let a peer in: ask what it has, and tell it who is here."""
        super().join(peer)
        peer.put(protocol.sync(protocol.STEP1, self.state_vector()))

    def autosaves(self) -> bool:
        """Tell whether the document is to be saved by itself: any peer, or nobody, says so."""
        states = self.awareness.values()
        return not states or any(state.get("autosave", True) for state in states)

    # From peers

    def _sync(self, peer: Peer, kind: int, content: bytes) -> None:
        if kind == protocol.STEP1:
            peer.put(protocol.sync(protocol.STEP2, self._missing(content)))
        elif kind not in (protocol.STEP2, protocol.UPDATE):
            raise BadFrameError(f"there is no sync message of kind {kind}")
        elif peer.may_write:
            self._apply(content, peer)
        # What one who may only read says is not heeded: browsers send as much by themselves.

    def _missing(self, state_vector: bytes) -> bytes:
        if self._live is None and state_vector == _KNOWS_NOTHING:
            return self._encoded
        try:
            return self._decoded().get_update(state_vector)
        except Exception as error:
            raise BadFrameError("this is no state vector") from error

    def _apply(self, update: bytes, source: Peer | None) -> None:
        """Apply an update to what peers see; BadFrameError when it is unsound."""
        if update == _NOTHING:
            return
        live = self._decoded()
        self._source = source
        try:
            live.apply_update(update)
        except (Exception, GeneratorExit) as error:
            raise BadFrameError("this is no sound update") from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            # Nobody knows what is left of the document in memory: all begin anew.
            self.reset("unsound_update")
            raise BadFrameError("this is no sound update") from None
        finally:
            self._source = None

    def _news(self, update: bytes) -> None:
        """Pass on what is new in the document, and have it stored if a peer did it."""
        frame = protocol.sync(protocol.UPDATE, update)
        source = self._source
        for peer in self.peers:
            if peer is not source:
                peer.put(frame)
        if source is not None:
            self._pending.append((source.identity.id, update))
            self._drained.clear()
            self._changed.set()

    def reset(self, reason: str) -> None:
        """End this room: its peers are told to load the document anew."""
        self.broken = True
        self.end(UNSOUND, {"reason": reason, "reloadable": True})

    # Into the store

    async def _store_all(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._pending:
                batch, self._pending = self._pending, []
                await self._store_batch(batch)
            self._drained.set()

    async def _store_batch(self, batch: list[tuple[uuid.UUID | None, bytes]]) -> None:
        """Store updates in their order, again and again while the database is away."""
        failures = 0
        while True:
            try:
                await self._store_once(batch)
            except NotFoundError:
                self.broken = True
                self.end(UNSOUND, {"reason": "document_deleted", "reloadable": False})
            except Exception as error:
                if is_transient(error):
                    log.warning("document %s: edits wait to be stored: %s", self.name, error)
                    await asyncio.sleep(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])
                    failures += 1
                    continue
                if len(batch) > 1:
                    for one in batch:
                        await self._store_batch([one])
                else:
                    log.exception("document %s: an update cannot be stored", self.name)
                    self.reset("update_refused")
            return

    async def _store_once(self, batch: list[tuple[uuid.UUID | None, bytes]]) -> None:
        """Store updates in one transaction, those of one person in a row as one."""
        async with self._database.transaction(recorder=True) as tx:
            editor = await self._store.edit_any(tx, self.document_id, origin="room")
            for actor_id, updates in groupby(batch, key=lambda one: one[0]):
                editor.actor_id = actor_id
                for _, update in updates:
                    editor.apply_update(update)
                await editor.flush()

    # From the store

    def stored(self, stored: list[Stored]) -> None:
        """Take updates that this process stored."""
        if not self._tasks:
            self.version = max(self.version, 0)  # seen by `start`
            return
        for one in stored:
            self._take(one.update)
        if stored[0].version == self.version + 1:
            self.version = stored[-1].version
        elif stored[-1].version > self.version:
            self._behind.set()

    def stored_elsewhere(self, version: int) -> None:
        """Have the document brought up to date if it is behind a version."""
        if version > self.version:
            self._behind.set()

    def _take(self, update: bytes) -> None:
        try:
            self._apply(update, None)
        except BadFrameError:
            log.exception("document %s: a stored update cannot be applied", self.name)
            self.reset("unsound_update")

    async def _follow(self) -> None:
        while True:
            await self._behind.wait()
            self._behind.clear()
            try:
                async with self._database.read(recorder=True) as tx:
                    query = queries.updates_after(self.document_id, self.version, _NEWEST)
                    found = (await tx.execute(query)).all()
            except Exception as error:  # noqa: BLE001 (the database may be away; polling goes on)
                log.warning("document %s is behind: %s", self.name, error)
                continue
            for row in found:
                self._take(row.update)
            if found:
                self.version = max(self.version, found[-1].version)
