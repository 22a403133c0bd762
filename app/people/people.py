"""Users, groups, tokens, permissions and share links, within a transaction of the server's.

Who may do this is for the caller: routes ask, and whoever runs the commands has the database.
"""

import re
import secrets
import uuid
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, get_args

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from app.auth.access import Action, Resource
from app.auth.identity import hash_token
from app.contents import rows
from app.db.engine import Transaction
from app.errors import BadRequestError, ConflictError, NotFoundError
from models import (
    Content,
    Group,
    GroupMember,
    Kernel,
    Permission,
    ShareLink,
    Token,
    User,
)

ROLES: dict[str, tuple[str, ...]] = {
    "viewer": ("read",),
    "runner": ("read", "execute"),
    "editor": ("read", "write", "execute"),
    "owner": ("read", "write", "execute", "share"),
}
HOMES = "home"
_LONGEST_NAME = 255


def role_of(actions: Collection[str]) -> str | None:
    """Return the name of a set of actions, None when it has none."""
    return next((name for name, its in ROLES.items() if set(its) == set(actions)), None)


def actions_of(role: str | None, actions: Collection[str] | None) -> list[str]:
    """Return the actions that a role's name, or a list, stands for; each includes `read`."""
    if (role is None) == (actions is None):
        raise BadRequestError(f"Name a role ({', '.join(ROLES)}) or actions")
    if role is not None:
        if role not in ROLES:
            raise BadRequestError(f"There is no role {role!r}: {', '.join(ROLES)}")
        return list(ROLES[role])
    wanted = {"read", *(actions or ())}
    if unknown := wanted - set(ROLES["owner"]):
        raise BadRequestError(f"There is no action {min(unknown)!r}")
    return [action for action in ROLES["owner"] if action in wanted]


def _check_name(name: str) -> str:
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise BadRequestError(f"{name!a} cannot be a name")
    return name


# users


async def find_user(tx: Transaction, name: str) -> User:
    """Return a user by name or id; NotFoundError (404) when there is none."""
    found: User = await _find(tx, User, name)
    return found


async def find_group(tx: Transaction, name: str) -> Group:
    """Return a group by name or id; NotFoundError (404) when there is none."""
    found: Group = await _find(tx, Group, name)
    return found


async def _find(tx: Transaction, table: Any, name: str) -> Any:
    found = (await tx.execute(select(table).where(table.name == name))).scalar_one_or_none()
    if found is None:
        try:
            found = await tx.get(table, uuid.UUID(name))
        except ValueError:
            found = None
    if found is None:
        raise NotFoundError(f"There is no {table.__name__.lower()} {name!a}")
    return found


async def create_user(
    tx: Transaction,
    name: str,
    *,
    display_name: str | None = None,
    admin: bool = False,
    home: bool = True,
    hub_name: str | None = None,
) -> User:
    """Make a user, with a home folder unless not wanted; ConflictError when the name is taken."""
    made = User(
        id=uuid.uuid4(),
        name=_check_name(name),
        display_name=display_name,
        admin=admin,
        hub_name=hub_name,
    )
    taken = (await tx.execute(select(User.id).where(User.name == name))).first()
    if taken:
        raise ConflictError(f"There is a user {name!a} already")
    if home:
        await rows.lock(tx)
        made.home_id = await rows.folder_id(tx, await _free_home(tx, name))
    tx.add(made)
    await tx.flush()
    return made


async def _free_home(tx: Transaction, name: str) -> str:
    """Return a path of a home that nobody has used."""
    slug = re.sub(r"[^\w.@+-]", "_", name).lstrip(".") or "user"
    for n in range(1, 1000):
        path = f"{HOMES}/{slug}" if n == 1 else f"{HOMES}/{slug}-{n}"
        if (await tx.execute(select(Content.id).where(Content.path == path))).first() is None:
            return path
    raise ConflictError(f"There is no free home for {name!a}")


async def set_disabled(tx: Transaction, user: User, *, disabled: bool) -> None:
    """Disable or enable a user; ConflictError for the last living admin."""
    if disabled and user.admin:
        await _require_other_admin(tx, user)
    user.disabled_at = (user.disabled_at or datetime.now(UTC)) if disabled else None
    await tx.flush()


async def set_admin(tx: Transaction, user: User, *, admin: bool) -> None:
    """Make a user an admin or not; ConflictError for the last living admin."""
    if user.admin and not admin:
        await _require_other_admin(tx, user)
    user.admin = admin
    await tx.flush()


