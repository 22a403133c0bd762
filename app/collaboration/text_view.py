"""Notebooks as text: what an editor shows of a notebook, beside those who have it open as one.

The text is a room's of its own, in this process, for as long as somebody looks at it. What is typed
there goes into the notebook's document whenever it is a valid notebook, merged part by part as
what another program writes to the file is, and what others do to the notebook comes into the text.
So the file never gets half a notebook. Text that is no notebook yet is here alone.
"""

import asyncio
import json
import logging
import uuid
from typing import Any

from pycrdt import Doc, Map, Text

from app.collaboration.forks import ApartRoom
from app.collaboration.room import UNSOUND, RoomBase
from app.contents.notebook_format import as_v4, problem, serialized
from app.db.engine import Database
from app.documents.editor import NotebookEditor
from app.documents.memory import apply_splices
from app.documents.merge import Base, base_of, merge
from app.documents.merge_state import Stored, tell_problem
from app.documents.replace import identify
from app.documents.saving import as_file
from app.documents.splices import text_splices
from app.documents.store import DocumentStore
from app.errors import BadRequestError, NotFoundError

log = logging.getLogger(__name__)

_DELAY_SECONDS = 0.3
# People are told of text that is no notebook once they have stopped typing for so long.
_PATIENCE_SECONDS = 5.0
_ATTEMPTS = 20


