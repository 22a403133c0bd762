"""The rooms of this process: made when somebody comes, ended some time after the last has left."""

import asyncio
import contextlib
import logging
import uuid
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from app.collaboration import queries
from app.collaboration.forks import Forks
from app.collaboration.peer import Peer
from app.collaboration.relay import Relay
from app.collaboration.rights import Rights, by_permissions
from app.collaboration.room import UNSOUND, DocumentRoom, RoomBase
from app.collaboration.text_view import TextViews
from app.db.engine import Database
from app.documents.merge_state import Stored
from app.documents.store import DocumentStore
from app.settings import Settings
from models import CollaborationSession

log = logging.getLogger(__name__)

GLOBAL_AWARENESS = "JupyterLab:globalAwareness"
FORBIDDEN = 4403
REVOKED = "you may not read this any more"
_POLL_SECONDS = 1.0
_SETTLE_SECONDS = 5.0


class Rooms:
    """Makes rooms and keeps them up to date with the store, also of other processes."""

    def __init__(self, database: Database, store: DocumentStore, settings: Settings) -> None:
        self._database = database
        self._store = store
        self._settings = settings
        self._rooms: dict[uuid.UUID, DocumentRoom] = {}
        self._opening: dict[uuid.UUID, asyncio.Lock] = {}
        self._evictions: dict[uuid.UUID, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._relay = Relay(database.url, self._versions, self._awareness)
        self._poll: asyncio.Task[None] | None = None
        self.everywhere = RoomBase(GLOBAL_AWARENESS, self._relay.tell_awareness)
        self.forks = Forks(database, store)
        self.views = TextViews(database, store, linger_seconds=settings.room_linger_seconds)
        self.rights: Rights = by_permissions(database)
        self.session_id = ""
        store.listeners.append(self._stored)
        store.autosaves = self._autosaves
        store.settled = self._settled

    @property
    def relay(self) -> Relay:
        """What tells other processes."""
        return self._relay

    async def start(self) -> None:
        """Find the session's id and listen to other processes."""
        async with self._database.transaction(recorder=True) as tx:
            await tx.execute(insert(CollaborationSession).on_conflict_do_nothing())
            found = await tx.execute(select(CollaborationSession.id))
            self.session_id = str(found.scalar_one())
        self._relay.start()
        self._poll = asyncio.create_task(self._keep_up())

    async def close(self) -> None:
        """Close all connections, and store what their peers have done."""
        if self._poll is not None:
            self._poll.cancel()
            await asyncio.gather(self._poll, return_exceptions=True)
        for handle in self._evictions.values():
            handle.cancel()
        for room in (self.everywhere, *self._rooms.values()):
            for peer in room.peers:
                peer.end(1012, "the server is shutting down")
        for room in list(self._rooms.values()):
            await room.close()
        await self.forks.close()
        await self.views.close()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._relay.close()

    def session_of(self, name: str) -> str:
        """Return the session id of a room."""
        return self.views.session_of(name) or self.session_id

    def open_rooms(self) -> dict[uuid.UUID, DocumentRoom]:
        """Return the rooms that are open now."""
        return dict(self._rooms)

    async def enter(self, name: str, document_id: uuid.UUID) -> DocumentRoom:
        """Return a document's room, made if there is none; NotFoundError without a document."""
        if (handle := self._evictions.pop(document_id, None)) is not None:
            handle.cancel()
        lock = self._opening.setdefault(document_id, asyncio.Lock())
        async with lock:
            room = self._rooms.get(document_id)
            if room is not None and not room.broken:
                return room
            await self._store.tell_opened(document_id)
            relay = self._relay.tell_awareness
            room = DocumentRoom(name, document_id, self._database, self._store, relay)
            former = self._rooms.get(document_id)
            self._rooms[document_id] = room
            try:
                if former is not None:
                    await former.close()
                await room.start()
            except BaseException:
                self._rooms.pop(document_id, None)
                raise
            return room

    def left(self, room: RoomBase) -> None:
        """Note that a peer has left: an empty room ends after a while."""
        self.views.left(room)
        if not isinstance(room, DocumentRoom) or room.peers:
            return
        if self._rooms.get(room.document_id) is not room:
            return
        if (handle := self._evictions.pop(room.document_id, None)) is not None:
            handle.cancel()
        delay = 0.0 if room.broken else self._settings.room_linger_seconds
        loop = asyncio.get_running_loop()
        self._evictions[room.document_id] = loop.call_later(delay, self._evict, room)

    def _evict(self, room: DocumentRoom) -> None:
        self._evictions.pop(room.document_id, None)
        if room.peers or self._rooms.get(room.document_id) is not room:
            return
        del self._rooms[room.document_id]
        task = asyncio.create_task(room.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def peer(self, identity: Any, right: Literal["read", "write"]) -> Peer:
        """Return a new peer."""
        return Peer(
            identity,
            may_write=right == "write",
            limit_bytes=self._settings.room_queue_bytes,
        )

    # News

    def _stored(self, document_id: uuid.UUID, stored: list[Stored]) -> None:
        if (room := self._rooms.get(document_id)) is not None:
            room.stored(stored)
        self._relay.tell_version(document_id, stored[-1].version)

    def _autosaves(self, document_id: uuid.UUID) -> bool:
        room = self._rooms.get(document_id)
        return room is None or room.autosaves()

    async def _settled(self, document_id: uuid.UUID) -> bool:
        if (room := self._rooms.get(document_id)) is None:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_SECONDS):
                await room.drained()
        return True

    def _versions(self, versions: dict[uuid.UUID, int]) -> None:
        for document_id, version in versions.items():
            if (room := self._rooms.get(document_id)) is not None:
                room.stored_elsewhere(version)

    def _awareness(self, name: str, frame: bytes) -> None:
        rooms = (self.everywhere, *self._rooms.values())
        for room in rooms:
            if room.name == name:
                room.relayed(frame)

    async def _keep_up(self) -> None:
        """Look every second for what no notice told: versions, renames, deletions, rights."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 (the database may be away; it comes back)
                log.warning("rooms are not looked after now: %s", error)

    async def look(self) -> None:
        """See what became of the documents of open rooms, and who may still be in them."""
        for document_id, apart in self.forks.open_rooms():
            await self._check_rights(apart, document_id)
        rooms, views = dict(self._rooms), self.views.open_rooms()
        if not rooms and not views:
            return
        async with self._database.read(recorder=True) as tx:
            found = (await tx.execute(queries.versions([*{*rooms, *views}]))).all()
        known = {row.id: row for row in found}
        self.views.look(known)
        for document_id, view in views.items():
            await self._check_rights(view, document_id)
        for document_id, room in rooms.items():
            row = known.get(document_id)
            if row is None:
                room.broken = True
                room.end(UNSOUND, {"reason": "document_deleted", "reloadable": False})
                continue
            room.stored_elsewhere(row.version)
            if room.path != row.path:
                room.path = row.path
                await self._store.tell_opened(document_id)
            await self._check_rights(room, document_id)

    async def _check_rights(self, room: RoomBase, document_id: uuid.UUID) -> None:
        # Two tokens of one person may be for different actions.
        asked: dict[tuple[uuid.UUID, uuid.UUID | None], str | None] = {}
        for peer in list(room.peers):
            key = peer.identity.id, peer.identity.token_id
            if key not in asked:
                asked[key] = await self.rights(peer.identity, document_id)
            if asked[key] is None:
                peer.end(FORBIDDEN, REVOKED)
            elif (may_write := asked[key] == "write") != peer.may_write:
                peer.may_write = may_write
                room.tell_right(peer)
