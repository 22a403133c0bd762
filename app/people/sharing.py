"""`/api/permissions` and `/api/share-links`: giving, taking, and asking who may what.

Who may `share` a target may give others what they may do to it themselves. What one may not see is
not there, so a target that is not the asker's to see is answered as one that does not exist.
"""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Request
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import aliased

from app.auth.access import allow, may, require
from app.auth.identity import Identity
from app.contents.following import Following
from app.db.engine import Database, Transaction
from app.errors import BadRequestError, ForbiddenError, NotFoundError
from app.people import people
from app.people.routes import changing
from app.people.schemas import (
    link_model,
    permission_model,
    required_text,
    texts_field,
    time_field,
)
from app.web import json_body, text_field
from models import Content, Group, Kernel, Permission, ShareLink, User

router = APIRouter()

Reader = Annotated[Identity, allow("read", "permissions")]
Sharer = Annotated[Identity, allow("share", "permissions")]

_Grantor = aliased(User)


def _permissions() -> Any:
    return (
        select(Permission, User.name, Group.name, Content.path, _Grantor.name)
        .outerjoin(User, User.id == Permission.user_id)
        .outerjoin(Group, Group.id == Permission.group_id)
        .outerjoin(Content, Content.id == Permission.content_id)
        .outerjoin(_Grantor, _Grantor.id == Permission.granted_by_id)
        .order_by(Permission.created_at, Permission.id)
    )


async def _models(tx: Transaction, query: Any) -> list[dict[str, Any]]:
    return [
        permission_model(row[0], user=row[1], group=row[2], path=row[3], granted_by=row[4])
        for row in await tx.execute(query)
    ]


@router.get("/api/permissions")
async def list_permissions(
    request: Request, identity: Reader, path: str | None = None, kernel_id: str | None = None
) -> dict[str, Any]:
    """Say who can see a path or a kernel, to who may share it; without either, what one may.

    `permissions` are those that hold, on the target or a folder it is in; `owner` is whose home or
    kernel it is. Admins may everything and are not listed.
    """
    database: Database = request.app.state.database
    if path is None and kernel_id is None:
        async with database.read() as tx:
            user = (await tx.execute(select(User).where(User.id == identity.id))).scalar_one()
            home = select(Content.path).where(Content.id == user.home_id)
            return {
                "admin": identity.admin,
                "home": (await tx.execute(home)).scalar_one_or_none(),
                "permissions": await _models(
                    tx, _permissions().where(people.is_given_to(identity.id))
                ),
            }
    if path is not None:
        path = path.strip("/")
        await require(database, identity, "share", "contents", path)
        wanted: ColumnElement[bool] = Content.path.in_(people.above(path))
        whose = (
            select(User.name)
            .join(Content, Content.id == User.home_id)
            .where(Content.path.in_(people.above(path)))
        )
    else:
        assert kernel_id is not None
        await require(database, identity, "share", "kernels", kernel_id)
        wanted = Permission.kernel_id == kernel_id
        whose = select(User.name).join(Kernel, Kernel.owner_id == User.id)
        whose = whose.where(Kernel.id == kernel_id)
    # All that holds for what the asker may share, also what was granted above it.
    async with database.read(as_server=True) as tx:
        return {
            "owner": (await tx.execute(whose)).scalars().first(),
            "permissions": await _models(tx, _permissions().where(wanted)),
        }


async def _target(request: Request, identity: Identity, body: dict[str, Any]) -> tuple[str, str]:
    """Return what a body names, as resource and id, once the asker may share it."""
    path, kernel_id = text_field(body, "path"), text_field(body, "kernel_id")
    database: Database = request.app.state.database
    if path is not None and kernel_id is None:
        path = path.strip("/")
        await require(database, identity, "share", "contents", path)
        following: Following = request.app.state.following
        await following.note(path)
        return "contents", path
    if kernel_id is not None and path is None:
        await require(database, identity, "share", "kernels", kernel_id)
        return "kernels", kernel_id
    if path is None and body.get("resource") == "server":
        await require(database, identity, "share", "server")
        return "server", ""
    raise BadRequestError("Name a target: path, kernel_id, or the resource server")


async def _columns(tx: Transaction, resource: str, target: str) -> dict[str, Any]:
    return await people.target_of(
        tx,
        path=target if resource == "contents" else None,
        kernel_id=target if resource == "kernels" else None,
    )


