"""Users and tokens: finding the person a request's token stands for.

Tokens arrive as Jupyter clients send them: `Authorization: token T`, `Authorization: Bearer T` or
`?token=T` (https://jupyter-server.readthedocs.io/en/latest/operators/security.html).
"""

import hashlib
import time
import uuid
from dataclasses import dataclass

from sqlalchemy import func, or_, select
from sqlalchemy.dialects.postgresql import insert
from starlette.requests import HTTPConnection

from app.db.engine import Database, Transaction
from models import Token, User

# How long a token once found may be served from memory: the bound on how late a revocation acts.
_CACHE_SECONDS = 1.0


@dataclass(frozen=True)
class Identity:
    """The user a request acts for."""

    id: uuid.UUID
    name: str
    display_name: str


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
    return Identity(user.id, user.name, user.display_name or user.name)


class TokenAuthenticator:
    """Finds identities by token, remembering each for a second.

    Only tokens that exist are remembered, so that guessing cannot fill the memory. The token that
    a server was started with stands for its owner while that process lives, and is in no table:
    with the next start it is void.
    """

    def __init__(self, database: Database, *, token: str, owner: Identity) -> None:
        self._database = database
        self._own_digest = hash_token(token)
        self._owner = owner
        self._known: dict[bytes, tuple[float, Identity]] = {}

    async def identify(self, token: str) -> Identity | None:
        """Return the living user of a valid token, or None."""
        digest = hash_token(token)
        if digest == self._own_digest:
            return self._owner
        now = time.monotonic()
        known = self._known.get(digest)
        if known and now - known[0] < _CACHE_SECONDS:
            return known[1]
        query = (
            select(User)
            .join(Token, Token.user_id == User.id)
            .where(
                Token.hash == digest,
                Token.revoked_at.is_(None),
                User.disabled_at.is_(None),
                or_(Token.expires_at.is_(None), Token.expires_at > func.now()),
            )
        )
        async with self._database.read() as session:
            user = (await session.execute(query)).scalar_one_or_none()
        if user is None:
            self._known.pop(digest, None)
            return None
        identity = Identity(user.id, user.name, user.display_name or user.name)
        self._known[digest] = (now, identity)
        return identity
