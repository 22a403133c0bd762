"""Adding a replica, following its first copy, waiting for it, and removing it."""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import psycopg
from psycopg.conninfo import conninfo_to_dict

from app.db import migrations
from app.replication import partitions, publisher, subscriber
from app.replication.addresses import (
    Connection,
    ReplicationError,
    connect,
    conninfo,
    identity,
    libpq_url,
    one_line,
    without_password,
)
from app.replication.publisher import Replica
from app.replication.subscriber import TableCopy
from models.publication import PUBLISHED

POLL_SECONDS = 0.2


def add(
    url: str,
    target: str,
    *,
    name: str | None = None,
    publisher_url: str | None = None,
    copy_again: bool = False,
) -> Replica:
    """Make `target` a replica of the database at `url`; its first copy begins and goes on alone.

    `publisher_url` is how the target's server reaches the publisher, by default `url`. A target
    that is this replica already is left as it is, unless it is to be copied again: then its rows
    are emptied first. Raises ReplicationError, and then nothing is left half made.
    """
    url, target = libpq_url(url), libpq_url(target)
    with closing(connect(url)) as ours, closing(connect(target)) as theirs:
        publisher.require_publishing(ours)
        publisher.require_version(theirs, "target")
        if identity(ours) == identity(theirs):
            raise ReplicationError("The target is the publisher's own database.")
        known = _known(ours, target)
        if existing := subscriber.subscriptions(theirs):
            if known is None or existing != [known.slot]:
                raise ReplicationError(
                    f"The target subscribes to another publisher ({', '.join(existing)}): remove "
                    "that replica first, with the database it was added from."
                )
            if not copy_again:
                return known
            subscriber.unsubscribe(theirs, known.slot)
        if known is not None:
            # What an earlier attempt left, or what is to be copied again.
            publisher.drop_slot(ours, known.slot)
            publisher.delete_replica(ours, known)
        _prepare_target(url, theirs, target, copy_again=copy_again)
        partitions.begin(ours, theirs)
        reach = conninfo(publisher_url or url)
        if role := conninfo_to_dict(reach).get("user"):
            publisher.let_read(ours, str(role))
        replica = Replica(
            name or (known.name if known else _free_name(ours)), without_password(target)
        )
        _connect(ours, theirs, replica, reach)
        return replica


def _known(ours: Connection, target: str) -> Replica | None:
    address = without_password(target)
    return next((known for known in publisher.replicas(ours) if known.target == address), None)


def _free_name(ours: Connection) -> str:
    # Slots of the cluster's other databases count: their names are the cluster's.
    taken = {replica.name for replica in publisher.replicas(ours)} | publisher.slot_names(ours)
    numbers = (re.fullmatch(r"replica_(\d+)", name) for name in taken)
    return f"replica_{max((int(found[1]) for found in numbers if found), default=0) + 1}"


def _prepare_target(url: str, theirs: Connection, target: str, *, copy_again: bool) -> None:
    """Give the target the publisher's schema and make sure that it is empty."""
    needed, found = migrations.current(url), migrations.current(target)
    if needed != migrations.head():
        raise ReplicationError(
            f"The publisher has schema {needed or 'none'}, this version needs "
            f"{migrations.head()}: run `jupyter-datastore db upgrade` first."
        )
    if found != needed:
        if found is None and _has_tables(theirs):
            raise ReplicationError(
                "The target holds tables that are not a datastore's: give the replica a database "
                "of its own."
            )
        try:
            migrations.upgrade(target)
        except Exception as error:
            raise ReplicationError(
                f"The target's schema {found or 'none'} cannot be brought to {needed}: "
                f"{one_line(error)}"
            ) from error
    subscriber.require_no_server(theirs)
    if filled := subscriber.filled_tables(theirs):
        if not copy_again:
            raise ReplicationError(
                f"The target has rows already (in {', '.join(filled)}), which the copy would meet: "
                "give --copy-again to empty its published tables first."
            )
        subscriber.empty_tables(theirs)


def _has_tables(connection: Connection) -> bool:
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = 'public') AS found"
    ).fetchone()
    return bool(row and row["found"])


