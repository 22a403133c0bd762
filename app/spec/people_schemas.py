"""The shapes of people and access: users, groups, tokens, permissions, share links, the audit."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

Action = Literal["read", "write", "execute", "share"]
Role = Literal["viewer", "runner", "editor", "owner"]
Resource = Literal["contents", "kernels", "server"]


class User(TypedDict):
    """A user; all but the names is for administrators only."""

    id: str
    name: str
    display_name: str
    admin: NotRequired[bool]
    home: NotRequired[str | None]
    created_at: NotRequired[str]
    disabled_at: NotRequired[str | None]
    hub_name: NotRequired[str | None]


class CreateUser(TypedDict):
    """A user to make; with a password they can log in by name."""

    name: str
    display_name: NotRequired[str]
    admin: NotRequired[bool]
    password: NotRequired[str]


class ChangeUser(TypedDict):
    """What to change of a user."""

    name: NotRequired[str]
    disabled: NotRequired[bool]
    admin: NotRequired[bool]
    password: NotRequired[str]


class ChangePassword(TypedDict):
    """A new password, and the one until now."""

    password: str
    current: NotRequired[str]


class GroupName(TypedDict):
    """A group's name."""

    id: str
    name: str


class Group(GroupName):
    """A group, with the names of the members that the asker may know."""

    members: list[str]


class NameGroup(TypedDict):
    """A name for a group."""

    name: str


class Token(TypedDict):
    """A token or a log-in, without its secret; no scopes are all that its user may."""

    id: str
    user: str
    kind: str
    name: str
    prefix: str
    scopes: list[str] | None
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    revoked_at: str | None


class CreateToken(TypedDict):
    """A token to make: for oneself, by an administrator for any user."""

    name: NotRequired[str]
    scopes: NotRequired[list[str]]
    user: NotRequired[str]
    expires_at: NotRequired[str]


class MadeToken(Token):
    """A new token with its secret, which is shown this once."""

    token: str


class Permission(TypedDict):
    """What a user, a group or everyone may do to contents, a kernel or the server."""

    id: str
    subject: str
    user: str | None
    group: str | None
    resource: Resource
    path: str | None
    kernel_id: str | None
    actions: list[Action]
    role: Role | None
    granted_by: str | None
    share_link_id: str | None
    created_at: str
    expires_at: str | None


class Permissions(TypedDict):
    """The permissions that hold on a target, with its owner; without one, the asker's."""

    permissions: list[Permission]
    owner: NotRequired[str | None]
    admin: NotRequired[bool]
    home: NotRequired[str | None]


class ShareTarget(TypedDict):
    """What is shared (`path` or `kernel_id`), and as which role or for which actions."""

    path: NotRequired[str]
    kernel_id: NotRequired[str]
    role: NotRequired[Role]
    actions: NotRequired[list[Action]]
    expires_at: NotRequired[str]


class Grant(ShareTarget):
    """A permission to give, to one of `user`, `group` and `everyone`."""

    resource: NotRequired[Literal["server"]]
    user: NotRequired[str]
    group: NotRequired[str]
    everyone: NotRequired[bool]


class ShareLink(TypedDict):
    """A link that gives whoever accepts it a permission, without its code."""

    id: str
    prefix: str
    resource: Resource
    path: str | None
    kernel_id: str | None
    actions: list[Action]
    role: Role | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class MadeShareLink(ShareLink):
    """A new link with its code, which is shown this once."""

    code: str


class AcceptLink(TypedDict):
    """A link's code."""

    code: str


class AuditEntry(TypedDict):
    """Something that was done about access, or attempted."""

    id: int
    at: str
    event: str
    actor_id: str | None
    actor: str | None
    detail: dict[str, Any]
