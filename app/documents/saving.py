"""Between a document and its file: saving, and taking what another program wrote.

One process at a time does either for a document (an advisory lock), while edits go on. Before a
file is written, its hash is stored as `pending`, so that a server that dies before it can store
that it saved finds its own file again instead of a stranger's.
"""

import asyncio
import contextlib
import hashlib
import logging
import uuid
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from pycrdt import Array
from sqlalchemy import func, select, update

from app.contents.disk import Disk, DiskChangedError, FileState, NotebookFile, TextFile
from app.contents.notebook_format import serialized
from app.db.engine import Database, Transaction
from app.documents import updates
from app.documents.editor import NotebookEditor
from app.documents.merge import (
    Base,
    KnownParts,
    Texts,
    base_of,
    merge,
    nearest,
    remember,
    text_hash,
    wanted_texts,
)
from app.documents.merge_state import UNREADABLE, MergeState
from app.documents.replace import identify
from app.documents.text import TextEditor
from app.documents.text_merge import merge_text
from app.errors import BadRequestError, DomainError, NotFoundError, StorageError
from models import Content, Document

if TYPE_CHECKING:
    from app.documents.store import DocumentStore

log = logging.getLogger(__name__)


class DocumentGoneError(NotFoundError):
    """The document was deleted, with its file: there is nothing to save."""


# Each save holds a connection while it writes; more at once would take them from requests.
_SAVES_AT_ONCE = 3
_ATTEMPTS = 5


