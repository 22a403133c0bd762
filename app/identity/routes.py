"""`/api/me` as Jupyter Server answers it: identity, permissions, and changing one's own looks."""

import json
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Request
from sqlalchemy import select

from app.auth.access import Action, Resource, allow, may
from app.auth.identity import Identity
from app.db.engine import Transaction
from app.errors import BadRequestError
from app.settings import Settings
from app.web import json_body, storable
from models import User

router = APIRouter()

_COLUMNS = {
    "name": "full_name",
    "display_name": "display_name",
    "initials": "initials",
    "avatar_url": "avatar_url",
    "color": "color",
}
_LONGEST = 4096


def identity_model(user: User) -> dict[str, Any]:
    """Return Jupyter's identity model of a user."""
    name = user.full_name or user.display_name or user.name
    return {
        "username": user.name,
        "name": name,
        "display_name": user.display_name or name,
        "initials": user.initials,
        "avatar_url": user.avatar_url,
        "color": user.color,
    }


@router.get("/api/me")
async def get_me(
    request: Request,
    identity: Annotated[Identity, allow("read", "api")],
    permissions: str = "",
) -> dict[str, Any]:
    """Return the asker's identity, and which of the asked `permissions` they have.

    `permissions` is a JSON object of lists: `{"contents": ["read", "write"]}`.
    """
    settings: Settings = request.app.state.settings
    allowed: dict[str, Any] = {
        resource: [
            action for action in actions if await _is_allowed(request, identity, action, resource)
        ]
        for resource, actions in _asked(permissions).items()
    }
    allowed["updatable_fields"] = list(settings.identity_updatable_fields)
    async with request.app.state.database.read() as tx:
        return {"identity": identity_model(await _user(tx, identity)), "permissions": allowed}


async def _is_allowed(request: Request, identity: Identity, action: str, resource: str) -> bool:
    """Tell whether a user, and the token they use, may do something to a kind of thing."""
    return (
        action in get_args(Action)
        and resource in get_args(Resource)
        and identity.is_within_scopes(action, resource)
        and await may(request.app.state.database, identity, action, resource)
    )


def _asked(permissions: str) -> dict[str, list[str]]:
    if not permissions:
        return {}
    problem = BadRequestError(
        'permissions should be a JSON dict of lists: {"resource": ["action", ...]}'
    )
    try:
        asked = json.loads(permissions)
    except (ValueError, RecursionError) as error:
        raise problem from error
    if not isinstance(asked, dict):
        raise problem
    for actions in asked.values():
        if not isinstance(actions, list) or not all(isinstance(a, str) for a in actions):
            raise problem
    return asked


@router.patch("/api/me")
async def update_me(
    request: Request, identity: Annotated[Identity, allow("write", "api")]
) -> dict[str, Any]:
    """Change those fields of the asker's identity that the server lets users change."""
    settings: Settings = request.app.state.settings
    body = await json_body(request)
    if not body:
        raise BadRequestError("The body must name the fields to change")
    for field, value in body.items():
        if field not in settings.identity_updatable_fields:
            raise BadRequestError(f"Field {field} is not updatable")
        if value is not None and not isinstance(value, str):
            raise BadRequestError(f"{field} must be a string")
        if value is not None and len(storable(value, field)) > _LONGEST:
            raise BadRequestError(f"{field} is longer than {_LONGEST} characters")
    async with request.app.state.database.transaction() as tx:
        user = await _user(tx, identity, lock=True)
        for field, value in body.items():
            setattr(user, _COLUMNS[field], value)
    return {"status": "success", "identity": identity_model(user)}


async def _user(tx: Transaction, identity: Identity, *, lock: bool = False) -> User:
    query = select(User).where(User.id == identity.id)
    return (await tx.execute(query.with_for_update() if lock else query)).scalar_one()
