"""How commands reach a running server: the file it leaves on this machine, and its HTTP API.

As Jupyter Server does, `serve` writes where it listens into Jupyter's runtime folder, readable by
its owner alone, since the token is in it. Nothing here prints or knows of a terminal.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

import click
import httpx
from jupyter_core.paths import jupyter_runtime_dir
from pydantic import AwareDatetime, BaseModel, ValidationError

from app.cli.http import LOOPBACK, UNIX, http_client, split_unix_url

Model = TypeVar("Model", bound=BaseModel)

_FILE_PREFIX = "jupyter-datastore-"
_PROBE_SECONDS = 5.0
# The pages that a person may have open: below the base URL, with what is shown in them.
_PAGE = re.compile(r"(?<!/user)/(lab|doc|tree)(/(tree|workspaces)(/.*)?)?$|/(tree|notebooks)/.*$")
_READ_SECONDS = 150.0  # starting a kernel may take a minute
_BACKOFF_SECONDS = (0.2, 5.0)


class CommandError(click.ClickException):
    """What ends a command with status 2: usage, or no way to the server. Shown as one sentence."""

    exit_code = 2


class RefusedError(CommandError):
    """The server answered with an error status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ServerInfo(BaseModel):
    """What a server's file says. `url` includes `base_url`; `started` orders several servers."""

    url: str
    token: str | None
    pid: int
    root_dir: Path
    base_url: str = "/"
    data_dir: Path | None = None
    version: str = ""
    started: AwareDatetime
    sock: Path | None = None
    certfile: Path | None = None


class InputRequest(BaseModel):
    """What code that waits for an answer asks."""

    id: str
    prompt: str
    password: bool


class Execution(BaseModel):
    """The fields of an execution's record (docs/api.md) that commands show."""

    id: str
    seq: int
    session_id: str | None = None
    cell_id: str | None = None
    code: str
    status: str
    reason: str | None = None
    execution_count: int | None = None
    queued_at: AwareDatetime
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    ename: str | None = None
    evalue: str | None = None
    input_request: InputRequest | None = None

    @property
    def seconds(self) -> float | None:
        """How long it ran; None when it has not started or not finished."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()


# --- the server's file ---------------------------------------------------------------------------


def write_server_file(info: ServerInfo) -> Path:
    """Write the file by which commands find this server, mode 0600; returns its path.

    A reader sees all of it or nothing: it is written beside and renamed.
    """
    folder = Path(jupyter_runtime_dir())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{_FILE_PREFIX}{info.pid}.json"
    draft = path.with_suffix(".tmp")
    draft.unlink(missing_ok=True)  # left by a process of that id that was killed while writing
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(info.model_dump_json(indent=2))
    return draft.replace(path)


def remove_server_file(path: Path) -> None:
    """Remove what `write_server_file` wrote; it may be gone already."""
    path.unlink(missing_ok=True)


def running_servers() -> list[ServerInfo]:
    """The servers of this machine whose process lives, newest first.

    Files that are not readable or not whole are passed over: a killed server leaves its own behind.
    """
    servers = []
    for path in Path(jupyter_runtime_dir()).glob(f"{_FILE_PREFIX}*.json"):
        try:
            info = ServerInfo.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue
        if _is_alive(info.pid):
            servers.append(info)
    return sorted(servers, key=lambda server: server.started, reverse=True)


def find_server(notebook: str | None = None) -> ServerInfo:
    """The server to talk to: one whose root holds `notebook` before others, then the newest.

    Its process lives and its `GET /api` answers. Raises CommandError when there is none.
    """
    servers = running_servers()
    if notebook is not None:
        servers.sort(key=lambda server: path_below(notebook, server.root_dir) is None)
    for server in servers:
        if _answers(server):
            return server
    raise CommandError(
        "No Jupyter Datastore server is running on this machine: start one with "
        "`jupyter-datastore serve`, or name one with --url and --token."
    )


def path_below(notebook: str, root_dir: Path) -> str | None:
    """The API path of a path on this machine, or None when it does not lie under the root.

    The path as written counts before the file it leads to: a link below the root is served there.
    """
    written = Path(os.path.abspath(Path(notebook).expanduser()))  # noqa: PTH100 - keeps links
    root = Path(os.path.abspath(root_dir))  # noqa: PTH100
    for path, top in ((written, root), (written.resolve(), root.resolve())):
        if path != top and path.is_relative_to(top):
            return path.relative_to(top).as_posix()
    return None


def choose_server(
    url: str | None, token: str | None, notebook: str
) -> tuple[str, str | None, ServerInfo | None]:
    """The URL (ending in a slash), the token, and the local server's file if it has one.

    A token in the URL, as `serve` prints it, is taken; so is the file's when nothing else is given.
    The URL of a page (`/lab`, `/tree/folder`) is taken as its server's.
    """
    if url is None:
        found = find_server(notebook)
        return _with_slash(found.url), token or found.token, found
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https", UNIX} or not parts.hostname:
        raise CommandError(f"{url!r} is not a URL such as http://localhost:8888/.")
    token = token or next(iter(parse_qs(parts.query).get("token", [])), None)
    plain = _with_slash(urlunsplit((parts.scheme, parts.netloc, parts.path, "", "")))
    match = _local(plain)
    if match is None:  # it may be a page's address, as `serve` prints it and a browser shows it
        path = _PAGE.sub("", parts.path.rstrip("/"))
        plain = _with_slash(urlunsplit((parts.scheme, parts.netloc, path, "", "")))
        match = _local(plain)
    return plain, token or (match.token if match else None), match


def _local(url: str) -> ServerInfo | None:
    """The server of this machine that has this URL."""
    local = (server for server in running_servers() if _identity(server.url) == _identity(url))
    return next(local, None)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return pid > 0


def _answers(server: ServerInfo) -> bool:
    """Whether something speaks HTTP there. The token is not sent: another may have the port now."""
    try:
        url = _with_slash(server.url)
        with http_client(url, timeout=_PROBE_SECONDS, certfile=server.certfile) as client:
            return client.get("api").status_code < 500
    except (httpx.HTTPError, httpx.InvalidURL, OSError):
        return False


def _certificate_of(url: str) -> Path | None:
    """The certificate of the server of this machine that has this URL."""
    wanted = _identity(url)
    found = (server for server in running_servers() if server.certfile is not None)
    return next((server.certfile for server in found if _identity(server.url) == wanted), None)


def _with_slash(url: str) -> str:
    return url.rstrip("/") + "/"


def _identity(url: str) -> tuple[str, str, int, str]:
    """What two spellings of one server's URL share."""
    parts = urlsplit(_with_slash(url))
    if parts.scheme == UNIX:
        socket_path, base = split_unix_url(_with_slash(url))
        return parts.scheme, socket_path, 0, base
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, "localhost" if host in LOOPBACK else host, port, parts.path


