"""One client's feed: its subscriptions, the bounded queue to it, its catching up.

The queue never holds more than its limit. When it would, it is forgotten, and when the client
reads again it is told the merged state from its last cursor on, as after a reconnection. A page
of a snapshot is put among the changes by its snapshot's place in their order, so that what a
client knows never goes back: while a page is read, changes are held; those not newer than the
page go before it, the others after it.
"""

import asyncio
import logging
import uuid
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from app.auth.identity import Identity
from app.changes.cursor import Position, decode
from app.changes.log import (
    Pieces,
    Reading,
    TooLargeError,
    cursor_state,
    read_position,
    read_since,
    resolve,
)
from app.changes.messages import Frame, changes_frames, frame, snapshot_frame
from app.changes.pages import PAGE_CHARACTERS, Page, read_page_at
from app.changes.router import Router, Subscription
from app.changes.tables import FeedTableError, table_named
from app.changes.visibility import Sight
from app.db.doorbell import LOST
from app.errors import NotFoundError

if TYPE_CHECKING:
    from app.changes.changes import Changes

log = logging.getLogger(__name__)

# What one catching up may take: beyond it a snapshot is shorter.
_CATCH_UP_CHANGES = 20_000
# Between attempts to read: what failed since the database was away succeeds soon, what fails for
# another reason would keep it busy for nothing.
_RETRY_SECONDS = (0.3, 0.6, 1.2, 2.5, 5.0, 10.0)
_NAME_CHARACTERS = 100
# An error repeats what was wrong, which may be long.
_ERROR_CHARACTERS = 500
# Snapshots of which a first page is read in one transaction.
_TOGETHER = 100
# What is never forgotten: answers, and what voids what a client holds.
_KEPT = frozenset(
    {"hello", "subscribed", "unsubscribed", "error", "pong", "must_refetch", "lagging"}
)


class UnreadError(Exception):
    """A client asks much and does not read the answers."""


@dataclass(slots=True)
class Delivery:
    """What one reading of the log found for one feed; the texts are shared by all feeds."""

    position: Position
    before: str
    after: str
    pieces: Pieces
    cache: dict[Any, list[Frame]]