async def _require_other_admin(tx: Transaction, user: User) -> None:
    query = select(func.count()).where(User.admin, User.disabled_at.is_(None), User.id != user.id)
    if not (await tx.execute(query)).scalar_one():
        raise ConflictError(f"{user.name!a} is the last admin")


async def rename(tx: Transaction, found: User | Group, name: str) -> None:
    """Rename a user or group; ConflictError when the name is taken."""
    table = type(found)
    taken = select(table.id).where(table.name == _check_name(name), table.id != found.id)
    if (await tx.execute(taken)).first():
        raise ConflictError(f"There is a {table.__name__.lower()} {name!a} already")
    found.name = name
    await tx.flush()


async def link(tx: Transaction, user: User, hub_name: str | None) -> None:
    """Say who a user is at JupyterHub; ConflictError when another one is that."""
    taken = select(User.name).where(User.hub_name == hub_name, User.id != user.id)
    if hub_name is not None and (other := (await tx.execute(taken)).scalar_one_or_none()):
        raise ConflictError(f"{hub_name!a} of JupyterHub is {other!a} here already")
    user.hub_name = hub_name
    await tx.flush()


# groups


async def create_group(tx: Transaction, name: str, *, hub_name: str | None = None) -> Group:
    """Make a group; ConflictError when the name is taken."""
    if (await tx.execute(select(Group.id).where(Group.name == _check_name(name)))).first():
        raise ConflictError(f"There is a group {name!a} already")
    made = Group(id=uuid.uuid4(), name=name, hub_name=hub_name)
    tx.add(made)
    await tx.flush()
    return made


async def join(tx: Transaction, group: Group, user: User) -> None:
    """Put a user into a group; nothing when they are in it."""
    values = {"group_id": group.id, "user_id": user.id}
    await tx.execute(insert(GroupMember).values(**values).on_conflict_do_nothing())


async def leave(tx: Transaction, group: Group, user: User) -> None:
    """Take a user out of a group; NotFoundError when they are not in it."""
    gone = delete(GroupMember).where(
        GroupMember.group_id == group.id, GroupMember.user_id == user.id
    )
    if not (await tx.execute(gone.returning(GroupMember.user_id))).first():
        raise NotFoundError(f"{user.name!a} is not in {group.name!a}")


# tokens


def check_scopes(scopes: Collection[str] | None) -> list[str] | None:
    """Return scopes that a token may have: `read`, or `execute:kernels`, and the like."""
    if scopes is None:
        return None
    for scope in scopes:
        action, colon, resource = scope.partition(":")
        if action not in get_args(Action) or (colon and resource not in get_args(Resource)):
            raise BadRequestError(f"{scope!a} is not an action, or action:resource")
    return sorted(set(scopes))


async def create_token(
    tx: Transaction,
    user: User,
    name: str,
    *,
    scopes: Collection[str] | None = None,
    expires_at: datetime | None = None,
) -> tuple[Token, str]:
    """Make a token; return its row and the secret, which is nowhere else."""
    secret = secrets.token_urlsafe(32)
    made = Token(
        id=uuid.uuid4(),
        user_id=user.id,
        name=_check_name(name),
        prefix=secret[:6],
        hash=hash_token(secret),
        scopes=check_scopes(scopes),
        expires_at=_future(expires_at),
    )
    tx.add(made)
    await tx.flush()
    await tx.refresh(made)
    return made, secret


async def revoke_token(tx: Transaction, token_id: uuid.UUID) -> None:
    """Make a token, or a login, void."""
    await tx.execute(
        update(Token)
        .where(Token.id == token_id, Token.revoked_at.is_(None))
        .values(revoked_at=func.now()),
        execution_options={"synchronize_session": False},
    )


def _future(moment: datetime | None) -> datetime | None:
    if moment is not None:
        if moment.tzinfo is None:
            raise BadRequestError("A time needs its zone, for example 2026-01-01T00:00:00Z")
        if moment <= datetime.now(UTC):
            raise BadRequestError("It would have expired already")
    return moment


# permissions


def above(path: str) -> list[str]:
    """Return a path and the folders that it is in, the root too."""
    parts = path.split("/") if path else []
    return ["/".join(parts[:n]) for n in range(len(parts) + 1)]


