"""People's own PostgreSQL log-ins: read-only, through the policies, for `psql` and notebooks.

The database user of the server must be allowed to create roles (`CREATEROLE`).
"""

import re

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from app.db.engine import Transaction
from app.errors import BadRequestError, ConflictError, ForbiddenError, NotFoundError
from models import SqlRole, User

_LONGEST = 63  # PostgreSQL's identifiers, in bytes


async def create_sql_role(tx: Transaction, user: User, role: str | None, password: str) -> str:
    """Make a login of a user, or give it a new password; return the role's name.

    Names belong to the whole cluster, so the default one begins with the database's.
    """
    if role is None:
        database = (await tx.execute(select(func.current_database()))).scalar_one()
        role = re.sub(r"[^a-z0-9_]", "_", f"{database}_{user.name}".lower())[:_LONGEST]
    if not role or len(role.encode()) > _LONGEST or role.startswith("pg_"):
        raise BadRequestError(f"{role!a} cannot be a role's name")
    owner = select(SqlRole.user_id).where(SqlRole.role_name == role)
    if (await tx.execute(owner)).scalar_one_or_none() not in (None, user.id):
        raise ConflictError(f"The role {role!a} is another user's")
    try:
        await tx.execute(select(func.datastore_create_login(role, password)))
    except DBAPIError as error:
        raise _explained(error) from error
    statement = insert(SqlRole).values(role_name=role, user_id=user.id)
    await tx.execute(statement.on_conflict_do_nothing())
    return role


async def drop_sql_role(tx: Transaction, user: User, role: str | None) -> None:
    """Remove a user's log-ins, or the one named, and end their connections."""
    query = select(SqlRole.role_name).where(SqlRole.user_id == user.id)
    if role is not None:
        query = query.where(SqlRole.role_name == role)
    found = (await tx.execute(query)).scalars().all()
    if not found:
        raise NotFoundError(f"{user.name!a} has no SQL login")
    for name in found:
        try:
            await tx.execute(select(func.datastore_drop_login(name)))
        except DBAPIError as error:
            raise _explained(error) from error
        await tx.execute(delete(SqlRole).where(SqlRole.role_name == name))


def _explained(error: DBAPIError) -> ConflictError | ForbiddenError:
    code = getattr(error.orig, "sqlstate", None)
    if code == "42501":
        return ForbiddenError("The server's database user may not create roles (CREATEROLE)")
    return ConflictError(str(error.orig).splitlines()[0])
