"""Passwords: kept as argon2id hashes that only the server's own role may read.

Logging in with one makes a row of `tokens` of the kind `login`, which the browser's cookie names;
so it ends like a token: by its expiry, by logging out, by revoking it, by a new password.
"""

import asyncio
import secrets
import uuid
from datetime import UTC, datetime, timedelta
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy import Text, cast, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from app.auth.identity import hash_token
from app.db.engine import Database, Transaction
from app.errors import BadRequestError
from models import Password, Token, User

LOGIN_DAYS = 30
_SHORTEST, _LONGEST = 8, 1024
_hasher = PasswordHasher()


@cache
def _nobodys() -> str:
    """Return a hash that is checked for names that there are not, so that they take as long."""
    return _hasher.hash(secrets.token_hex(16))


async def set_password(tx: Transaction, user_id: uuid.UUID, password: str | None) -> None:
    """Give a user a password, or none, in a transaction of the server's; ends their log-ins.

    BadRequestError when it is too short.
    """
    if password is None:
        await tx.execute(delete(Password).where(Password.user_id == user_id))
    else:
        if not _SHORTEST <= len(password) <= _LONGEST:
            raise BadRequestError(f"A password has {_SHORTEST} to {_LONGEST} characters")
        made = await asyncio.to_thread(_hasher.hash, password.encode("utf-8", "surrogatepass"))
        statement = insert(Password).values(user_id=user_id, hash=made)
        await tx.execute(
            statement.on_conflict_do_update(
                index_elements=["user_id"], set_={"hash": made, "changed_at": func.now()}
            )
        )
    await tx.execute(
        update(Token)
        .where(Token.user_id == user_id, Token.kind == "login", Token.revoked_at.is_(None))
        .values(revoked_at=func.now()),
        execution_options={"synchronize_session": False},
    )


async def is_right(hashed: str | None, password: str) -> bool:
    """Tell whether a password is the one that was hashed; takes some tens of milliseconds.

    That of nobody (None) never is, and takes as long.
    """
    raw = password[:_LONGEST].encode("utf-8", "surrogatepass")

    def verify() -> bool:
        return _hasher.verify(hashed or _nobodys(), raw) and hashed is not None

    try:
        return await asyncio.to_thread(verify)
    except (Argon2Error, InvalidHashError):
        return False


async def has_password(tx: Transaction, user_id: uuid.UUID, password: str) -> bool:
    """Tell whether this is a user's password; takes as long for one who has none."""
    query = select(Password.hash).where(Password.user_id == user_id)
    hashed = (await tx.execute(query)).scalar_one_or_none()
    return await is_right(hashed, password)


async def log_in(database: Database, name: str, password: str, place: str) -> Token | None:
    """Return the row of a new login, or None for a wrong name or password or a disabled user."""
    query = (
        select(User.id, Password.hash)
        .join(Password, Password.user_id == User.id)
        .where(User.name == name, User.disabled_at.is_(None))
    )
    async with database.read(as_server=True) as tx:
        found = (await tx.execute(query)).one_or_none()
    if not await is_right(found.hash if found else None, password) or found is None:
        return None
    login = Token(
        id=uuid.uuid4(),
        user_id=found.id,
        kind="login",
        name=f"login from {place}",
        prefix="",
        hash=hash_token(secrets.token_hex(32)),  # nobody knows what this is the hash of
        expires_at=datetime.now(UTC) + timedelta(days=LOGIN_DAYS),
    )
    async with database.transaction(as_server=True) as tx:
        tx.add(login)
    return login


async def end_login(database: Database, login: str) -> None:
    """Make the login that a cookie names void; a token that was used for it stays."""
    try:
        login_id = uuid.UUID(login)
    except ValueError:
        return
    async with database.transaction(as_server=True) as tx:
        # The audit says that it was they who logged out.
        whose = select(cast(Token.user_id, Text)).where(Token.id == login_id).scalar_subquery()
        await tx.execute(select(func.set_config("datastore.user_id", whose, True)))
        await tx.execute(
            update(Token)
            .where(Token.id == login_id, Token.kind == "login", Token.revoked_at.is_(None))
            .values(revoked_at=func.now()),
            execution_options={"synchronize_session": False},
        )
