"""`/api/users`, `/api/groups`, `/api/tokens` and `/api/audit` (docs/permissions.md).

A token that has scopes cannot make more than it is: not a wider token, and nothing about people
that its scopes do not name.
"""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from sqlalchemy import func, select

from app.auth.access import allow
from app.auth.identity import Identity
from app.auth.passwords import has_password, set_password
from app.auth.throttle import LoginLimit
from app.db.engine import Database, Transaction
from app.errors import ForbiddenError, NotFoundError, TooManyRequestsError
from app.people import people
from app.people.homes import Homes
from app.people.schemas import (
    audit_model,
    flag_field,
    person_model,
    required_text,
    texts_field,
    time_field,
    token_model,
    user_model,
)
from app.web import json_body, text_field
from models import AuditEntry, Content, Group, GroupMember, Token, User

router = APIRouter()

UserAdmin = Annotated[Identity, allow("write", "users")]
GroupAdmin = Annotated[Identity, allow("write", "groups")]


@asynccontextmanager
async def changing(request: Request, identity: Identity) -> AsyncIterator[Transaction]:
    """Yield a transaction of the server's, in which triggers know who asked."""
    database: Database = request.app.state.database
    async with database.transaction(as_server=True) as tx:
        await tx.execute(select(func.set_config("datastore.user_id", str(identity.id), True)))
        yield tx


# users


@router.get("/api/users")
async def list_users(
    request: Request, identity: Annotated[Identity, allow("read", "users")]
) -> list[dict[str, Any]]:
    """List users by name: to admins all there is to know, to others the names of the living."""
    query = select(User, Content.path).outerjoin(Content, Content.id == User.home_id)
    async with request.app.state.database.read() as tx:
        found = (await tx.execute(query.order_by(User.name))).all()
    if identity.admin:
        return [user_model(user, home=home) for user, home in found]
    return [person_model(user) for user, _ in found if user.disabled_at is None]


@router.post("/api/users", status_code=201)
async def create_user(request: Request, identity: UserAdmin) -> dict[str, Any]:
    """Make a user with a home folder; with a `password` they can log in by name."""
    body = await json_body(request)
    password = text_field(body, "password", any_text=True)
    async with changing(request, identity) as tx:
        made = await people.create_user(
            tx,
            required_text(body, "name"),
            display_name=text_field(body, "display_name"),
            admin=flag_field(body, "admin") or False,
        )
        if password is not None:
            await set_password(tx, made.id, password)
        home = (await tx.execute(_home(made))).scalar_one_or_none()
        await tx.flush()
        await tx.refresh(made)
    homes: Homes = request.app.state.homes
    await homes.make()
    return user_model(made, home=home)


def _home(user: User) -> Any:
    return select(Content.path).where(Content.id == user.home_id)


@router.patch("/api/users/{user_id}")
async def update_user(user_id: str, request: Request, identity: UserAdmin) -> dict[str, Any]:
    """Rename, disable or enable a user, make them an admin or not, set their password."""
    body = await json_body(request)
    async with changing(request, identity) as tx:
        user = await people.find_user(tx, user_id)
        if (name := text_field(body, "name")) is not None:
            await people.rename(tx, user, name)
        if (disabled := flag_field(body, "disabled")) is not None:
            await people.set_disabled(tx, user, disabled=disabled)
        if (admin := flag_field(body, "admin")) is not None:
            await people.set_admin(tx, user, admin=admin)
        if (password := text_field(body, "password", any_text=True)) is not None:
            await set_password(tx, user.id, password)
        home = (await tx.execute(_home(user))).scalar_one_or_none()
    return user_model(user, home=home)


@router.post("/api/me/password", status_code=204)
async def change_password(
    request: Request, identity: Annotated[Identity, allow("write", "api")]
) -> None:
    """Change one's own password, which ends one's log-ins; `current` is the one until now."""
    body = await json_body(request)
    current = text_field(body, "current", any_text=True) or ""
    await replace_own_password(request, identity, current, required_text_any(body, "password"))


async def replace_own_password(
    request: Request, identity: Identity, current: str, password: str
) -> None:
    """Set one's own password, knowing the one until now.

    ForbiddenError when it is another or a token with scopes asks, TooManyRequestsError after ten
    wrong ones, BadRequestError when the new one is none.
    """
    if identity.scopes is not None:
        raise ForbiddenError("A token with scopes cannot change a password", reason="scopes")
    limit: LoginLimit = request.app.state.login_limit
    whose = f"password of {identity.id}"
    if seconds := limit.seconds_to_wait(whose):
        raise TooManyRequestsError(f"Too many wrong passwords. Try again in {seconds} seconds")
    async with changing(request, identity) as tx:
        # The server's own token is the owner's proof while there is no password.
        if identity.token_id is not None and not await has_password(tx, identity.id, current):
            limit.add_wrong(whose)
            raise ForbiddenError("This is not the password", reason="current")
        await set_password(tx, identity.id, password)


def required_text_any(body: dict[str, Any], name: str) -> str:
    """Return a string that may have any character."""
    value = text_field(body, name, any_text=True)
    return value if value is not None else required_text(body, name)


# groups


