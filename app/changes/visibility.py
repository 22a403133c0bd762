"""Who may see which records: the one place that the feed asks.

A record has scopes (`models.published.Scope`): the kernel, document, user or server that it belongs
to. It may be seen when any of them may. The answer is asked for snapshots, upserts and deletes
alike, and remembered for each user until people or permissions change; then it is asked again for
all that was remembered, and who gained or lost anything is sent snapshots of what that concerns.
"""

from collections.abc import Callable, Mapping, Set
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from app.auth.identity import Identity
from app.changes.tables import FeedTable, Value

# A resource and its id; the id is empty for the server as a whole.
ScopeKey = tuple[str, str]

_IS_ADMIN = "SELECT admin FROM users WHERE id = $1 AND disabled_at IS NULL"
_READABLE = "SELECT resource, id FROM datastore_readable($1, $2::text[], $3::text[])"


class Visibility(Protocol):
    """What decides."""

    async def sees_all(self, identity: Identity) -> bool:
        """Tell whether the user may read everything, but what is another user's alone."""

    async def readable(self, identity: Identity, scopes: Set[ScopeKey]) -> set[ScopeKey]:
        """Return those of the scopes whose records the user may read."""


class AskDatabase:
    """The one rule for access, asked in SQL by the server's own role."""

    def __init__(self, connection: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._connection = connection

    async def sees_all(self, identity: Identity) -> bool:
        """Administrators may."""
        async with self._connection() as connection:
            return bool(await connection.fetchval(_IS_ADMIN, identity.id))

    async def readable(self, identity: Identity, scopes: Set[ScopeKey]) -> set[ScopeKey]:
        """Ask for all of them at once."""
        listed = sorted(scopes)
        async with self._connection() as connection:
            rows = await connection.fetch(
                _READABLE, identity.id, [kind for kind, _ in listed], [key for _, key in listed]
            )
        return {(row["resource"], row["id"]) for row in rows}


def scopes_of(table: FeedTable, values: Mapping[str, Value]) -> set[ScopeKey]:
    """Return the scopes of a record with these values of its key columns."""
    found: set[ScopeKey] = set()
    for scope in table.published.scopes:
        if scope.column is None:
            found.add((scope.resource, ""))
        elif (value := values.get(scope.column)) is not None:
            found.add((scope.resource, str(value)))
    return found


class Sight:
    """What one user may see, as far as it was asked."""

    def __init__(self, visibility: Visibility, identity: Identity) -> None:
        self._visibility = visibility
        self._identity = identity
        self._all: bool | None = None
        self._known: dict[ScopeKey, bool] = {}

    async def learn(self, scopes: Set[ScopeKey]) -> None:
        """Ask for those scopes that are not known yet."""
        if self._all is None:
            self._all = await self._visibility.sees_all(self._identity)
        if self._all:
            return
        unknown = {scope for scope in scopes if scope not in self._known}
        if unknown:
            readable = await self._visibility.readable(self._identity, unknown)
            self._known.update((scope, scope in readable) for scope in unknown)

    def sees(self, table: FeedTable, values: Mapping[str, Value]) -> bool:
        """Tell whether a record may be seen; its scopes must have been learned."""
        scopes = scopes_of(table, values)
        if self._all:
            own = ("user", str(self._identity.id))
            return any(scope[0] != "user" or scope == own for scope in scopes)
        return any(self._known.get(scope, False) for scope in scopes)

    async def relearn(self) -> set[str] | None:
        """Ask again for all that is known; return the resources gained or lost, None for all."""
        before, known = self._all, self._known
        if before is None:
            return set()
        self._all = await self._visibility.sees_all(self._identity)
        if self._all or before:
            self._known = {}
            return set() if self._all == before else None
        readable = await self._visibility.readable(self._identity, known.keys())
        self._known = {scope: scope in readable for scope in known}
        return {scope[0] for scope, seen in known.items() if seen != (scope in readable)}
