"""What a route declares: an action on a resource, or that it is public; and asking whether one may.

Action and resource names are those of Jupyter Server's Authorizer. A route that declares neither
stops the app from starting, so that a forgotten declaration cannot become a hole.

The declaration of a route or websocket is also where its asker is identified: by a token, or by
the cookie of a browser that has logged in. A token is proof enough, since no other site's page has
it. A cookie goes wherever the browser goes, so the request must come from an allowed origin and,
if it changes anything, repeat `_xsrf`.

What a route's path names (a kernel, a file) is asked for there too, before the route looks at
anything else: the SQL function `datastore_may` decides. What the asker may not see is not there:
404 with the same words, whether or not it exists. What they see and may not do is 403. What a body
names is for the route to ask (`require`). That admins may everything is known without asking, but
for terminals.
"""

import posixpath
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from sqlalchemy import Select, Text, Uuid, bindparam, func, select
from starlette.requests import HTTPConnection

from app.auth import audit
from app.auth.addresses import foreign_origin, is_api
from app.auth.cookies import LoginCookies, has_xsrf
from app.auth.identity import Identity, TokenAuthenticator, token_of
from app.db import asker
from app.db.engine import Database
from app.errors import ForbiddenError, LoginRequiredError, NotFoundError
from app.settings import Settings

Action = Literal["read", "write", "execute", "share"]
Resource = Literal[
    "api",
    "audit",
    "comms",
    "config",
    "contents",
    "csp",
    "documents",
    "events",
    "executions",
    "groups",
    "kernels",
    "kernelspecs",
    "nbconvert",
    "permissions",
    "server",
    "sessions",
    "terminals",
    "tokens",
    "users",
]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Awaitable[Any]])

# What the parameters of a route's path name.
_TARGETS: dict[str, str] = {
    "kernel_id": "kernels",
    "session_id": "sessions",
    "execution_id": "executions",
    "terminal_id": "terminals",
    "document_id": "documents",
    "comm_id": "comms",
}
_WITH_PATHS = ("contents", "nbconvert")
_OF_PATHS = ("contents", "subtree")
_MISSING = {
    "kernels": "Kernel does not exist: {}",
    "sessions": "Session not found: session_id='{}'",
    "executions": "Execution does not exist: {}",
    "terminals": "Terminal not found: {}",
    "documents": "No such document: {}",
    "comms": "Comm does not exist: {}",
    "contents": "No such file or directory: {}",
    "subtree": "No such file or directory: {}",
}

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class _Declared:
    """The dependency that identifies the asker and remembers what the route declared."""

    def __init__(
        self, action: Action, resource: Resource, *, xsrf: bool, looks_at_path: bool
    ) -> None:
        self.action = action
        self.resource = resource
        self._xsrf = xsrf
        self._looks_at_path = looks_at_path

    async def __call__(self, connection: HTTPConnection) -> Identity:
        identity = await identify(connection, xsrf=self._xsrf)
        if identity is None:
            raise _refusal(connection)
        asker.act_for(identity.id)
        if not identity.is_within_scopes(self.action, self.resource):
            raise ForbiddenError(
                f"This token is not for {self.action} on {self.resource}", reason="scopes"
            )
        resource, target = self._target(connection.path_params)
        database: Database = connection.app.state.database
        await require(database, identity, self.action, resource, target)
        return identity

    def _target(self, parameters: Mapping[str, Any]) -> tuple[str, str | None]:
        """What the path of a request names, as a resource and an id or path."""
        for name, resource in _TARGETS.items():
            if name in parameters:
                return resource, str(parameters[name])
        has_path = self.resource == "contents" or (
            "path" in parameters and self.resource in _WITH_PATHS
        )
        if has_path and self._looks_at_path:
            return "contents", parameters.get("path", "")
        return self.resource, None


async def may(
    database: Database, identity: Identity, action: str, resource: str, target: str | None = None
) -> bool:
    """Tell whether somebody may do an action to a thing (an id, or a path of contents)."""
    return (await _answers(database, identity, resource, target, action))[0]


async def require(
    database: Database, identity: Identity, action: str, resource: str, target: str | None = None
) -> None:
    """Raise unless somebody may do an action to a thing.

    NotFoundError when they may not even see it, with the same words as when there is none;
    ForbiddenError when they may, and for kinds of things. Both are put on record.
    """
    readable, allowed = await _answers(database, identity, resource, target, "read", action)
    if allowed:
        return
    await audit.record_denial(database, identity, action, resource, target)
    if target is not None and not readable:
        raise NotFoundError(_MISSING.get(resource, "There is no {}").format(target))
    if target is None:
        words = f"You may not {action} {resource}"
    else:
        of_path = resource in _OF_PATHS
        shown = "/" + target.strip("/") if of_path else f"this {resource.removesuffix('s')}"
        words = f"You may read {shown}, but not {action} it"
    raise ForbiddenError(words, reason=f"{action}:{resource}")


async def _answers(
    database: Database, identity: Identity, resource: str, target: str | None, *actions: str
) -> list[bool]:
    if identity.admin and resource != "terminals":
        return [True] * len(actions)
    if target is not None:
        if resource in _OF_PATHS:
            target = posixpath.normpath("/".join(p for p in target.split("/") if p) or ".")
            target = "" if target == "." else target
        if resource == "documents":
            target = target.removeprefix("json:notebook:").removeprefix("text:file:")
        if target.startswith("../") or target == ".." or not _is_storable(target):
            return [False] * len(actions)
    return await ask(database, identity.id, resource, target, *actions)


