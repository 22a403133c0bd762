"""The files under the root directory, by way of jupyter_server's contents manager.

Paths here are Jupyter's API paths. Errors are the domain's: NotFoundError for what is missing,
hidden or outside the root, BadRequestError for the wrong type or bad content, StorageError when
the disk refuses, in which case the old file is whole. Reading, hashing, serialising and writing
run in a thread, so that a large file does not stop the event loop.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import posixpath
import secrets
import stat
import time
import warnings
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import nbformat
from jupyter_core.paths import is_hidden
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from nbformat import v4
from tornado.web import HTTPError
from traitlets.config import LoggingConfigurable

from app.errors import (
    BadRequestError,
    ConflictError,
    DomainError,
    ForbiddenError,
    NotFoundError,
    StorageError,
)

T = TypeVar("T")

# A file whose time of change is this close to when it was read may change again unnoticed.
_RACY_SECONDS = 2.0
_ERRORS: dict[int, type[DomainError]] = {
    400: BadRequestError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
}


class DiskChangedError(Exception):
    """The file is not what it was expected to be: another program changed it."""


@dataclass(frozen=True)
class FileState:
    """A file as it was seen: SHA-256 of its bytes (hex), size in bytes, times."""

    hash: str
    size: int
    last_modified: datetime
    created: datetime
    writable: bool


@dataclass(frozen=True)
class NotebookFile:
    """A notebook read from disk, as nbformat 4; `nbformat` is the format that the file has.

    `message` says why it is not valid, if it is readable nevertheless.
    """

    notebook: dict[str, Any]
    state: FileState
    nbformat: int
    message: str | None


class Disk:
    """The files under one root directory."""

    def __init__(self, root_dir: Path) -> None:
        self.root_dir = root_dir.resolve()
        self._manager: Any = AsyncLargeFileManager(
            root_dir=str(self.root_dir), parent=LoggingConfigurable(log=logging.getLogger(__name__))
        )
        self._notary_thread = ThreadPoolExecutor(1, "notary")
        self._seen: dict[str, tuple[tuple[int, int, int], float, FileState]] = {}

    def normalized(self, path: str) -> str:
        """Return the one form of an API path: relative, no empty, `.` or `..` parts.

        Raises NotFoundError for a path outside the root, or one that no file can have.
        """
        clean = posixpath.normpath("/".join(part for part in path.split("/") if part) or ".")
        if clean == ".." or clean.startswith("../") or "\x00" in clean:
            raise NotFoundError(f"No such file or directory: {path}")
        try:
            clean.encode()
        except UnicodeEncodeError:
            raise NotFoundError(f"No such file or directory: {path!r}") from None
        return "" if clean == "." else clean

    async def model(
        self,
        path: str,
        *,
        content: bool = True,
        type: str | None = None,  # noqa: A002 (Jupyter's name)
        format: str | None = None,  # noqa: A002 (Jupyter's name)
        hash: bool = False,  # noqa: A002 (Jupyter's name)
    ) -> dict[str, Any]:
        """Return the model that Jupyter's contents API has, times as datetimes."""
        path = self.normalized(path)
        async with self._domain_errors(path):
            found: dict[str, Any] = await self._manager.get(
                path, content=content, type=type, format=format, require_hash=hash
            )
        return found

    async def save_model(self, path: str, model: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Save a file (or a chunk) or make a folder; return its model and whether it is new."""
        path = self.normalized(path)
        async with self._domain_errors(path):
            self._refuse_hidden(path)
            new = not self.exists(path)
            saved: dict[str, Any] = await self._manager.save(model, path)
        return saved, new

    def exists(self, path: str) -> bool:
        """Tell whether there is a file or folder at a path that may be seen."""
        try:
            path = self.normalized(path)
            self._refuse_hidden(path)
            return Path(self._manager._get_os_path(path)).exists()
        except (DomainError, HTTPError):
            return False

    async def is_directory(self, path: str) -> bool:
        """Tell whether a path is a folder."""
        async with self._domain_errors(path):
            os_path = self._manager._get_os_path(self.normalized(path))
            return await asyncio.to_thread(Path(os_path).is_dir)

    async def for_client(
        self, path: str, notebook: dict[str, Any]
    ) -> tuple[dict[str, Any], str | None]:
        """Return a notebook as a client gets it, and why it is not valid, if so.

        As in Jupyter, each code cell says whether its outputs are trusted.
        """
        return await self._in_notary_thread(self._for_client, path, notebook)

    def _for_client(self, path: str, notebook: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        message = _problem(notebook)
        node: dict[str, Any] = nbformat.from_dict(notebook)  # type: ignore[no-untyped-call]
        self._manager.mark_trusted_cells(node, path)
        return node, message

    async def sign(self, path: str, notebook: dict[str, Any]) -> None:
        """Trust a notebook that a person saved, if all its cells say that it is trusted."""
        await self._in_notary_thread(self._sign, path, notebook)

    def _sign(self, path: str, notebook: dict[str, Any]) -> None:
        self._manager.check_and_sign(nbformat.from_dict(notebook), path)  # type: ignore[no-untyped-call]

    async def _in_notary_thread(self, function: Callable[..., T], /, *arguments: Any) -> T:
        """Call what uses the signature database, whose SQLite connection is one thread's only."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._notary_thread, function, *arguments)

    async def state(self, path: str) -> FileState:
        """Return what a file is now, reading it only if it may have changed since the last time."""
        path = self.normalized(path)
        async with self._domain_errors(path):
            os_path = self._file(path)
            seen = self._seen.get(path)
            if (
                seen
                and seen[0] == _signature(os_path)
                and seen[1] - seen[0][0] / 1e9 > _RACY_SECONDS
            ):
                return seen[2]
            return (await asyncio.to_thread(self._read, path, os_path))[1]

    async def read_notebook(self, path: str) -> NotebookFile:
        """Read a notebook; BadRequestError when it is not JSON or not a notebook."""
        path = self.normalized(path)
        async with self._domain_errors(path):
            os_path = self._file(path)
            return await asyncio.to_thread(self._read_notebook, path, os_path)

    async def write_notebook(
        self,
        path: str,
        content: bytes,
        expected_hash: str | None,
    ) -> FileState:
        """Replace a notebook's file by `content` (see `serialized`), atomically.

        Raises DiskChangedError when the file's hash is not `expected_hash`. A file that is gone
        is written again; with `expected_hash` None there must be none.
        """
        path = self.normalized(path)
        async with self._domain_errors(path):
            self._refuse_hidden(path)
            os_path = Path(self._manager._get_os_path(path))
            return await asyncio.to_thread(self._write, path, os_path, content, expected_hash)

    async def checkpoint(self, path: str) -> None:
        """Keep a copy of a file as it is, as Jupyter's checkpoint."""
        path = self.normalized(path)
        async with self._domain_errors(path):
            await self._manager.create_checkpoint(path)

    def _refuse_hidden(self, path: str) -> None:
        os_path = self._manager._get_os_path(path)
        if not self._manager.allow_hidden and is_hidden(os_path, str(self.root_dir)):
            raise NotFoundError(f"No such file or directory: {path}")

    def _file(self, path: str) -> Path:
        self._refuse_hidden(path)
        os_path = Path(self._manager._get_os_path(path))
        if not os_path.exists():
            raise NotFoundError(f"No such file or directory: {path}")
        if not os_path.is_file():
            raise BadRequestError(f"{path} is not a file", reason="bad type")
        return os_path

    def _read(self, path: str, os_path: Path) -> tuple[bytes, FileState]:
        while True:
            before = _signature(os_path)
            content = os_path.read_bytes()
            if before == _signature(os_path):
                return content, self._saw(path, os_path, content, before)

    def _saw(
        self, path: str, os_path: Path, content: bytes, signature: tuple[int, int, int]
    ) -> FileState:
        info = os_path.stat()
        state = FileState(
            hash=hashlib.sha256(content).hexdigest(),
            size=len(content),
            last_modified=datetime.fromtimestamp(signature[0] / 1e9, UTC),
            created=datetime.fromtimestamp(info.st_ctime, UTC),
            writable=os.access(os_path, os.W_OK),
        )
        self._seen[path] = (signature, time.time(), state)
        return state

    def _read_notebook(self, path: str, os_path: Path) -> NotebookFile:
        content, state = self._read(path, os_path)
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise BadRequestError(f"{path} is not UTF-8 encoded", reason="bad format") from None
        try:
            raw = json.loads(text)
            notebook, message = _as_v4(raw)
            return NotebookFile(notebook, state, int(raw["nbformat"]), message)
        except Exception as error:
            raise BadRequestError(f"Unreadable Notebook: {path} {error!r}") from error

    def _write(
        self, path: str, os_path: Path, content: bytes, expected_hash: str | None
    ) -> FileState:
        if os_path.is_symlink():
            os_path = os_path.resolve()
        if os_path.exists():
            _, found = self._read(path, os_path)
            if found.hash != expected_hash:
                raise DiskChangedError(path)
            if found.hash == hashlib.sha256(content).hexdigest():
                return found
            if not os.access(os_path, os.W_OK):
                raise PermissionError(13, "Permission denied", str(os_path))
        elif not os_path.parent.is_dir():
            raise NotFoundError(f"No such directory: {posixpath.dirname(path)}")
        if os_path.exists() and not os.access(os_path.parent, os.W_OK):
            # A writable file in a folder that is not: it can only be overwritten in place.
            os_path.write_bytes(content)
        else:
            _replace_file(os_path, content)
        return self._saw(path, os_path, content, _signature(os_path))

    @asynccontextmanager
    async def _domain_errors(self, path: str) -> AsyncIterator[None]:
        try:
            yield
        except HTTPError as error:
            message = str(error.log_message or error.reason or "")
            message = message.replace(f"{self.root_dir}/", "")
            kind = _ERRORS.get(error.status_code, StorageError)
            raise kind(message, reason=error.reason) from error
        except FileNotFoundError as error:
            raise NotFoundError(f"No such file or directory: {path}") from error
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror or error}") from error


