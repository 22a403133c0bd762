"""Users and tokens: finding the person a request's token stands for.

Tokens arrive as Jupyter clients send them: `Authorization: token T`, `Authorization: Bearer T` or
`?token=T` (https://jupyter-server.readthedocs.io/en/latest/operators/security.html).
"""

import hashlib
import hmac
import secrets
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from starlette.requests import HTTPConnection

from app.db.engine import Database, Transaction
from models import Token, User

# How long a token once found may be served from memory: the bound on how late a revocation acts.
_CACHE_SECONDS = 1.0
# `last_used_at` is for people who look for forgotten tokens: to the minute is enough.
_USED_SECONDS = 60.0


@dataclass(frozen=True)
class Identity:
    """The user a request acts for.

    `scopes` are those of the token that was used, None for all that the user may; `token_id` is its
    row, None for the token that the server was started with.
    """

    id: uuid.UUID
    name: str
    display_name: str
    admin: bool = False
    scopes: frozenset[str] | None = None
    token_id: uuid.UUID | None = None

    def is_within_scopes(self, action: str, resource: str) -> bool:
        """Tell whether the token that was used is good for an action on a resource."""
        if self.scopes is None:
            return True
        return not self.scopes.isdisjoint({action, f"{action}:{resource}"})


def hash_token(token: str) -> bytes:
    """Return what the database keeps of a token: its SHA-256, 32 bytes."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def token_of(connection: HTTPConnection) -> str | None:
    """Return the token that a request or websocket carries, or None."""
    scheme, _, credentials = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() in ("token", "bearer") and credentials.strip():
        return credentials.strip()
    return connection.query_params.get("token") or None


async def ensure_owner(tx: Transaction, name: str) -> Identity:
    """Return the single-user server's owner, made if absent."""
    await tx.execute(insert(User).values(name=name, admin=True).on_conflict_do_nothing())
    user = (await tx.execute(select(User).where(User.name == name))).scalar_one()
    return identity_of(user)


def living_token(condition: ColumnElement[bool]) -> Select[User, Token]:
    """The token that fulfils a condition, if it is valid now, and its living user."""
    return (
        select(User, Token)
        .join(Token, Token.user_id == User.id)
        .where(
            condition,
            Token.revoked_at.is_(None),
            User.disabled_at.is_(None),
            or_(Token.expires_at.is_(None), Token.expires_at > func.now()),
        )
    )


class TokenAuthenticator:
    """Finds identities by token, remembering each for a second.

    Only tokens that exist are remembered, so that guessing cannot fill the memory. The token that
    a server was started with stands for its owner while that process lives, and is in no table:
    with the next start it is void.

    A login names the token that was used without telling it: the row of a stored one, or for the
    server's own a digest keyed with `secret`, which ends it when either changes.
    """

    def __init__(
        self, database: Database, *, token: str, owner: Identity, secret: bytes | None = None
    ) -> None:
        self._database = database
        self._own_digest = hash_token(token)
        key = secret or secrets.token_bytes(32)
        self._own_login = hmac.new(key, self._own_digest, hashlib.sha256).hexdigest()
        self._owner_id = owner.id
        self._known: dict[bytes, tuple[float, Identity, str]] = {}
        self._used: dict[uuid.UUID, float] = {}

    async def identify(self, token: str) -> Identity | None:
        """Return the living user of a valid token, or None."""
        found = await self._by_token(token)
        return found[0] if found else None

    async def login_of(self, token: str) -> str | None:
        """Return what a browser's cookie says instead of a valid token, or None."""
        found = await self._by_token(token)
        return found[1] if found else None

    async def identify_login(self, login: str) -> Identity | None:
        """Return the living user of a login whose token is valid, or None."""
        if hmac.compare_digest(login.encode(), self._own_login.encode()):
            found = await self._own()
        else:
            try:
                token_id = uuid.UUID(login)
            except ValueError:
                return None
            found = await self._find(token_id.bytes, Token.id == token_id)
        return found[0] if found else None

    def start(self, open_tokens: Callable[[], Collection[uuid.UUID]]) -> None:
        """Begin what goes on in the background: nothing, where the database knows all tokens.

        `open_tokens` returns the ids of those that something is open with.
        """

    async def close(self) -> None:
        """Stop what `start` began."""

    def forget(self) -> None:
        """Ask the database again at the next request of each token."""
        self._known.clear()

    async def _by_token(self, token: str) -> tuple[Identity, str] | None:
        digest = hash_token(token)
        if hmac.compare_digest(digest, self._own_digest):
            return await self._own()
        return await self._find(digest, (Token.hash == digest) & (Token.kind == "token"))

    async def _own(self) -> tuple[Identity, str] | None:
        """The server's owner, unless disabled."""
        now = time.monotonic()
        known = self._known.get(self._own_digest)
        if known and now - known[0] < _CACHE_SECONDS:
            return known[1], known[2]
        query = select(User).where(User.id == self._owner_id, User.disabled_at.is_(None))
        async with self._database.read(as_server=True) as session:
            user = (await session.execute(query)).scalar_one_or_none()
        if user is None:
            self._known.pop(self._own_digest, None)
            return None
        identity = identity_of(user)
        self._known[self._own_digest] = (now, identity, self._own_login)
        return identity, self._own_login

    async def _find(
        self, key: bytes, condition: ColumnElement[bool]
    ) -> tuple[Identity, str] | None:
        """The user of a living token and the token's id, from memory if read a moment ago."""
        now = time.monotonic()
        known = self._known.get(key)
        if known and now - known[0] < _CACHE_SECONDS:
            return known[1], known[2]
        async with self._database.read(as_server=True) as session:
            row = (await session.execute(living_token(condition))).one_or_none()
        if row is None:
            self._known.pop(key, None)
            return None
        user, token = row
        await self._note_use(token.id, now)
        identity = identity_of(user, token)
        self._known[key] = (now, identity, str(token.id))
        return identity, str(token.id)

    async def _note_use(self, token_id: uuid.UUID, now: float) -> None:
        if now - self._used.get(token_id, -_USED_SECONDS) < _USED_SECONDS:
            return
        self._used[token_id] = now
        async with self._database.transaction(as_server=True) as tx:
            await tx.execute(
                update(Token).where(Token.id == token_id).values(last_used_at=func.now()),
                execution_options={"synchronize_session": False},
            )


def identity_of(user: User, token: Token | None = None) -> Identity:
    """Return the identity of a user, within the scopes of the token that was used."""
    return Identity(
        user.id,
        user.name,
        user.display_name or user.name,
        admin=user.admin,
        scopes=None if token is None or token.scopes is None else frozenset(token.scopes),
        token_id=token.id if token else None,
    )