@router.get("/api/groups")
async def list_groups(
    request: Request, _: Annotated[Identity, allow("read", "groups")]
) -> list[dict[str, Any]]:
    """List groups by name, with their members as far as the asker may know: admins all."""
    query = (
        select(Group, User.name)
        .outerjoin(GroupMember, GroupMember.group_id == Group.id)
        .outerjoin(User, User.id == GroupMember.user_id)
        .order_by(Group.name, User.name)
    )
    found: dict[uuid.UUID, dict[str, Any]] = {}
    async with request.app.state.database.read() as tx:
        for group, member in await tx.execute(query):
            model = found.setdefault(
                group.id, {"id": str(group.id), "name": group.name, "members": []}
            )
            model["members"] += [member] if member else []
    return list(found.values())


@router.post("/api/groups", status_code=201)
async def create_group(request: Request, identity: GroupAdmin) -> dict[str, Any]:
    """Make a group."""
    body = await json_body(request)
    async with changing(request, identity) as tx:
        made = await people.create_group(tx, required_text(body, "name"))
    return {"id": str(made.id), "name": made.name, "members": []}


@router.patch("/api/groups/{group_id}")
async def rename_group(group_id: str, request: Request, identity: GroupAdmin) -> dict[str, Any]:
    """Rename a group."""
    body = await json_body(request)
    async with changing(request, identity) as tx:
        group = await people.find_group(tx, group_id)
        await people.rename(tx, group, required_text(body, "name"))
    return {"id": str(group.id), "name": group.name}


@router.delete("/api/groups/{group_id}", status_code=204)
async def delete_group(group_id: str, request: Request, identity: GroupAdmin) -> None:
    """Remove a group, with what it was granted."""
    async with changing(request, identity) as tx:
        group = await people.find_group(tx, group_id)
        await tx.delete(group)


@router.put("/api/groups/{group_id}/members/{user_id}", status_code=204)
async def join_group(group_id: str, user_id: str, request: Request, identity: GroupAdmin) -> None:
    """Put a user into a group."""
    async with changing(request, identity) as tx:
        group, user = await people.find_group(tx, group_id), await people.find_user(tx, user_id)
        await people.join(tx, group, user)


@router.delete("/api/groups/{group_id}/members/{user_id}", status_code=204)
async def leave_group(group_id: str, user_id: str, request: Request, identity: GroupAdmin) -> None:
    """Take a user out of a group."""
    async with changing(request, identity) as tx:
        group, user = await people.find_group(tx, group_id), await people.find_user(tx, user_id)
        await people.leave(tx, group, user)


# tokens


@router.get("/api/tokens")
async def list_tokens(
    request: Request, _: Annotated[Identity, allow("read", "tokens")]
) -> list[dict[str, Any]]:
    """List the asker's tokens and log-ins, for admins everyone's, newest first."""
    query = (
        select(Token, User.name)
        .join(User, User.id == Token.user_id)
        .order_by(Token.created_at.desc(), Token.id)
    )
    async with request.app.state.database.read() as tx:
        return [token_model(token, name) for token, name in await tx.execute(query)]


@router.post("/api/tokens", status_code=201)
async def create_token(
    request: Request, identity: Annotated[Identity, allow("write", "tokens")]
) -> dict[str, Any]:
    """Make a token for oneself, admins for any `user`; `token` is shown now and never again."""
    body = await json_body(request)
    scopes = people.check_scopes(texts_field(body, "scopes"))
    if identity.scopes is not None and (scopes is None or not identity.scopes >= set(scopes)):
        raise ForbiddenError("A token cannot make one that may more", reason="scopes")
    owner = text_field(body, "user")
    if owner not in (None, identity.name) and not identity.admin:
        raise ForbiddenError("You may make tokens for yourself only")
    async with changing(request, identity) as tx:
        user = await people.find_user(tx, owner or str(identity.id))
        if user.hub_name is not None:  # one of ours would go on when the hub's have ended
            raise ForbiddenError("JupyterHub makes the tokens of its people", reason="hub")
        made, secret = await people.create_token(
            tx,
            user,
            text_field(body, "name") or "token",
            scopes=scopes,
            expires_at=time_field(body, "expires_at"),
        )
        model = token_model(made, user.name)
    return {**model, "token": secret}


@router.delete("/api/tokens/{token_id}", status_code=204)
async def revoke_token(
    token_id: uuid.UUID, request: Request, identity: Annotated[Identity, allow("write", "tokens")]
) -> None:
    """Revoke a token or a log-in: one's own, admins anyone's."""
    async with request.app.state.database.read() as tx:  # by the policy: own tokens
        if await tx.get(Token, token_id) is None:
            raise NotFoundError(f"There is no token {token_id}")
    async with changing(request, identity) as tx:
        await people.revoke_token(tx, token_id)


# audit


@router.get("/api/audit")
async def list_audit(
    request: Request,
    _: Annotated[Identity, allow("read", "audit")],
    before: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[dict[str, Any]]:
    """List what was done about access, newest first; `before` is the id to go on from."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    if before is not None:
        query = query.where(AuditEntry.id < before)
    async with request.app.state.database.read() as tx:
        return [audit_model(entry) for entry in (await tx.execute(query)).scalars()]
