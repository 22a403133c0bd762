"""The replica's side: its subscription, the first copy, and what went wrong there.

Everything here runs on the replica's connection.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from app.replication.addresses import Connection, ReplicationError, one, one_line, table_name
from models.publication import NAME, PUBLISHED

# What PostgreSQL 18 counts in pg_stat_subscription_stats, and what each means for a replica.
CONFLICTS = {
    "confl_insert_exists": "a row was there already when its insert came; the replica stands still",
    "confl_update_exists": "an update met another row with its key; the replica stands still",
    "confl_multiple_unique_conflicts": "a row met several others; the replica stands still",
    "confl_update_origin_differs": "a row had been changed here; it is the publisher's again",
    "confl_delete_origin_differs": "a row had been changed here; it is deleted",
    "confl_update_missing": "an updated row was not here; the update was left out",
    "confl_delete_missing": "a deleted row was not here",
}


@dataclass(frozen=True)
class TableCopy:
    """How far the first copy of one table is; `rows` and `bytes` count while it runs."""

    table: str
    state: str
    rows: int | None
    bytes: int | None

    @property
    def is_done(self) -> bool:
        """Whether the table follows the publisher (pg_subscription_rel: s or r)."""
        return self.state in ("s", "r")


@dataclass(frozen=True)
class Subscription:
    """A subscription as its own database tells it.

    `connected` is whether a worker applies changes now; `apply_errors` and `copy_errors` count
    failed attempts, which PostgreSQL repeats every few seconds. `conflicts` is empty before
    PostgreSQL 18.
    """

    enabled: bool
    connected: bool
    slot: str | None
    apply_errors: int
    copy_errors: int
    conflicts: dict[str, int] = field(default_factory=dict)


def subscriptions(connection: Connection) -> list[str]:
    """Return the names of this database's subscriptions to a datastore's publication."""
    rows = connection.execute(
        "SELECT subname FROM pg_subscription WHERE %s = ANY (subpublications) AND subdbid ="
        " (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY subname",
        [NAME],
    )
    return [row["subname"] for row in rows]


def filled_tables(connection: Connection) -> list[str]:
    """Return the published tables that hold rows here, by name."""
    return [table for table in sorted(PUBLISHED) if _holds_rows(connection, table)]


def require_no_server(connection: Connection) -> None:
    """Raise ReplicationError when this database is a server's own: replicas hold no token."""
    if _holds_rows(connection, "tokens"):
        raise ReplicationError(
            "The target has tokens, so it is a server's own database and not a replica: nothing "
            "was changed there. Give the replica a database of its own."
        )


def _holds_rows(connection: Connection, table: str) -> bool:
    query = sql.SQL("SELECT EXISTS (SELECT FROM {}) AS filled").format(table_name(table))
    row = connection.execute(query).fetchone()
    return bool(row and row["filled"])


def empty_tables(connection: Connection) -> None:
    """Empty the published tables, and with them what refers to them."""
    names = sql.SQL(", ").join(table_name(table) for table in sorted(PUBLISHED))
    connection.execute(sql.SQL("TRUNCATE {} CASCADE").format(names))


def subscribe(connection: Connection, name: str, publisher: str) -> None:
    """Make the subscription `name` on the slot of that name; its first copy begins at once.

    `publisher` is the conninfo by which this database's server reaches the publisher.
    """
    statement = sql.SQL(
        "CREATE SUBSCRIPTION {} CONNECTION {} PUBLICATION {}"
        " WITH (create_slot = false, slot_name = {}, copy_data = true, streaming = on)"
    ).format(sql.Identifier(name), publisher, sql.Identifier(NAME), name)
    try:
        connection.execute(statement)
    except psycopg.Error as error:
        raise ReplicationError(
            f"The target cannot subscribe: {one_line(error)}. The address by which the target's "
            "server reaches the publisher is --publisher-url; a unix socket serves only a target "
            "on this machine that runs under the same account."
        ) from error


