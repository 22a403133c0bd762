"""Committed rows as JSON lines, at least once.

A slot on the publisher remembers what its reader has. It is told so only when the lines are safe
with the reader (`app.replication.sinks`): whatever ends in between, the lines come again. Within
one run no line is written twice, also when the server was restarted.
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import closing

import psycopg

from app.replication import publisher
from app.replication.addresses import ReplicationError, connect, one_line
from app.replication.pgoutput import Begin, Change, Commit, Decoder, Message, Truncate
from app.replication.sinks import Mark, Writer, format_mark
from app.replication.walsender import ConnectionLostError, Keepalive, WalData, WalSender
from models.publication import NAME

log = logging.getLogger(__name__)

# Half of what PostgreSQL's wal_sender_timeout may be at its shortest reasonable, and well below
# its default of a minute.
CONFIRM_SECONDS = 5.0
POLL_SECONDS = 0.2
BACKOFF_SECONDS = (0.2, 5.0)


def ensure_slot(url: str, slot: str) -> bool:
    """Make the stream's slot unless it is there; return whether it is new.

    Raises ReplicationError when the slot is another's, or changes are lost to it.
    """
    with closing(connect(url)) as connection:
        publisher.require_version(connection, "publisher")
        if slot in {replica.slot for replica in publisher.replicas(connection)}:
            raise ReplicationError(f"{slot} is a replica's slot: choose another name with --slot.")
        row = connection.execute(
            "SELECT plugin = 'pgoutput' AND database = current_database() AS ours, wal_status"
            " FROM pg_replication_slots WHERE slot_name = %s",
            [slot],
        ).fetchone()
        if row is None:
            publisher.require_publishing(connection)
            try:
                publisher.create_slot(connection, slot)
            except psycopg.Error as error:
                raise ReplicationError(
                    f"The slot {slot} cannot be made: {one_line(error)}"
                ) from error
            return True
        if not row["ours"]:
            raise ReplicationError(
                f"{slot} is a slot of something else: choose another name with --slot."
            )
        if row["wal_status"] == "lost":
            raise ReplicationError(
                f"The slot {slot} was not read for longer than max_slot_wal_keep_size allows, and "
                "changes are lost to it. Drop it with `jupyter-datastore stream --drop` and begin "
                "again from now."
            )
        return False


def drop_slot(url: str, slot: str) -> None:
    """Drop the stream's slot, so that nothing is kept for it."""
    with closing(connect(url)) as connection:
        if slot in {replica.slot for replica in publisher.replicas(connection)}:
            raise ReplicationError(f"{slot} is a replica's slot: see `jupyter-datastore replica`.")
        publisher.drop_slot(connection, slot)