def serialized(notebook: dict[str, Any]) -> bytes:
    """Return a notebook as the bytes of its file, as nbformat writes them."""
    node = nbformat.from_dict(notebook)  # type: ignore[no-untyped-call]
    text: str = v4.writes_json(node)  # type: ignore[no-untyped-call]
    return (text if text.endswith("\n") else text + "\n").encode()


def as_notebook(content: Any) -> tuple[dict[str, Any], str | None]:
    """Return what a client sent as an nbformat 4 notebook, and why it is not valid, if so.

    Raises BadRequestError when it is no notebook at all.
    """
    try:
        return _as_v4(content)
    except Exception as error:
        raise BadRequestError(f"Not a notebook: {error!r}") from error


def _as_v4(raw: Any) -> tuple[dict[str, Any], str | None]:
    if not isinstance(raw, dict) or not isinstance(raw.get("nbformat"), int | float):
        raise ValueError("the document has no nbformat")
    major = int(raw["nbformat"])
    if major >= 4:
        notebook = v4.to_notebook(_completed(raw))  # type: ignore[no-untyped-call]
    else:
        notebook = nbformat.versions[major].to_notebook_json(raw)
        notebook = nbformat.convert(notebook, 4)  # type: ignore[no-untyped-call]
        notebook = v4.to_notebook(notebook)  # type: ignore[no-untyped-call]
    problem = _problem(notebook)
    plain: dict[str, Any] = json.loads(json.dumps(notebook))
    for cell in plain["cells"]:
        if not isinstance(cell["source"], str):
            raise ValueError("a cell's source is not text")
    return plain, problem