def unsubscribe(connection: Connection, name: str) -> bool:
    """Drop a subscription; False when the publisher could not be told to drop its slots."""
    identifier = sql.Identifier(name)
    connection.execute(sql.SQL("ALTER SUBSCRIPTION {} DISABLE").format(identifier))
    try:
        connection.execute(sql.SQL("DROP SUBSCRIPTION {}").format(identifier))
    except psycopg.Error:
        connection.execute(
            sql.SQL("ALTER SUBSCRIPTION {} SET (slot_name = NONE)").format(identifier)
        )
        connection.execute(sql.SQL("DROP SUBSCRIPTION {}").format(identifier))
        return False
    return True


def refresh(connection: Connection, name: str, published: Sequence[str]) -> None:
    """Take up tables that the publication has gained, and copy them.

    `published` are its tables. What a migration put into the new ones here comes with the copy, so
    they are emptied first.
    """
    rows = connection.execute(
        "SELECT srrelid::regclass::text AS table FROM pg_subscription_rel"
        " JOIN pg_subscription s ON s.oid = srsubid WHERE s.subname = %s",
        [name],
    )
    known = {row["table"] for row in rows}
    for table in sorted(set(published) - known):
        connection.execute(sql.SQL("TRUNCATE {} CASCADE").format(table_name(table)))
    connection.execute(
        sql.SQL("ALTER SUBSCRIPTION {} REFRESH PUBLICATION").format(sql.Identifier(name))
    )


def table_copies(connection: Connection, name: str) -> list[TableCopy]:
    """Return how far the first copy of each table is, by table."""
    rows = connection.execute(
        "SELECT r.srrelid::regclass::text AS table, r.srsubstate AS state,"
        " sum(p.tuples_processed)::bigint AS rows, sum(p.bytes_processed)::bigint AS bytes"
        " FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid"
        " LEFT JOIN pg_stat_progress_copy p ON p.relid = r.srrelid AND p.datid = s.subdbid"
        " WHERE s.subname = %s GROUP BY r.srrelid, r.srsubstate ORDER BY 1",
        [name],
    )
    return [TableCopy(**row) for row in rows]


def read_subscription(connection: Connection, name: str) -> Subscription | None:
    """Return the state of a subscription; None when it is not there."""
    row = connection.execute(
        "SELECT s.subenabled, s.subslotname::text,"
        " EXISTS (SELECT FROM pg_stat_subscription w"
        "  WHERE w.subid = s.oid AND w.relid IS NULL AND w.pid IS NOT NULL) AS connected,"
        " to_jsonb(t) AS stats"
        " FROM pg_subscription s LEFT JOIN pg_stat_subscription_stats t ON t.subid = s.oid"
        " WHERE s.subname = %s AND s.subdbid ="
        " (SELECT oid FROM pg_database WHERE datname = current_database())",
        [name],
    ).fetchone()
    if row is None:
        return None
    stats = row["stats"] or {}
    return Subscription(
        enabled=row["subenabled"],
        connected=row["connected"],
        slot=row["subslotname"],
        apply_errors=int(stats.get("apply_error_count") or 0),
        copy_errors=int(stats.get("sync_error_count") or 0),
        conflicts={kind: int(stats[kind]) for kind in CONFLICTS if stats.get(kind)},
    )


def stop(connection: Connection, name: str) -> None:
    """Have a subscription rest; its slot keeps what happens meanwhile."""
    connection.execute(sql.SQL("ALTER SUBSCRIPTION {} DISABLE").format(sql.Identifier(name)))


def go_on(connection: Connection, name: str) -> None:
    """Have a resting subscription go on."""
    connection.execute(sql.SQL("ALTER SUBSCRIPTION {} ENABLE").format(sql.Identifier(name)))


def server_name(connection: Connection) -> str:
    """Return the version of the replica's server, for people."""
    return str(one(connection, "SELECT current_setting('server_version') AS v")["v"])