async def _actions(
    request: Request, identity: Identity, body: dict[str, Any], resource: str, target: str
) -> list[str]:
    """Return the actions that a body names; ForbiddenError for what the asker may not do."""
    actions = people.actions_of(text_field(body, "role"), texts_field(body, "actions"))
    database: Database = request.app.state.database
    for action in actions:
        if not identity.is_within_scopes(action, resource) or not await may(
            database, identity, action, resource, target or None
        ):
            raise ForbiddenError(f"You may not {action} it yourself", reason=f"{action}:{resource}")
    return actions


@router.post("/api/permissions", status_code=201)
async def grant(request: Request, identity: Sharer) -> dict[str, Any]:
    """Give a `user`, a `group` or `everyone` a `role` or `actions` on a target."""
    body = await json_body(request)
    resource, target = await _target(request, identity, body)
    actions = await _actions(request, identity, body, resource, target)
    named = [text_field(body, "user"), text_field(body, "group")]
    everyone = body.get("everyone") is True
    if sum(name is not None for name in named) + everyone != 1:
        raise BadRequestError("Name one of user, group and everyone")
    async with changing(request, identity) as tx:
        made = await people.grant(
            tx,
            target=await _columns(tx, resource, target),
            actions=actions,
            user=await people.find_user(tx, named[0]) if named[0] is not None else None,
            group=await people.find_group(tx, named[1]) if named[1] is not None else None,
            granted_by_id=identity.id,
            expires_at=time_field(body, "expires_at"),
        )
        return (await _models(tx, _permissions().where(Permission.id == made.id)))[0]


@router.delete("/api/permissions/{permission_id}", status_code=204)
async def revoke(permission_id: uuid.UUID, request: Request, identity: Sharer) -> None:
    """Take a permission back: who gave it, who may share its target, or who has it themselves."""
    database: Database = request.app.state.database
    missing = NotFoundError(f"There is no permission {permission_id}")
    async with database.read() as tx:
        found = (await tx.execute(_permissions().where(Permission.id == permission_id))).first()
    if found is None:
        raise missing
    permission, path = found[0], found[3]
    if identity.id not in (permission.granted_by_id, permission.user_id):
        target = path if permission.content_id else permission.kernel_id
        await require(database, identity, "share", permission.resource, target)
    async with changing(request, identity) as tx:
        row = await tx.get(Permission, permission_id)
        if row is None:
            raise missing
        await tx.delete(row)


# links


@router.get("/api/share-links")
async def list_links(request: Request, _: Reader) -> list[dict[str, Any]]:
    """List the asker's links, for admins everyone's, newest first."""
    query = (
        select(ShareLink, Content.path)
        .outerjoin(Content, Content.id == ShareLink.content_id)
        .order_by(ShareLink.created_at.desc(), ShareLink.id)
    )
    async with request.app.state.database.read() as tx:
        return [link_model(link, path) for link, path in await tx.execute(query)]


@router.post("/api/share-links", status_code=201)
async def create_link(request: Request, identity: Sharer) -> dict[str, Any]:
    """Make a link to a path or kernel; `code` is shown now and never again."""
    body = await json_body(request)
    resource, target = await _target(request, identity, body)
    if resource == "server":
        raise BadRequestError("The server is not shared by links")
    actions = await _actions(request, identity, body, resource, target)
    async with changing(request, identity) as tx:
        made, code = await people.create_link(
            tx,
            target=await _columns(tx, resource, target),
            actions=actions,
            created_by_id=identity.id,
            expires_at=time_field(body, "expires_at"),
        )
        model = link_model(made, target if resource == "contents" else None)
    return {**model, "code": code}


@router.post("/api/share-links/accept")
async def accept_link(
    request: Request, identity: Annotated[Identity, allow("write", "permissions")]
) -> dict[str, Any]:
    """Take what a link gives: `code` in the body; 404 unless it is valid now."""
    code = required_text(await json_body(request), "code")
    async with changing(request, identity) as tx:
        user = await people.find_user(tx, str(identity.id))
        made = await people.accept_link(tx, code, user)
        return (await _models(tx, _permissions().where(Permission.id == made.id)))[0]


@router.delete("/api/share-links/{link_id}", status_code=204)
async def revoke_link(link_id: uuid.UUID, request: Request, identity: Sharer) -> None:
    """End a link, and what it gave to whoever accepted it."""
    async with request.app.state.database.read() as tx:  # by the policy: own links
        if await tx.get(ShareLink, link_id) is None:
            raise NotFoundError(f"There is no link {link_id}")
    async with changing(request, identity) as tx:
        link = await tx.get(ShareLink, link_id)
        if link is not None:
            await people.revoke_link(tx, link)
