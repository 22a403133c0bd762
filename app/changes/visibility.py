"""Who may see which records: the one place that the feed asks.

A record has scopes (`models.published.Scope`): the kernel, document, user or server that it belongs
to. It may be seen when any of them may. The answer is asked for snapshots, upserts and deletes
alike, and remembered for each user until a table that it rests on changes; then it is asked again
for all that was remembered, and who gained or lost anything is sent what that means.
"""

from collections.abc import Mapping, Set
from typing import Protocol

from app.auth.identity import Identity
from app.changes.tables import FeedTable, Value

# A resource and its id; the id is empty for the server as a whole.
ScopeKey = tuple[str, str]


class Visibility(Protocol):
    """What decides. `rests_on` are the tables whose changes may change its answers."""

    rests_on: frozenset[str]
    everyone_sees_all: bool

    async def readable(self, identity: Identity, scopes: Set[ScopeKey]) -> set[ScopeKey]:
        """Return those of the scopes whose records the user may read."""

    async def may_follow(self, identity: Identity) -> bool:
        """Tell whether the user may still be connected."""


class OwnerSeesAll:
    """As long as there is one user: everything is theirs."""

    rests_on: frozenset[str] = frozenset()
    everyone_sees_all = True

    async def readable(self, identity: Identity, scopes: Set[ScopeKey]) -> set[ScopeKey]:  # noqa: ARG002 (the seam's signature)
        """All of them."""
        return set(scopes)

    async def may_follow(self, identity: Identity) -> bool:  # noqa: ARG002 (the seam's signature)
        """Always."""
        return True


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
        self._known: dict[ScopeKey, bool] = {}

    async def learn(self, scopes: Set[ScopeKey]) -> None:
        """Ask for those scopes that are not known yet."""
        if self._visibility.everyone_sees_all:
            return
        unknown = {scope for scope in scopes if scope not in self._known}
        if unknown:
            readable = await self._visibility.readable(self._identity, unknown)
            self._known.update((scope, scope in readable) for scope in unknown)

    def sees(self, table: FeedTable, values: Mapping[str, Value]) -> bool:
        """Tell whether a record may be seen; its scopes must have been learned."""
        if self._visibility.everyone_sees_all:
            return True
        return any(self._known.get(scope, False) for scope in scopes_of(table, values))

    async def relearn(self) -> tuple[set[ScopeKey], set[ScopeKey]]:
        """Ask again for all that is known; return what was gained and what was lost."""
        readable = await self._visibility.readable(self._identity, self._known.keys())
        gained = {scope for scope in readable if self._known.get(scope) is False}
        lost = {scope for scope, seen in self._known.items() if seen and scope not in readable}
        self._known = {scope: scope in readable for scope in self._known}
        return gained, lost
