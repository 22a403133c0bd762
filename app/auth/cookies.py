"""The cookies of browsers: the signed one that stands for a login, and `_xsrf`.

The login cookie names the token that the person logged in with, never the token itself: when that
is revoked, expires or changes, the cookie is void. `_xsrf` is a random value that a page of ours
can read and another site cannot; a request that acts with the login cookie must repeat it. It is
not bound to the login: browsers share cookies between the ports of a host, and another server's
`_xsrf` must do too, as it does with Jupyter Server.
"""

import hmac
import os
import re
import secrets
from contextlib import suppress
from http.cookies import SimpleCookie
from pathlib import Path

from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.requests import HTTPConnection

from app.auth.addresses import host_of, is_https
from app.settings import Settings

XSRF_COOKIE = "_xsrf"
_SECRET_FILE = "cookie_secret"  # noqa: S105 (a file's name)
_SECRET_BYTES = 32
_MAX_AGE_SECONDS = 30 * 24 * 3600
_MAX_NAME = 128
# Log-ins that are under way at another site: how long each may take, how many are kept.
_FLOW_SECONDS = 600
_MOST_FLOWS = 8


def read_secret(settings: Settings, data_dir: Path) -> bytes:
    """Return what cookies are signed with: the setting, else a file that is made if absent.

    Only its owner can read the file; thanks to it a restart leaves people logged in.
    """
    if settings.cookie_secret:
        return settings.cookie_secret.encode()
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = data_dir / _SECRET_FILE
    for _ in range(2):
        with suppress(FileNotFoundError):
            found = path.read_bytes()
            if len(found) >= _SECRET_BYTES:
                return found
        # Written beside and linked into place: a second server sees all of it or nothing.
        draft = path.with_name(f"{_SECRET_FILE}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_SECRET_BYTES))
        try:
            if path.exists():
                draft.replace(path)  # what is there is no secret: cut short by a full disk
            else:
                with suppress(FileExistsError):
                    path.hardlink_to(draft)
        finally:
            draft.unlink(missing_ok=True)
    return path.read_bytes()


class LoginCookies:
    """Signs and reads the cookies of one server."""

    def __init__(self, secret: bytes, settings: Settings) -> None:
        self._settings = settings
        self._signer = URLSafeTimedSerializer(secret, salt="login")
        self._flows = URLSafeTimedSerializer(secret, salt="login that is under way")

    def name(self, connection: HTTPConnection) -> str:
        """Return the login cookie's name.

        Browsers keep cookies per host and not per port, so the port and the base URL are in it:
        two servers on one host do not log each other out.
        """
        place = host_of(connection, self._settings) + self._settings.base_url
        return "datastore-" + re.sub(r"[^0-9a-z]+", "-", place.lower())[:_MAX_NAME].strip("-")

    def session(self, connection: HTTPConnection) -> str | None:
        """Return the login that the request's cookie stands for, or None."""
        value = connection.cookies.get(self.name(connection))
        if not value:
            return None
        try:
            found = self._signer.loads(value, max_age=_MAX_AGE_SECONDS)
        except BadData:
            return None
        return found if isinstance(found, str) else None

    def log_in(self, connection: HTTPConnection, session: str) -> list[str]:
        """Return the Set-Cookie headers that log a browser in."""
        value = str(self._signer.dumps(session))
        login = self._header(connection, self.name(connection), value, http_only=True)
        return [login, *self.with_xsrf(connection)]

    def log_out(self, connection: HTTPConnection) -> list[str]:
        """Return the Set-Cookie headers that log a browser out."""
        return [self._header(connection, self.name(connection), "", http_only=True, max_age=0)]

    def begin_flow(self, connection: HTTPConnection, flow: dict[str, str]) -> list[str]:
        """Return the Set-Cookie headers that let only this browser finish a log-in elsewhere.

        `flow["state"]` tells it from others under way in other tabs; of too many all are dropped.
        """
        under_way = self._flow_names(connection)
        dropped = self.end_flows(connection) if len(under_way) >= _MOST_FLOWS else []
        name = f"{self._flow_prefix(connection)}{flow['state'][:16]}"
        value = str(self._flows.dumps(flow))
        made = self._header(connection, name, value, http_only=True, max_age=_FLOW_SECONDS)
        return [*dropped, made]

    def flow(self, connection: HTTPConnection, state: str) -> dict[str, str] | None:
        """Return what `begin_flow` was told, if this browser began it not too long ago."""
        value = connection.cookies.get(f"{self._flow_prefix(connection)}{state[:16]}")
        if not value:
            return None
        try:
            found = self._flows.loads(value, max_age=_FLOW_SECONDS)
        except BadData:
            return None
        if not hmac.compare_digest(str(found.get("state", "")).encode(), state.encode()):
            return None
        return dict(found)

    def end_flows(self, connection: HTTPConnection) -> list[str]:
        """Return the Set-Cookie headers that forget the log-ins that are under way."""
        names = self._flow_names(connection)
        return [self._header(connection, name, "", http_only=True, max_age=0) for name in names]

    def _flow_prefix(self, connection: HTTPConnection) -> str:
        return f"{self.name(connection)}-flow-"

    def _flow_names(self, connection: HTTPConnection) -> list[str]:
        prefix = self._flow_prefix(connection)
        return [name for name in connection.cookies if name.startswith(prefix)]

    def xsrf(self, connection: HTTPConnection) -> tuple[str, list[str]]:
        """Return the value of `_xsrf`, and the Set-Cookie header if the browser has none yet."""
        if value := connection.cookies.get(XSRF_COOKIE):
            return value, []
        value = secrets.token_hex(16)
        return value, [self._header(connection, XSRF_COOKIE, value, http_only=False)]

    def with_xsrf(self, connection: HTTPConnection) -> list[str]:
        """Return the Set-Cookie header of `_xsrf` if the browser has none yet."""
        return self.xsrf(connection)[1]

    def _header(
        self,
        connection: HTTPConnection,
        name: str,
        value: str,
        *,
        http_only: bool,
        max_age: int = _MAX_AGE_SECONDS,
    ) -> str:
        cookie: SimpleCookie = SimpleCookie()
        cookie[name] = value
        morsel = cookie[name]
        morsel["path"] = self._settings.base_url
        morsel["max-age"] = max_age
        morsel["samesite"] = "Lax"
        morsel["httponly"] = http_only
        morsel["secure"] = is_https(connection, self._settings)
        return morsel.OutputString()


def has_xsrf(connection: HTTPConnection, sent: str | None = None) -> bool:
    """Tell whether a request repeats `_xsrf` in a header, its query or `sent` (a form's field)."""
    expected = connection.cookies.get(XSRF_COOKIE, "")
    given = (
        connection.headers.get("x-xsrftoken")
        or connection.headers.get("x-csrftoken")
        or connection.query_params.get(XSRF_COOKIE)
        or sent
        or ""
    )
    return bool(expected) and hmac.compare_digest(expected.encode(), given.encode())
