"""The publishing side: its replicas' rows, their slots, and what each has confirmed.

Everything here runs on the publisher's connection; nothing here knows of a replica's database.
"""

from dataclasses import dataclass
from datetime import timedelta

import psycopg
from psycopg import sql

from app.replication.addresses import Connection, ReplicationError, one, table_name
from models.publication import NAME, PUBLISHED

SLOT_PREFIX = "datastore_"
OLDEST, NEWEST = 16, 18


@dataclass(frozen=True)
class Replica:
    """A replica as the publisher knows it; `slot` is also the subscription's name."""

    name: str
    target: str

    @property
    def slot(self) -> str:
        """The name of the slot on the publisher, and of the subscription on the replica."""
        return SLOT_PREFIX + self.name


@dataclass(frozen=True)
class Slot:
    """What a slot holds back, in bytes of WAL; what its reader has not confirmed.

    `wal_status` is PostgreSQL's: `reserved`, `extended`, `unreserved` (at the next checkpoint it
    may be lost) or `lost`. `lag_bytes` counts WAL that the reader has not confirmed, `lag` is the
    time that the last confirmed commit took, None when nobody is connected or nothing happened
    lately; `inactive` is for how long nobody has been (PostgreSQL 17 and newer).
    """

    active: bool
    wal_status: str | None
    retained_bytes: int | None
    safe_bytes: int | None
    lag_bytes: int | None
    lag: timedelta | None
    inactive: timedelta | None
    state: str | None


def require_version(connection: Connection, which: str) -> int:
    """Return the server's major version; raise ReplicationError for one that is not supported."""
    major = connection.info.server_version // 10_000
    if not OLDEST <= major <= NEWEST:
        raise ReplicationError(
            f"The {which} is PostgreSQL {major}; supported are {OLDEST} to {NEWEST}."
        )
    return major


def require_publishing(connection: Connection) -> None:
    """Raise ReplicationError unless this database can serve one more replica."""
    require_version(connection, "publisher")
    row = one(
        connection,
        "SELECT current_setting('wal_level') AS wal_level,"
        " current_setting('max_replication_slots')::int AS slots,"
        " current_setting('max_wal_senders')::int AS senders,"
        " (SELECT count(*) FROM pg_replication_slots) AS slots_used,"
        " (SELECT count(*) FROM pg_stat_replication) AS senders_used,"
        " EXISTS (SELECT FROM pg_publication WHERE pubname = %s) AS published",
        NAME,
    )
    if row["wal_level"] != "logical":
        raise ReplicationError(
            f"The publisher's wal_level is {row['wal_level']}: run ALTER SYSTEM SET wal_level = "
            "'logical' there and restart it."
        )
    if not row["published"]:
        raise ReplicationError(
            f"There is no publication {NAME}: run `jupyter-datastore db upgrade` first."
        )
    # One more of each while the first copy runs.
    for what, used in (("slots", "slots_used"), ("senders", "senders_used")):
        if row[used] + 2 > row[what]:
            setting = {"slots": "max_replication_slots", "senders": "max_wal_senders"}[what]
            raise ReplicationError(
                f"The publisher has no room for another replica: {row[used]} of {row[what]} "
                f"{setting} are in use. Raise {setting} and restart it."
            )


def let_read(connection: Connection, role: str) -> None:
    """Grant a role what a first copy reads: the published columns and no others.

    Raises ReplicationError when the role is not one that can read for a replica.
    """
    row = connection.execute(
        "SELECT rolsuper OR rolreplication AS replicates, rolsuper OR rolbypassrls AS sees_all,"
        " rolname = current_user OR rolsuper AS has_all FROM pg_roles WHERE rolname = %s",
        [role],
    ).fetchone()
    if row is None:
        raise ReplicationError(f"The publisher has no role {role!r}, which --publisher-url names.")
    # Without BYPASSRLS the policies would leave rows out of the copy without a word.
    if not (row["replicates"] and row["sees_all"]):
        raise ReplicationError(
            f"The role {role!r} may not copy for a replica: run ALTER ROLE {role} REPLICATION "
            "BYPASSRLS on the publisher, as a superuser."
        )
    if row["has_all"]:
        return
    grantee = sql.Identifier(role)
    connection.execute(sql.SQL("GRANT USAGE ON SCHEMA public, analytics TO {}").format(grantee))
    for table, published in PUBLISHED.items():
        columns = sql.SQL(", ").join(sql.Identifier(name) for name in published.columns)
        connection.execute(
            sql.SQL("GRANT SELECT ({}) ON {} TO {}").format(columns, table_name(table), grantee)
        )


def cap_bytes(connection: Connection) -> int | None:
    """Return how much WAL a slot may hold back; None when there is no limit."""
    row = one(
        connection,
        "SELECT setting::bigint * 1024 * 1024 AS cap FROM pg_settings"
        " WHERE name = 'max_slot_wal_keep_size'",
    )
    return None if row["cap"] < 0 else row["cap"]


