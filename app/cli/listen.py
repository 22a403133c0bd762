"""What `serve` listens with besides TCP: unix sockets, certificates; and flags it does not take."""

import contextlib
import os
import re
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import click

from app.settings import Settings

# Linux's limit of a unix socket's path, without the closing NUL; macOS has 103.
_MAX_PATH_BYTES = 107

# What people who come from Jupyter Server type, and what it is called here.
_OPTIONS = {
    "ServerApp.allow_credentials": "--allow-credentials",
    "ServerApp.allow_origin": "--allow-origin",
    "ServerApp.allow_origin_pat": "--allow-origin-pat",
    "ServerApp.allow_remote_access": "--allow-remote-access",
    "ServerApp.base_url": "--base-url",
    "ServerApp.certfile": "--certfile",
    "ServerApp.ip": "--host",
    "ServerApp.keyfile": "--keyfile",
    "ServerApp.open_browser": "--no-browser",
    "ServerApp.port": "--port",
    "ServerApp.root_dir": "--root-dir",
    "ServerApp.sock": "--sock",
    "ServerApp.sock_mode": "--sock-mode",
    "ServerApp.token": "--token",
    "ServerApp.trust_xheaders": "--trust-xheaders",
    "IdentityProvider.token": "--token",
}


class ServeCommand(click.Command):
    """Says what to write instead of a traitlets flag such as `--ServerApp.port=8888`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; UsageError (status 2) for a traitlets flag."""
        for argument in args:
            if found := re.match(r"--([A-Z]\w*\.\w+)", argument):
                option = _OPTIONS.get(found[1])
                hint = f"use {option}" if option else "see --help for the options there are"
                raise click.UsageError(
                    f"--{found[1]}: settings of Jupyter's applications are not read here; {hint}, "
                    "or a DATASTORE_* environment variable.",
                    ctx,
                )
        return super().parse_args(ctx, args)


@contextlib.contextmanager
def unix_socket(path: Path, mode: int) -> Iterator[socket.socket]:
    """Yield a listening socket at `path`, which is removed at the end.

    What a killed server has left there is replaced; a living one, or a file of another kind, is an
    error. The mode holds from the first moment on.
    """
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise click.ClickException(f"The path of the socket is too long: {path}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        before = os.umask(0o777 & ~mode)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(before)
        listener.listen(2048)
        bound = path.stat()
    except OSError as error:
        listener.close()
        raise click.ClickException(f"Cannot listen on {path}: {error}") from error
    except BaseException:
        listener.close()
        raise
    try:
        yield listener
    finally:
        listener.close()
        with contextlib.suppress(OSError):
            now = path.stat()
            if (now.st_dev, now.st_ino) == (bound.st_dev, bound.st_ino):
                path.unlink()


def _remove_stale(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise click.ClickException(f"{path} is there already, and is not a socket.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
    raise click.ClickException(f"A server listens on {path} already.")


def unix_url(path: Path, base_url: str) -> str:
    """Return the URL of a server on a unix socket, as Jupyter writes it."""
    return f"http+unix://{quote(os.fspath(path), safe='')}{base_url}"


def check_certificate(settings: Settings) -> None:
    """Raise ClickException unless certificate and key can be used."""
    if settings.certfile is None:
        if settings.keyfile is not None:
            raise click.ClickException("--keyfile needs --certfile.")
        return
    for option, file in (("--certfile", settings.certfile), ("--keyfile", settings.keyfile)):
        if file is not None and not os.access(file, os.R_OK):
            raise click.ClickException(f"{option}: {file} cannot be read.")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.certfile, settings.keyfile, _no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise click.ClickException(
            f"{settings.certfile} cannot be used as a certificate with its key: {error}"
        ) from error


def _no_password() -> str:
    raise ValueError("the key is encrypted, which is not supported")
