r"""Text files as documents: in memory, edited within a transaction, and projected to their row.

The shape of the document is `jupyter_ydoc.YUnicode`'s: a Yjs text named `source`. Line ends are
`\n` there, as editors in browsers count them.
"""

import uuid
from typing import Any

from pycrdt import Text
from sqlalchemy.dialects.postgresql import insert

from app.db.engine import Transaction
from app.documents import updates
from app.documents.memory import apply_splices
from app.documents.merge_state import MergeState
from app.documents.splices import text_splices
from models import TextContent


class TextMemory(MergeState):
    """A text file's document."""

    def __init__(self, document_id: uuid.UUID) -> None:
        super().__init__(document_id)
        self.source = self.doc.get("source", type=Text)
        self._subscriptions: list[Any] = []

    def watch(self) -> None:
        """Start to follow the document's events."""
        self._subscriptions = [self.doc.observe(lambda event: self.updates.append(event.update))]

    def content(self) -> str:
        """Return the text."""
        return str(self.source)


class TextEditor:
    """The edits of a text file within one transaction that holds the document's lock."""

    def __init__(
        self, tx: Transaction, memory: TextMemory, *, origin: str, actor_id: uuid.UUID | None
    ) -> None:
        self._tx = tx
        self._memory = memory
        self.origin = origin
        self.actor_id = actor_id
        self.undoes: list[int] | None = None

    @property
    def document_id(self) -> uuid.UUID:
        """The document's id."""
        return self._memory.document_id

    @property
    def path(self) -> str:
        """The path of the document's file."""
        return self._memory.path

    @property
    def version(self) -> int:
        """The version that is stored, raised by `flush`."""
        return self._memory.version

    @property
    def memory(self) -> TextMemory:
        """The document in memory."""
        return self._memory

    def content(self) -> str:
        """Return the text as it is now."""
        return self._memory.content()

    def replace(self, text: str) -> None:
        """Make the text equal to another with as few edits as possible."""
        with self._memory.edit():
            apply_splices(self._memory.source, text_splices(self._memory.content(), text))

    def apply_update(self, update: bytes) -> None:
        """Apply a Yjs update that came from outside (a room)."""
        with self._memory.edit():
            self._memory.doc.apply_update(update)

    async def flush(self) -> None:
        """Store the edits made so far; done before the commit by itself."""
        await self.flush_with_others()
        await self._tx.write_now()

    async def flush_with_others(self) -> None:
        """Store the edits made so far, part of them with `Transaction.write_with_others`."""
        memory = self._memory
        if not memory.updates:
            return
        await updates.append(
            self._tx, memory, origin=self.origin, actor_id=self.actor_id, undoes=self.undoes
        )
        row = insert(TextContent).values(id=memory.document_id, text=memory.content())
        await self._tx.execute(
            row.on_conflict_do_update(index_elements=["id"], set_={"text": row.excluded.text})
        )
        await updates.write_snapshot(self._tx, memory)


async def build(tx: Transaction, document_id: uuid.UUID, version: int) -> TextMemory:
    """Return the document as it was stored at `version`."""
    memory = TextMemory(document_id)
    await updates.replay(tx, memory, version)
    memory.watch()
    return memory


async def catch_up(tx: Transaction, memory: TextMemory, version: int) -> None:
    """Apply what other processes stored, up to `version`."""
    await updates.apply_newer(tx, memory, version)
    memory.updates.clear()
    memory.version = version