class TextView(ApartRoom):
    """The room of a notebook's text; `session_id` is its own, since it does not outlive it."""

    def __init__(self, name: str, document_id: uuid.UUID, store: DocumentStore) -> None:
        doc: Doc[Any] = Doc()
        self.source = doc.get("source", type=Text)
        self.state = doc.get("state", type=Map)
        super().__init__(name, doc, self._touched)
        self.document_id = document_id
        self.session_id = str(uuid.uuid4())
        self.version = -1
        self._store = store
        self._agreed = ""
        self._base: Base | None = None
        self._actor_id: uuid.UUID | None = None
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Show the notebook as it is now; NotFoundError when it has gone."""
        await self._store.tell_opened(self.document_id)
        await self._agree()
        self._task = asyncio.create_task(self._keep_up())

    async def close(self) -> None:
        """Take over what was typed, if it is a notebook, and end."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        try:
            async with asyncio.timeout(10):
                await self.drained()
        except Exception as error:  # noqa: BLE001 (nobody is left to be told)
            log.info("text of document %s is not taken over: %s", self.document_id, error)

    def wake(self) -> None:
        """Have the text and the notebook brought together soon."""
        self._wake.set()

    async def drained(self) -> None:
        """Bring them together; BadRequestError, which is told too, when the text is no notebook."""
        try:
            await self._agree()
        except BadRequestError as error:
            self._tell_typist(error.message)
            raise

    def _touched(self) -> None:
        if self._source is not None:
            self._actor_id = self._source.identity.id
            self._wake.set()

    async def _keep_up(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(_DELAY_SECONDS)
            self._wake.clear()
            try:
                await self._agree()
            except BadRequestError as error:
                await self._tell_in_time(error.message)
            except NotFoundError:
                continue  # whoever looks after rooms ends this one
            except Exception:
                log.exception("text of document %s is not up to date", self.document_id)
                await asyncio.sleep(_PATIENCE_SECONDS)
                self._wake.set()

    async def _tell_in_time(self, message: str) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            self._tell_typist(message)

    def _tell_typist(self, message: str | None) -> None:
        if message is not None:
            message = f"the text is no valid notebook: {message}"
        with self.doc.transaction():
            tell_problem(self.state, message)

    async def _agree(self) -> None:
        """Take what was typed into the notebook, and show the notebook."""
        async with self._lock:
            for _ in range(_ATTEMPTS):
                if await self._agree_on(str(self.source)):
                    return
        self._wake.set()  # they type all the time

    async def _agree_on(self, text: str) -> bool:
        """Bring the notebook and this text together; False when more was typed meanwhile."""
        parsed = None
        if text != self._agreed:
            parsed = await asyncio.to_thread(_notebook, text)
            await self._take(parsed)
        version, notebook = await self._store.snapshot(self.document_id)
        base = await asyncio.to_thread(base_of, notebook)
        shown = text
        if not _same(self._base if parsed is None else _base(parsed), base):
            shown = (await asyncio.to_thread(serialized, as_file((0, notebook))[1])).decode()
        document = await self._store.find(document_id=str(self.document_id))
        if str(self.source) != text:
            return False
        with self.doc.transaction():
            apply_splices(self.source, text_splices(text, shown))
            tell_problem(self.state, None)
            if document.saved_version >= document.version:
                self.state["dirty"] = False
                if self.state.get("hash") != document.disk_hash:
                    self.state["hash"] = document.disk_hash
        self._agreed, self._base, self.version = shown, base, version
        return True

    async def _take(self, parsed: dict[str, Any]) -> None:
        async with self._store.editing(
            self.document_id, origin="room", actor_id=self._actor_id
        ) as (_, editor):
            assert isinstance(editor, NotebookEditor)
            current = editor.notebook()
            known = [(cell["id"], cell["cell_type"], cell["source"]) for cell in current["cells"]]
            typed = {**parsed, "cells": identify(parsed["cells"], known)}
            editor.replace(merge(self._base, current, typed, editor.running()))
            await editor.flush()
            # From here on: should this have to be done again, nothing is taken over twice.
            self._base = base_of(typed)

    def tell_path(self, path: str) -> None:
        """Say what the file is called."""
        if self.state.get("path") != path:
            self.state["path"] = path


class TextViews:
    """The texts of notebooks that people look at in this process."""

    def __init__(self, database: Database, store: DocumentStore, *, linger_seconds: float) -> None:
        self._database = database
        self._store = store
        self._linger = linger_seconds
        self._views: dict[uuid.UUID, TextView] = {}
        self._evictions: dict[uuid.UUID, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._opening = asyncio.Lock()
        store.listeners.append(self._stored)

    def open_rooms(self) -> dict[uuid.UUID, TextView]:
        """Return the texts by the ids of their notebooks."""
        return dict(self._views)

    def session_of(self, name: str) -> str | None:
        """Return the session id of a room, if it is that of a text that is open."""
        return next((view.session_id for view in self._views.values() if view.name == name), None)

    async def enter(self, document_id: uuid.UUID, path: str | None = None) -> TextView:
        """Return a notebook's text, made if there is none; NotFoundError without a notebook."""
        async with self._opening:
            view = self._views.get(document_id)
            if view is None:
                view = TextView(f"text:file:{document_id}", document_id, self._store)
                await view.start()
                self._views[document_id] = view
            if path is not None:
                view.tell_path(path)
            self.left(view)
            return view

    def left(self, room: RoomBase) -> None:
        """Note that nobody may be there any more: then it ends after a while."""
        if not isinstance(room, TextView) or self._views.get(room.document_id) is not room:
            return
        if (handle := self._evictions.pop(room.document_id, None)) is not None:
            handle.cancel()
        loop = asyncio.get_running_loop()
        self._evictions[room.document_id] = loop.call_later(self._linger, self._evict, room)

    def _evict(self, view: TextView) -> None:
        self._evictions.pop(view.document_id, None)
        if view.peers or self._views.get(view.document_id) is not view:
            return
        self._end(view)

    def _end(self, view: TextView) -> None:
        del self._views[view.document_id]
        task = asyncio.create_task(view.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def look(self, known: dict[uuid.UUID, Any]) -> None:
        """Take what is known of their notebooks now: versions and paths; those gone have none."""
        for document_id, view in list(self._views.items()):
            row = known.get(document_id)
            if row is None:
                view.end(UNSOUND, {"reason": "document_deleted", "reloadable": False})
                self._end(view)
                continue
            view.tell_path(row.path)
            if row.version > view.version:
                view.wake()

    async def close(self) -> None:
        """End all."""
        for handle in self._evictions.values():
            handle.cancel()
        for view in list(self._views.values()):
            for peer in view.peers:
                peer.end(1012, "the server is shutting down")
            self._end(view)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _stored(self, document_id: uuid.UUID, _: list[Stored]) -> None:
        if (view := self._views.get(document_id)) is not None:
            view.wake()


def _notebook(text: str) -> dict[str, Any]:
    """Return a text as a notebook, if it is a valid one as it stands; BadRequestError otherwise.

    What a file may lack must be there: somebody is typing, and a key that is not there for
    a moment must not empty the notebook.
    """
    try:
        raw = json.loads(text)
        if not isinstance(raw, dict) or raw.get("nbformat") != 4:
            raise ValueError("it has no nbformat 4")
        if message := problem(raw):
            raise ValueError(message.splitlines()[0])
        return as_v4(raw)[0]
    except Exception as error:
        raise BadRequestError(str(error)) from error


def _base(notebook: dict[str, Any]) -> Base | None:
    """Return the base of a notebook whose cells say their ids, else None."""
    return base_of(notebook) if all("id" in cell for cell in notebook["cells"]) else None


def _same(one: Base | None, other: Base) -> bool:
    return one is not None and (one["meta"], one["cells"]) == (other["meta"], other["cells"])