def as_file(versioned: tuple[int, dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    """Return a version and notebook with ids only where nbformat has them (since 4.5)."""
    version, notebook = versioned
    if (notebook["nbformat"], notebook["nbformat_minor"]) >= (4, 5):
        return version, notebook
    cells = [{key: cell[key] for key in cell if key != "id"} for cell in notebook["cells"]]
    return version, {**notebook, "cells": cells}


class DocumentSaving:
    """Saves documents and merges what others did to their files."""

    def __init__(self, database: Database, disk: Disk, store: "DocumentStore") -> None:
        self._database = database
        self._disk = disk
        self._store = store
        self._slots = asyncio.Semaphore(_SAVES_AT_ONCE)
        self._locks: dict[uuid.UUID, asyncio.Lock] = {}
        self._known = KnownParts()

    async def save(self, document_id: uuid.UUID) -> None:
        """Write a document to its file if that is behind.

        What another program did to the file since is merged first. StorageError when the disk
        refuses, and the document's `save_error` says why.
        """
        async with self._alone(document_id):
            try:
                await self._write_merged(document_id)
            except DocumentGoneError:
                log.info("document %s was deleted before it was saved", document_id)
            except DomainError as error:
                await self._note_error(document_id, error)
                raise

    async def take_from_disk(self, document_id: uuid.UUID, actor_id: uuid.UUID | None) -> None:
        """Merge what another program did to the file, if it did.

        BadRequestError when it made it unreadable, which is told in the document.
        """
        async with self._alone(document_id):
            try:
                await self._take(document_id, actor_id)
            except BadRequestError as error:
                await self._note_error(document_id, error)
                raise

    async def overwrite(self, document_id: uuid.UUID) -> str | None:
        """Save a document over a file that cannot be merged; return where that is kept.

        None when it could be merged after all.
        """
        async with self._alone(document_id):
            kept = None
            try:
                await self._take(document_id, None)
            except NotFoundError:
                pass  # it is written again
            except BadRequestError:
                document, path = await self._document(document_id)
                kept, state = await self._disk.keep_copy(path)
                await self._store_document(
                    document_id, disk_hash=state.hash, saved_version=document.version - 1
                )
            await self._write_merged(document_id)
            return kept

    async def _write_merged(self, document_id: uuid.UUID) -> None:
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(DiskChangedError):
                await self._write(document_id)
                return
            await self._take(document_id, None)
        raise StorageError("the file is being changed by another program all the time")

    async def _write(self, document_id: uuid.UUID) -> None:
        document, path = await self._document(document_id)
        if document.saved_version >= document.version:
            return
        with contextlib.suppress(NotFoundError):
            # Before `pending` is replaced: the file may be the one that it tells of.
            if (await self._disk.state(path)).hash != document.disk_hash:
                raise DiskChangedError(path)
        version, (found, stamps) = await self._store.stamped_snapshot(document_id)
        known: Any = document.disk_base
        newline = (known or {}).get("newline", "\n")
        content, new_hash, base = await asyncio.to_thread(self._encode, found, stamps, newline)
        old_base: Any = document.disk_base
        if new_hash != document.disk_hash:
            pending = {"hash": new_hash, "version": version, "base": base}
            await self._store_document(
                document_id, disk_base=(old_base or {}) | {"pending": pending}
            )
            if old_base and document.type == "notebook" and old_base.get("nbformat", 4) < 4:
                with contextlib.suppress(NotFoundError):
                    await self._disk.checkpoint(path)
        state = await self._disk.write(path, content, document.disk_hash, content_hash=new_hash)
        await self._store_saved(document_id, version, base, state)

    def _encode(self, content: Any, stamps: list[int], newline: str) -> tuple[bytes, str, Any]:
        """Return a file's bytes, their hash and its base."""
        base: Any
        if isinstance(content, str):
            base = {"text": content, "newline": newline, "pending": None}
            encoded = content.replace("\n", newline).encode()
        else:
            base = base_of(content, stamps=stamps, known=self._known)
            encoded = serialized(as_file((0, content))[1])
        return encoded, hashlib.sha256(encoded).hexdigest(), base

    async def _take(self, document_id: uuid.UUID, actor_id: uuid.UUID | None) -> None:
        document, path = await self._document(document_id)
        notebook = document.type == "notebook"
        file: NotebookFile | TextFile
        file = await (self._disk.read_notebook if notebook else self._disk.read_text)(path)
        if file.state.hash == document.disk_hash:
            if document.save_error is not None and document.saved_version >= document.version:
                async with self._database.transaction(recorder=True) as tx:
                    await self._tell_problem(tx, document_id, None)
            return
        base: Any = document.disk_base
        pending = (base or {}).get("pending")
        if pending and pending["hash"] == file.state.hash:
            await self._store_saved(document_id, pending["version"], pending["base"], file.state)
            return
        if isinstance(file, TextFile):
            await self._merge_text(document_id, (base or {}).get("text"), file, actor_id)
            return
        if base is not None and "cells" not in base:
            base = None
        await self._merge(document_id, base, file, actor_id)

    async def _merge_text(
        self,
        document_id: uuid.UUID,
        base: str | None,
        file: TextFile,
        actor_id: uuid.UUID | None,
    ) -> None:
        async with self._store.editing(document_id, origin="disk", actor_id=actor_id) as (
            tx,
            editor,
        ):
            assert isinstance(editor, TextEditor)
            editor.replace(merge_text(base, editor.content(), file.text))
            editor.memory.tell_problem(None)
            same = editor.content() == file.text
            if same:
                editor.memory.tell_saved(editor.path, file.state.hash)
            await editor.flush()
            values: dict[str, Any] = {
                "disk_hash": file.state.hash,
                "disk_base": text_base(file),
                "save_error": None,
            }
            if same:
                values["saved_version"] = editor.version
            await _update_document(tx, document_id, values)
            await _update_content(tx, document_id, file.state)

    async def _merge(
        self,
        document_id: uuid.UUID,
        base: Base | None,
        file: NotebookFile,
        actor_id: uuid.UUID | None,
    ) -> None:
        async with self._store.editing(document_id, origin="disk", actor_id=actor_id) as (
            tx,
            editor,
        ):
            assert isinstance(editor, NotebookEditor)
            current = editor.notebook()
            known = [(cell["id"], cell["cell_type"], cell["source"]) for cell in current["cells"]]
            disk = {**file.notebook, "cells": identify(file.notebook["cells"], known)}
            running = editor.running()
            texts = await self._texts(tx, document_id, wanted_texts(base, disk))
            editor.replace(await asyncio.to_thread(_merged, base, current, disk, running, texts))
            editor.memory.tell_problem(None)
            disk_base = await asyncio.to_thread(base_of, disk, file.nbformat)
            values: dict[str, Any] = {
                "disk_hash": file.state.hash,
                "disk_base": remember(disk_base, base),
                "save_error": None,
            }
            found = await asyncio.to_thread(base_of, editor.notebook(), file.nbformat)
            same = found == disk_base
            if same:
                editor.memory.tell_saved(editor.path, file.state.hash)
            await editor.flush()
            if same:
                values["saved_version"] = editor.version
                values["disk_base"]["version"] = editor.version
            await _update_document(tx, document_id, values)
            await _update_content(tx, document_id, file.state)

    async def _texts(
        self, tx: Transaction, document_id: uuid.UUID, wanted: dict[str, dict[str, int]]
    ) -> Texts:
        """Return texts that cells had at versions of the document, those that are still known."""
        versions = sorted({version for hashes in wanted.values() for version in hashes.values()})
        query = select(Document.compacted_version).where(Document.id == document_id)
        compacted = (await tx.execute(query)).scalar_one() if versions else 0
        state = MergeState(document_id)
        cells = state.doc.get("cells", type=Array)
        sources: dict[tuple[int, str], tuple[str, str]] = {}
        for version in versions:
            if version < compacted:
                continue
            if state.version:
                await updates.apply_newer(tx, state, version)
                state.version = version
            else:
                await updates.replay(tx, state, version)
            for cell in cells:
                if cell["id"] in wanted:
                    text = str(cell["source"]), str(cell["cell_type"])
                    sources[version, cell["id"]] = text
        found: Texts = {cell_id: {} for cell_id in wanted}
        for cell_id, hashes in wanted.items():
            for digest, version in hashes.items():
                source, kind = sources.get((version, cell_id), ("", ""))
                if text_hash(kind, source) == digest:
                    found[cell_id][digest] = source
        return found

    async def _store_saved(
        self, document_id: uuid.UUID, version: int, base: Base, state: FileState
    ) -> None:
        async with self._database.transaction(recorder=True) as tx:
            # What rooms are told is a version of its own, which the file has too.
            editor = await self._store.edit_any(tx, document_id, origin="save", save=lambda: False)
            query = select(Document.disk_base).where(Document.id == document_id)
            before: Any = (await tx.execute(query)).scalar_one()
            if "cells" in base:
                base = {**base, "version": version}
            is_current = editor.version == version
            editor.memory.tell_saved(editor.path, state.hash)
            editor.memory.tell_problem(None)
            await editor.flush()
            await _update_document(
                tx,
                document_id,
                {
                    "saved_version": editor.version if is_current else version,
                    "saved_at": func.now(),
                    "save_error": None,
                    "disk_hash": state.hash,
                    "disk_base": remember(base, before) if "cells" in base else base,
                },
            )
            await _update_content(tx, document_id, state)

    async def _store_document(self, document_id: uuid.UUID, **columns: Any) -> None:
        async with self._database.transaction(recorder=True) as tx:
            await _update_document(tx, document_id, columns)

    async def _note_error(self, document_id: uuid.UUID, error: DomainError) -> None:
        # Only what another program wrote is a bad request here.
        unreadable = isinstance(error, BadRequestError)
        message = f"{UNREADABLE}{error.message}" if unreadable else error.message
        try:
            async with self._database.transaction(recorder=True) as tx:
                await self._tell_problem(tx, document_id, message)
        except Exception:
            log.exception("cannot store why document %s was not saved", document_id)

    async def _tell_problem(
        self, tx: Transaction, document_id: uuid.UUID, message: str | None
    ) -> None:
        """Store why a document is not saved, and tell its rooms; no reason to write its file."""
        editor = await self._store.edit_any(tx, document_id, origin="save", save=lambda: False)
        version = editor.version
        editor.memory.tell_problem(message)
        await editor.flush()
        await _update_document(tx, document_id, {"save_error": message})
        await tx.execute(
            update(Document)
            .where(Document.id == document_id, Document.saved_version == version)
            .values(saved_version=editor.version),
            execution_options={"synchronize_session": False},
        )

    async def _document(self, document_id: uuid.UUID) -> tuple[Document, str]:
        query = (
            select(Document, Content.path)
            .join(Content, Content.id == Document.content_id)
            .where(Document.id == document_id)
        )
        async with self._database.read(as_server=True) as session:
            found = (await session.execute(query)).one_or_none()
        if found is None:
            raise DocumentGoneError(f"No such document: {document_id}")
        return found[0], found[1]

    @asynccontextmanager
    async def holding(self, document_ids: Collection[uuid.UUID]) -> AsyncIterator[Transaction]:
        """Keep the files of documents from being saved or merged; yield a transaction for that.

        For renaming and deleting: whoever waits finds the path that the transaction left.
        """
        wanted = sorted(document_ids)
        async with AsyncExitStack() as stack:
            for document_id in wanted:
                lock = self._locks.setdefault(document_id, asyncio.Lock())
                await stack.enter_async_context(lock)
            tx = await stack.enter_async_context(self._database.transaction(recorder=True))
            for document_id in wanted:
                await tx.execute(select(func.pg_advisory_xact_lock(_key(document_id))))
            yield tx

    @asynccontextmanager
    async def _alone(self, document_id: uuid.UUID) -> AsyncIterator[None]:
        """Hold the right to touch the document's file, in this process and among all."""
        lock = self._locks.setdefault(document_id, asyncio.Lock())
        try:
            async with lock, self._slots, self._database.transaction(recorder=True) as tx:
                await tx.execute(select(func.pg_advisory_xact_lock(_key(document_id))))
                yield
        finally:
            if not lock.locked():
                self._locks.pop(document_id, None)


def _merged(
    base: Base | None,
    document: dict[str, Any],
    disk: dict[str, Any],
    running: set[str],
    texts: Texts,
) -> dict[str, Any]:
    return merge(nearest(base, disk), document, disk, running, texts)


def _key(document_id: uuid.UUID) -> int:
    return int.from_bytes(document_id.bytes[:8], "big", signed=True)


def text_base(file: TextFile) -> dict[str, Any]:
    """Return what `documents.disk_base` keeps of a text file: the text, for a merge by lines."""
    return {"text": file.text, "newline": file.newline, "pending": None}


async def _update_document(
    tx: Transaction, document_id: uuid.UUID, columns: dict[str, Any]
) -> None:
    await tx.execute(
        update(Document).where(Document.id == document_id).values(**columns),
        execution_options={"synchronize_session": False},
    )


async def _update_content(tx: Transaction, document_id: uuid.UUID, state: FileState) -> None:
    content_id = select(Document.content_id).where(Document.id == document_id).scalar_subquery()
    await tx.execute(
        update(Content)
        .where(Content.id == content_id)
        .values(
            size=state.size,
            created=state.created,
            last_modified=state.last_modified,
            writable=state.writable,
            hash=state.hash,
            hash_algorithm="sha256",
            file_key=state.key,
            missing_since=None,
        ),
        execution_options={"synchronize_session": False},
    )
