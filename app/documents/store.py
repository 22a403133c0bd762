"""The one way into documents, notebooks and text files: open, edit, read, save.

Every edit takes this process's lock of the document, then its row's lock, brings the document in
memory up to date, and is stored with its projection in the caller's transaction. What is in memory
is a cache: it is dropped when a transaction fails and built again from the database.
"""

import asyncio
import logging
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert

from app.contents import rows
from app.contents.disk import Disk, DiskChangedError, NotebookFile, TextFile
from app.contents.notebook_format import serialized
from app.db.engine import Database, Transaction
from app.documents import load, queries, text
from app.documents.compaction import Compaction
from app.documents.editor import NotebookEditor
from app.documents.loading import as_trusted
from app.documents.loading import load as load_notebook
from app.documents.memory import NotebookMemory
from app.documents.merge import Base
from app.documents.merge_state import Stored
from app.documents.replace import identify
from app.documents.saver import Saver
from app.documents.saving import DocumentSaving, as_file, text_base
from app.documents.text import TextEditor, TextMemory
from app.errors import BadRequestError, NotFoundError
from app.settings import Settings
from models import Cell, Content, Document

log = logging.getLogger(__name__)
T = TypeVar("T")

# Documents kept in memory when nobody uses them.
_CACHED = 64
# How long the state of a document that was loaded for a room is kept for that.
_ROOM_SECONDS = 30.0
_ID_PREFIXES = ("json:notebook:", "text:file:")

Memory = NotebookMemory | TextMemory
Editor = NotebookEditor | TextEditor
Listener = Callable[[uuid.UUID, list[Stored]], None]


