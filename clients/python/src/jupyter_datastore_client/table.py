"""Tables to follow, and live ones: a mapping of records that stays equal to the table."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from jupyter_datastore_client.changes import Batch, Change, Record
from jupyter_datastore_client.errors import ClosedError, DatastoreError
from jupyter_datastore_client.feed import Subscription

R = TypeVar("R")
T = TypeVar("T")
Listener = Callable[[list[Change[R]]], None]

_log = logging.getLogger(__name__)


class Source(Protocol):
    """What a table needs of the store."""

    async def subscription(self, table: "Table[Any]") -> Subscription:
        """Return the subscription of a table, shared with others that follow the same."""

    def left(self, subscription: Subscription) -> None:
        """Take note that a live table no longer follows a subscription."""

    async def page(self, table: "Table[Any]", limit: int, after: str | None) -> Record:
        """Return a page of a plain read."""


class Table(Generic[R]):
    """A table of the server, or a part of it; nothing is asked for yet.

    `where` and `columns` return narrower ones. The names are those of docs/feed.md; the server
    refuses what it does not know when the table is opened.
    """

    def __init__(
        self,
        source: Source,
        name: str,
        where: Mapping[str, Any] | None = None,
        columns: tuple[str, ...] | None = None,
    ) -> None:
        self._source = source
        self.name = name
        self.filters: Mapping[str, Any] = dict(where or {})
        self.wanted = columns

    def where(self, **filters: str | int | bool | None) -> "Table[R]":
        """Return the part whose columns equal these values (or that is below `path_prefix`)."""
        return Table(self._source, self.name, {**self.filters, **filters}, self.wanted)

    def columns(self, *names: str) -> "Table[R]":
        """Return the table with only these columns, of which some may be announced ones."""
        return Table(self._source, self.name, self.filters, names)

    def live(self) -> "Opening[R]":
        """Follow the table: `await` it, or enter it with `async with`."""
        return Opening(self, self._source)

    async def read(self, limit: int = 1000) -> list[R]:
        """Return the records as they are now, by a plain request for each `limit` of them."""
        return [record async for record in self.scan(limit)]

    async def scan(self, limit: int = 1000) -> AsyncIterator[R]:
        """Yield the records in the order of their ids, a page at a time."""
        after: str | None = None
        while True:
            page = await self._source.page(self, limit, after)
            for record in page["records"]:
                yield record
            if (after := page["next"]) is None:
                return


class Opening(Generic[R]):
    """A live table that is being opened."""

    def __init__(self, table: Table[R], source: Source) -> None:
        self._table = table
        self._source = source
        self._live: LiveTable[R] | None = None

    def __await__(self) -> Generator[Any, None, "LiveTable[R]"]:
        return self._open().__await__()

    async def _open(self) -> "LiveTable[R]":
        live: LiveTable[R] = LiveTable(self._source, await self._source.subscription(self._table))
        try:
            await live.wait_for(lambda table: table.complete)
        except BaseException:
            live.close()
            raise
        return live

    async def __aenter__(self) -> "LiveTable[R]":
        self._live = await self._open()
        return self._live

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.close()


class LiveTable(Mapping[str, R]):
    """The records by id, as the table has them, kept so over reconnections.

    Records must not be modified; a change brings a new one. What happened while the connection was
    away comes as the difference to what was there before.
    """

    def __init__(self, source: Source, subscription: Subscription) -> None:
        self._source = source
        self._subscription = subscription
        self.name = subscription.table
        self._listeners: dict[object, Listener[R]] = {}
        self._wakes: dict[object, Callable[[], None]] = {}
        self._error: DatastoreError | None = None
        subscription.sinks.append(self)

    # --- what it holds ---------------------------------------------------------------------------

    def __getitem__(self, record_id: str) -> R:
        record: R = self._subscription.records[record_id]  # type: ignore[assignment]
        return record

    def __iter__(self) -> Iterator[str]:
        return iter(self._subscription.records)

    def __len__(self) -> int:
        return len(self._subscription.records)

    @property
    def records(self) -> list[R]:
        """The records, in no particular order."""
        return list(self.values())

    @property
    def complete(self) -> bool:
        """Whether the records have been whole; so they are once the table is open."""
        return self._subscription.complete

    @property
    def error(self) -> DatastoreError | None:
        """Why no more changes will come; None while they may."""
        return self._error

    # --- following -------------------------------------------------------------------------------

    def listen(
        self, listener: Listener[R], *, record: str | None = None, field: str | None = None
    ) -> Callable[[], None]:
        """Call `listener` with the changes that were committed, and return what ends that.

        With `record` only that record's changes, with `field` only those in which that field
        changed or the record came or went. All tables show the new state when it is called. It
        must not block; what it raises is logged.
        """
        key = object()

        def narrowed(changes: list[Change[R]]) -> None:
            wanted = [
                change
                for change in changes
                if (record is None or change.id == record)
                and (field is None or change.op != "update" or field in change.changed)
            ]
            if wanted:
                listener(wanted)

        self._listeners[key] = narrowed
        return lambda: self._listeners.pop(key, None) and None

    def changes(self, *, record: str | None = None, field: str | None = None) -> "ChangeStream[R]":
        """Return an iteration over the changes from now on, narrowed as `listen` narrows."""
        return ChangeStream(self, record, field)

    async def wait_for(self, condition: Callable[["LiveTable[R]"], T]) -> T:
        """Return what `condition` returns of this table, as soon as that is true.

        Looks after each change; raises `error` when no more will come.
        """
        some = asyncio.Event()
        stop = self.on_wake(some.set)
        try:
            while True:
                some.clear()
                if self._error is not None:
                    raise self._error
                if found := condition(self):
                    return found
                await some.wait()
        finally:
            stop()

    def close(self) -> None:
        """Stop following; iterations end with ClosedError."""
        if self._error is None:
            self.failed(ClosedError(f"The live table {self.name} was closed"))
        sinks = self._subscription.sinks
        if any(sink is self for sink in sinks):
            sinks[:] = [sink for sink in sinks if sink is not self]
            self._source.left(self._subscription)

    def on_wake(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` after anything has happened; return what ends that."""
        key = object()
        self._wakes[key] = wake
        return lambda: self._wakes.pop(key, None) and None

    # --- what the feed says ----------------------------------------------------------------------

    def completed(self) -> None:
        """The records are whole."""
        self._wake_all()

    def changed(self, changes: list[Change[Any]]) -> None:
        """The records have changed."""
        for listener in list(self._listeners.values()):
            try:
                listener(changes)
            except Exception:  # noqa: BLE001 (the feed goes on whatever a listener does)
                _log.exception("A listener of %s failed", self.name)
        self._wake_all()

    def failed(self, error: DatastoreError) -> None:
        """No more changes will come."""
        self._error = error
        self._wake_all()

    def _wake_all(self) -> None:
        for wake in list(self._wakes.values()):
            wake()


class ChangeStream(Generic[R]):
    """An iteration over a live table's changes; raises the table's `error` when no more come.

    Changes of one record that were not yet taken are merged into one, so that a slow reader needs
    no more memory than the table.
    """

    def __init__(self, table: LiveTable[R], record: str | None, field: str | None) -> None:
        self._table = table
        self._waiting = Batch()
        self._some = asyncio.Event()
        self._stops = [
            table.listen(self._collect, record=record, field=field),
            table.on_wake(self._some.set),
        ]

    def _collect(self, changes: list[Change[Any]]) -> None:
        for change in changes:
            announced = change.changed - (change.record or {}).keys()
            self._waiting.add(change.id, change.previous, change.record, announced)

    def __aiter__(self) -> "ChangeStream[R]":
        return self

    async def __anext__(self) -> Change[R]:
        while True:
            while self._waiting:
                if (change := self._waiting.pop()) is not None:
                    return change
            if self._table.error is not None:
                self.close()
                raise self._table.error
            self._some.clear()
            await self._some.wait()

    def close(self) -> None:
        """Collect no more."""
        for stop in self._stops:
            stop()
