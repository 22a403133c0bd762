"""Finding the person a token of JupyterHub's stands for, with the hub's word kept for a while.

A token that the hub has confirmed is a row of `tokens` of the kind `hub`: its hash, whose it is,
its scopes, and when it was confirmed. So the word is good for every process on the database, and
all that ends what is open when a token ends works for these too. When it is older than
`hub_cache_seconds` the hub is asked again; what the hub says no to ends at once. While the hub is
away, requests whose confirmation is too old get 503, and nobody is logged out; what is open stays
for `hub_grace_seconds`.

The hub's word is about a secret that only the browser (in its signed cookie) or the program has;
the database never has it, this process keeps it for as long as something is open with it.
"""

import asyncio
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select, update

from app.auth.hub_service import HubClient, HubPerson, actions_of
from app.auth.identity import Identity, TokenAuthenticator, hash_token, identity_of
from app.db import asker
from app.db.engine import Database
from app.errors import DomainError, UnavailableError
from app.settings import Settings
from models import Token, User

log = logging.getLogger(__name__)

LOGIN = "hub:"
# What was read from the database is good for this long, as with our own tokens.
_CACHE_SECONDS = 1.0
# Tokens that the hub does not know: so many are remembered, so long.
_REFUSED_SECONDS = 3.0
_MOST_REFUSED = 10_000
# Secrets of tokens that nobody has used for so many times the cache's age are forgotten.
_FORGOTTEN_AFTER = 10

# Stores what the hub says of a token (its hash, its scopes here) and returns the rows.
TakeIn = Callable[[HubPerson, bytes, list[str] | None], Awaitable[tuple[User, Token]]]


@dataclass
class _Known:
    read_at: float
    identity: Identity
    hub_name: str


@dataclass
class _Secret:
    token: str
    used_at: float