# --- the API -------------------------------------------------------------------------------------


class Connection:
    """HTTP requests to one server that go on through lost connections and restarts.

    Until the server has answered once, a failure ends the command at once; after that, requests
    that may be repeated are, for up to `retry_seconds`, and `note` is told. A server found by its
    file is looked up again on the way: restarted, it may have another port and token.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        retry_seconds: float = 60.0,
        note: Callable[[str], None] = lambda _: None,
        refind: Callable[[], tuple[str, str | None] | None] = lambda: None,
    ) -> None:
        if token is not None and not (token.isascii() and token.isprintable()):
            raise CommandError("The token has characters that no token has.")
        self.url, self.token = url, token
        self.server_ahead = timedelta()  # the server's clock minus ours
        self.note = note
        self._refind = refind
        self._retry_seconds = retry_seconds
        self._answered = False
        self._closing = contextlib.ExitStack()
        self._client = self._open(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _open(self, url: str) -> httpx.Client:
        try:
            client = http_client(url, timeout=_READ_SECONDS, certfile=_certificate_of(url))
        except (httpx.InvalidURL, ValueError, OSError) as error:
            raise CommandError(f"Cannot connect to {url}: {error}.") from error
        return self._closing.enter_context(client)

    def now(self) -> datetime:
        """The time by the server's clock, which is what records carry."""
        return datetime.now(UTC) + self.server_ahead

    def request(
        self, method: str, path: str, /, *, json: Any = None, repeatable: bool = True, **params: Any
    ) -> Any:
        """The answer's JSON (None without a body); `path` is relative to the server's URL.

        Raises RefusedError for an error status, CommandError when there is no way to the server.
        """
        deadline: float | None = None
        pause, longest = _BACKOFF_SECONDS
        while True:
            try:
                answer = self.request_once(method, path, json=json, **params)
            except (httpx.TransportError, RefusedError) as error:
                problem = self._passing_problem(error, method, repeatable=repeatable)
                moved = self._look_again()
                if isinstance(error, RefusedError) and error.status in {401, 403} and not moved:
                    raise
            else:
                if deadline is not None:
                    self.note("Connected again.")
                return answer
            if deadline is None:
                deadline = time.monotonic() + self._retry_seconds
                if self._retry_seconds > 0:
                    self.note(f"{problem}; trying again for {self._retry_seconds:g} s.")
            left = deadline - time.monotonic()
            if left <= 0:
                raise CommandError(f"{problem}, also after {self._retry_seconds:g} s of trying.")
            time.sleep(min(pause, left))
            pause = min(pause * 2, longest)

    def fetch(self, model: type[Model], method: str, path: str, /, **arguments: Any) -> Model:
        """As `request`, read as `model`."""
        answer = self.request(method, path, **arguments)
        try:
            return model.model_validate(answer)
        except ValidationError as error:
            raise self._not_ours(method, path) from error

    def request_once(self, method: str, path: str, /, *, json: Any = None, **params: Any) -> Any:
        """One attempt; may be called from any thread. Raises httpx.TransportError too."""
        headers = {"Authorization": f"token {self.token}"} if self.token else {}
        response = self._client.request(
            method, path, json=json, params=params or None, headers=headers
        )
        if not response.is_success:
            raise RefusedError(self._reason(response, method, path), response.status_code)
        self._answered = True
        self._read_clock(response)
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise self._not_ours(method, path) from error

    def answer_input(self, execution_id: str, value: str) -> bool:
        """Answer what an execution asks; False when another did. One attempt, from any thread."""
        try:
            self.request_once("POST", f"api/executions/{execution_id}/input", json={"value": value})
        except RefusedError as error:
            if error.status == 409:
                return False
            raise
        except (httpx.TransportError, RuntimeError) as error:  # RuntimeError: closed meanwhile
            raise CommandError(f"Lost the connection to {self.url}.") from error
        return True

    def _passing_problem(self, error: Exception, method: str, *, repeatable: bool) -> str:
        """The start of a sentence about a failure worth another try; other failures are raised."""
        if isinstance(error, RefusedError):
            gateway = error.status in {502, 504} and repeatable
            # A server that stops answers its open polls with 500; restarted, it has another token.
            restart = error.status == 500 and method == "GET"
            restart = (restart or error.status in {401, 403}) and self._answered
            if not (error.status == 503 or gateway or restart):
                raise error
            return error.message.rstrip(".")
        detail = str(error).rstrip(".") or type(error).__name__
        if not self._answered:
            raise CommandError(f"Cannot reach the server at {self.url}: {detail}.") from error
        never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        if not (repeatable or never_sent):
            raise CommandError(
                f"The connection to {self.url} broke before the server answered, so the run may "
                "or may not have started."
            ) from error
        return f"Lost the connection to {self.url} ({detail})"

    def _look_again(self) -> bool:
        """Follow a server that came back elsewhere; True when it did."""
        found = self._refind()
        if found is None or found == (self.url, self.token):
            return False
        self._client = self._open(found[0])
        self.url, self.token = found
        return True

    def _reason(self, response: httpx.Response, method: str, path: str) -> str:
        """One sentence of why a request was refused."""
        with contextlib.suppress(ValueError, AttributeError):
            message = str(response.json().get("message") or "").strip().rstrip(".")
            if message and response.status_code in {401, 403}:
                return f"{self.url} does not allow this: {message} (see --token)."
            if message:
                return f"{self.url} answered: {message}."
        phrase = f"{response.status_code} {response.reason_phrase}".strip()
        return f"{self.url} answered {phrase} to {method} /{path}."

    def _not_ours(self, method: str, path: str) -> CommandError:
        return CommandError(
            f"What {self.url} answers to {method} /{path} is not what a Jupyter Datastore server "
            "answers."
        )

    def _read_clock(self, response: httpx.Response) -> None:
        """Note how far the server's clock is off, if by more than the header's resolution."""
        with contextlib.suppress(KeyError, ValueError, TypeError):
            ahead = parsedate_to_datetime(response.headers["Date"]) - datetime.now(UTC)
            self.server_ahead = ahead if abs(ahead) > timedelta(seconds=2) else timedelta()


def quoted(path: str) -> str:
    """An API path as it goes into a URL."""
    return quote(path.strip("/"), safe="/")