class Stream:
    """Reads one slot and hands its rows to a writer until it is stopped.

    `find_url` is asked again after each loss of the connection: an embedded PostgreSQL may come
    back elsewhere.
    """

    def __init__(
        self, find_url: Callable[[], str | None], slot: str, tables: Collection[str], writer: Writer
    ) -> None:
        self._find_url = find_url
        self._slot = slot
        self._tables = frozenset(tables)
        self._writer = writer
        self._stopped = threading.Event()
        # Transactions whose lines are not all received: their last mark, and what to confirm then.
        self._pending: deque[tuple[Mark, int]] = deque()
        self._begin: Begin | None = None
        self._index = 0
        self._offered: Mark = (0, -1)
        self._sent_to = 0
        self._confirmed = 0
        self._confirmed_at = 0.0

    def stop(self) -> None:
        """Have `run` return soon; may be called from anywhere."""
        self._stopped.set()

    def run(self) -> None:
        """Read until stopped, through losses of the connection.

        Raises ReplicationError when the slot is lost, ReaderGoneError when nobody reads.
        """
        pause = BACKOFF_SECONDS[0]
        while not self._stopped.is_set():
            try:
                url = self._find_url()
                if url is None:
                    raise ConnectionLostError("the server does not run")
                with WalSender(url) as sender:
                    sender.start(self._slot, NAME)
                    pause = BACKOFF_SECONDS[0]
                    self._read(sender)
            except ConnectionLostError as error:
                log.warning("%s; trying again", one_line(error))
                self._stopped.wait(pause)
                pause = min(pause * 2, BACKOFF_SECONDS[1])

    def _read(self, sender: WalSender) -> None:
        # What was not confirmed comes again, from the start of its transaction.
        self._pending.clear()
        self._begin = None
        self._sent_to = self._confirmed = 0
        decoder = Decoder()
        try:
            while not self._stopped.is_set():
                message = sender.receive(POLL_SECONDS)
                if isinstance(message, WalData):
                    if (decoded := decoder.decode(message.data)) is not None:
                        self._take(decoded, sender)
                elif isinstance(message, Keepalive):
                    if self._begin is None:
                        self._sent_to = max(self._sent_to, message.end)
                    self._confirm(sender, now=message.wants_reply)
                if not isinstance(message, WalData) or self._is_due():
                    self._confirm(sender)
            self._writer.close(BACKOFF_SECONDS[1])
            self._wait_for_the_reader()
        finally:
            self._confirm_at_the_end(sender)

    def _take(self, message: Message, sender: WalSender) -> None:
        match message:
            case Begin():
                self._begin, self._index = message, 0
            case Change() if message.table in self._tables:
                line: dict[str, object] = {"record": message.record}
                if message.unchanged:
                    line["unchanged"] = list(message.unchanged)
                self._offer(message.operation, message.table, line, sender)
            case Truncate():
                for table in sorted(self._tables.intersection(message.tables)):
                    self._offer("truncate", table, {}, sender)
            case Commit():
                assert self._begin is not None
                if self._index:
                    self._pending.append(((self._begin.lsn, self._index - 1), message.end))
                self._begin = None
                self._sent_to = message.end

    def _offer(
        self, operation: str, table: str, more: dict[str, object], sender: WalSender
    ) -> None:
        assert self._begin is not None
        mark = (self._begin.lsn, self._index)
        self._index += 1
        if mark <= self._offered:
            return  # written before the connection was lost
        head = {
            "position": format_mark(mark),
            "committed_at": self._begin.committed_at.isoformat(),
            "table": table,
            "operation": operation,
        }
        data = json.dumps({**head, **more}, separators=(",", ":")).encode() + b"\n"
        while not self._writer.offer(data, mark, POLL_SECONDS):
            self._confirm(sender)
            if self._stopped.is_set():
                return
        self._offered = mark

    def _is_due(self) -> bool:
        return time.monotonic() - self._confirmed_at >= CONFIRM_SECONDS

    def _safe(self, received: Mark | None) -> int:
        """Return the position up to which everything is safe with the reader."""
        safe = self._confirmed
        while self._pending and received is not None and self._pending[0][0] <= received:
            safe = self._pending.popleft()[1]
        if not self._pending and self._begin is None:
            safe = max(safe, self._sent_to)
        return safe

    def _confirm(self, sender: WalSender, *, now: bool = False) -> None:
        safe = self._safe(self._writer.received())
        if safe > self._confirmed or now or self._is_due():
            sender.confirm(safe)
            self._confirmed = safe
            self._confirmed_at = time.monotonic()

    def _wait_for_the_reader(self) -> None:
        """Give the reader a moment to take what was written, so that it does not come again."""
        deadline = time.monotonic() + 1.0
        while self._pending and time.monotonic() < deadline:
            received = self._writer.last_received()
            if received is not None and received >= self._pending[-1][0]:
                return
            time.sleep(0.01)

    def _confirm_at_the_end(self, sender: WalSender) -> None:
        safe = self._safe(self._writer.last_received())
        if safe > self._confirmed:
            try:
                sender.confirm(safe)
            except ConnectionLostError:
                log.debug("the last confirmation was not sent")
