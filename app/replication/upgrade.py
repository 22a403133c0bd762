"""Migrating a publisher and its replicas in the right order.

A migration says by `replicas = "first"` (the default) or `replicas = "last"` which side goes first.

`first` is right for what adds: a replica may have columns and tables that are not sent yet, but
stops at the first row with a column that it lacks. It is also right for a migration that changes
rows: the replica's rows change by its own migration, then again, to the same, by the publisher's.
A new column must be published before it is filled, or rows that arrive in between stay unfilled.

`last` is right for what takes away or renames: rows sent before the publisher's migration still
have the column, so the replica must have applied all of them before it gives the column up. Rows
sent after it stop the replica for the moment until its own migration; nothing is lost.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

from alembic.script import Script, ScriptDirectory

from app.db import migrations
from app.replication import partitions, publisher, subscriber
from app.replication.addresses import Connection, ReplicationError, connect
from app.replication.publisher import Replica
from app.replication.replicas import POLL_SECONDS, wait_for

CATCH_UP_SECONDS = 60.0


@dataclass(frozen=True)
class _Target:
    replica: Replica
    url: str
    connection: Connection


def upgrade_with_replicas(
    url: str, *, targets: dict[str, str] | None = None, revision: str = "head"
) -> Iterator[str]:
    """Migrate the database at `url` and its replicas to `revision`; yield what was done, in words.

    `targets` gives addresses with passwords by those without. Raises ReplicationError before
    anything is changed when a replica cannot be reached. May be repeated after a failure.
    """
    with ExitStack() as stack:
        ours = stack.enter_context(closing(connect(url)))
        reached = []
        for replica in publisher.replicas(ours) if migrations.current(url) else []:
            address = (targets or {}).get(replica.target, replica.target)
            theirs = stack.enter_context(closing(connect(address)))
            if replica.slot not in subscriber.subscriptions(theirs):
                raise ReplicationError(
                    f"The replica {replica.name} has no subscription: remove it, or copy it again."
                )
            reached.append(_Target(replica, address, theirs))
        for target in reached:
            yield from _follow_publisher(ours, url, target)
        for script in _between(migrations.current(url), revision):
            if not goes_last(script):
                for target in reached:
                    yield from _migrate(target, script)
            before = publisher.current_lsn(ours)
            migrations.upgrade(url, script.revision)
            yield f"The publisher is at {script.revision}."
            if goes_last(script):
                for target in reached:
                    _wait_to_the_end(ours, target, before)
                    yield from _migrate(target, script)
        published = publisher.published_tables(ours)
        for target in reached:
            partitions.mirror(ours, target.connection, drop=False)
            subscriber.refresh(target.connection, target.replica.slot, published)


def goes_last(script: Script) -> bool:
    """Tell whether the replicas migrate after the publisher."""
    side = getattr(script.module, "replicas", "first")
    if side not in ("first", "last"):
        raise ReplicationError(f"Migration {script.revision} says neither first nor last: {side!r}")
    return bool(side == "last")


def _between(found: str | None, wanted: str) -> list[Script]:
    """Return the migrations after `found` up to `wanted`, in order."""
    scripts = ScriptDirectory(str(migrations.script_location()))
    return list(reversed(list(scripts.iterate_revisions(wanted, found or "base"))))


def _migrate(target: _Target, script: Script) -> Iterator[str]:
    # A replica may be ahead, after an upgrade that was broken off.
    if script.revision in {ahead.revision for ahead in _between(_current(target), "head")}:
        migrations.upgrade(target.url, script.revision)
        yield f"The replica {target.replica.name} is at {script.revision}."


def _current(target: _Target) -> str | None:
    return migrations.current(target.url)


def _follow_publisher(ours: Connection, url: str, target: _Target) -> Iterator[str]:
    """Bring a replica to where the publisher is already, if it is behind."""
    now = migrations.current(url)
    known = {script.revision for script in _between(None, now or "base")}
    if _current(target) == now or _current(target) not in known:
        return
    for script in _between(_current(target), now or "base"):
        if goes_last(script):
            _wait_to_the_end(ours, target, publisher.current_lsn(ours))
        yield from _migrate(target, script)


def _wait_to_the_end(ours: Connection, target: _Target, before: str) -> None:
    """Wait until a replica has applied what it can: all, or up to a row of the new shape."""
    after = publisher.current_lsn(ours)
    name = target.replica.slot
    start = subscriber.read_subscription(target.connection, name)
    errors = start.apply_errors if start else 0
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while not wait_for(ours, target.replica, after, POLL_SECONDS):
        now = subscriber.read_subscription(target.connection, name)
        stopped = now is not None and now.apply_errors > errors
        if stopped and publisher.has_confirmed(ours, name, before):
            return
        if time.monotonic() > deadline:
            raise ReplicationError(
                f"The replica {target.replica.name} has not applied what was committed before the "
                "migration, so it was not migrated: see `jupyter-datastore replica status`, then "
                "run this again."
            )
