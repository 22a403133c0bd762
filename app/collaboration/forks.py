"""Forks of documents, and timelines to walk back along: rooms whose documents are not saved.

A fork is a row, edited apart from its document and merged into it or dropped. A timeline is a copy
with the history of its document, in which a person goes back and forth; it has the identity of the
document, so its state can be taken over as an edit. It lives in this process alone, for as long
as somebody looks at it.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Any

from pycrdt import Array, Doc, Map, Text, UndoManager
from sqlalchemy import delete, select, update

from app.collaboration import protocol
from app.collaboration.peer import Peer
from app.collaboration.protocol import BadFrameError
from app.collaboration.room import RoomBase
from app.db.engine import Database
from app.documents import queries, updates
from app.documents.merge_state import MergeState, Stored
from app.documents.store import DocumentStore
from app.errors import NotFoundError
from models import DocumentFork

log = logging.getLogger(__name__)

_SAVE_SECONDS = 1.0
_TIMELINES = 16
_PAUSE_SECONDS = 5.0


class ApartRoom(RoomBase):
    """A room with a document of its own, given as its Yjs state."""

    def __init__(
        self, name: str, doc: Doc[Any], changed: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(name, lambda *_: None)
        self.doc = doc
        self._changed = changed
        self._source: Peer | None = None
        self._subscription = doc.observe(lambda event: self._news(event.update))

    def join(self, peer: Peer) -> None:
        """Let a peer in: ask what it has, and tell it who is here."""
        super().join(peer)
        peer.put(protocol.sync(protocol.STEP1, self.state_vector()))

    def state_vector(self) -> bytes:
        """Return the state vector of the document as peers see it."""
        return self.doc.get_state()

    def apply(self, content: bytes, source: Peer | None = None) -> None:
        """Apply an update, and pass it on; BadFrameError when it is unsound."""
        self._source = source
        try:
            self.doc.apply_update(content)
        except Exception as error:
            raise BadFrameError("this is no sound update") from error
        finally:
            self._source = None

    def _sync(self, peer: Peer, kind: int, content: bytes) -> None:
        if kind == protocol.STEP1:
            try:
                missing = self.doc.get_update(content)
            except Exception as error:
                raise BadFrameError("this is no state vector") from error
            peer.put(protocol.sync(protocol.STEP2, missing))
        elif peer.may_write:
            self.apply(content, peer)

    def _news(self, content: bytes) -> None:
        frame = protocol.sync(protocol.UPDATE, content)
        for peer in self.peers:
            if peer is not self._source:
                peer.put(frame)
        self._changed()


class Timeline:
    """A room in which a document's history can be walked; `timestamps` are those of its steps."""

    def __init__(self, name: str, document_id: uuid.UUID) -> None:
        self.document_id = document_id
        self.doc: Doc[Any] = Doc(skip_gc=True)
        roots = [
            self.doc.get("cells", type=Array),
            self.doc.get("meta", type=Map),
            self.doc.get("source", type=Text),
        ]
        self._undo = UndoManager(scopes=roots, capture_timeout_millis=0)
        self._undo.include_origin("history")
        self.timestamps: list[float] = []
        self.room = ApartRoom(name, self.doc)

    def begin(self, state: bytes) -> None:
        """Begin with a state; the walk back ends there."""
        self.doc.apply_update(state)

    def add(self, changes: list[bytes], timestamp: float) -> None:
        """Add changes as one step, if it changes anything that can be seen."""
        with self.doc.transaction(origin="history"):
            for one in changes:
                self.doc.apply_update(one)
        if len(self._undo.undo_stack) > len(self.timestamps):
            self.timestamps.append(timestamp)

    def walk(self, *, back: bool, steps: int) -> int:
        """Go back or forth; return how many steps that was. The first step is never taken back."""
        done = 0
        while done < steps:
            if back and len(self._undo.undo_stack) > 1:
                self._undo.undo()
            elif not back and self._undo.can_redo():
                self._undo.redo()
            else:
                break
            done += 1
        return done


