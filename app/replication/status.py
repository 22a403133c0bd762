"""How replicas are doing, and what to do about it."""

import time
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta

from app.replication import partitions, publisher, subscriber
from app.replication.addresses import Connection, ReplicationError, connect
from app.replication.publisher import Replica, Slot
from app.replication.replicas import wait_for
from app.replication.subscriber import CONFLICTS, Subscription, TableCopy


@dataclass
class Status:
    """One replica: what both sides say of it. `advice` is empty when all is well.

    `seconds` is how long it took until the replica had confirmed what was committed when it was
    asked, None when it had not within the time given. `lacking` are partitions that only the
    publisher has. `unreachable` is why the replica's own side
    is not known.
    """

    replica: Replica
    slot: Slot | None = None
    cap_bytes: int | None = None
    seconds: float | None = None
    server: str | None = None
    subscription: Subscription | None = None
    copies: list[TableCopy] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    unreachable: str | None = None
    advice: list[str] = field(default_factory=list)

    @property
    def must_be_copied_again(self) -> bool:
        """Whether changes are lost to the replica for good."""
        return self.slot is None or self.slot.wal_status == "lost"

    @property
    def word(self) -> str:
        """One word or two for people."""
        subscription = self.subscription
        if self.must_be_copied_again:
            found = "must be copied again"
        elif self.seconds is not None and not self._is_copying:
            found = "following"
        elif self.unreachable:
            found = "unreachable"
        elif subscription is None:
            found = "not subscribed"
        elif not subscription.enabled:
            found = "disabled"
        elif self._is_copying:
            found = "copying"
        else:
            found = "behind" if subscription.connected else "disconnected"
        return found

    @property
    def _is_copying(self) -> bool:
        return any(not copy.is_done for copy in self.copies)


def read(
    url: str,
    *,
    targets: dict[str, str] | None = None,
    wait_seconds: float = 2.0,
    name: str | None = None,
) -> list[Status]:
    """Return every replica's status, by name, or of the one of that `name`.

    `targets` gives addresses with passwords by those without. Waits at most `wait_seconds` for
    each to confirm what is committed now.
    """
    with closing(connect(url)) as ours:
        return [
            _read_one(ours, replica, (targets or {}).get(replica.target), wait_seconds)
            for replica in publisher.replicas(ours)
            if name in (None, replica.name)
        ]


def _read_one(
    ours: Connection, replica: Replica, target: str | None, wait_seconds: float
) -> Status:
    status = Status(replica, cap_bytes=publisher.cap_bytes(ours))
    status.slot = publisher.read_slot(ours, replica.slot)
    # Also when nobody is connected: after a failure the replica comes back in a few seconds.
    if not status.must_be_copied_again:
        asked = time.monotonic()
        if wait_for(ours, replica, publisher.current_lsn(ours), wait_seconds):
            status.seconds = time.monotonic() - asked
            status.slot = publisher.read_slot(ours, replica.slot)
    try:
        with closing(connect(target or replica.target)) as theirs:
            status.server = subscriber.server_name(theirs)
            status.subscription = subscriber.read_subscription(theirs, replica.slot)
            status.copies = subscriber.table_copies(theirs, replica.slot)
            status.lacking = partitions.missing(ours, theirs)
    except ReplicationError as error:
        status.unreachable = str(error)
    status.advice = _advice(status)
    return status


def _advice(status: Status) -> list[str]:
    slot, name = status.slot, status.replica.name
    again = f"`jupyter-datastore replica add --target {status.replica.target} --copy-again`"
    said: list[str] = []
    if slot is None:
        said.append(
            "Its slot is gone, and with it the changes that the replica has not received: copy it "
            f"again with {again}."
        )
    elif slot.wal_status == "lost":
        said.append(
            "It was away for longer than max_slot_wal_keep_size allows, and changes are lost to "
            f"it: copy it again with {again}."
        )
    elif slot.wal_status == "unreserved":
        said.append(
            "It holds more WAL than max_slot_wal_keep_size allows and is lost at the next "
            "checkpoint: bring it back now, or raise the limit."
        )
    if slot is not None and status.cap_bytes is None:
        said.append(
            "Nothing limits the WAL that is kept for it: a replica that stays away fills the "
            "publisher's disk. Run ALTER SYSTEM SET max_slot_wal_keep_size = '8GB'; SELECT "
            "pg_reload_conf(); on the publisher."
        )
    if status.unreachable is not None:
        said.append(status.unreachable)
    elif status.subscription is None:
        said.append(
            f"Its database has no subscription {status.replica.slot}: remove it with "
            f"`jupyter-datastore replica remove {name}`, or copy it again with {again}."
        )
    else:
        said += _about_subscription(status, status.subscription)
    if status.lacking:
        said.append(
            f"It lacks partitions ({', '.join(status.lacking)}), and stops at the first row of "
            "theirs: run `jupyter-datastore replica maintain`."
        )
    return said


def _about_subscription(status: Status, subscription: Subscription) -> list[str]:
    name = status.replica.slot
    said = []
    if not subscription.enabled:
        said.append(f"Somebody disabled it: run ALTER SUBSCRIPTION {name} ENABLE on the replica.")
    elif status.seconds is None and not status.must_be_copied_again:
        away = status.slot.inactive if status.slot else None
        since = f" for {_round(away)}" if away else ""
        attempts = subscription.apply_errors + subscription.copy_errors
        if not subscription.connected:
            said.append(
                f"It has not been connected{since}: the replica's server tries again every few "
                f"seconds; its log says why it fails ({attempts} failures of applying so far)."
            )
        elif attempts:
            said.append(
                f"Applying has failed {attempts} times and is tried again; the replica's log says "
                "why (a full disk, a row that somebody wrote there, a schema that is behind)."
            )
    said.extend(
        f"{count} times {CONFLICTS[kind]} ({kind}). Somebody writes on the replica: take that "
        "right away, compare with `jupyter-datastore replica check`."
        for kind, count in subscription.conflicts.items()
    )
    return said


def _round(span: timedelta) -> str:
    return str(timedelta(seconds=round(span.total_seconds())))