def is_given_to(user_id: uuid.UUID) -> ColumnElement[bool]:
    """What was given to a user, a group of theirs, or everyone."""
    groups = select(GroupMember.group_id).where(GroupMember.user_id == user_id)
    return or_(
        Permission.user_id == user_id,
        Permission.subject == "everyone",
        Permission.group_id.in_(groups),
    )


async def content_at(tx: Transaction, path: str) -> Content:
    """Return the row of a file or folder; NotFoundError when none is known at the path."""
    path = path.strip("/")
    query = select(Content).where(Content.path == path, Content.missing_since.is_(None))
    found = (await tx.execute(query)).scalar_one_or_none()
    if found is None:
        raise NotFoundError(f"No such file or directory: {path}")
    return found


async def target_of(
    tx: Transaction, *, path: str | None = None, kernel_id: str | None = None
) -> dict[str, Any]:
    """Return the columns of a permission that name its target; the server without one."""
    if path is not None:
        found = await content_at(tx, path)
        return {"resource": "contents", "content_id": found.id, "kernel_id": None}
    if kernel_id is not None:
        if await tx.get(Kernel, kernel_id) is None:
            raise NotFoundError(f"Kernel does not exist: {kernel_id}")
        return {"resource": "kernels", "content_id": None, "kernel_id": kernel_id}
    return {"resource": "server", "content_id": None, "kernel_id": None}


async def grant(
    tx: Transaction,
    *,
    target: dict[str, Any],
    actions: list[str],
    user: User | None = None,
    group: Group | None = None,
    granted_by_id: uuid.UUID | None = None,
    expires_at: datetime | None = None,
    share_link_id: uuid.UUID | None = None,
) -> Permission:
    """Give a user, a group or, without either, everyone some actions on a target.

    It takes the place of what the same subject was given on the same target before, but for what
    links gave.
    """
    subject = "user" if user else "group" if group else "everyone"
    columns = {
        **target,
        "subject": subject,
        "user_id": user.id if user else None,
        "group_id": group.id if group else None,
        "share_link_id": share_link_id,
    }
    same: list[ColumnElement[bool]] = [
        getattr(Permission, name).is_not_distinct_from(value) for name, value in columns.items()
    ]
    await tx.execute(
        delete(Permission).where(and_(*same)), execution_options={"synchronize_session": False}
    )
    made = Permission(
        id=uuid.uuid4(),
        actions=actions,
        granted_by_id=granted_by_id,
        expires_at=_future(expires_at),
        **columns,
    )
    tx.add(made)
    await tx.flush()
    await tx.refresh(made)
    return made


# share links


async def create_link(
    tx: Transaction,
    *,
    target: dict[str, Any],
    actions: list[str],
    created_by_id: uuid.UUID,
    expires_at: datetime | None,
) -> tuple[ShareLink, str]:
    """Make a link; return its row and the code, which is nowhere else."""
    code = secrets.token_urlsafe(24)
    made = ShareLink(
        id=uuid.uuid4(),
        hash=hash_token(code),
        prefix=code[:6],
        actions=actions,
        created_by_id=created_by_id,
        expires_at=_future(expires_at),
        **target,
    )
    tx.add(made)
    await tx.flush()
    await tx.refresh(made)
    return made, code


async def accept_link(tx: Transaction, code: str, user: User) -> Permission:
    """Give a user what a code grants, for as long as the link lasts.

    NotFoundError for an unknown code, a revoked or an expired one: nobody is told which.
    """
    query = select(ShareLink).where(
        ShareLink.hash == hash_token(code),
        ShareLink.revoked_at.is_(None),
        or_(ShareLink.expires_at.is_(None), ShareLink.expires_at > func.now()),
    )
    link = (await tx.execute(query.with_for_update(read=True))).scalar_one_or_none()
    if link is None:
        raise NotFoundError("There is no such link, or it is not valid any more")
    target = {
        "resource": link.resource,
        "content_id": link.content_id,
        "kernel_id": link.kernel_id,
    }
    return await grant(
        tx,
        target=target,
        actions=link.actions,
        user=user,
        granted_by_id=link.created_by_id,
        expires_at=link.expires_at,
        share_link_id=link.id,
    )


async def revoke_link(tx: Transaction, link: ShareLink) -> None:
    """End a link and what it gave."""
    link.revoked_at = link.revoked_at or datetime.now(UTC)
    await tx.execute(
        delete(Permission).where(Permission.share_link_id == link.id),
        execution_options={"synchronize_session": False},
    )
