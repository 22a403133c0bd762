"""The feed's protocol (docs/feed.md) as a state machine, without any network.

`Feed` is told what the server said and keeps each subscription's records equal to what the table
holds, over any number of connections. What it wants to say is in `outbox`.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from jupyter_datastore_client.changes import Batch, Change, Record, id_of
from jupyter_datastore_client.errors import DatastoreError, FeedError

Message = dict[str, Any]


class Sink(Protocol):
    """Who is told of a subscription's records."""

    def completed(self) -> None:
        """The records are whole."""

    def changed(self, changes: list[Change[Any]]) -> None:
        """The records have changed."""

    def failed(self, error: DatastoreError) -> None:
        """No more changes will come."""


class Subscription:
    """What is followed of one table, and its records as they are now.

    `cursor` is where to resume; it is null until a whole snapshot is there. While one comes in
    pages it is put together in `staged`, and the records stay what they were: then listeners are
    shown what differs. `accepted` says that the server has taken it on this connection: until
    then, other subscriptions' positions are not its own. `complete` says that its records have
    been whole once.
    """

    def __init__(
        self,
        subscription_id: str,
        table: str,
        where: Mapping[str, Any],
        columns: tuple[str, ...] | None,
        key: tuple[str, ...],
    ) -> None:
        self.id = subscription_id
        self.table = table
        self.where = dict(where)
        self.columns = columns
        self.key = key
        self.records: dict[str, Record] = {}
        self.cursor: str | None = None
        self.staged: dict[str, Record] | None = None
        self.complete = False
        self.accepted = False
        self.sinks: list[Sink] = []

    def message(self) -> Message:
        """Return the message that subscribes, or resumes."""
        message: Message = {"type": "subscribe", "id": self.id, "table": self.table}
        message["where"] = self.where
        if self.columns is not None:
            message["columns"] = list(self.columns)
        if self.cursor is not None:
            message["cursor"] = self.cursor
        return message

    def void(self) -> None:
        """Forget the position: a snapshot must come."""
        self.cursor = None
        self.staged = None

    def apply(self, change: Message, batch: Batch) -> None:
        """Take one change over, and note it in `batch` if listeners are to see it."""
        record_id = change["id"]
        record = change["record"] if change["op"] == "upsert" else None
        if self.staged is not None:
            _put(self.staged, record_id, record)
        elif self.cursor is not None:
            announced: frozenset[str] = frozenset()
            if record is not None and self.columns is None:
                announced = frozenset(change.get("changed") or ()) - record.keys()
            batch.add(record_id, self.records.get(record_id), record, announced)
            _put(self.records, record_id, record)
        # Without a cursor the first page of a snapshot is still to come, and has this change.

    def finish(self, cursor: str) -> list[Change[Any]]:
        """Put the snapshot in the records' place; return what differs."""
        fresh, self.staged = self.staged or {}, None
        batch = Batch()
        for record_id, record in self.records.items():
            if record_id not in fresh:
                batch.add(record_id, record, None)
        for record_id, record in fresh.items():
            batch.add(record_id, self.records.get(record_id), record)
        # The same mapping: live tables are views of it.
        self.records.clear()
        self.records.update(fresh)
        self.cursor = cursor
        return batch.take()


def _put(records: dict[str, Record], record_id: str, record: Record | None) -> None:
    if record is None:
        records.pop(record_id, None)
    else:
        records[record_id] = record


