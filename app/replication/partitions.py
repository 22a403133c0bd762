"""A replica's partitions: those of the publisher's tables that are published.

Partitions are not replicated, only rows are. A row of a period for which the replica has no
partition stops it until there is one; a period that the publisher has dropped stays on the replica
until it is dropped there.
"""

from dataclasses import dataclass, field
from typing import Any

from psycopg import sql

from app.replication.addresses import Connection
from models.publication import PUBLISHED

LOCK_TIMEOUT = "2s"
# Which are made first, since the others' foreign keys refer to them.
_FIRST = "executions"


@dataclass
class Mirrored:
    """Names of partitions, in the order in which they were made or dropped."""

    made: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


def missing(ours: Connection, theirs: Connection) -> list[str]:
    """Return the names of the publisher's partitions that the replica lacks."""
    known = {row["name"] for row in _partitions(theirs)}
    return [row["name"] for row in _partitions(ours) if row["name"] not in known]


def left_over(ours: Connection, theirs: Connection) -> list[str]:
    """Return the names of the replica's partitions that the publisher has no more."""
    return missing(theirs, ours)


def begin(ours: Connection, theirs: Connection) -> None:
    """Give an empty replica exactly the publisher's partitions."""
    with theirs.transaction():
        # Outputs refer to executions.
        for row in sorted(_partitions(theirs), key=lambda row: row["parent"] == _FIRST):
            _drop(theirs, row["name"])
        _make(ours, theirs)


def mirror(ours: Connection, theirs: Connection, *, drop: bool) -> Mirrored:
    """Make the partitions that the replica lacks; drop those that the publisher has no more.

    Readers of a dropped partition are waited for, a little; raises psycopg's LockNotAvailable.
    """
    theirs.execute("SELECT set_config('lock_timeout', %s, false)", [LOCK_TIMEOUT])
    with theirs.transaction():
        done = Mirrored(made=_make(ours, theirs))
    if drop:
        gone = set(left_over(ours, theirs))
        for row in sorted(_partitions(theirs), key=lambda row: row["parent"] == _FIRST):
            if row["name"] in gone:
                with theirs.transaction():
                    _drop(theirs, row["name"])
                done.dropped.append(row["name"])
    return done


def _partitions(connection: Connection) -> list[dict[str, Any]]:
    return connection.execute(
        "SELECT parent::text, name::text, low_bound, high_bound FROM datastore_partitions()"
        " WHERE NOT detaching AND parent = ANY (%s)"
        " ORDER BY parent <> %s, parent, low NULLS FIRST, name",
        [list(PUBLISHED), _FIRST],
    ).fetchall()


def _make(ours: Connection, theirs: Connection) -> list[str]:
    lacking = set(missing(ours, theirs))
    made = []
    for row in _partitions(ours):
        if row["name"] not in lacking:
            continue
        label = row["name"].removeprefix(f"{row['parent']}_")
        theirs.execute(
            "SELECT datastore_make_partition(%s, %s, %s, %s)",
            [row["parent"], label, row["low_bound"], row["high_bound"]],
        )
        made.append(row["name"])
    return made


def _drop(connection: Connection, name: str) -> None:
    connection.execute(sql.SQL("DROP TABLE partitions.{}").format(sql.Identifier(name)))
