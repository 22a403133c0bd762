"""The client: a server's tables, and its actions."""

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from jupyter_datastore_client.actions import (
    Comms,
    Config,
    Contents,
    Documents,
    Executions,
    Kernels,
    Kernelspecs,
    People,
    Server,
    Sessions,
    Terminals,
)
from jupyter_datastore_client.changes import Record
from jupyter_datastore_client.connection import Connection, Status
from jupyter_datastore_client.errors import ClosedError
from jupyter_datastore_client.feed import Subscription
from jupyter_datastore_client.http import Http
from jupyter_datastore_client.records import ID_COLUMNS, TypedTables
from jupyter_datastore_client.table import Table


class Datastore(TypedTables):
    """A Jupyter Datastore server at `url`; use it with `async with`, in one event loop.

    `name` is what others see of this client in the table `presence`.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        name: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        base = url.rstrip("/")
        headers = {"Authorization": f"token {token}"} if token else {}
        self._http = Http(base, headers, transport)
        query = "?" + urlencode({"client": name}) if name else ""
        address = f"ws{base.removeprefix('http')}/api/datastore/feed{query}"
        self._connection = Connection(address, headers, self._status_is)
        self._following: asyncio.Task[None] | None = None
        self._shared: dict[Any, Subscription] = {}
        self._keys = dict(ID_COLUMNS)
        self._status_listeners: dict[object, Callable[[Status], None]] = {}
        self._closed = False
        self.kernelspecs = Kernelspecs(self._http)
        self.kernels = Kernels(self._http)
        self.sessions = Sessions(self._http)
        self.executions = Executions(self._http)
        self.comms = Comms(self._http)
        self.documents = Documents(self._http)
        self.contents = Contents(self._http)
        self.terminals = Terminals(self._http)
        self.config = Config(self._http)
        self.people = People(self._http)
        self.server = Server(self._http)

    async def __aenter__(self) -> "Datastore":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the feed's connection and all live tables."""
        self._closed = True
        self._shared.clear()
        self._connection.feed.fail(ClosedError("The store was closed"))
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._http.close()

    async def request(self, operation: str, **options: Any) -> Any:
        """Call what has no method here: `request("POST /api/x/{id}", id=..., body=...)`.

        Returns the answer's JSON; raises ApiError.
        """
        return await self._http.call(operation, **options)

    # --- the feed --------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """How it stands with the feed's connection."""
        return self._connection.status

    def listen_status(self, listener: Callable[[Status], None]) -> Callable[[], None]:
        """Call `listener` with each new status; return what ends that."""
        key = object()
        self._status_listeners[key] = listener
        return lambda: self._status_listeners.pop(key, None) and None

    def say_presence(self, **data: Any) -> None:
        """Say what this client looks at (`path`, `cell_id`, `kernel_id`, `state`)."""
        self._connection.feed.say_presence(data)
        self._follow()

    @property
    def presence_id(self) -> str | None:
        """The id of this client's record in the table `presence`, while it is connected."""
        return self._connection.feed.connection

    def _status_is(self, status: Status) -> None:
        for listener in list(self._status_listeners.values()):
            listener(status)

    def _follow(self) -> None:
        if self._closed:
            raise ClosedError("The store was closed")
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._connection.run())

    # --- what tables need of it ------------------------------------------------------------------

    def _table(self, name: str) -> Table[Any]:
        return Table(self, name)

    async def subscription(self, table: Table[Any]) -> Subscription:
        """Return the subscription of a table, shared with others that follow the same."""
        if table.name not in self._keys:
            described = await self._http.call("GET /api/datastore/tables")
            self._keys.update({known["table"]: tuple(known["id"]) for known in described["tables"]})
        self._follow()
        same = _sharing_key(table.name, table.filters, table.wanted)
        found = self._shared.get(same)
        feed = self._connection.feed
        if found is None or found.id not in feed.subscriptions:
            key = self._keys.get(table.name, ("id",))
            found = feed.subscribe(table.name, table.filters, table.wanted, key)
            self._shared[same] = found
        return found

    def left(self, subscription: Subscription) -> None:
        """Unsubscribe when no live table follows any more."""
        if not subscription.sinks:
            self._shared.pop(
                _sharing_key(subscription.table, subscription.where, subscription.columns), None
            )
            self._connection.feed.unsubscribe(subscription)

    async def page(self, table: Table[Any], limit: int, after: str | None) -> Record:
        """Return a page of a plain read."""
        query = {name: _as_text(value) for name, value in table.filters.items()}
        query |= {"limit": str(limit)} | ({} if after is None else {"after": after})
        if table.wanted is not None:
            query["columns"] = ",".join(table.wanted)
        page: Record = await self._http.call(
            "GET /api/datastore/tables/{table}", table=quote(table.name), query=query
        )
        return page


def _as_text(value: Any) -> str:
    """Return a filter's value as a plain read takes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)


def _sharing_key(table: str, where: Mapping[str, Any], columns: tuple[str, ...] | None) -> Any:
    # `True == 1` and they would be the same key.
    typed = frozenset((name, type(value).__name__, value) for name, value in where.items())
    return table, typed, columns