class HubAuthenticator(TokenAuthenticator):
    """Finds identities by the server's own tokens and by the hub's."""

    def __init__(
        self,
        database: Database,
        *,
        token: str,
        owner: Identity,
        secret: bytes | None,
        client: HubClient,
        settings: Settings,
        take_in: TakeIn,
    ) -> None:
        super().__init__(database, token=token, owner=owner, secret=secret)
        self._client = client
        self._settings = settings
        self._take_in = take_in
        self._bounded = client.service.uses_custom_scopes(settings.hub_custom_scopes)
        self._hub_known: dict[bytes, _Known] = {}
        self._refused: OrderedDict[bytes, float] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[tuple[User, Token] | None]] = {}
        self._secrets: dict[uuid.UUID, _Secret] = {}
        self._active: dict[str, datetime] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def identify(self, token: str) -> Identity | None:
        """Return the living user of a valid token, here or at the hub; UnavailableError (503)."""
        return await super().identify(token) or await self.identify_by_hub(token)

    async def identify_login(self, login: str) -> Identity | None:
        """Return the living user of a login, here or at the hub; UnavailableError (503)."""
        if login.startswith(LOGIN):
            return await self.identify_by_hub(login.removeprefix(LOGIN))
        return await super().identify_login(login)

    def forget(self) -> None:
        """Ask the database again at the next request of each token."""
        super().forget()
        self._hub_known.clear()

    async def identify_by_hub(self, token: str) -> Identity | None:
        """Return whose a token of the hub's is, None when it is not good for this server."""
        digest, now = hash_token(token), time.monotonic()
        known = self._hub_known.get(digest)
        if known is None or now - known.read_at >= _CACHE_SECONDS:
            found = await self._find_at_hub(token, digest, self._settings.hub_cache_seconds)
            if found is None:
                self._hub_known.pop(digest, None)
                return None
            user, row = found
            known = _Known(now, identity_of(user, row), user.hub_name or "")
            self._hub_known[digest] = known
            self._secrets[row.id] = _Secret(token, now)
        if "/" not in known.hub_name:
            self._active[known.hub_name] = datetime.now(UTC)
        return known.identity

    async def end(self, token: str) -> None:
        """Make a token of the hub's void here, whatever the hub says later."""
        await self._change(hash_token(token), revoked_at=func.now())

    async def _find_at_hub(
        self, token: str, digest: bytes, age_seconds: float
    ) -> tuple[User, Token] | None:
        """The rows of a token that the hub has confirmed within the given time, or does now."""
        fresh_since = func.now() - timedelta(seconds=age_seconds)
        query = (
            select(User, Token, Token.checked_at > fresh_since)
            .join(Token, Token.user_id == User.id)
            .where(Token.hash == digest, Token.kind == "hub")
        )
        async with self._database.read(as_server=True) as tx:
            found = (await tx.execute(query)).one_or_none()
        if found is not None:
            user, row, is_fresh = found
            if row.revoked_at is not None or user.disabled_at is not None:
                return None
            if row.expires_at is None and is_fresh:
                return user, row
        refused_at = self._refused.get(digest)
        if refused_at is not None and time.monotonic() - refused_at < _REFUSED_SECONDS:
            return None
        return await self._ask_once(token, digest)

    async def _ask_once(self, token: str, digest: bytes) -> tuple[User, Token] | None:
        """Ask the hub; whoever wants to know the same meanwhile waits for the same answer."""
        asking = self._asking.get(digest)
        if asking is None:
            with asker.acting_for(asker.Server.ITSELF):
                asking = asyncio.create_task(self._ask(token, digest), name="hub: whose token")
            self._asking[digest] = asking
            asking.add_done_callback(lambda task: self._asked(digest, task))
        return await asyncio.shield(asking)

    def _asked(self, digest: bytes, task: asyncio.Task[tuple[User, Token] | None]) -> None:
        del self._asking[digest]
        if not task.cancelled():
            task.exception()  # whoever asked may be gone: nobody else looks at it

    async def _ask(self, token: str, digest: bytes) -> tuple[User, Token] | None:
        person = await self._client.person_of(token)
        if person is None or (scopes := self._scopes(person)) == []:
            if person is not None:
                log.warning("%s may not use this service: %s", person.hub_name, person.scopes)
            self._refused[digest] = time.monotonic()
            while len(self._refused) > _MOST_REFUSED:
                self._refused.popitem(last=False)
            await self._change(digest, expires_at=func.now())
            return None
        self._refused.pop(digest, None)
        user, row = await self._take_in(person, digest, scopes)
        return None if user.disabled_at or row.revoked_at else (user, row)

    def _scopes(self, person: HubPerson) -> list[str] | None:
        """The scopes here of a token: None is all that the person may, [] is nothing at all."""
        if not self._client.service.may_enter(person.scopes):
            return []
        return sorted(actions_of(person.scopes)) if self._bounded else None

    async def _change(self, digest: bytes, **values: object) -> None:
        """Change a living token's row; what is open with it is ended by the row's trigger."""
        statement = (
            update(Token)
            .where(
                Token.hash == digest,
                Token.kind == "hub",
                Token.revoked_at.is_(None),
                Token.expires_at.is_(None),
            )
            .values(values)
        )
        async with self._database.transaction(as_server=True) as tx:
            await tx.execute(statement, execution_options={"synchronize_session": False})
        self._hub_known.pop(digest, None)

    # in the background

    def start(self, open_tokens: Callable[[], Collection[uuid.UUID]]) -> None:
        """Begin to have the hub confirm what is open, and to tell it who is active."""
        self._tasks = [asyncio.create_task(self._confirm(open_tokens), name="hub: confirming")]
        if self._settings.hub_activity_seconds:
            self._tasks.append(asyncio.create_task(self._report(), name="hub: activity"))

    async def close(self) -> None:
        """Stop; ends the connections to the hub."""
        for task in (*self._tasks, *self._asking.values()):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()

    async def _confirm(self, open_tokens: Callable[[], Collection[uuid.UUID]]) -> None:
        """Ask again for each token that something is open with, before its word is too old."""
        every = self._settings.hub_cache_seconds / 2
        while True:
            await asyncio.sleep(every)
            is_open, now = set(open_tokens()), time.monotonic()
            for token_id, kept in list(self._secrets.items()):
                if token_id in is_open:
                    await self._confirm_one(kept.token, every)
                elif now - kept.used_at > _FORGOTTEN_AFTER * self._settings.hub_cache_seconds:
                    del self._secrets[token_id]

    async def _confirm_one(self, token: str, age_seconds: float) -> None:
        digest = hash_token(token)
        try:
            await self._find_at_hub(token, digest, age_seconds)
        except UnavailableError as error:
            log.warning("%s", error)
            await self._end_if_older_than_grace(digest)
        except Exception as error:  # noqa: BLE001 (the database may be away for a while)
            log.warning("confirming what is open: %s", error)

    async def _end_if_older_than_grace(self, digest: bytes) -> None:
        query = select(Token.id).where(
            Token.hash == digest,
            Token.checked_at < func.now() - timedelta(seconds=self._settings.hub_grace_seconds),
        )
        async with self._database.read(as_server=True) as tx:
            too_old = (await tx.execute(query)).first()
        if too_old:
            await self._change(digest, expires_at=func.now())

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(self._settings.hub_activity_seconds)
            active, self._active = self._active, {}
            for name, moment in active.items():
                try:
                    may_tell = await self._client.report_activity(name, moment)
                except DomainError as error:
                    log.warning("telling who was active: %s", error)
                    self._active.setdefault(name, moment)
                    continue
                if not may_tell:
                    log.warning(
                        "JupyterHub does not let this service tell who was active: its role "
                        "lacks the scope users:activity"
                    )
                    return
