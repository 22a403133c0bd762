"""What a person may do in a room: the seam where permissions come in.

Until there are permissions, who is known may write. Rooms ask when somebody joins, and again every
few seconds, so that what is taken away ends soon.
"""

import uuid
from collections.abc import Awaitable, Callable
from typing import Literal

from app.auth.identity import Identity

Right = Literal["read", "write"]
# None: the person may not know of the document.
Rights = Callable[[Identity, uuid.UUID], Awaitable[Right | None]]


async def everyone_writes(identity: Identity, document_id: uuid.UUID) -> Right | None:  # noqa: ARG001 (as called)
    """Let everyone write who is known."""
    return "write"
