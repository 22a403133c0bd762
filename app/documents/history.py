"""What a document was: who changed what and when, its content at a version, named versions.

Restoring is a new edit: what was done since stays in the history.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert
from sqlalchemy.exc import IntegrityError

from app.db.engine import Database, Transaction
from app.documents import queries, updates
from app.documents.memory import NotebookMemory
from app.documents.merge_state import MergeState
from app.documents.store import DocumentStore
from app.documents.text import TextEditor, TextMemory
from app.documents.undo import Undo
from app.errors import BadRequestError, ConflictError, NotFoundError
from models import Document, DocumentVersion
from models.codec import encode_text

_NAME_LIMIT = 200


@dataclass(frozen=True)
class Moment:
    """A version as somebody asks for it: by number, time or name; the present without any."""

    version: int | None = None
    at: datetime | None = None
    name: str | None = None


class History:
    """Reads documents' histories, names versions and restores them."""

    def __init__(self, database: Database, store: DocumentStore, undo: Undo) -> None:
        self._database = database
        self._store = store
        self._undo = undo

    async def changes(
        self, document_id: uuid.UUID, *, before: int | None, limit: int
    ) -> dict[str, Any]:
        """Return the last changes before a version, latest first, with what they did to which cell.

        What compaction joined is one change; what it did to cells is not told.
        """
        found, cells = await self._undo.changes(document_id)
        async with self._database.read() as tx:
            query = queries.changes_before(document_id, before, limit)
            rows = (await tx.execute(query)).all()
        return {
            "document_id": str(document_id),
            "version": found.version,
            "compacted_version": found.compacted_version,
            "changes": [
                {
                    "version": row.version,
                    "at": row.created_at,
                    "user": row.user_name,
                    "origin": row.origin,
                    "edits": row.edits,
                    "undoes": row.undoes,
                    "size_bytes": row.size_bytes,
                    "cells": cells.get(row.version, {}),
                }
                for row in rows
            ],
        }

    async def content(self, document_id: uuid.UUID, moment: Moment) -> tuple[int, Any]:
        """Return the version that a moment means, and the notebook or text that it was."""
        async with self._database.read() as tx:
            document = await tx.get(Document, document_id)
            if document is None:
                raise NotFoundError(f"No such document: {document_id}")
            memory: MergeState
            memory = (NotebookMemory if document.type == "notebook" else TextMemory)(document_id)
            await self._bring_to(tx, memory, document, moment)
        if isinstance(memory, NotebookMemory):
            with memory.doc.transaction():
                memory.adopt_all()
        return memory.version, memory.content()

    async def _bring_to(
        self, tx: Transaction, memory: MergeState, document: Document, moment: Moment
    ) -> None:
        if moment.name is not None:
            named = (await tx.execute(queries.named_version(document.id, moment.name))).first()
            if named is None:
                raise NotFoundError(f"No version is named {moment.name}")
            memory.doc.apply_update(named[0].state)
            memory.version = named[0].version
            return
        version = document.version if moment.version is None else moment.version
        if moment.at is not None:
            version = (
                await tx.execute(queries.version_at(document.id, moment.at))
            ).scalar_one_or_none() or 0
        if not 0 < version <= document.version or version < document.compacted_version:
            raise NotFoundError("There is no such version, or it is kept no longer")
        await updates.replay(tx, memory, version)

    async def versions(self, document_id: uuid.UUID) -> list[dict[str, Any]]:
        """Return the named versions, the latest first."""
        async with self._database.read() as tx:
            rows = (await tx.execute(queries.named_versions(document_id))).all()
        return [
            {"name": row.name, "version": row.version, "user": row.user_name, "at": row.created_at}
            for row in rows
        ]

    async def name(
        self, document_id: uuid.UUID, name: str, moment: Moment, *, actor_id: uuid.UUID
    ) -> int:
        """Give a version a name; return the version. ConflictError when the name is taken."""
        if not 0 < len(name) <= _NAME_LIMIT or encode_text(name) != name:
            raise BadRequestError(f"name must be a text of 1 to {_NAME_LIMIT} characters")
        async with self._database.read() as tx:
            document = await tx.get(Document, document_id)
            if document is None:
                raise NotFoundError(f"No such document: {document_id}")
            memory = MergeState(document_id)
            await self._bring_to(tx, memory, document, moment)
        try:
            async with self._database.transaction() as tx:
                await tx.execute(
                    insert(DocumentVersion).values(
                        id=uuid.uuid4(),
                        document_id=document_id,
                        version=memory.version,
                        name=name,
                        state=memory.doc.get_update(),
                        actor_id=actor_id,
                    )
                )
        except IntegrityError as error:
            if "document_versions_document_id_name_key" in str(error.orig):
                raise ConflictError(f"A version is named {name} already") from error
            raise
        return memory.version

    async def forget(self, document_id: uuid.UUID, name: str) -> None:
        """Take a version's name away; NotFoundError when none has it."""
        async with self._database.transaction() as tx:
            gone = await tx.execute(
                delete(DocumentVersion)
                .where(DocumentVersion.document_id == document_id, DocumentVersion.name == name)
                .returning(DocumentVersion.id),
                execution_options={"synchronize_session": False},
            )
            if gone.first() is None:
                raise NotFoundError(f"No version is named {name}")

    async def restore(
        self, document_id: uuid.UUID, moment: Moment, *, actor_id: uuid.UUID
    ) -> dict[str, int]:
        """Make the document what it was, as a new edit; return both versions."""
        restored, content = await self.content(document_id, moment)
        async with self._database.transaction() as tx:
            editor = await self._store.edit_any(
                tx, document_id, origin="restore", actor_id=actor_id
            )
            if isinstance(editor, TextEditor):
                editor.replace(content)
            else:
                editor.replace(content)
            await editor.flush()
            return {"restored": restored, "version": editor.version}