async def ask(
    database: Database, person: uuid.UUID, resource: str, target: str | None, *actions: str
) -> list[bool]:
    """Return what the database says of a person's doing each of the actions to a thing."""
    values = {"person": person, "resource": resource, "target": target}
    values |= {f"action_{number}": action for number, action in enumerate(actions)}
    (answers,) = await database.read_alone(_question(len(actions)), values, as_server=True)
    return [bool(answer) for answer in answers.values()]


@lru_cache
def _question(actions: int) -> Select[*tuple[Any, ...]]:
    """Return the query for so many actions; made once, as most requests begin with it."""
    person, resource = bindparam("person", type_=Uuid), bindparam("resource", type_=Text)
    target = bindparam("target", type_=Text)
    return select(
        *(
            func.datastore_may(
                person, bindparam(f"action_{number}", type_=Text), resource, target
            ).label(f"answer_{number}")
            for number in range(actions)
        )
    )


def _is_storable(text: str) -> bool:
    return "\x00" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


async def identify(connection: HTTPConnection, *, xsrf: bool = True) -> Identity | None:
    """Return who asks, or None; ForbiddenError for a cookie that another site makes use of."""
    authenticator: TokenAuthenticator = connection.app.state.authenticator
    cookies: LoginCookies = connection.app.state.cookies
    token = token_of(connection)
    login = cookies.session(connection)
    if token and (identity := await authenticator.identify(token)):
        connection.state.by_token = True
        if _is_page(connection):
            used = await authenticator.login_of(token)
            if used is not None and used != login:
                connection.state.set_cookies = cookies.log_in(connection, used)
        return identity
    identity = await authenticator.identify_login(login) if login else None
    if identity is not None:
        _require_own_page(connection, xsrf=xsrf)
        if connection.scope["type"] == "http":
            connection.state.set_cookies = cookies.with_xsrf(connection)
    return identity


def _require_own_page(connection: HTTPConnection, *, xsrf: bool) -> None:
    """Raise ForbiddenError when a cookie is sent from a page that is not ours or allowed."""
    settings: Settings = connection.app.state.settings
    origin = foreign_origin(connection, settings)
    if origin is not None:
        raise ForbiddenError(f"Requests from {origin} are not allowed", reason="allow_origin")
    unsafe = connection.scope["type"] == "http" and connection.scope["method"] not in _SAFE_METHODS
    if unsafe and xsrf and not has_xsrf(connection):
        raise ForbiddenError(
            "The cookie _xsrf must be repeated in the header X-XSRFToken", reason="XSRF"
        )


def _is_page(connection: HTTPConnection) -> bool:
    """Tell whether a person may be looking at the answer: a GET outside of the API."""
    if connection.scope["type"] != "http" or connection.scope["method"] not in ("GET", "HEAD"):
        return False
    settings: Settings = connection.app.state.settings
    return not is_api(connection.scope["path"], unquote(settings.base_url.rstrip("/")))


def _refusal(connection: HTTPConnection) -> ForbiddenError:
    """The way to the login for a page, 403 for programs."""
    if not _is_page(connection):
        return ForbiddenError("Forbidden", reason="a valid token is required")
    settings: Settings = connection.app.state.settings
    query = parse_qsl(connection.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    kept = urlencode([(name, value) for name, value in query if name != "token"])
    wanted = quote(connection.scope["path"]) + (f"?{kept}" if kept else "")
    return LoginRequiredError(f"{settings.base_url}login?next={quote(wanted, safe='')}")


def allow(
    action: Action, resource: Resource, *, xsrf: bool = True, looks_at_path: bool = True
) -> Any:
    """Declare an action on a resource, in the annotation of an `Identity` that a route takes.

    Raises ForbiddenError (403; a page redirects to the login) when nobody is identified, and 403
    for a browser's cookie from a foreign origin, websockets included. `xsrf=False` is for what
    browsers send by themselves. What the route's path names must be the asker's to do this to
    (404, 403); a route of contents without a path is about the root, unless `looks_at_path` is
    False: then it asks itself.
    """
    return Depends(_Declared(action, resource, xsrf=xsrf, looks_at_path=looks_at_path))


def public(endpoint: Endpoint) -> Endpoint:
    """Declare that a route needs no token."""
    endpoint.__dict__["is_public"] = True
    return endpoint


def declarations(app: FastAPI) -> Iterator[tuple[str, str, str, str]]:
    """Yield (method or `WEBSOCKET`, path, action, resource) of each route; `public` has no more."""
    for route in _routes(app.routes):
        declared = [d.call for d in _dependants(route.dependant) if isinstance(d.call, _Declared)]
        methods = sorted(route.methods or ()) if isinstance(route, APIRoute) else ["WEBSOCKET"]
        for method in methods:
            if declared:
                yield method, route.path, declared[0].action, declared[0].resource
            else:
                yield method, route.path, "public", ""


def check_declarations(app: FastAPI) -> None:
    """Raise RuntimeError when a route declares neither an action nor that it is public."""
    for route in _routes(app.routes):
        declared = any(isinstance(d.call, _Declared) for d in _dependants(route.dependant))
        if not declared and not getattr(route.endpoint, "is_public", False):
            raise RuntimeError(f"{route.path} declares neither an action nor that it is public")


def _routes(routes: Iterable[Any]) -> Iterator[APIRoute | APIWebSocketRoute]:
    """Yield all routes, those of included routers too, which newer FastAPI keeps in one entry."""
    for route in routes:
        if isinstance(route, APIRoute | APIWebSocketRoute):
            yield route
        elif (router := getattr(route, "original_router", None)) is not None:
            yield from _routes(router.routes)


def _dependants(dependant: Any) -> list[Any]:
    found = [dependant]
    for child in dependant.dependencies:
        found.extend(_dependants(child))
    return found
