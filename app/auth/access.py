"""What a route declares: an action on a resource, or that it is public.

Action and resource names are those of Jupyter Server's Authorizer. A route that declares neither
stops the app from starting, so that a forgotten declaration cannot become a hole.

The declaration of a route or websocket is also where its asker is identified: by a token, or by
the cookie of a browser that has logged in. A token is proof enough, since no other site's page has
it. A cookie goes wherever the browser goes, so the request must come from an allowed origin and,
if it changes anything, repeat `_xsrf`.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.requests import HTTPConnection

from app.auth.addresses import foreign_origin, is_api
from app.auth.cookies import LoginCookies, has_xsrf
from app.auth.identity import Identity, TokenAuthenticator, token_of
from app.errors import ForbiddenError, LoginRequiredError
from app.settings import Settings

Action = Literal["read", "write", "execute"]
Resource = Literal[
    "api",
    "comms",
    "config",
    "contents",
    "csp",
    "documents",
    "events",
    "executions",
    "feed",
    "kernels",
    "kernelspecs",
    "nbconvert",
    "server",
    "sessions",
    "terminals",
]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Awaitable[Any]])

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class _Declared:
    """The dependency that identifies the asker and remembers what the route declared."""

    def __init__(self, action: Action, resource: Resource, *, xsrf: bool) -> None:
        self.action = action
        self.resource = resource
        self._xsrf = xsrf

    async def __call__(self, connection: HTTPConnection) -> Identity:
        identity = await identify(connection, xsrf=self._xsrf)
        if identity is None:
            raise _refusal(connection)
        return identity


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


def allow(action: Action, resource: Resource, *, xsrf: bool = True) -> Any:
    """Declare an action on a resource, in the annotation of an `Identity` that a route takes.

    Raises ForbiddenError (403; a page redirects to the login) when nobody is identified, and 403
    for a browser's cookie from a foreign origin, websockets included. `xsrf=False` is for what
    browsers send by themselves.
    """
    return Depends(_Declared(action, resource, xsrf=xsrf))


def public(endpoint: Endpoint) -> Endpoint:
    """Declare that a route needs no token."""
    endpoint.__dict__["is_public"] = True
    return endpoint


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
