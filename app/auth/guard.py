"""What holds for every request, whatever its route: a known host, the headers of all answers."""

import json
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.auth.addresses import (
    answers_to_any_host,
    host_of,
    is_api,
    is_named_origin,
    is_served_host,
    path_below_base,
)
from app.db import asker
from app.settings import Settings

# What a page of an allowed origin may send, as Jupyter Server says it.
_PREFLIGHT = (
    (b"access-control-allow-headers", b"accept, content-type, authorization, x-xsrftoken"),
    (b"access-control-allow-methods", b"GET, PUT, POST, PATCH, DELETE, OPTIONS"),
)


class Guard:
    """ASGI middleware around all routes.

    It refuses hosts that are not ours (403) and NUL in paths and queries (404, 400), answers CORS
    preflights, and adds the security and CORS headers and the cookies that a route's declaration
    asked for (`set_cookies` and `by_token` in the request's state).
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._prefix = unquote(settings.base_url.rstrip("/"))
        self._any_host = answers_to_any_host(settings)
        report = f"report-uri {settings.base_url}api/security/csp-report"
        self._csp = f"{settings.content_security_policy}; {report}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless it is refused here."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})
        connection = HTTPConnection(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                self._add_headers(connection, message)
            await send(message)

        with asker.acting_for(None):  # until the route's declaration says for whom
            await self._pass_on(connection, receive, send_with_headers)

    async def _pass_on(self, connection: HTTPConnection, receive: Receive, send: Send) -> None:
        scope = connection.scope
        if refusal := self._refusal(connection):
            await _refuse(scope, receive, send, *refusal)
        elif scope["type"] == "http" and scope["method"] == "OPTIONS":
            await _answer(send, 204, b"", _PREFLIGHT)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, connection: HTTPConnection) -> tuple[int, str] | None:
        """The status and sentence with which a request is refused, or None."""
        scope = connection.scope
        if not self._any_host and not is_served_host(connection, self._settings):
            host = host_of(connection, self._settings)
            return 403, f"This server does not answer to the name {host!r} (allow_remote_access)"
        if "\x00" in scope["path"]:
            return 404, "There is nothing with a NUL character in its path"
        if b"\x00" in scope["query_string"] or b"%00" in scope["query_string"]:
            return 400, "The query has a NUL character"
        return None

    def _add_headers(self, connection: HTTPConnection, message: Message) -> None:
        headers = MutableHeaders(scope=message)
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("Content-Security-Policy", self._policy(connection))
        self._add_cors(connection, headers)
        for cookie in connection.scope["state"].get("set_cookies", ()):
            headers.append("Set-Cookie", cookie)
        if location := headers.get("Location"):
            headers["Location"] = _own_path(connection, location)

    def _policy(self, connection: HTTPConnection) -> str:
        """The Content-Security-Policy, as Jupyter Server has it.

        Scripts in a served file run, if at all, in an origin of their own.
        """
        path = connection.scope["path"]
        if is_api(path, self._prefix):
            return self._csp + "; default-src 'none'"
        if path_below_base(path, self._prefix).startswith("files/"):
            return self._csp + "; sandbox allow-scripts"
        return self._csp

    def _add_cors(self, connection: HTTPConnection, headers: MutableHeaders) -> None:
        """As Jupyter: what the settings name, else whoever proved a token, which no page has."""
        settings = self._settings
        origin = connection.headers.get("origin")
        if settings.allow_origin:
            headers["Access-Control-Allow-Origin"] = settings.allow_origin
        elif origin and (
            is_named_origin(settings, origin)
            or (not settings.allow_origin_pat and connection.scope["state"].get("by_token"))
        ):
            headers["Access-Control-Allow-Origin"] = origin
            headers.add_vary_header("Origin")
        if settings.allow_credentials:
            headers["Access-Control-Allow-Credentials"] = "true"


def _own_path(connection: HTTPConnection, location: str) -> str:
    """Return a redirect to ourselves as a path: behind a proxy only the browser knows the rest."""
    parts = urlsplit(location)
    if parts.netloc and parts.netloc == connection.headers.get("host"):
        return parts._replace(scheme="", netloc="").geturl()
    return location


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, message: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": message[:120]})
            return
    body = json.dumps({"message": message, "reason": None}).encode()
    prefix = "websocket." if scope["type"] == "websocket" else ""
    await _answer(send, status, body, [(b"content-type", b"application/json")], prefix=prefix)


async def _answer(
    send: Send,
    status: int,
    body: bytes,
    headers: Iterable[tuple[bytes, bytes]] = (),
    *,
    prefix: str = "",
) -> None:
    length = [] if status == 204 else [(b"content-length", str(len(body)).encode())]
    start = {"type": f"{prefix}http.response.start", "status": status}
    await send({**start, "headers": [*headers, *length]})
    await send({"type": f"{prefix}http.response.body", "body": body})