def replicas(connection: Connection) -> list[Replica]:
    """Return the replicas by name."""
    rows = connection.execute("SELECT name, target FROM replicas ORDER BY name")
    return [Replica(row["name"], row["target"]) for row in rows]


def find_replica(connection: Connection, name: str) -> Replica:
    """Return the replica of that name or raise ReplicationError with those there are."""
    known = replicas(connection)
    for replica in known:
        if replica.name == name:
            return replica
    names = ", ".join(replica.name for replica in known) or "none"
    raise ReplicationError(f"There is no replica {name!r}; there are: {names}.")


def insert_replica(connection: Connection, replica: Replica) -> None:
    """Write the row of a replica."""
    try:
        connection.execute(
            "INSERT INTO replicas (name, target) VALUES (%s, %s)", [replica.name, replica.target]
        )
    except psycopg.errors.UniqueViolation as error:
        raise ReplicationError(
            f"There is a replica of that name or address already: {error.diag.message_detail}"
        ) from error
    except psycopg.errors.CheckViolation as error:
        raise ReplicationError(
            f"{replica.name!r} cannot be a replica's name: up to 40 of a to z, 0 to 9 and _."
        ) from error


def delete_replica(connection: Connection, replica: Replica) -> None:
    """Delete the row of a replica."""
    connection.execute("DELETE FROM replicas WHERE name = %s", [replica.name])


def published_tables(connection: Connection) -> list[str]:
    """Return the tables of the publication as it is now, by name."""
    rows = connection.execute(
        "SELECT CASE schemaname WHEN 'public' THEN '' ELSE schemaname || '.' END || tablename"
        " AS table FROM pg_publication_tables WHERE pubname = %s ORDER BY 1",
        [NAME],
    )
    return [row["table"] for row in rows]


def slot_names(connection: Connection) -> set[str]:
    """Return the names of replicas whose slots are in this cluster, of whichever database."""
    rows = connection.execute("SELECT slot_name::text AS slot FROM pg_replication_slots")
    return {row["slot"].removeprefix(SLOT_PREFIX) for row in rows}


def create_slot(connection: Connection, slot: str) -> None:
    """Make a slot from now on. Not by CREATE SUBSCRIPTION: in one cluster that waits for itself."""
    connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])


def drop_slot(connection: Connection, slot: str) -> None:
    """Drop a slot if it is there, ending whoever reads from it."""
    for _ in range(50):
        row = connection.execute(
            "SELECT active_pid, pg_terminate_backend(active_pid, 2000) FROM pg_replication_slots"
            " WHERE slot_name = %s",
            [slot],
        ).fetchone()
        if row is None:
            return
        try:
            connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])
        except psycopg.errors.ObjectInUse:
            continue  # its reader came back in between
        except psycopg.errors.UndefinedObject:
            return
        return
    raise ReplicationError(f"The slot {slot} cannot be dropped: its reader comes back each time.")


def current_lsn(connection: Connection) -> str:
    """Return the position after everything that is committed now."""
    # A message of our own: without one, an idle publisher has nothing after the last commit that a
    # reader could confirm. In a transaction, since its commit is flushed at once.
    row = one(
        connection,
        "SELECT pg_logical_emit_message(true, 'jupyter-datastore', '')::text AS lsn",
    )
    return str(row["lsn"])


def read_slot(connection: Connection, slot: str) -> Slot | None:
    """Return what a slot holds and what its reader confirmed; None when it is not there."""
    # inactive_since came with PostgreSQL 17.
    since = "s.inactive_since" if connection.info.server_version >= 170_000 else "NULL::timestamptz"
    row = connection.execute(
        sql.SQL(
            "SELECT s.active, s.wal_status, s.safe_wal_size AS safe_bytes,"
            " pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::bigint AS retained_bytes,"
            " pg_wal_lsn_diff(pg_current_wal_lsn(), s.confirmed_flush_lsn)::bigint AS lag_bytes,"
            " r.replay_lag AS lag, r.state, clock_timestamp() - {} AS inactive"
            " FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid"
            " WHERE s.slot_name = %s"
        ).format(sql.SQL(since)),
        [slot],
    ).fetchone()
    return Slot(**row) if row else None


def has_confirmed(connection: Connection, slot: str, lsn: str) -> bool:
    """Tell whether a slot's reader has everything up to `lsn`."""
    row = connection.execute(
        "SELECT confirmed_flush_lsn >= %s::pg_lsn AS confirmed FROM pg_replication_slots"
        " WHERE slot_name = %s",
        [lsn, slot],
    ).fetchone()
    return bool(row and row["confirmed"])
