"""The one way into notebook documents: open, edit, read, save.

Every edit takes this process's lock of the document, then its row's lock, brings the document in
memory up to date, and is stored with its projection in the caller's transaction. What is in memory
is a cache: it is dropped when a transaction fails and built again from the database.
"""

import asyncio
import logging
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from app.contents import rows
from app.contents.disk import Disk, DiskChangedError, NotebookFile
from app.contents.notebook_format import as_notebook, serialized
from app.db.engine import Database, Transaction
from app.documents import load, queries
from app.documents.editor import NotebookEditor
from app.documents.memory import NotebookMemory
from app.documents.merge import base_of
from app.documents.replace import identify
from app.documents.saver import Saver
from app.documents.saving import NotebookSaving, as_file
from app.errors import NotFoundError
from app.settings import Settings
from models import Cell, Content, Document

log = logging.getLogger(__name__)

# Documents kept in memory when nobody uses them.
_CACHED = 64
_ID_PREFIX = "json:notebook:"


class _Slot:
    """This process's lock of a document, and what is cached of it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.memory: NotebookMemory | None = None


class DocumentStore:
    """Opens, edits, reads and saves notebook documents."""

    def __init__(self, database: Database, disk: Disk, settings: Settings) -> None:
        self._database = database
        self._disk = disk
        self._slots: OrderedDict[uuid.UUID, _Slot] = OrderedDict()
        self._saving = NotebookSaving(database, disk, self)
        self._saver = Saver(
            self._saving.save,
            delay_seconds=settings.save_delay_seconds,
            interval_seconds=settings.save_interval_max_seconds,
        )

    async def start(self) -> None:
        """Have every document saved whose file is behind: a server ended before it could."""
        async with self._database.read(as_server=True) as session:
            unsaved = (await session.execute(queries.unsaved_documents())).scalars().all()
        for document_id in unsaved:
            try:
                await self._saving.save(document_id)
            except Exception as error:  # noqa: BLE001 (the saver tries again)
                log.warning("document %s is not saved yet: %s", document_id, error)
                self._saver.touch(document_id)

    async def close(self) -> None:
        """Save what is to be saved, and end."""
        await self._saver.close()

    async def open_notebook(self, path: str, *, actor_id: uuid.UUID | None) -> Document:
        """Return the document of a notebook file, loaded, or merged with the file's changes.

        Takes transactions of its own. NotFoundError when there is no file; BadRequestError when
        it is not a notebook.
        """
        path = self._disk.normalized(path)
        document = await self._document_at(path)
        try:
            state = await self._disk.state(path)
        except NotFoundError:
            if document is not None and document.saved_version < document.version:
                return document  # it will be written again: it has what no file has
            raise
        if document is None:
            return await self._load(path, await self._disk.read_notebook(path), actor_id)
        if state.hash != document.disk_hash:
            await self._saving.take_from_disk(document.id, actor_id)
            return await self._document(document.id)
        return document

    async def find(
        self,
        *,
        path: str | None = None,
        document_id: str | None = None,
        actor_id: uuid.UUID | None = None,
    ) -> Document:
        """Return a document by its file's path, opening it, or by its id.

        The form `json:notebook:<id>` is taken too. NotFoundError when there is none.
        """
        if document_id is None:
            return await self.open_notebook(path or "", actor_id=actor_id)
        try:
            key = uuid.UUID(document_id.removeprefix(_ID_PREFIX))
        except ValueError:
            raise NotFoundError(f"No such document: {document_id}") from None
        return await self._document(key)

    async def edit(
        self,
        tx: Transaction,
        document_id: uuid.UUID,
        *,
        origin: str,
        actor_id: uuid.UUID | None = None,
        save: Callable[[], bool] = lambda: True,
    ) -> NotebookEditor:
        """Return the transaction's editor of a document, taking the document's locks.

        The locks are held until the transaction ends, so edit several documents in the order of
        their ids. What the editor changes is stored before the commit; `origin` and `actor_id`
        are those of the first call. NotFoundError when there is no such document. `save` is asked
        after the commit whether the file is to be written soon.
        """
        editors: dict[uuid.UUID, NotebookEditor] = tx.info.setdefault("notebook_editors", {})
        if document_id in editors:
            return editors[document_id]
        # Connection before lock, everywhere: who has the lock must not wait for a connection
        # that others keep while they wait for the lock.
        await tx.connection()
        slot = self._slot(document_id)
        await slot.lock.acquire()
        version = slot.memory.version if slot.memory else None

        def finish(committed: bool) -> None:
            try:
                memory = slot.memory
                if not committed or (memory is not None and memory.updates):
                    slot.memory = None
                if memory is not None and memory.version != version and save():
                    # Also when the commit failed: the database may have done it all the same.
                    self._saver.touch(document_id)
            finally:
                slot.lock.release()

        tx.on_finish(finish)
        memory = await self._current(tx, slot, document_id, lock=True)
        editor = NotebookEditor(tx, memory, origin=origin, actor_id=actor_id)
        editors[document_id] = editor
        version = memory.version
        tx.before_commit(editor.flush)
        return editor

    async def edit_if_exists(
        self,
        tx: Transaction,
        document_id: uuid.UUID,
        *,
        origin: str,
        actor_id: uuid.UUID | None = None,
    ) -> NotebookEditor | None:
        """Return the transaction's editor of a document as `edit` does; None when it has gone."""
        try:
            return await self.edit(tx, document_id, origin=origin, actor_id=actor_id)
        except NotFoundError:
            return None

    async def showing(
        self, tx: Transaction, kernel_id: str, display_ids: Collection[str]
    ) -> set[uuid.UUID]:
        """Return the documents with cells that show any of a kernel's displays."""
        query = queries.documents_showing(kernel_id, display_ids)
        return set((await tx.execute(query)).scalars().all())

    async def notebook(self, document_id: uuid.UUID) -> dict[str, Any]:
        """Return the notebook as it is now, cells with ids if its format has them.

        Not for use within a transaction that edits the same document: it waits for that.
        """
        return as_file(await self.snapshot(document_id))[1]

    async def snapshot(self, document_id: uuid.UUID) -> tuple[int, dict[str, Any]]:
        """Return a document's version and its notebook, every cell with its id."""
        async with self._database.read(as_server=True) as tx:
            await tx.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            slot = self._slot(document_id)
            async with slot.lock:
                memory = await self._current(tx, slot, document_id, lock=False)
                try:
                    return memory.version, memory.notebook()
                finally:
                    if memory.updates:
                        slot.memory = None

    async def cells(self, document_id: uuid.UUID) -> tuple[Document, str, list[Cell]]:
        """Return a document, its path, and the rows of its cells in order."""
        async with self._database.read() as session:
            await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            document = await session.get(Document, document_id)
            if document is None:
                raise NotFoundError(f"No such document: {document_id}")
            path = (await session.execute(queries.document_paths(document_id))).scalar_one()
            rows = (await session.execute(queries.cells_of(document_id))).scalars().all()
        return document, path, list(rows)

    async def is_open(self, path: str) -> bool:
        """Tell whether a file has a document."""
        return await self._document_at(self._disk.normalized(path)) is not None

    async def put_notebook(
        self, path: str, notebook: dict[str, Any], *, actor_id: uuid.UUID | None
    ) -> Document:
        """Make the notebook at `path` equal to `notebook`, creating it if absent, and save it.

        BadRequestError when it is not a notebook; StorageError when the disk refuses: an edit of
        an existing document is kept then, and saved when that works again.
        """
        path = self._disk.normalized(path)
        wanted, _ = await asyncio.to_thread(as_notebook, notebook)
        if not await self._disk.exists(path):
            document = await self._document_at(path)
            if document is None or document.saved_version == document.version:
                wanted = {**wanted, "cells": identify(wanted["cells"], [])}
                content = serialized(as_file((0, wanted))[1])
                try:
                    await self._disk.write_notebook(path, content, None)
                except DiskChangedError:
                    log.info("%s was created meanwhile", path)
                else:
                    return await self.open_notebook(path, actor_id=actor_id)
        document = await self.open_notebook(path, actor_id=actor_id)
        async with self._database.transaction() as tx:
            editor = await self.edit(tx, document.id, origin="api", actor_id=actor_id)
            editor.replace(wanted)
        await self.save_now(document.id)
        return await self._document(document.id)

    async def save_now(self, document_id: uuid.UUID) -> None:
        """Write the document to its file, if that is behind; StorageError when the disk refuses."""
        await self._saving.save(document_id)

    async def save_below(self, path: str) -> None:
        """Write the unsaved documents of a file, or of a folder's files, to their files.

        StorageError when the disk refuses one.
        """
        async with self._database.read(as_server=True) as session:
            unsaved = (await session.execute(rows.unsaved_documents(path))).scalars().all()
        for document_id in unsaved:
            await self.save_now(document_id)

    @asynccontextmanager
    async def holding(self, path: str) -> AsyncIterator[Transaction]:
        """Yield a transaction in which a file, or a folder, may be renamed or deleted.

        Nothing is saved to its files, or merged from them, meanwhile.
        """
        async with self._database.read(as_server=True) as session:
            found = (await session.execute(rows.document_ids(path))).scalars().all()
        async with self._saving.holding(found) as tx:
            yield tx

    def touch(self, document_id: uuid.UUID) -> None:
        """Have a document saved soon."""
        self._saver.touch(document_id)

    async def _document_at(self, path: str) -> Document | None:
        async with self._database.read(as_server=True) as session:
            found = await session.execute(queries.documents_by_path(), {"path": path})
            return found.scalar_one_or_none()

    async def _document(self, document_id: uuid.UUID) -> Document:
        async with self._database.read(as_server=True) as session:
            document = await session.get(Document, document_id)
        if document is None:
            raise NotFoundError(f"No such document: {document_id}")
        return document

    async def _load(self, path: str, file: NotebookFile, actor_id: uuid.UUID | None) -> Document:
        """Make the rows and the document of a file, unless somebody else just did."""
        async with self._database.transaction(as_server=True) as tx:
            await self._follow(tx, path, file)
            content_id = await _content_id(tx, path, file)
            query = select(Document).where(Document.content_id == content_id)
            known = (await tx.execute(query)).scalar_one_or_none()
            if known is not None:
                return known
            document = Document(
                id=uuid.uuid4(), content_id=content_id, type="notebook", format="json"
            )
            tx.add(document)
            await tx.flush()
            editor = await self.edit(tx, document.id, origin="load", actor_id=actor_id)
            cells = identify(file.notebook["cells"], [])
            editor.replace({**file.notebook, "cells": cells})
            await editor.flush()
            await tx.execute(
                update(Document)
                .where(Document.id == document.id)
                .values(
                    saved_version=editor.version,
                    disk_hash=file.state.hash,
                    disk_base=base_of(editor.notebook(), file.nbformat),
                ),
                execution_options={"synchronize_session": False},
            )
            await tx.refresh(document)
            return document

    async def _follow(self, tx: Transaction, path: str, file: NotebookFile) -> None:
        """Let the rows of a file that another program renamed to `path` follow it.

        The watcher does it too, but people open a file sooner.
        """
        if file.state.key is None:
            return
        found = await rows.may_have_moved(tx, [file.state.key], [path])
        if any(row.path == path for row in found):
            return
        for row in found:
            same = (row.file_key, row.size, row.last_modified) == (
                file.state.key,
                file.state.size,
                file.state.last_modified,
            )
            if same and not await self._disk.exists(row.path):
                await rows.lock(tx)
                await rows.move(tx, row.path, path)
                return

    def _slot(self, document_id: uuid.UUID) -> _Slot:
        slot = self._slots.setdefault(document_id, _Slot())
        self._slots.move_to_end(document_id)
        if len(self._slots) > _CACHED:
            for key, candidate in list(self._slots.items())[: len(self._slots) - _CACHED]:
                if candidate is not slot and not candidate.lock.locked():
                    del self._slots[key]
        return slot

    async def _current(
        self, tx: Transaction, slot: _Slot, document_id: uuid.UUID, *, lock: bool
    ) -> NotebookMemory:
        """Return the document in memory at its stored version; needs the slot's lock."""
        query = queries.locked_version if lock else queries.current_version
        found = (await tx.execute(query(), {"document_id": document_id})).one_or_none()
        if found is None:
            slot.memory = None
            raise NotFoundError(f"No such document: {document_id}")
        memory, slot.memory = slot.memory, None
        if memory is None or memory.version > found.version:
            memory = await load.build(tx, document_id, found.version)
        elif memory.version < found.version:
            await load.catch_up(tx, memory, found.version)
        memory.path = found.path
        slot.memory = memory
        return memory

    @asynccontextmanager
    async def editing(
        self, document_id: uuid.UUID, *, origin: str, actor_id: uuid.UUID | None
    ) -> AsyncIterator[tuple[Transaction, NotebookEditor]]:
        """Yield a transaction of its own and the document's editor in it."""
        async with self._database.transaction(as_server=True) as tx:
            yield tx, await self.edit(tx, document_id, origin=origin, actor_id=actor_id)


async def _content_id(tx: Transaction, path: str, file: NotebookFile) -> uuid.UUID:
    """Return the id of the file's row, locked, made if absent."""
    folder, _, name = path.rpartition("/")
    columns = {
        "path": path,
        "name": name,
        "parent_id": await rows.folder_id(tx, folder),
        "file_key": file.state.key,
        "type": "notebook",
        "format": "json",
        "writable": file.state.writable,
        "size": file.state.size,
        "created": file.state.created,
        "last_modified": file.state.last_modified,
        "hash": file.state.hash,
        "hash_algorithm": "sha256",
    }
    await tx.execute(insert(Content).values(**columns).on_conflict_do_nothing())
    query = select(Content.id).where(Content.path == path).with_for_update(key_share=True)
    return (await tx.execute(query)).scalar_one()
