"""A connection that speaks PostgreSQL's streaming replication protocol.

https://www.postgresql.org/docs/current/protocol-replication.html. psycopg's own connections use the
extended query protocol, which a walsender refuses; its libpq wrapper has all that is needed: a
simple query, COPY BOTH, `get_copy_data` and `put_copy_data`.
"""

import select
import struct
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from psycopg import OperationalError, pq

from app.replication.addresses import CONNECT_SECONDS, ReplicationError, conninfo
from app.replication.pgoutput import EPOCH

_TEXT_FORMS = "-c TimeZone=UTC -c DateStyle=ISO -c bytea_output=hex -c extra_float_digits=1"


class ConnectionLostError(Exception):
    """The server ended the connection or cannot be reached; it may be back soon."""


@dataclass(frozen=True)
class WalData:
    """A piece of the plugin's output."""

    data: bytes


@dataclass(frozen=True)
class Keepalive:
    """The server is alive; everything committed before `end` has been sent."""

    end: int
    wants_reply: bool


class WalSender:
    """One connection, first for commands, after `start` for reading and confirming."""

    def __init__(self, url: str) -> None:
        info = conninfo(
            url,
            replication="database",
            connect_timeout=str(CONNECT_SECONDS),
            application_name="jupyter-datastore stream",
            client_encoding="UTF8",
            options=_TEXT_FORMS,
        )
        self._connection = pq.PGconn.connect(info.encode())
        if self._connection.status != pq.ConnStatus.OK:
            message = self._error()
            self._connection.finish()
            raise ConnectionLostError(message)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.finish()

    def start(self, slot: str, publication: str) -> None:
        """Begin to read from where the slot's reader last confirmed.

        Raises ReplicationError when the slot cannot be read, ConnectionLostError when the
        connection is gone.
        """
        command = (
            f"START_REPLICATION SLOT {_quoted(slot)} LOGICAL 0/0"
            f" (proto_version '1', publication_names '{_quoted(publication)}')"
        )
        result = self._connection.exec_(command.encode())
        if result.status != pq.ExecStatus.COPY_BOTH:
            message = result.error_message.decode(errors="replace").strip()
            state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
            # 55006: the slot is in use, by a reader whose end was not noticed yet.
            if self._connection.status != pq.ConnStatus.OK or state in ("55006", "57P01", "57P03"):
                raise ConnectionLostError(message)
            raise ReplicationError(f"The slot {slot} cannot be read: {' '.join(message.split())}")
        self._connection.nonblocking = 1

    def receive(self, timeout_seconds: float) -> WalData | Keepalive | None:
        """Return the next message, None when none came in time; raises ConnectionLostError."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                length, data = self._connection.get_copy_data(1)
            except OperationalError as error:
                raise ConnectionLostError(str(error)) from error
            if length > 0:
                return _parse(bytes(data))
            if length == -1:
                result = self._connection.get_result()
                said = result.error_message.decode(errors="replace").strip() if result else ""
                raise ConnectionLostError(said or "the server ended the connection")
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([self._connection.socket], [], [], remaining)[0]:
                return None
            try:
                self._connection.consume_input()
            except OperationalError as error:
                raise ConnectionLostError(str(error)) from error

    def confirm(self, lsn: int) -> None:
        """Tell the server that everything before `lsn` is safe with us."""
        now = (time.time() - EPOCH.timestamp()) * 1_000_000
        status = struct.pack(">cQQQqB", b"r", lsn, lsn, lsn, int(now), 0)
        try:
            self._connection.put_copy_data(status)
            while self._connection.flush():
                select.select([], [self._connection.socket], [], 1)
        except OperationalError as error:
            raise ConnectionLostError(str(error)) from error

    def _error(self) -> str:
        return " ".join(self._connection.get_error_message().split())


def _parse(data: bytes) -> WalData | Keepalive | None:
    match data[:1]:
        case b"w":
            return WalData(data[25:])
        case b"k":
            end, _, wants_reply = struct.unpack_from(">QqB", data, 1)
            return Keepalive(end, bool(wants_reply))
    return None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
