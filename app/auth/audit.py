"""Putting on record what was done about access, and what was tried.

What is done to users, groups, tokens, permissions and links, and executions on another's kernel,
triggers record, whatever does it; here is the rest: log-ins and denied attempts.
"""

import time
import uuid
from collections import OrderedDict
from typing import Any

from app.auth.identity import Identity
from app.db.engine import Database, Transaction
from models import AuditEntry

# Of one person, denied attempts are recorded this often: who tries all ids must not fill the disk.
_DENIALS_AT_ONCE = 20
_SECONDS_EACH = 3.0
_PEOPLE = 10_000


class Denials:
    """Bounds how many denied attempts of one person are recorded; counts what is left out."""

    def __init__(self) -> None:
        self._clear_at: OrderedDict[uuid.UUID, float] = OrderedDict()
        self._left_out: dict[uuid.UUID, int] = {}

    def take(self, user_id: uuid.UUID) -> int | None:
        """Return how many were left out before this one, None when this one is left out too."""
        now = time.monotonic()
        debt = max(0.0, self._clear_at.pop(user_id, 0.0) - now)
        self._clear_at[user_id] = now + debt
        while len(self._clear_at) > _PEOPLE:
            self._left_out.pop(self._clear_at.popitem(last=False)[0], None)
        if debt > (_DENIALS_AT_ONCE - 1) * _SECONDS_EACH:
            self._left_out[user_id] = self._left_out.get(user_id, 0) + 1
            return None
        self._clear_at[user_id] = now + debt + _SECONDS_EACH
        return self._left_out.pop(user_id, 0)


def add(tx: Transaction, event: str, identity: Identity | None, **detail: Any) -> None:
    """Add an entry within a transaction of the server's."""
    tx.add(
        AuditEntry(
            event=event,
            actor_id=identity.id if identity else None,
            actor=identity.name if identity else None,
            detail=detail,
        )
    )


async def record(database: Database, event: str, identity: Identity | None, **detail: Any) -> None:
    """Record an event in a transaction of its own."""
    async with database.transaction(as_server=True) as tx:
        add(tx, event, identity, **detail)


async def record_denial(
    database: Database, identity: Identity, action: str, resource: str, target: str | None
) -> None:
    """Record that somebody tried what they may not, within bounds."""
    denials: Denials = database.info.setdefault("denials", Denials())
    left_out = denials.take(identity.id)
    if left_out is None:
        return
    shown = None if target is None else ascii(target)[1:-1][:500]
    detail: dict[str, Any] = {"action": action, "resource": resource, "target": shown}
    if left_out:
        detail["left_out_before"] = left_out
    await record(database, "denied", identity, **detail)
