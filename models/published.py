"""What of each table goes out to clients, and by what they may filter: the declaration on a model.

Every model has a `__feed__`: `Published`, which names each of its columns exactly once as sent,
announced or withheld, or `Unpublished` with the reason. Tests hold that none is forgotten, and that
the triggers `datastore_watch` installed are those of the declaration. How to add a table is in
docs/architecture.md.
"""

from dataclasses import dataclass
from typing import Literal

# `datastore_may`'s, and: "content" by id instead of path, "cells" for what their documents say,
# "everyone" for what every user may see, "user" for what is that user's alone
# (`datastore_readable`).
Resource = Literal[
    "cells",
    "comms",
    "content",
    "contents",
    "documents",
    "everyone",
    "executions",
    "kernels",
    "server",
    "sessions",
    "user",
]


@dataclass(frozen=True, slots=True)
class Scope:
    """What decides who may see a record: the resource whose id its `column` has.

    `column` is null for the resource as a whole.
    """

    resource: Resource
    column: str | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """A watched table.

    `sent` columns are in every record, `announced` ones (large) only where a subscription asks for
    them, `withheld` ones (secrets, internals) never. `filters` are the columns a subscription may
    compare; they and the columns of `scopes` are kept with deletes, so they are small. `id` are the
    columns that make up a record's id. A record may be read when any of `scopes` may.
    `crash_empties` is for unlogged tables.
    """

    sent: tuple[str, ...]
    filters: tuple[str, ...]
    scopes: tuple[Scope, ...]
    announced: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    id: tuple[str, ...] = ("id",)
    crash_empties: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns kept with a change that ends a match, sorted."""
        scoped = {scope.column for scope in self.scopes if scope.column is not None}
        return tuple(sorted({*self.filters, *scoped}))


@dataclass(frozen=True, slots=True)
class Unpublished:
    """A table whose changes are not logged, and why."""

    reason: str
