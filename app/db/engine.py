"""The connection pools and the one place that commits, which rings for who follows changes.

Everything that writes does so inside `Database.transaction()`, or is one statement of
`Database.write_alone()`. Work that must happen just before the commit (projecting an edited
document) or after its outcome is known (releasing a lock, waking a waiter) is registered on the
session, so that no caller has to remember it.

Requests run as the role `datastore_request`, for the person that `app.db.asker` names: the
connections of their pool never have another role, and are told the person when they are taken.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Select, event, func, make_url, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import QueuePool

from app.db import asker
from app.db.alone import execute_alone
from app.db.doorbell import SETTINGS, Doorbell
from app.db.together import Together, Write
from models import codec

log = logging.getLogger(__name__)

REQUEST_ROLE = "datastore_request"

# Of recorders: PostgreSQL would plan what it does to partitioned tables anew each time, which takes
# it longer than doing it (docs/decisions/0069).
_PLANNED_ONCE = {"plan_cache_mode": "force_generic_plan"}

# As `SET LOCAL ROLE NONE`: until the transaction ends, the connection has its login's own role.
AS_SERVER = func.set_config("role", "none", True)
_AS_SERVER = select(AS_SERVER)

Flush = Callable[[], Awaitable[None]]
Finish = Callable[[bool], None]


def async_url(url: str) -> URL:
    """Return a libpq or SQLAlchemy URL as one for asyncpg; `host` may be a socket directory."""
    parsed = make_url(url)
    return parsed.set(drivername="postgresql+asyncpg")


def sync_url(url: str) -> URL:
    """Return a libpq or SQLAlchemy URL as one for psycopg."""
    return make_url(url).set(drivername="postgresql+psycopg")


class Transaction(AsyncSession):
    """A session that is exactly one transaction.

    `before_commit` callbacks run in order and may write; `on_finish` callbacks run in reverse
    order once the outcome is known, with True when it was committed, and must not raise.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine, expire_on_commit=False)
        self._before_commit: list[Flush] = []
        self._on_finish: list[Finish] = []
        self._together = Together()

    async def write_with_others(self, write: Write, values: dict[str, Any]) -> None:
        """Write one row before the commit, in one statement with rows of other tables.

        Nothing may count on its having been written before that, or before `write_now`.
        """
        if self._together.has_table_of(values):
            await self.write_now()
        self._together.add(write, values)

    async def write_now(self) -> None:
        """Do what `write_with_others` has put off."""
        if self._together:
            await self._together.execute(await self.connection())

    async def go_on_as_server(self) -> None:
        """Do the rest of the transaction as the server itself, which the policies do not bind.

        For what follows from what they have let the asker do, but is not the asker's to write:
        whoever may run a cell need not be one who may change it.
        """
        await self.execute(_AS_SERVER)

    def before_commit(self, flush: Flush) -> None:
        """Register work that belongs to the transaction and must see all its edits."""
        self._before_commit.append(flush)

    def on_finish(self, finish: Finish) -> None:
        """Register what must happen whether or not the transaction commits."""
        self._on_finish.append(finish)

    async def run_before_commit(self) -> None:
        """Run what is due before the commit; called by `Database.transaction` only."""
        for flush in self._before_commit:
            await flush()
        await self.write_now()

    def run_on_finish(self, committed: bool) -> None:
        """Run what `on_finish` registered; called by `Database.transaction` only."""
        while self._on_finish:
            _run(self._on_finish.pop(), committed)


def _run(finish: Finish, committed: bool) -> None:
    try:
        finish(committed)
    except Exception:
        log.exception("after %s", "commit" if committed else "rollback")


