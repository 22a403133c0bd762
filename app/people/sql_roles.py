"""People's own PostgreSQL log-ins: read-only, through the policies, for `psql` and notebooks.

The database user of the server must be allowed to create roles (`CREATEROLE`).
"""

import re

from sqlalchemy import Text, any_, column, delete, func, literal, select, table
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, OID, insert
from sqlalchemy.exc import DBAPIError

from app.db.engine import Transaction
from app.errors import BadRequestError, ConflictError, ForbiddenError, NotFoundError
from models import SqlRole, User
from models.publication import NAME

_LONGEST = 63  # PostgreSQL's identifiers, in bytes


async def create_sql_role(tx: Transaction, user: User, role: str | None, password: str) -> str:
    """Make a login of a user, or give it a new password; return the role's name.

    Names belong to the whole cluster, so the default one begins with the database's. On a replica
    the row comes from the publisher, and the login alone is made; NotFoundError without the row.
    """
    if role is None:
        database = (await tx.execute(select(func.current_database()))).scalar_one()
        role = re.sub(r"[^a-z0-9_]", "_", f"{database}_{user.name}".lower())[:_LONGEST]
    if not role or len(role.encode()) > _LONGEST or role.startswith("pg_"):
        raise BadRequestError(f"{role!a} cannot be a role's name")
    owner = select(SqlRole.user_id).where(SqlRole.role_name == role)
    owner_id = (await tx.execute(owner)).scalar_one_or_none()
    if owner_id not in (None, user.id):
        raise ConflictError(f"The role {role!a} is another user's")
    if owner_id is None and await _is_replica(tx):
        raise NotFoundError(
            f"This database follows another, which has no SQL login {role!a} of {user.name!a}: "
            "make it there first, and give its name with --role"
        )
    try:
        await tx.execute(select(func.datastore_create_login(role, password)))
    except DBAPIError as error:
        raise _explained(error) from error
    if owner_id is not None and not await _is_replica(tx):
        # A trigger tells when there is a new one; a new password is in no table.
        detail = literal({"user": user.name, "role": role}, JSONB)
        await tx.execute(select(func.datastore_audit("renew_sql_role", detail)))
    if owner_id is None:
        statement = insert(SqlRole).values(role_name=role, user_id=user.id)
        await tx.execute(statement.on_conflict_do_nothing())
    return role


async def drop_sql_role(tx: Transaction, user: User, role: str | None) -> None:
    """Remove a user's log-ins, or the one named, and end their connections.

    On a replica the rows stay: they are the publisher's.
    """
    is_replica = await _is_replica(tx)
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
        if not is_replica:
            await tx.execute(delete(SqlRole).where(SqlRole.role_name == name))


async def _is_replica(tx: Transaction) -> bool:
    """Tell whether this database's tables are filled by a datastore's publication."""
    subscriptions = table(
        "pg_subscription", column("subdbid", OID), column("subpublications", ARRAY(Text))
    )
    databases = table("pg_database", column("oid", OID), column("datname", Text))
    query = (
        select(subscriptions.c.subdbid)
        .join(databases, databases.c.oid == subscriptions.c.subdbid)
        .where(
            databases.c.datname == func.current_database(),
            literal(NAME) == any_(subscriptions.c.subpublications),
        )
    )
    return (await tx.execute(select(query.exists()))).scalar_one()


def _explained(error: DBAPIError) -> ConflictError | ForbiddenError:
    code = getattr(error.orig, "sqlstate", None)
    if code == "42501":
        return ForbiddenError(
            "The server's database user may not make SQL log-ins. Have an administrator of "
            "PostgreSQL run, with that user's name: ALTER ROLE the_database_user CREATEROLE; "
            "GRANT datastore_analyst TO the_database_user WITH ADMIN OPTION;",
            reason=str(error.orig).splitlines()[0],
        )
    return ConflictError(str(error.orig).splitlines()[0])