class Forks:
    """The forks and timelines of documents."""

    def __init__(self, database: Database, store: DocumentStore) -> None:
        self._database = database
        self._store = store
        self.timelines: dict[str, Timeline] = {}
        self._rooms: dict[str, tuple[DocumentFork, ApartRoom]] = {}
        self._opening = asyncio.Lock()
        self._saving: dict[str, asyncio.Task[None]] = {}
        store.listeners.append(self._stored)

    async def close(self) -> None:
        """End connections and store what was done in forks."""
        for timeline in self.timelines.values():
            for peer in timeline.room.peers:
                peer.end(1012, "the server is shutting down")
        for _, room in self._rooms.values():
            for peer in room.peers:
                peer.end(1012, "the server is shutting down")
        for name in list(self._saving):
            self._saving[name].cancel()
        await asyncio.gather(*self._saving.values(), return_exceptions=True)
        for name in list(self._rooms):
            await self._save(name)

    def open_rooms(self) -> list[tuple[uuid.UUID, ApartRoom]]:
        """Return the rooms of forks and timelines, with the documents that they are of."""
        return [
            *((fork.document_id, room) for fork, room in self._rooms.values()),
            *((one.document_id, one.room) for one in self.timelines.values()),
        ]

    # Timelines

    async def timeline(self, document_id: uuid.UUID) -> tuple[str, Timeline]:
        """Make a timeline of a document; return its room's name too."""
        state = MergeState(document_id)
        async with self._database.read(as_server=True) as tx:
            compacted = (
                await tx.execute(queries.compacted_version(document_id))
            ).scalar_one_or_none()
            if compacted is None:
                raise NotFoundError(f"No such document: {document_id}")
            await updates.replay(tx, state, compacted)
            query = queries.history_after(document_id, compacted, 2**62)
            rows = (await tx.execute(query)).all()
        name = uuid.uuid4().hex
        timeline = Timeline(name, document_id)
        timeline.begin(state.doc.get_update())
        for step in _steps(list(rows)):
            timeline.add([one.update for one in step], step[-1].created_at.timestamp())
        self.timelines[name] = timeline
        for old in list(self.timelines)[:-_TIMELINES]:
            if not self.timelines[old].room.peers:
                del self.timelines[old]
        return name, timeline

    def left(self, name: str) -> None:
        """Note that somebody left a room: a timeline without anybody ends."""
        timeline = self.timelines.get(name)
        if timeline is not None and not timeline.room.peers:
            del self.timelines[name]

    # Forks

    async def create(
        self,
        document_id: uuid.UUID,
        *,
        title: str,
        description: str,
        synchronize: bool,
        actor_id: uuid.UUID,
    ) -> DocumentFork:
        """Make a fork of a document as it is now."""
        _, state = await self._store.merge_state(document_id)
        fork = DocumentFork(
            id=uuid.uuid4(),
            document_id=document_id,
            title=title,
            description=description,
            synchronize=synchronize,
            state=state,
            actor_id=actor_id,
        )
        async with self._database.transaction(as_server=True) as tx:
            tx.add(fork)
        return fork

    async def of(self, document_id: uuid.UUID) -> list[DocumentFork]:
        """Return a document's forks, oldest first."""
        query = (
            select(DocumentFork)
            .where(DocumentFork.document_id == document_id)
            .order_by(DocumentFork.created_at, DocumentFork.id)
        )
        async with self._database.read(as_server=True) as tx:
            return list((await tx.execute(query)).scalars())

    async def find(self, name: str) -> DocumentFork:
        """Return a fork by its room's name; NotFoundError without one."""
        try:
            key = uuid.UUID(hex=name)
        except ValueError:
            raise NotFoundError(f"No such fork: {name}") from None
        async with self._database.read(as_server=True) as tx:
            fork = await tx.get(DocumentFork, key)
        if fork is None:
            raise NotFoundError(f"No such fork: {name}")
        return fork

    async def enter(self, name: str) -> tuple[uuid.UUID, ApartRoom]:
        """Return the document and the room of a fork or timeline; NotFoundError without one."""
        if (timeline := self.timelines.get(name)) is not None:
            return timeline.document_id, timeline.room
        async with self._opening:
            if name not in self._rooms:
                fork = await self.find(name)
                doc: Doc[Any] = Doc()
                doc.apply_update(fork.state)
                if fork.synchronize:
                    _, state = await self._store.merge_state(fork.document_id)
                    doc.apply_update(state)
                room = ApartRoom(name, doc, lambda: self._touch(name))
                self._rooms[name] = fork, room
        fork, room = self._rooms[name]
        return fork.document_id, room

    async def delete(self, name: str, *, merge: bool, actor_id: uuid.UUID) -> DocumentFork:
        """Drop a fork, or merge it into its document as an edit; return what it was."""
        fork = await self.find(name)
        opened = self._rooms.pop(name, None)
        state = opened[1].doc.get_update() if opened else fork.state
        if task := self._saving.pop(name, None):
            task.cancel()
        async with self._database.transaction(as_server=True) as tx:
            if merge:
                editor = await self._store.edit_any(
                    tx, fork.document_id, origin="api", actor_id=actor_id
                )
                editor.apply_update(state)
            await tx.execute(
                delete(DocumentFork).where(DocumentFork.id == fork.id),
                execution_options={"synchronize_session": False},
            )
        if opened:
            opened[1].end(1003, {"reason": "fork_deleted", "reloadable": False})
        return fork

    def _stored(self, document_id: uuid.UUID, stored: list[Stored]) -> None:
        for fork, room in self._rooms.values():
            if fork.synchronize and fork.document_id == document_id:
                for one in stored:
                    room.apply(one.update)

    def _touch(self, name: str) -> None:
        if name not in self._saving:
            task = asyncio.get_running_loop().create_task(self._save_soon(name))
            self._saving[name] = task

    async def _save_soon(self, name: str) -> None:
        await asyncio.sleep(_SAVE_SECONDS)
        self._saving.pop(name, None)
        try:
            await self._save(name)
        except Exception:
            log.exception("fork %s is not stored", name)

    async def _save(self, name: str) -> None:
        if name not in self._rooms:
            return
        fork, room = self._rooms[name]
        async with self._database.transaction(recorder=True) as tx:
            await tx.execute(
                update(DocumentFork)
                .where(DocumentFork.id == fork.id)
                .values(state=room.doc.get_update()),
                execution_options={"synchronize_session": False},
            )


def _steps(rows: list[Any]) -> list[list[Any]]:
    """Return updates in runs of one person, in one way, without a pause."""
    found: list[list[Any]] = []
    for row in rows:
        last = found[-1][-1] if found else None
        if (
            last is not None
            and (row.actor_id, row.origin) == (last.actor_id, last.origin)
            and (row.created_at - last.created_at).total_seconds() <= _PAUSE_SECONDS
        ):
            found[-1].append(row)
        else:
            found.append([row])
    return found