class Feed:
    """All subscriptions of one client.

    `heartbeat_seconds` is the server's, null while not connected. `reachable` is false when
    the server says that it cannot reach its database.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.subscriptions: dict[str, Subscription] = {}
        self.outbox: deque[Message] = deque()
        self.heartbeat_seconds: float | None = None
        self.connection: str | None = None
        self.reachable = True
        self._wake = wake
        self._count = 0
        self._presence: Message | None = None
        self._transactions: list[Message] = []

    # --- what the client wants -------------------------------------------------------------------

    def subscribe(
        self,
        table: str,
        where: Mapping[str, Any],
        columns: tuple[str, ...] | None,
        key: tuple[str, ...],
    ) -> Subscription:
        """Return a new subscription; it is asked for now, or with the next connection."""
        self._count += 1
        made = Subscription(f"s{self._count}", table, where, columns, key)
        self.subscriptions[made.id] = made
        self._send(made.message())
        return made

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a subscription; what still comes of it is ignored."""
        if self.subscriptions.pop(subscription.id, None) is not None:
            self._send({"type": "unsubscribe", "id": subscription.id})

    def say_presence(self, data: Mapping[str, Any]) -> None:
        """Say what this client looks at, now and after each connection."""
        self._presence = {"type": "presence", "data": dict(data)}
        self._send(self._presence)

    def _send(self, message: Message) -> None:
        if self.connection is not None:
            self.outbox.append(message)
            self._wake()

    # --- what happens ----------------------------------------------------------------------------

    def lost(self) -> None:
        """The connection has ended."""
        self.connection = self.heartbeat_seconds = None
        self.outbox.clear()
        self._transactions = []
        for subscription in self.subscriptions.values():
            subscription.staged = None
            subscription.accepted = False

    def fail(self, error: DatastoreError) -> None:
        """End all subscriptions."""
        self.lost()
        failed, self.subscriptions = list(self.subscriptions.values()), {}
        for subscription in failed:
            _tell_failed(subscription, error)

    def received(self, message: Message) -> None:
        """Take a message of the server over."""
        if (handle := _HANDLERS.get(message.get("type", ""))) is not None:
            handle(self, message)

    def _hello(self, message: Message) -> None:
        self.connection = message["connection"]
        self.heartbeat_seconds = message["heartbeat_seconds"]
        self.reachable = True
        if self._presence is not None:
            self._send(self._presence)
        for subscription in self.subscriptions.values():
            self._send(subscription.message())

    def _subscribed(self, message: Message) -> None:
        if (subscription := self.subscriptions.get(message["id"])) is not None:
            subscription.accepted = True
            if not message["resumed"]:
                subscription.void()

    def _must_refetch(self, message: Message) -> None:
        if (subscription := self.subscriptions.get(message["id"])) is not None:
            subscription.void()

    def _snapshot(self, message: Message) -> None:
        subscription = self.subscriptions.get(message["id"])
        if subscription is None:
            return
        if message["first"]:
            subscription.void()
            subscription.staged = {}
        if subscription.staged is None:
            return
        for record in message["records"]:
            subscription.staged[id_of(record, subscription.key)] = record
        if message["more"]:
            return
        changes = subscription.finish(message["cursor"])
        if subscription.complete:
            _tell_changed(subscription, changes)
            return
        subscription.complete = True
        for sink in list(subscription.sinks):
            sink.completed()

    def _changes(self, message: Message) -> None:
        self._transactions += message["transactions"]
        if message["more"]:
            return
        transactions, self._transactions = self._transactions, []
        batches: dict[Subscription, Batch] = {}
        for transaction in transactions:
            for change in transaction["changes"]:
                for subscription_id in change["subs"]:
                    if (subscription := self.subscriptions.get(subscription_id)) is not None:
                        batch = batches.setdefault(subscription, Batch())
                        subscription.apply(change, batch)
        self._move_on(message["cursor"])
        # Listeners are told once all records are what they are to be.
        for subscription, changes in [(s, batch.take()) for s, batch in batches.items()]:
            _tell_changed(subscription, changes)

    def _heartbeat(self, message: Message) -> None:
        self.reachable = message["live"]
        self._move_on(message.get("cursor"))

    def _move_on(self, cursor: str | None) -> None:
        """Note a position for all subscriptions that are complete."""
        if cursor is None:
            return
        for subscription in self.subscriptions.values():
            if subscription.cursor is not None and subscription.accepted:
                subscription.cursor = cursor

    def _error(self, message: Message) -> None:
        subscription = self.subscriptions.get(message.get("id") or "")
        if subscription is None:
            return
        del self.subscriptions[subscription.id]
        _tell_failed(subscription, FeedError(message["message"], message["reason"]))


_HANDLERS: dict[str, Callable[[Feed, Message], None]] = {
    "hello": Feed._hello,
    "subscribed": Feed._subscribed,
    "must_refetch": Feed._must_refetch,
    "snapshot": Feed._snapshot,
    "changes": Feed._changes,
    "heartbeat": Feed._heartbeat,
    "error": Feed._error,
}


def _tell_changed(subscription: Subscription, changes: list[Change[Any]]) -> None:
    if changes:
        for sink in list(subscription.sinks):
            sink.changed(changes)


def _tell_failed(subscription: Subscription, error: DatastoreError) -> None:
    for sink in list(subscription.sinks):
        sink.failed(error)