class Database:
    """Three pools on one database: for requests, for the server itself, for recorders.

    Requests' connections are bound by the policies. Recorders have their own, so that many slow
    requests cannot stop outputs from being stored.
    """

    def __init__(self, url: str, *, pool_size: int = 10, recorder_pool_size: int = 8) -> None:
        self.url = url
        # What other parts keep for as long as there is this database.
        self.info: dict[str, Any] = {}
        self._requests = _engine(url, pool_size, role=REQUEST_ROLE)
        event.listen(self._requests.sync_engine, "checkout", _tell_asker)
        self._server = _engine(url, pool_size)
        self._recorders = _engine(url, recorder_pool_size, **_PLANNED_ONCE)
        self.doorbell = Doorbell(url)
        self._autocommit = {
            engine: engine.execution_options(isolation_level="AUTOCOMMIT")
            for engine in (self._requests, self._server, self._recorders)
        }

    def _engine_for(self, *, as_server: bool, recorder: bool) -> AsyncEngine:
        if recorder:
            return self._recorders
        if as_server or asker.current() is asker.Server.ITSELF:
            return self._server
        return self._requests

    @asynccontextmanager
    async def transaction(
        self, *, as_server: bool = False, recorder: bool = False
    ) -> AsyncIterator[Transaction]:
        """Yield a session whose work is committed at the end, or rolled back on an exception.

        It sees and changes what the person may for whom it is done (`app.db.asker`);
        `as_server` is for the server's own work within a request, `recorder` for what must not wait
        for requests. The policies bind neither.
        """
        session = Transaction(self._engine_for(as_server=as_server, recorder=recorder))
        committed = False
        try:
            async with session:
                yield session
                await session.run_before_commit()
                await session.commit()
                committed = True
        finally:
            if committed:
                self.doorbell.ring()
            session.run_on_finish(committed)

    async def write_alone(
        self,
        write: Write,
        values: dict[str, Any],
        *,
        recorder: bool = False,
        on_finish: Finish | None = None,
    ) -> list[dict[str, Any]]:
        """Commit one write by itself, the quickest way there is; return its RETURNING's rows.

        Engines are chosen as for `transaction`; `on_finish` is called as a transaction's, before
        anything else is done.
        """
        engine = self._engine_for(as_server=False, recorder=recorder)
        committed = False
        try:
            rows = await execute_alone(engine, write, values)
            committed = True
        finally:
            if on_finish is not None:
                _run(on_finish, committed)
            if committed:
                self.doorbell.ring()
        return rows

    async def read_alone(
        self, query: Select[*tuple[Any, ...]], values: dict[str, Any], *, as_server: bool = False
    ) -> list[dict[str, Any]]:
        """Return the rows of one query, the quickest way there is; engines as for `read`."""
        return await execute_alone(
            self._engine_for(as_server=as_server, recorder=False), query, values
        )

    @asynccontextmanager
    async def read(
        self, *, as_server: bool = False, recorder: bool = False
    ) -> AsyncIterator[Transaction]:
        """Yield a session for reading, as `transaction` does; nothing is committed.

        Each statement sees what is committed when it begins, as in READ COMMITTED, without the two
        round trips of a transaction; whoever needs one snapshot for several asks its connection for
        REPEATABLE READ.
        """
        engine = self._engine_for(as_server=as_server, recorder=recorder)
        async with Transaction(self._autocommit[engine]) as session:
            yield session

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[AsyncConnection]:
        """Yield a recorder's connection on which each statement is a transaction of its own.

        For what PostgreSQL refuses inside a transaction, and for nothing else.
        """
        async with self._recorders.connect() as connection:
            yield await connection.execution_options(isolation_level="AUTOCOMMIT")

    async def close(self) -> None:
        """Close all connections."""
        await self.doorbell.close()
        await asyncio.gather(*(engine.dispose() for engine in self._autocommit))

    def connections_in_use(self) -> dict[str, int]:
        """Return how many connections of each pool are in use, by the pool's name."""
        pools = {
            "requests": self._requests.pool,
            "server": self._server.pool,
            "recorders": self._recorders.pool,
        }
        return {
            name: pool.checkedout() if isinstance(pool, QueuePool) else 0
            for name, pool in pools.items()
        }

    async def ping(self) -> None:
        """Raise unless the database answers a query."""
        async with self.read() as session:
            await session.execute(text("SELECT 1"))


def _tell_asker(connection: Any, record: Any, _: Any) -> None:
    """Tell a connection, before it is used, for whom: one round trip if it was another before.

    It is set for the session, outside of any transaction, so that no rollback takes it back; what a
    connection was told is forgotten with the connection, and first while it is told anew.
    """
    person = asker.current()
    wanted = "" if person is None or person is asker.Server.ITSELF else str(person)
    if record.info.get("asker") == wanted:
        return
    record.info.pop("asker", None)
    try:
        connection.run_async(
            lambda driver: driver.fetchval(
                "SELECT set_config('datastore.user_id', $1, false)", wanted
            )
        )
    except Exception as error:
        # The connection is dead, and so are, most likely, the others: new ones are made.
        raise InvalidatePoolError from error
    record.info["asker"] = wanted


def _engine(url: str, pool_size: int, **settings: str) -> AsyncEngine:
    server_settings = {"application_name": "jupyter-datastore", **SETTINGS, **settings}
    return create_async_engine(
        async_url(url),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=False,
        # The connection used last is used next: its statements are prepared, its memory warm.
        pool_use_lifo=True,
        json_serializer=codec.dumps,
        json_deserializer=codec.loads,
        connect_args={"server_settings": server_settings},
    )


# SQLSTATE classes and codes after which the same work may succeed on a new connection:
# connection exceptions, operator intervention (shutdown, crash recovery, starting up), too many
# connections, serialization failure and deadlock. https://www.postgresql.org/docs/current/errcodes-appendix.html
_TRANSIENT = ("08", "57P", "53300", "40001", "40P01", "58030", "53100")


def is_transient(error: BaseException) -> bool:
    """Tell whether the database may accept the same work later (it is away, restarting, full)."""
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        original = error.orig
        code = getattr(original, "sqlstate", None) or getattr(
            getattr(original, "__cause__", None), "sqlstate", None
        )
        return code is None or str(code).startswith(_TRANSIENT)
    return isinstance(error, OSError | TimeoutError)
