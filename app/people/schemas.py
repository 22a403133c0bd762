"""Users, groups, tokens, permissions and links as they go over the wire."""

from datetime import datetime
from typing import Any

from app.errors import BadRequestError
from app.people.people import role_of
from app.web import isoformat, text_field
from models import AuditEntry, Permission, ShareLink, Token, User


def _time(moment: datetime | None) -> str | None:
    return isoformat(moment) if moment else None


def user_model(user: User, *, home: str | None = None) -> dict[str, Any]:
    """Return a user as admins see them."""
    return {
        "id": str(user.id),
        "name": user.name,
        "display_name": user.display_name or user.full_name or user.name,
        "admin": user.admin,
        "home": home,
        "created_at": _time(user.created_at),
        "disabled_at": _time(user.disabled_at),
        "hub_name": user.hub_name,
    }


def person_model(user: User) -> dict[str, Any]:
    """Return a user as everyone sees them."""
    return {
        "id": str(user.id),
        "name": user.name,
        "display_name": user.display_name or user.full_name or user.name,
    }


def token_model(token: Token, user: str) -> dict[str, Any]:
    """Return a token without its secret."""
    return {
        "id": str(token.id),
        "user": user,
        "kind": token.kind,
        "name": token.name,
        "prefix": token.prefix,
        "scopes": token.scopes,
        "created_at": _time(token.created_at),
        "expires_at": _time(token.expires_at),
        "last_used_at": _time(token.last_used_at),
        "revoked_at": _time(token.revoked_at),
    }


def permission_model(
    permission: Permission,
    *,
    user: str | None,
    group: str | None,
    path: str | None,
    granted_by: str | None,
) -> dict[str, Any]:
    """Return a permission with names in the place of ids."""
    return {
        "id": str(permission.id),
        "subject": permission.subject,
        "user": user,
        "group": group,
        "resource": permission.resource,
        "path": path,
        "kernel_id": permission.kernel_id,
        "actions": permission.actions,
        "role": role_of(permission.actions),
        "granted_by": granted_by,
        "share_link_id": str(permission.share_link_id) if permission.share_link_id else None,
        "created_at": _time(permission.created_at),
        "expires_at": _time(permission.expires_at),
    }


def link_model(link: ShareLink, path: str | None) -> dict[str, Any]:
    """Return a link without its code."""
    return {
        "id": str(link.id),
        "prefix": link.prefix,
        "resource": link.resource,
        "path": path,
        "kernel_id": link.kernel_id,
        "actions": link.actions,
        "role": role_of(link.actions),
        "created_at": _time(link.created_at),
        "expires_at": _time(link.expires_at),
        "revoked_at": _time(link.revoked_at),
    }


def audit_model(entry: AuditEntry) -> dict[str, Any]:
    """Return an entry of the audit."""
    return {
        "id": entry.id,
        "at": _time(entry.at),
        "event": entry.event,
        "actor_id": str(entry.actor_id) if entry.actor_id else None,
        "actor": entry.actor,
        "detail": entry.detail,
    }


def time_field(body: dict[str, Any], name: str) -> datetime | None:
    """Return a time with its zone; BadRequestError for anything else that is there."""
    value = text_field(body, name)
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise BadRequestError(f"{name} must be a time as 2026-01-01T00:00:00Z") from None
    if moment.tzinfo is None:
        raise BadRequestError(f"{name} needs a time zone, for example 2026-01-01T00:00:00Z")
    return moment


def flag_field(body: dict[str, Any], name: str) -> bool | None:
    """Return a flag, None when it is absent; BadRequestError for another type."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadRequestError(f"{name} must be true or false")
    return value


def texts_field(body: dict[str, Any], name: str) -> list[str] | None:
    """Return a list of strings, None when it is absent; BadRequestError for anything else."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise BadRequestError(f"{name} must be a list of strings")
    return value


def required_text(body: dict[str, Any], name: str) -> str:
    """Return a string; BadRequestError without one."""
    value = text_field(body, name)
    if value is None:
        raise BadRequestError(f"Missing field in JSON data: {name}")
    return value
