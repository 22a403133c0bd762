"""What a person may do in a room, asked of the one rule for access.

Rooms ask when somebody joins, and again every second, so that what is taken away ends soon.
"""

import uuid
from collections.abc import Awaitable, Callable
from typing import Literal

from app.auth.access import may
from app.auth.identity import Identity
from app.db.engine import Database

Right = Literal["read", "write"]
# None: the person may not know of the document.
Rights = Callable[[Identity, uuid.UUID], Awaitable[Right | None]]


def by_permissions(database: Database) -> Rights:
    """Return what tells a person's right to a document: their permissions, and their token's."""

    async def rights(identity: Identity, document_id: uuid.UUID) -> Right | None:
        target = str(document_id)
        if identity.is_within_scopes("write", "documents") and await may(
            database, identity, "write", "documents", target
        ):
            return "write"
        return "read" if await may(database, identity, "read", "documents", target) else None

    return rights
