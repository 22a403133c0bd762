"""What a person may do in a room, asked of the one rule for access.

Rooms ask when somebody joins, and again every second, so that what is taken away ends soon.
"""

import uuid
from collections.abc import Awaitable, Callable
from typing import Literal

from app.auth.access import ask
from app.auth.identity import Identity
from app.db.engine import Database

Right = Literal["read", "write"]
# None: the person may not know of the document.
Rights = Callable[[Identity, uuid.UUID], Awaitable[Right | None]]


def by_permissions(database: Database) -> Rights:
    """Return what tells a person's right to a document: their permissions, and their token's."""

    async def rights(identity: Identity, document_id: uuid.UUID) -> Right | None:
        # Not `access.may`: it takes an administrator's word for it, who may be one no longer.
        read, write = await ask(
            database, identity.id, "documents", str(document_id), "read", "write"
        )
        if write and identity.is_within_scopes("write", "documents"):
            return "write"
        return "read" if read else None

    return rights
