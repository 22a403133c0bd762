"""How the server is addressed: which hosts, schemes and origins belong to it.

Nothing here knows who asks. Behind a proxy, the `X-Forwarded-*` headers count only where the
setting `trust_xheaders` says that a proxy sets them: anyone else could make them up.
"""

import ipaddress
import re
import socket
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from app.settings import Settings

_HTTPS = frozenset({"https", "wss"})
_CROSS_SITE = frozenset({"cross-site", "same-site"})


def host_of(connection: HTTPConnection, settings: Settings) -> str:
    """Return the host (with its port) that the client believes to talk to, in lower case."""
    host = _forwarded(connection, settings, "x-forwarded-host")
    return (host or connection.headers.get("host", "")).lower()


def is_https(connection: HTTPConnection, settings: Settings) -> bool:
    """Tell whether the client's side of the connection is encrypted."""
    scheme = _forwarded(connection, settings, "x-forwarded-proto") or connection.scope["scheme"]
    return str(scheme).lower() in _HTTPS


def client_of(connection: HTTPConnection, settings: Settings) -> str:
    """Return the client's address; empty on a unix socket."""
    forwarded = _forwarded(connection, settings, "x-forwarded-for")
    return forwarded or (connection.client.host if connection.client else "")


def _forwarded(connection: HTTPConnection, settings: Settings, header: str) -> str:
    """The last entry: what the nearest proxy, the one that is trusted, has added."""
    if not settings.trust_xheaders:
        return ""
    return connection.headers.get(header, "").rpartition(",")[2].strip()


def is_served_host(connection: HTTPConnection, settings: Settings) -> bool:
    """Tell whether the Host header may name this server; a defence against DNS rebinding.

    A page on `evil.example` whose name is made to resolve to 127.0.0.1 is, to the browser, of the
    same origin as a server that answers to that name. So one that listens on loopback only
    answers to loopback addresses and `local_hostnames`.
    """
    host = host_of(connection, settings)
    if not host:
        return True  # HTTP/1.0; no browser
    name = _without_port(host)
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name in {known.lower() for known in (*settings.local_hostnames, settings.host)}


def _without_port(host: str) -> str:
    """Return `host` of `host:port`, unbracketed if an IPv6 address; empty for anything else."""
    found = re.fullmatch(r"(?:\[([^\]]*)\]|([^:@/]*))(?::\d*)?", host)
    return (found[1] or found[2] or "") if found else ""


def answers_to_any_host(settings: Settings) -> bool:
    """Tell whether every Host header will do: the setting, else unless it listens on loopback.

    May look the host's name up, so it is for start-up.
    """
    if settings.allow_remote_access is not None:
        return settings.allow_remote_access
    return settings.sock is not None or not _is_loopback(settings.host)


def _is_loopback(host: str) -> bool:
    """Tell whether what listens on `host` is reached from this machine only."""
    if not host:
        return False
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
        return all(ipaddress.ip_address(address).is_loopback for address in addresses)
    except (OSError, ValueError):
        return False


def is_allowed_origin(connection: HTTPConnection, settings: Settings, origin: str) -> bool:
    """Tell whether pages of this origin may act with a person's cookies.

    That is the server's own, and what `allow_origin` or `allow_origin_pat` names.
    """
    origin = origin.lower()
    if _netloc(origin) == host_of(connection, settings):
        return True
    return is_named_origin(settings, origin)


def is_named_origin(settings: Settings, origin: str) -> bool:
    """Tell whether the settings name this origin; a pattern must match as a whole."""
    if settings.allow_origin:
        return settings.allow_origin == "*" or settings.allow_origin.lower() == origin.lower()
    return bool(
        settings.allow_origin_pat and re.fullmatch(settings.allow_origin_pat, origin.lower())
    )


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def foreign_origin(connection: HTTPConnection, settings: Settings) -> str | None:
    """Return where a request comes from when that is another site, which is not allowed; or None.

    Scripts send no Origin and are let through: they carry no cookies that a browser keeps.
    A page that only loads something (an image, a script) sends no Origin either, and a page on
    another port of this host is sent the cookies even so; `Sec-Fetch-Site` (or, from older
    browsers, the Referer) tells. Following a link is not loading: nothing of the answer is readable
    there.
    """
    headers = connection.headers
    origin = headers.get("origin") or headers.get("sec-websocket-origin")
    if origin is not None:
        return None if is_allowed_origin(connection, settings, origin) else origin
    if headers.get("sec-fetch-mode") == "navigate":
        return None
    site = headers.get("sec-fetch-site")
    if site is not None and site not in _CROSS_SITE:
        return None
    referer = headers.get("referer", "")
    if not referer:
        return "another site" if site is not None else None
    try:
        parts = urlsplit(referer)
    except ValueError:
        return referer
    source = f"{parts.scheme}://{parts.netloc}"
    return None if is_allowed_origin(connection, settings, source) else source


def path_below_base(path: str, prefix: str) -> str:
    """Return a decoded request path relative to the decoded base URL, without leading slash."""
    return path.removeprefix(prefix).lstrip("/")


def is_api(path: str, prefix: str) -> bool:
    """Tell whether a path is for programs; other paths are pages, whose GET may lead to /login."""
    parts = path_below_base(path, prefix).split("/")
    return parts[0] == "api" or parts[:2] == ["lab", "api"]
