"""What a route declares: an action on a resource, or that it is public.

Action and resource names are those of Jupyter Server's Authorizer. A route that declares neither
stops the app from starting, so that a forgotten declaration cannot become a hole.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.requests import HTTPConnection

from app.auth.identity import Identity, TokenAuthenticator, token_of
from app.errors import ForbiddenError

Action = Literal["read", "write", "execute"]
Resource = Literal[
    "api",
    "comms",
    "contents",
    "kernels",
    "kernelspecs",
    "sessions",
    "executions",
    "documents",
    "server",
]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Awaitable[Any]])


class _Declared:
    """The dependency that identifies the asker and remembers what the route declared."""

    def __init__(self, action: Action, resource: Resource) -> None:
        self.action = action
        self.resource = resource

    async def __call__(self, connection: HTTPConnection) -> Identity:
        authenticator: TokenAuthenticator = connection.app.state.authenticator
        token = token_of(connection)
        identity = await authenticator.identify(token) if token else None
        if identity is None:
            raise ForbiddenError("Forbidden", reason="a valid token is required")
        return identity


def allow(action: Action, resource: Resource) -> Any:
    """Return the declaration of what a route does to what, for `Annotated[Identity, ...]`.

    Raises ForbiddenError (403) without a valid token.
    """
    return Depends(_Declared(action, resource))


def public(endpoint: Endpoint) -> Endpoint:
    """Declare that a route needs no token."""
    endpoint.__dict__["is_public"] = True
    return endpoint


def check_declarations(app: FastAPI) -> None:
    """Raise RuntimeError when a route declares neither an action nor that it is public."""
    for route in app.routes:
        if not isinstance(route, APIRoute | APIWebSocketRoute):
            continue
        declared = any(isinstance(d.call, _Declared) for d in _dependants(route.dependant))
        if not declared and not getattr(route.endpoint, "is_public", False):
            raise RuntimeError(f"{route.path} declares neither an action nor that it is public")


def _dependants(dependant: Any) -> list[Any]:
    found = [dependant]
    for child in dependant.dependencies:
        found.extend(_dependants(child))
    return found
