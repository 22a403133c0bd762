"""Ending what is open when its right to be open ends: a permission, a user, a token.

Whoever keeps a connection open registers it with `watch`, with whose it is and what it needs, and
ends it when it is told. Triggers say in the channel `datastore_access` that something has changed,
whatever changed it; what only the clock ends (an expiry) is looked for twice a second. Either way,
all that is registered is asked for in one statement. When the listening connection is lost, that is
done twice a second until there is one again.
"""

import asyncio
import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import asyncpg
from sqlalchemy import (
    Boolean,
    Integer,
    String,
    Uuid,
    and_,
    any_,
    cast,
    column,
    exists,
    func,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY

from app.auth.identity import Identity, TokenAuthenticator
from app.db.engine import Database, async_url
from models import Permission, ShareLink, Token

log = logging.getLogger(__name__)

CHANNEL = "datastore_access"
_LOOK_SECONDS = 0.5
# https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1: the server's policy.
CLOSE_CODE = 1008
CLOSE_REASON = "access was revoked"


@dataclass(eq=False)
class Watch:
    """Something open, whose it is, and what it needs; `ended` is set when that is no more."""

    identity: Identity
    action: str
    resource: str
    target: str | None
    on_ended: Callable[[], None] | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self) -> None:
        """Tell whoever keeps it open."""
        self.ended.set()
        if self.on_ended is not None:
            self.on_ended()


class Revocations:
    """Knows what is open in this process, and tells it when it may not be any longer."""

    def __init__(
        self,
        database: Database,
        authenticator: TokenAuthenticator,
        *,
        on_told: Collection[Callable[[], Awaitable[None]]] = (),
    ) -> None:
        self._database = database
        self._authenticator = authenticator
        self._watches: set[Watch] = set()
        # Those that nobody has asked for yet.
        self._new: set[Watch] = set()
        self._changed = asyncio.Event()
        self._news = False
        self._looked_at = datetime.now(UTC)
        self._tasks: list[asyncio.Task[None]] = []
        self.listening = asyncio.Event()
        # What else is to be done when people or permissions have changed.
        self._on_told = on_told

    @contextmanager
    def watch(
        self,
        identity: Identity,
        action: str,
        resource: str,
        target: str | None = None,
        *,
        on_ended: Callable[[], None] | None = None,
    ) -> Iterator[Watch]:
        """Register something open for as long as the block lasts.

        When its right ends, `ended` is set and `on_ended` is called, within a second. What was
        revoked since the route's declaration asked is told too.
        """
        watch = Watch(identity, action, resource, target, on_ended)
        self._watches.add(watch)
        # What was revoked between the declaration's look and now.
        self._new.add(watch)
        self._changed.set()
        try:
            yield watch
        finally:
            self._watches.discard(watch)
            self._new.discard(watch)

    def open_tokens(self) -> set[uuid.UUID]:
        """Return the tokens that something is open with in this process."""
        return {w.identity.token_id for w in self._watches if w.identity.token_id is not None}

    def start(self) -> None:
        """Begin to listen."""
        self._tasks = [
            asyncio.create_task(self._listen(), name="revocations: listening"),
            asyncio.create_task(self._work(), name="revocations"),
        ]

    async def close(self) -> None:
        """Stop listening; nothing is told any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        url = async_url(self._database.url)
        dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
        while True:
            connection: Any = None
            try:
                connection = await asyncpg.connect(dsn)
                await connection.add_listener(CHANNEL, self._told)
                gone = asyncio.Event()
                connection.add_termination_listener(lambda _, gone=gone: gone.set())
                self.listening.set()
                self._told()  # what was said while nobody listened
                await gone.wait()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("listening for changed permissions: %s", error)
            finally:
                self.listening.clear()
                if connection is not None:
                    connection.terminate()
            await asyncio.sleep(_LOOK_SECONDS)

    def _told(self, *_: Any) -> None:
        self._authenticator.forget()
        self._news = True
        self._changed.set()

    async def _work(self) -> None:
        look_at_all = True
        look_again = 0.0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._changed.wait()
            try:
                due = time.monotonic() >= look_again
                if due:
                    look_again = time.monotonic() + _LOOK_SECONDS
                if due and self._watches and await self._something_expired():
                    self._news = True
                if self._news:
                    self._news = False
                    look_at_all = True
                    for follow in self._on_told:
                        await follow()
                self._changed.clear()
                if self._watches and (look_at_all or not self.listening.is_set()):
                    look_at_all = True
                    await self._look(self._watches)
                elif self._new:
                    await self._look(self._new)
                look_at_all = False
            except Exception as error:  # noqa: BLE001 (the database may be away for a while)
                log.warning("looking for revoked permissions: %s", error)
                look_at_all = True
                self._changed.set()
                await asyncio.sleep(_LOOK_SECONDS)

    async def _something_expired(self) -> bool:
        """Tell whether a permission, link or token has ended by the clock since the last look."""
        since = self._looked_at
        ended = [
            exists().where(table.expires_at > since, table.expires_at <= func.now())
            for table in (Permission, ShareLink, Token)
        ]
        query = select(func.now(), or_(*ended))
        async with self._database.read(recorder=True) as tx:
            self._looked_at, found = (await tx.execute(query)).one()
        return bool(found)

    async def _look(self, watches: Collection[Watch]) -> None:
        """Tell those of these that may not be open any longer; each thing is asked for once."""
        by_thing: dict[tuple[Any, ...], list[Watch]] = defaultdict(list)
        for w in list(watches):
            thing = (w.identity.id, w.action, w.resource, w.target, w.identity.token_id)
            by_thing[thing].append(w)
            self._new.discard(w)
        things = list(by_thing)
        users, actions, resources, targets, tokens = zip(*things, strict=True)
        # Arrays, so that the statement is one however many there are.
        asked = (
            func.unnest(
                cast(list(range(len(things))), ARRAY(Integer)),
                cast(list(users), ARRAY(Uuid)),
                cast(list(actions), ARRAY(String)),
                cast(list(resources), ARRAY(String)),
                cast(list(targets), ARRAY(String)),
                cast(list(tokens), ARRAY(Uuid)),
            )
            .table_valued(
                column("n", Integer),
                column("user_id", Uuid),
                column("action", String),
                column("resource", String),
                column("target", String),
                column("token_id", Uuid),
            )
            .render_derived(name="asked")
        )
        a = asked.c
        valid_token = exists().where(
            Token.id == a.token_id,
            Token.revoked_at.is_(None),
            or_(Token.expires_at.is_(None), Token.expires_at > func.now()),
            # Ours never change; the hub's are actions.
            or_(Token.kind != "hub", Token.scopes.is_(None), a.action == any_(Token.scopes)),
        )
        allowed = and_(
            func.datastore_may(a.user_id, a.action, a.resource, a.target, type_=Boolean),
            or_(a.token_id.is_(None), valid_token),
        )
        async with self._database.read(recorder=True) as tx:
            ended = (await tx.execute(select(a.n).where(~allowed))).scalars().all()
        for n in ended:
            for watch in by_thing[things[n]]:
                watch.end()