def _problem(notebook: dict[str, Any]) -> str | None:
    """Return Jupyter's message about a notebook that is not valid."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A copy: validation repairs ids in place, which is the document's to do.
            nbformat.validate(json.loads(json.dumps(notebook)))
    except nbformat.ValidationError as error:
        return f"Notebook validation failed: {error.message}:\n{_instance(error)}"
    return None


def _completed(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a copy in which what nbformat's own reader needs is there."""
    notebook: dict[str, Any] = json.loads(json.dumps(raw))
    notebook.setdefault("metadata", {})
    notebook.setdefault("nbformat_minor", 0)
    for cell in notebook.setdefault("cells", []):
        cell.setdefault("metadata", {})
        cell.setdefault("source", "")
        if cell["cell_type"] not in ("code", "markdown", "raw"):
            raise ValueError(f"unknown cell type {cell['cell_type']!r}")
        if cell["cell_type"] == "code":
            cell.setdefault("outputs", [])
            cell.setdefault("execution_count", None)
    return notebook


def _instance(error: Any) -> str:
    try:
        return json.dumps(error.instance, indent=1)[:2000]
    except (TypeError, ValueError):
        return ""


def _signature(os_path: Path) -> tuple[int, int, int]:
    info = os_path.stat()
    return info.st_mtime_ns, info.st_size, info.st_ino


def _replace_file(os_path: Path, content: bytes) -> None:
    """Write a new file beside the old one, and put it in its place once it is whole on disk.

    jupyter_server copies the old file away and overwrites it, which leaves a broken file when the
    process ends in between. Mode, and the owner where allowed, stay the old file's.
    """
    temporary = os_path.with_name(f".~{secrets.token_hex(4)}.{os_path.name}"[:200])
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            with contextlib.suppress(FileNotFoundError):
                old = os_path.stat()
                os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fileno(), old.st_uid, old.st_gid)
            os.fsync(file.fileno())
        temporary.replace(os_path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