class _Slot:
    """This process's lock of a document, and what is cached of it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.memory: Memory | None = None


class DocumentStore:
    """Opens, edits, reads and saves documents.

    `listeners` are called after each commit with the updates that it stored, and those of other
    processes that this one learned of for it. `autosaves` tells whether a changed document is to
    be saved by itself. `settled` waits until what peers of a document have done is stored: they
    see each other's edits before that, and who opens or finds a document must see no less.
    """

    def __init__(self, database: Database, disk: Disk, settings: Settings) -> None:
        self._database = database
        self._disk = disk
        self._slots: OrderedDict[uuid.UUID, _Slot] = OrderedDict()
        self.listeners: list[Listener] = []
        self.autosaves: Callable[[uuid.UUID], bool] = lambda _: True
        self.settled: Callable[[uuid.UUID], Awaitable[bool]] | None = None
        self._saving = DocumentSaving(database, disk, self)
        self.compaction = Compaction(
            database,
            undo_days=settings.document_undo_days,
            history_days=settings.document_history_days,
        )
        self._saver = Saver(
            self._saving.save,
            delay_seconds=settings.save_delay_seconds,
            interval_seconds=settings.save_interval_max_seconds,
        )

    async def start(self) -> None:
        """Have every document saved whose file is behind: a server ended before it could."""
        self.compaction.start()
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
        await self.compaction.close()
        await self._saver.close()

    async def open_notebook(self, path: str, *, actor_id: uuid.UUID | None) -> Document:
        """Return the document of a notebook file, loaded, or merged with the file's changes.

        Takes transactions of its own. NotFoundError when there is no file; BadRequestError when
        it is not a notebook.
        """
        return (await self._open(path, "notebook", actor_id))[0]

    async def open_for_room(
        self, path: str, kind: str, *, actor_id: uuid.UUID | None
    ) -> tuple[Document, bool]:
        """Return a document as `open_notebook` or `open_text` does, and whether it was just loaded.

        Then it says what its file is, and its code cells are trusted if the file is signed.
        """
        return await self._open(path, kind, actor_id, for_room=True)

    async def open_text(self, path: str, *, actor_id: uuid.UUID | None) -> Document:
        """Return the document of a text file, loaded, or merged with the file's changes.

        Takes transactions of its own. NotFoundError when there is no file; BadRequestError when
        it is not UTF-8, or is open as a notebook.
        """
        return (await self._open(path, "file", actor_id))[0]

    async def follow(self, path: str, *, actor_id: uuid.UUID | None) -> None:
        """Take into a document what another program did to its file, if it has one."""
        document = await self._document_at(self._disk.normalized(path))
        if document is not None:
            await self._open(path, document.type, actor_id)

    async def _open(
        self, path: str, kind: str, actor_id: uuid.UUID | None, *, for_room: bool = False
    ) -> tuple[Document, bool]:
        """Return a file's document, and whether it was loaded by this."""
        path = self._disk.normalized(path)
        document = await self._document_at(path)
        if document is not None and self.settled is not None and await self.settled(document.id):
            document = await self._document(document.id)
        if document is not None and document.type != kind:
            raise BadRequestError(f"{path} is open as a {document.type}", reason="bad type")
        if document is None:
            read = self._disk.read_notebook if kind == "notebook" else self._disk.read_text
            return await self._load(path, await read(path), actor_id, for_room=for_room)
        try:
            state = await self._disk.state(path)
        except NotFoundError:
            if document.saved_version < document.version:
                return document, False  # it will be written again: it has what no file has
            raise
        if state.hash != document.disk_hash or document.save_error is not None:
            await self._saving.take_from_disk(document.id, actor_id)
            self._saver.hurry(document.id)
            document = await self._document(document.id)
        return document, False

    async def find(
        self,
        *,
        path: str | None = None,
        document_id: str | None = None,
        actor_id: uuid.UUID | None = None,
        any_type: bool = False,
    ) -> Document:
        """Return a notebook's document by its file's path, opening it, or by its id.

        A room's name (`json:notebook:<id>`) is taken too. NotFoundError when there is none, or
        when it is a text file's, unless `any_type`.
        """
        if document_id is None:
            return await self.open_notebook(path or "", actor_id=actor_id)
        bare = document_id
        for prefix in _ID_PREFIXES:
            bare = bare.removeprefix(prefix)
        try:
            key = uuid.UUID(bare)
        except ValueError:
            raise NotFoundError(f"No such document: {document_id}") from None
        if self.settled is not None:
            await self.settled(key)
        document = await self._document(key)
        if document.type != "notebook" and not any_type:
            raise NotFoundError(f"No such notebook: {document_id}")
        return document

    async def edit(
        self,
        tx: Transaction,
        document_id: uuid.UUID,
        *,
        origin: str,
        actor_id: uuid.UUID | None = None,
        save: Callable[[], bool] = lambda: True,
    ) -> NotebookEditor:
        """Return the transaction's editor of a notebook, taking the document's locks.

        The locks are held until the transaction ends, so edit several documents in the order of
        their ids. What the editor changes is stored before the commit; `origin` and `actor_id`
        are those of the first call. NotFoundError when there is no such document. `save` is asked
        after the commit whether the file is to be written soon.
        """
        editor = await self.edit_any(tx, document_id, origin=origin, actor_id=actor_id, save=save)
        if not isinstance(editor, NotebookEditor):
            raise NotFoundError(f"No such notebook: {document_id}")
        return editor

    async def edit_any(
        self,
        tx: Transaction,
        document_id: uuid.UUID,
        *,
        origin: str,
        actor_id: uuid.UUID | None = None,
        save: Callable[[], bool] = lambda: True,
    ) -> Editor:
        """Return the transaction's editor of a notebook or text file, as `edit` does."""
        editors: dict[uuid.UUID, Editor] = tx.info.setdefault("document_editors", {})
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
                if memory is None:
                    return
                stored, memory.stored = memory.stored, []
                if committed and stored:
                    for listener in self.listeners:
                        listener(document_id, stored)
                if memory.version != version and save() and self.autosaves(document_id):
                    # Also when the commit failed: the database may have done it all the same.
                    self._saver.touch(document_id)
            finally:
                slot.lock.release()

        tx.on_finish(finish)
        memory = await self._current(tx, slot, document_id, lock=True)
        editor: Editor
        if isinstance(memory, TextMemory):
            editor = TextEditor(tx, memory, origin=origin, actor_id=actor_id)
        else:
            editor = NotebookEditor(tx, memory, origin=origin, actor_id=actor_id)
        editors[document_id] = editor
        version = memory.version
        tx.before_commit(editor.flush_with_others)
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

    async def snapshot(self, document_id: uuid.UUID) -> tuple[int, Any]:
        """Return a document's version and its content: a notebook with all ids, or a text."""
        return await self._read(document_id, lambda memory: memory.content())

    async def stamped_snapshot(self, document_id: uuid.UUID) -> tuple[int, tuple[Any, list[int]]]:
        """Return what `snapshot` does, with the stamps of a notebook's cells."""

        def stamped(memory: Memory) -> tuple[Any, list[int]]:
            content = memory.content()
            return content, memory.stamps() if isinstance(memory, NotebookMemory) else []

        return await self._read(document_id, stamped)

    async def merge_state(self, document_id: uuid.UUID) -> tuple[int, bytes]:
        """Return a document's version and its whole Yjs state."""
        return await self._read(document_id, lambda memory: memory.whole_state())

    async def state_for_room(self, document_id: uuid.UUID) -> tuple[int, tuple[bytes, bytes]]:
        """Return a document's version, its whole Yjs state, and that state's vector."""
        return await self._read(
            document_id, lambda memory: (memory.whole_state(), memory.doc.get_state())
        )

    async def has_cells(self, document_id: uuid.UUID) -> bool:
        """Tell whether a notebook has any cell."""
        _, found = await self._read(
            document_id, lambda memory: isinstance(memory, NotebookMemory) and bool(memory.order)
        )
        return found

    async def is_trusted(self, document_id: uuid.UUID) -> bool:
        """Tell whether all code cells of a notebook say that they are trusted."""

        def trusted(memory: Memory) -> bool:
            assert isinstance(memory, NotebookMemory)
            rows = [state.row for state in memory.states.values()]
            return all(row.metadata_.get("trusted") for row in rows if row.cell_type == "code")

        return (await self._read(document_id, trusted))[1]

    async def _read(self, document_id: uuid.UUID, what: Callable[[Memory], T]) -> tuple[int, T]:
        async with self._database.read(as_server=True) as tx:
            await tx.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            slot = self._slot(document_id)
            async with slot.lock:
                memory = await self._current(tx, slot, document_id, lock=False)
                try:
                    return memory.version, what(memory)
                finally:
                    memory.stored.clear()
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

    async def put_text(self, path: str, content: str, *, actor_id: uuid.UUID | None) -> None:
        """Make an open text file equal to `content` and save it, merging what others did."""
        document = await self.open_text(path, actor_id=actor_id)
        async with self._database.transaction() as tx:
            editor = await self.edit_any(tx, document.id, origin="api", actor_id=actor_id)
            assert isinstance(editor, TextEditor)
            editor.replace(content.replace("\r\n", "\n"))
        await self.save_now(document.id)

    async def is_open(self, path: str) -> bool:
        """Tell whether a file has a document."""
        return await self.type_at(path) is not None

    async def type_at(self, path: str) -> str | None:
        """Return the type of a file's document, None when it has none."""
        document = await self._document_at(self._disk.normalized(path))
        return None if document is None else document.type

    async def at(self, path: str) -> Document:
        """Return the document of a file that has one; NotFoundError otherwise."""
        document = await self._document_at(self._disk.normalized(path))
        if document is None:
            raise NotFoundError(f"No document is open at {path}")
        return document

    async def put_notebook(
        self, path: str, notebook: dict[str, Any], *, actor_id: uuid.UUID | None
    ) -> Document:
        """Make the notebook at `path` equal to `notebook`, creating it if absent, and save it.

        `notebook` is what `as_notebook` returns. StorageError when the disk refuses: an edit of
        an existing document is kept then, and saved when that works again.
        """
        path = self._disk.normalized(path)
        wanted = notebook
        if not await self._disk.exists(path):
            document = await self._document_at(path)
            if document is None or document.saved_version == document.version:
                wanted = {**wanted, "cells": identify(wanted["cells"], [])}
                content = await asyncio.to_thread(serialized, as_file((0, wanted))[1])
                try:
                    await self._disk.write(path, content, None)
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

    async def forget_text(self, path: str) -> None:
        """Save a text document and drop it, since its file is a notebook now; with its history.

        BadRequestError when the file is none.
        """
        document = await self.at(path)
        if document.saved_version < document.version:
            await self.save_now(document.id)
        await self._disk.read_notebook(path)
        async with self._saving.holding([document.id]) as tx:
            await tx.execute(
                delete(Document).where(Document.id == document.id, Document.type == "file"),
                execution_options={"synchronize_session": False},
            )

    async def save_now(self, document_id: uuid.UUID) -> None:
        """Write the document to its file, if that is behind; StorageError when the disk refuses."""
        await self._saving.save(document_id)

    async def overwrite(self, document_id: uuid.UUID) -> str | None:
        """Save the document over a file that cannot be read; return where that is kept, if so."""
        if self.settled is not None:
            await self.settled(document_id)
        kept = await self._saving.overwrite(document_id)
        self._saver.hurry(document_id)
        return kept

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

    async def tell_opened(self, document_id: uuid.UUID) -> None:
        """Say in the document what its file is, for front ends; no reason to write that file.

        NotFoundError when there is no such document.
        """
        async with self._database.transaction(recorder=True) as tx:
            editor = await self.edit_any(tx, document_id, origin="save", save=lambda: False)
            version = editor.version
            query = select(Document.disk_hash, Document.save_error)
            known = (await tx.execute(query.where(Document.id == document_id))).one()
            editor.memory.tell_opened(editor.path, known.disk_hash)
            editor.memory.tell_problem(known.save_error)
            await editor.flush()
            if editor.version == version:
                return
            await tx.execute(
                update(Document)
                .where(Document.id == document_id, Document.saved_version == version)
                .values(saved_version=editor.version),
                execution_options={"synchronize_session": False},
            )

    def touch(self, document_id: uuid.UUID) -> None:
        """Have a document saved soon."""
        self._saver.touch(document_id)

    async def _document_at(self, path: str) -> Document | None:
        found = await self._database.read_alone(
            queries.documents_by_path(), {"path": path}, as_server=True
        )
        return Document(**found[0]) if found else None

    async def _document(self, document_id: uuid.UUID) -> Document:
        async with self._database.read(as_server=True) as session:
            document = await session.get(Document, document_id)
        if document is None:
            raise NotFoundError(f"No such document: {document_id}")
        return document

    async def _load(
        self,
        path: str,
        file: NotebookFile | TextFile,
        actor_id: uuid.UUID | None,
        *,
        for_room: bool,
    ) -> tuple[Document, bool]:
        """Make the rows and the document of a file, unless somebody else just did."""
        async with self._database.transaction(as_server=True) as tx:
            await self._follow(tx, path, file)
            content_id = await _content_id(tx, path, file)
            query = select(Document).where(Document.content_id == content_id)
            known = (await tx.execute(query)).scalar_one_or_none()
            if known is not None:
                return known, False
            document = Document(id=uuid.uuid4(), content_id=content_id, **_KINDS[type(file)])
            tx.add(document)
            await tx.flush()
            editor = await self.edit_any(tx, document.id, origin="load", actor_id=actor_id)
            base: Any
            if isinstance(file, NotebookFile):
                assert isinstance(editor, NotebookEditor)
                base = await self._fill(tx, editor, file, actor_id, for_room=for_room)
            else:
                assert isinstance(editor, TextEditor)
                editor.replace(file.text)
                editor.memory.tell_opened(path, file.state.hash)
                base = text_base(file)
            await editor.flush()
            if isinstance(file, NotebookFile):
                base["version"] = editor.version
            await tx.execute(
                update(Document)
                .where(Document.id == document.id)
                .values(
                    saved_version=editor.version,
                    disk_hash=file.state.hash,
                    disk_base=base,
                ),
                execution_options={"synchronize_session": False},
            )
            await tx.refresh(document)
            return document, True

    async def _fill(
        self,
        tx: Transaction,
        editor: NotebookEditor,
        file: NotebookFile,
        actor_id: uuid.UUID | None,
        *,
        for_room: bool,
    ) -> Base:
        """Load a notebook into its new document; return the base for merging with its file."""
        cells = identify(file.notebook["cells"], [])
        if for_room and await self._disk.is_signed(file.notebook):
            cells = [as_trusted(cell) for cell in cells]
        base = await load_notebook(
            tx,
            editor.memory,
            {**file.notebook, "cells": cells},
            file.nbformat,
            actor_id=actor_id,
            opened=(editor.path, file.state.hash) if for_room else None,
        )
        asyncio.get_running_loop().call_later(_ROOM_SECONDS, editor.memory.forget_whole)
        return base

    async def _follow(self, tx: Transaction, path: str, file: NotebookFile | TextFile) -> None:
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
    ) -> Memory:
        """Return the document in memory at its stored version; needs the slot's lock."""
        query = queries.locked_version if lock else queries.current_version
        found = (await tx.execute(query(), {"document_id": document_id})).one_or_none()
        if found is None:
            slot.memory = None
            raise NotFoundError(f"No such document: {document_id}")
        memory, slot.memory = slot.memory, None
        known = memory.version if memory is not None else -1
        if memory is None or not found.compacted_version <= known <= found.version:
            build = load.build if found.type == "notebook" else text.build
            memory = await build(tx, document_id, found.version)
        elif memory.version < found.version:
            if isinstance(memory, TextMemory):
                await text.catch_up(tx, memory, found.version)
            else:
                await load.catch_up(tx, memory, found.version)
        memory.path = found.path
        slot.memory = memory
        return memory

    @asynccontextmanager
    async def editing(
        self, document_id: uuid.UUID, *, origin: str, actor_id: uuid.UUID | None
    ) -> AsyncIterator[tuple[Transaction, Editor]]:
        """Yield a transaction of its own and the document's editor in it."""
        async with self._database.transaction(as_server=True) as tx:
            yield tx, await self.edit_any(tx, document_id, origin=origin, actor_id=actor_id)


_KINDS: dict[type, dict[str, str]] = {
    NotebookFile: {"type": "notebook", "format": "json"},
    TextFile: {"type": "file", "format": "text"},
}


async def _content_id(tx: Transaction, path: str, file: NotebookFile | TextFile) -> uuid.UUID:
    """Return the id of the file's row, locked, made if absent."""
    folder, _, name = path.rpartition("/")
    columns = {
        **_KINDS[type(file)],
        "path": path,
        "name": name,
        "parent_id": await rows.folder_id(tx, folder),
        "file_key": file.state.key,
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