def _connect(ours: Connection, theirs: Connection, replica: Replica, reach: str) -> None:
    """Make row, slot and subscription, or none of them."""
    with ExitStack() as undo:
        publisher.insert_replica(ours, replica)
        undo.callback(publisher.delete_replica, ours, replica)
        try:
            publisher.create_slot(ours, replica.slot)
        except psycopg.Error as error:
            raise ReplicationError(
                f"The publisher makes no slot {replica.slot}: {one_line(error)}"
            ) from error
        undo.callback(publisher.drop_slot, ours, replica.slot)
        subscriber.subscribe(theirs, replica.slot, reach)
        undo.pop_all()


def follow_copy(target: str, replica: Replica) -> Iterator[list[TableCopy]]:
    """Yield how far the first copy is, a few times a second, until every table follows.

    Raises ReplicationError when copying fails; PostgreSQL goes on trying all the same.
    """
    with closing(connect(target)) as theirs:
        before = subscriber.read_subscription(theirs, replica.slot)
        failed = before.copy_errors if before else 0
        while True:
            copies = subscriber.table_copies(theirs, replica.slot)
            yield copies
            if copies and all(copy.is_done for copy in copies):
                return
            now = subscriber.read_subscription(theirs, replica.slot)
            if now is None:
                raise ReplicationError("The subscription was removed while it copied.")
            if now.copy_errors >= failed + 3:
                raise ReplicationError(
                    "Copying has failed three times; the target's log says why. PostgreSQL goes on "
                    f"trying: correct the cause, or run `jupyter-datastore replica remove "
                    f"{replica.name}`."
                )
            time.sleep(POLL_SECONDS)


def estimated_rows(url: str) -> dict[str, int]:
    """Return about how many rows each published table has, by table; 0 where nobody knows yet."""
    with closing(connect(url)) as ours:
        rows = ours.execute(
            "SELECT c.oid::regclass::text AS table,"
            " greatest(sum(coalesce(leaf.reltuples, c.reltuples)), 0)::bigint AS rows"
            " FROM pg_class c LEFT JOIN pg_inherits i ON i.inhparent = c.oid"
            " LEFT JOIN pg_class leaf ON leaf.oid = i.inhrelid"
            " WHERE c.oid IN (SELECT to_regclass(name) FROM unnest(%s::text[]) name)"
            " GROUP BY c.oid",
            [list(PUBLISHED)],
        )
        return {row["table"]: row["rows"] for row in rows}


def wait_for(ours: Connection, replica: Replica, lsn: str, seconds: float) -> bool:
    """Wait until a replica has everything up to `lsn`; False when it has not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not publisher.has_confirmed(ours, replica.slot, lsn):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS / 10)
    return True


def remove(url: str, name: str, *, target: str | None = None, force: bool = False) -> list[str]:
    """End a replica: its subscription and slot go, its rows stay. Returns what is left to do.

    `target` is its address with a password, where one is needed. With `force` a replica that
    cannot be reached is forgotten; its subscription then keeps asking in vain.
    """
    with closing(connect(url)) as ours:
        replica = publisher.find_replica(ours, name)
        left = []
        try:
            with closing(connect(target or replica.target)) as theirs:
                if replica.slot in subscriber.subscriptions(theirs):
                    subscriber.unsubscribe(theirs, replica.slot)
        except ReplicationError as error:
            if not force:
                raise ReplicationError(
                    f"{error}. With --force the slot is dropped here and the replica forgotten."
                ) from error
            left.append(
                f"The replica was not reached. On it, run: ALTER SUBSCRIPTION {replica.slot} "
                f"DISABLE; ALTER SUBSCRIPTION {replica.slot} SET (slot_name = NONE); "
                f"DROP SUBSCRIPTION {replica.slot};"
            )
        publisher.drop_slot(ours, replica.slot)
        publisher.delete_replica(ours, replica)
        return left


def maintain(
    url: str, *, targets: dict[str, str] | None = None, drop: bool = True
) -> Iterator[tuple[str, partitions.Mirrored]]:
    """Give each replica the publisher's partitions; yield its name and what was done."""
    with closing(connect(url)) as ours:
        for replica in publisher.replicas(ours):
            address = (targets or {}).get(replica.target, replica.target)
            with closing(connect(address)) as theirs:
                yield replica.name, partitions.mirror(ours, theirs, drop=drop)
