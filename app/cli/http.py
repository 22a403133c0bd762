"""HTTP clients for each kind of address that a server prints: TCP, TLS and unix sockets."""

import ssl
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

LOOPBACK = {"localhost", "127.0.0.1", "::1"}
UNIX = "http+unix"


def http_client(url: str, *, timeout: float, certfile: Path | None = None) -> httpx.Client:
    """Return a client whose requests are relative to `url`.

    `certfile` is the certificate that a server of this machine is known to have: it and no other
    is accepted then, so that one signed by nobody will do. Raises what httpx does for a bad URL,
    OSError for an unreadable certificate.
    """
    if urlsplit(url).scheme == UNIX:
        socket_path, base = split_unix_url(url)
        transport = httpx.HTTPTransport(uds=socket_path)
        return httpx.Client(
            base_url=f"http://localhost{base}",
            transport=transport,
            trust_env=False,
            timeout=timeout,
        )
    # A proxy of the environment cannot reach our own loopback.
    trust_env = httpx.URL(url).host not in LOOPBACK
    verify: ssl.SSLContext | bool = _only(certfile) if certfile is not None else True
    return httpx.Client(base_url=url, verify=verify, trust_env=trust_env, timeout=timeout)


def split_unix_url(url: str) -> tuple[str, str]:
    """Return the socket's path and the URL's path of `http+unix://%2Fpath%2Fto.sock/base/`."""
    parts = urlsplit(url)
    return unquote(parts.netloc), parts.path or "/"


def _only(certfile: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certfile)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False  # it is this certificate, whatever names are on it
    return context