class Feed:
    """What one connection follows. Made by `Changes.open`, which also runs `work`."""

    def __init__(self, changes: "Changes", identity: Identity, sight: Sight) -> None:
        self.id = uuid.uuid4()
        self.identity = identity
        self.sight = sight
        self._changes = changes
        self._subscriptions: dict[str, Subscription] = {}
        self._jobs: deque[Subscription] = deque()
        self._queue: deque[Frame] = deque()
        self._size = 0
        self._held: list[Delivery] | None = None
        self._held_size = 0
        self._lost = 0  # messages forgotten since the client fell behind
        self._sent_cursor: str | None = None
        self._ready = asyncio.Event()  # something to send
        self._drained = asyncio.Event()  # room in the queue
        self._drained.set()
        self._work = asyncio.Event()  # something to load
        self.worker: asyncio.Task[None]  # set by who runs `work`

    # from the client

    def handle(self, message: Any) -> None:
        """Do what a client asks; what is wrong with it is answered with an error."""
        if not isinstance(message, dict):
            self._refuse(None, "A message is a JSON object", "bad_message")
            return
        match message.get("type"):
            case "subscribe":
                self._subscribe(message)
            case "unsubscribe":
                self._unsubscribe(message.get("id"))
            case "ping":
                self.put(frame("pong", value=message.get("value")))
            case "presence":
                data = message.get("data")
                if not (data is None or isinstance(data, dict)):
                    self._refuse(None, "data must be an object", "bad_message")
                elif not self._changes.presence.show(self, data):
                    self._refuse(None, "data is too long", "bad_value")
            case kind:
                self._refuse(None, f"There is no message {kind!r}", "bad_message")

    def subscribe(self, name: Any, message: dict[str, Any]) -> Subscription:
        """Begin to follow; raises FeedTableError or NotFoundError for what cannot be followed."""
        if not isinstance(name, str) or not 0 < len(name) <= _NAME_CHARACTERS:
            raise FeedTableError("id must be a string of 1 to 100 characters", reason="bad_message")
        if name in self._subscriptions:
            raise FeedTableError(f"{name} is in use", reason="duplicate_id")
        if len(self._subscriptions) >= self._changes.settings.feed_max_subscriptions:
            raise FeedTableError("Too many subscriptions", reason="too_many_subscriptions")
        cursor = message.get("cursor")
        if not (cursor is None or isinstance(cursor, str)):
            raise FeedTableError("cursor must be a string", reason="bad_message")
        table = table_named(message.get("table"))
        made = Subscription(
            self,
            name,
            table,
            table.where(message.get("where")),
            table.columns(message.get("columns")),
            cursor,
        )
        self._subscriptions[name] = made
        self._changes.add(made)
        self._jobs.append(made)
        self._work.set()
        return made

    def _subscribe(self, message: dict[str, Any]) -> None:
        name = message.get("id")
        try:
            self.subscribe(name, message)
        except (FeedTableError, NotFoundError) as error:
            self._refuse(name if isinstance(name, str) else None, error.message, error.reason or "")

    def _unsubscribe(self, name: Any) -> None:
        found = self._subscriptions.pop(name, None) if isinstance(name, str) else None
        if found is None:
            self._refuse(name if isinstance(name, str) else None, "No such id", "unknown_id")
            return
        found.ended = True
        self._changes.remove(found)
        self.put(frame("unsubscribed", id=name))

    def _refuse(self, name: str | None, message: str, reason: str) -> None:
        self.put(frame("error", id=name, message=message[:_ERROR_CHARACTERS], reason=reason))

    def close(self) -> None:
        """Follow nothing any more."""
        for subscription in self._subscriptions.values():
            subscription.ended = True
            self._changes.remove(subscription)
        self._subscriptions.clear()
        self._queue.clear()

    # to the client

    async def take(self, timeout_seconds: float) -> Frame | None:
        """Return the next message; None when there is none for so long."""
        if not self._queue:
            self._ready.clear()
            try:
                async with asyncio.timeout(timeout_seconds):
                    await self._ready.wait()
            except TimeoutError:
                return None
        if not self._queue:
            return None
        taken = self._queue.popleft()
        self._size -= taken.size
        if self._size <= self._changes.settings.feed_queue_bytes // 2:
            self._drained.set()
        if self._lost and not self._queue:
            self._work.set()
        return taken

    def sent(self, taken: Frame) -> None:
        """Note that a message is out of the server's hands."""
        if taken.cursor is not None:
            self._sent_cursor = taken.cursor
        for subscription in taken.completes:
            subscription.arrived = subscription.live

    def heartbeat(self) -> Frame:
        """Return what is said when nothing else is."""
        quiet = not (self._queue or self._lost or self._held is not None or self._jobs)
        cursor = self._changes.cursor if quiet and self._sent_cursor else None
        made = frame("heartbeat", cursor=cursor, live=self._changes.live)
        return made if cursor else frame("heartbeat", live=self._changes.live)

    @property
    def waiting_bytes(self) -> int:
        """How much waits to be sent."""
        return self._size

    def put(self, made: Frame) -> None:
        """Queue a message, or fall behind when there is no room for it.

        Raises UnreadError when answers alone fill the queue: the client asks and never reads.
        """
        kept = made.type in _KEPT
        if self._lost and not kept:
            self._lost += 1
            return
        if self._queue and self._size + made.size > self._changes.settings.feed_queue_bytes:
            self._fall_behind()
            if not kept:
                return
            if self._size + made.size > self._changes.settings.feed_queue_bytes:
                raise UnreadError
        self._queue.append(made)
        self._size += made.size
        if self._size > self._changes.settings.feed_queue_bytes // 2:
            self._drained.clear()
        self._ready.set()

    def _fall_behind(self) -> None:
        """Forget what waits: it is told merged once the client has read what it was sent."""
        kept = [made for made in self._queue if made.type in _KEPT]
        self._lost += 1 + len(self._queue) - len(kept)
        self._queue = deque(kept)
        self._size = sum(made.size for made in kept)
        self._held = None if self._held is None else []
        self._held_size = 0
        self._drained.set()
        for subscription in self._subscriptions.values():
            if not subscription.arrived and subscription not in self._jobs:
                subscription.refetch = subscription.refetch or "lagging"
        self._work.set()

    # what happens to the tables

    def deliver(self, delivery: Delivery) -> None:
        """Take what a reading of the log found for this feed; returns at once."""
        if self._lost:
            self._lost += 1
        elif self._held is not None:
            self._held.append(delivery)
            # Texts are shared by all feeds, yet each may be the only one that keeps them.
            self._held_size += 200 + sum(piece.size for piece, _ in delivery.pieces)
            if self._size + self._held_size > self._changes.settings.feed_queue_bytes:
                self._fall_behind()
        else:
            self._tell(delivery)

    def _tell(self, delivery: Delivery) -> None:
        pieces: Pieces = []
        for piece, subscriptions in delivery.pieces:
            told = tuple(s for s in subscriptions if s.started and not s.ended)
            if told:
                pieces.append((piece, told))
        if not pieces:
            return
        for made in changes_frames(pieces, delivery.before, delivery.after, delivery.cache):
            self.put(made)

    def refetch(self, subscriptions: list[Subscription], reason: str) -> None:
        """Have snapshots sent again: what the client holds of these is void."""
        for subscription in subscriptions:
            if subscription.ended or subscription in self._jobs:
                continue
            subscription.refetch = reason
            subscription.started = subscription.live = subscription.arrived = False
            self.put(frame("must_refetch", id=subscription.name, reason=reason))
            self._jobs.append(subscription)
        self._work.set()

    def subscriptions(self) -> list[Subscription]:
        """Return all that is followed."""
        return list(self._subscriptions.values())

    # loading

    async def work(self) -> None:
        """Read snapshots, and what changed since a cursor, one after the other."""
        while True:
            await self._work.wait()
            self._work.clear()
            if self._lost:
                if self._queue:
                    continue  # `take` calls again
                await self._come_back()
            while self._jobs and not self._lost:
                await self._load_next()

    async def _load_next(self) -> None:
        """Load the next subscription, with those after it that go on from the same cursor."""
        await self._changes.positioned()
        if self._lost or not self._jobs:
            return
        subscription = self._jobs.popleft()
        if subscription.ended:
            return
        cursor = subscription.cursor
        if cursor is None or subscription.refetch is not None:
            await self._snapshots(subscription)
            return
        together = [s for s in self._jobs if s.cursor == cursor and s.refetch is None]
        for other in together:
            self._jobs.remove(other)
        await self._resume([subscription, *together], cursor, behind=False)

    async def _come_back(self) -> None:
        """Tell a client that fell behind, and now has read everything, where things stand."""
        self.put(frame("lagging", skipped=self._lost))
        whole = [s for s in self._subscriptions.values() if s.arrived and s.refetch is None]
        broken = [s for s in self._subscriptions.values() if s.refetch is not None]
        if whole:
            await self._changes.positioned()
            assert self._sent_cursor is not None
            await self._resume(whole, self._sent_cursor, behind=True)
        else:
            self._lost = 0
        if not self._lost:
            self.refetch([s for s in broken if s.refetch is not None], "lagging")

    async def _resume(
        self, subscriptions: list[Subscription], cursor: str, *, behind: bool
    ) -> None:
        """Tell what changed since a cursor; where that cannot be, have snapshots sent.

        `behind`: these are all the subscriptions that the client has whole, and it is told nothing
        before this. Otherwise they are new on this connection.
        """
        known = decode(cursor)
        reason = "cursor" if known is None else None
        failures = 0
        while known is not None:
            if known[0] != self._changes.epoch:
                reason = "epoch"
                break
            try:
                reason = await self._catch_up(subscriptions, cursor, known[1], behind=behind)
                break
            except LOST as error:
                log.info("catching up: %s", error)
                self._give_up(behind=behind)
                if behind:
                    self._lost = max(1, self._lost)
                failures += 1
                await _pause(failures)
        for subscription in subscriptions:
            subscription.cursor = None
        if reason is None:
            return
        if behind:
            self._lost = 0
        else:
            for subscription in subscriptions:
                self.put(frame("subscribed", id=subscription.name, resumed=False))
        self.refetch(subscriptions, reason)

    async def _catch_up(  # noqa: C901 (one course of events, told in order)
        self, subscriptions: list[Subscription], cursor: str, position: Position, *, behind: bool
    ) -> str | None:
        """Queue the merged changes since a position; return why that is not possible, or None."""
        router = Router()
        for subscription in subscriptions:
            if not subscription.ended:
                router.add(subscription)
        async with self._changes.connection() as connection:
            self._hold()
            if behind:
                self._lost = 0
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                state = await cursor_state(connection, position)
                if state != "ok":
                    self._give_up(behind=behind)
                    return state
                reading = await read_since(
                    connection, position, sorted(router.tables()), _CATCH_UP_CHANGES
                )
                if reason := _impossible(reading, router):
                    self._give_up(behind=behind)
                    return reason
                try:
                    found = await resolve(connection, reading.deltas, router)
                except TooLargeError:
                    self._give_up(behind=behind)
                    return "too_many_changes"
        pieces = found.get(self, [])
        if sum(piece.size for piece, _ in pieces) > self._changes.settings.feed_queue_bytes // 2:
            self._give_up(behind=behind)
            return "too_many_changes"
        await self._changes.barrier()
        older, newer = self._split(reading.position)
        # What those who were behind are told contains it, and its cursors would be premature.
        for delivery in [] if behind else older:
            self._tell(delivery)
        after = newer[0].before if newer else self._changes.cursor
        *most, last = changes_frames(pieces, cursor, after)
        if not behind:
            for subscription in subscriptions:
                self.put(frame("subscribed", id=subscription.name, resumed=True))
                subscription.started = subscription.live = True
        for made in (*most, replace(last, completes=tuple(subscriptions))):
            self.put(made)
        for delivery in newer:
            self._tell(delivery)
        return None

    async def _snapshots(self, subscription: Subscription) -> None:
        """Queue all pages of a snapshot, with the first pages of others that wait for theirs."""
        together = [subscription]
        while self._jobs and len(together) < _TOGETHER:
            if self._jobs[0].cursor is not None and self._jobs[0].refetch is None:
                break
            together.append(self._jobs.popleft())
        for each in together:
            if each.refetch is None and not each.ended:
                self.put(frame("subscribed", id=each.name, resumed=False))
            each.refetch = None
        places: dict[Subscription, str | None] = dict.fromkeys(together)
        failures = 0
        while places:
            await self._drained.wait()
            places = {
                each: after
                for each, after in places.items()
                if not each.ended and each.refetch is None
            }
            try:
                pages = await self._pages(places)
            except LOST as error:
                log.info("snapshots: %s", error)
                self._give_up(behind=False)
                failures += 1
                await _pause(failures)
                continue
            failures = 0
            self._queue_pages(pages, {each for each, after in places.items() if after is None})
            for each, page in pages.items():
                if page.next is None:
                    del places[each]
                else:
                    places[each] = page.next

    async def _pages(self, places: dict[Subscription, str | None]) -> dict[Subscription, Page]:
        """Read the next pages of these, at one position, as many as are about one page long."""
        pages: dict[Subscription, Page] = {}
        async with self._changes.connection() as connection:
            self._hold()
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                position = await read_position(connection)
                size = 0
                for each, after in places.items():
                    if size > PAGE_CHARACTERS:
                        break
                    pages[each] = await read_page_at(
                        connection,
                        position,
                        each.table,
                        each.where,
                        each.columns,
                        after=after,
                        sight=self.sight,
                    )
                    size += sum(map(len, pages[each].records))
        await self._changes.barrier()
        return pages

    def _queue_pages(self, pages: dict[Subscription, Page], beginning: set[Subscription]) -> None:
        """Put pages among the changes: after those that they contain, before the newer ones."""
        position = next((page.position for page in pages.values()), None)
        older, newer = self._split(position)
        for delivery in older:
            self._tell(delivery)
        # Good for all subscriptions: the pages' own position is ahead of the changes told.
        position_told = newer[0].before if newer else self._changes.cursor
        for each, page in pages.items():
            if each.ended or each.refetch is not None:
                continue
            each.started = True
            each.live = page.next is None
            cursor = position_told if each.live else None
            self.put(snapshot_frame(each, page.records, first=each in beginning, cursor=cursor))
        for delivery in newer:
            self._tell(delivery)

    def _hold(self) -> None:
        """Keep changes until what is about to be read has its place among them."""
        if self._held is None:
            self._held = []
            self._held_size = 0

    def _give_up(self, *, behind: bool) -> None:
        """End holding: tell what was held, unless it is read again for all it concerns."""
        held, self._held = self._held or [], None
        for delivery in [] if behind else held:
            self._tell(delivery)

    def _split(self, position: Position | None) -> tuple[list[Delivery], list[Delivery]]:
        """End holding; return what is not newer than a reading, and what is."""
        held, self._held = self._held or [], None
        if position is None:
            return [], held
        older = [delivery for delivery in held if delivery.position.order <= position.order]
        return older, held[len(older) :]


async def _pause(failures: int) -> None:
    """Wait before the next attempt, the longer the more in a row have failed."""
    await asyncio.sleep(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS)) - 1])


def _impossible(reading: Reading, router: Router) -> str | None:
    """Return why what was read cannot be told as changes."""
    if reading.too_many:
        return "too_many_changes"
    if "" in reading.emptied:
        return "epoch"
    return "truncated" if any(router.follows(table) for table in reading.emptied) else None
