"""The files under the root directory, by way of jupyter_server's contents manager.

Paths here are Jupyter's API paths. Errors are the domain's: NotFoundError for what is missing,
hidden or outside the root, BadRequestError for the wrong type or bad content, ForbiddenError where
the disk forbids it, StorageError when it fails, in which case the old file is whole. Reading,
hashing, serialising and writing run in a thread, so that a large file does not stop the event loop.

A manager that is no file manager (`files` is False) is asked for everything by its own methods:
a notebook's hash is then that of its bytes as nbformat writes them, and between the check that
nobody changed it and the writing somebody may.
"""

import asyncio
import contextlib
import hashlib
import itertools
import os
import posixpath
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import nbformat
from jupyter_core.paths import is_hidden
from jupyter_core.utils import ensure_async
from jupyter_server.services.contents.filemanager import FileContentsManager

from app.contents.listing import Entry, can_scan, entry_at, scan
from app.contents.manager import domain_errors, make_manager
from app.contents.notebook_format import as_v4, problem, read_json, serialized
from app.contents.writing import whole_file
from app.errors import BadRequestError, DomainError, NotFoundError
from app.settings import Settings

T = TypeVar("T")

# A file whose time of change is this close to when it was read may change again unnoticed.
_RACY_SECONDS = 2.0


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
    key: str | None = None


@dataclass(frozen=True)
class NotebookFile:
    """A notebook read from disk, as nbformat 4; `nbformat` is the format that the file has.

    `message` says why it is not valid, if it is readable nevertheless.
    """

    notebook: dict[str, Any]
    state: FileState
    nbformat: int
    message: str | None


@dataclass(frozen=True)
class TextFile:
    r"""A text file read from disk; `text` has `\n` as line ends, `newline` is what the file has."""

    text: str
    state: FileState
    newline: str

    @classmethod
    def of(cls, content: bytes, state: FileState) -> "TextFile":
        r"""Return the file that has these bytes; UnicodeDecodeError when it is not UTF-8.

        Only where all line ends are `\r\n` are they taken for such: others stay as they are.
        """
        text = content.decode("utf-8")
        ends = text.count("\r\n")
        if ends and ends == text.count("\n") == text.count("\r"):
            return cls(text.replace("\r\n", "\n"), state, "\r\n")
        return cls(text, state, "\n")


class Disk:
    """The files under one root directory. Raises ManagerError when the settings make no manager."""

    def __init__(self, root_dir: Path, settings: Settings | None = None) -> None:
        self.root_dir = root_dir.resolve()
        self._notary_thread = ThreadPoolExecutor(1, "notary")
        settings = settings or Settings()
        self.manager: Any = make_manager(settings.model_copy(update={"root_dir": self.root_dir}))
        self.files = isinstance(self.manager, FileContentsManager)
        self._scans = self.files and can_scan(self.manager)
        self._seen: dict[str, tuple[tuple[int, int, int], float, FileState]] = {}

    def normalized(self, path: str) -> str:
        """Return the one form of an API path: relative, no empty, `.` or `..` parts.

        Raises NotFoundError for a path outside the root, or one that no file can have.
        """
        clean = posixpath.normpath("/".join(part for part in path.split("/") if part) or ".")
        if clean == ".." or clean.startswith("../") or "\x00" in clean:
            raise NotFoundError(f"No such file or directory: {path!a}")
        try:
            clean.encode()
        except UnicodeEncodeError:
            raise NotFoundError(f"No such file or directory: {path!a}") from None
        return "" if clean == "." else clean

    def os_path(self, path: str) -> Path:
        """Return where a path is on disk; only for file based managers."""
        return Path(self.manager._get_os_path(path))

    async def run(self, path: str, operation: str, *args: Any) -> Any:
        """Return what one of the manager's own operations returns; `path` is for its errors."""
        async with self._domain_errors(path):
            return await ensure_async(getattr(self.manager, operation)(*args))

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
        # Only said when wanted: managers from before jupyter_server 2.11 do not know it.
        more = {"require_hash": True} if hash else {}
        async with self._domain_errors(path):
            await self._refuse_hidden(path)
            found: dict[str, Any] = await ensure_async(
                self.manager.get(path, content=content, type=type, format=format, **more)
            )
        return found

    async def listing(self, path: str) -> tuple[dict[str, Any], list[Entry]]:
        """Return a folder's model with its content, and that content as entries."""
        path = self.normalized(path)
        if not self._scans:
            model = await self.model(path, type="directory")
            return model, [Entry(found) for found in model["content"]]
        model = await self.model(path, type="directory", content=False)
        async with self._domain_errors(path):
            entries = await asyncio.to_thread(scan, self.manager, str(self.os_path(path)), path)
        model.update(content=[entry.model for entry in entries], format="json")
        return model, entries

    async def entry(self, path: str) -> Entry | None:
        """Return one file or folder as a listing shows it; None when it would not."""
        path = self.normalized(path)
        try:
            if not self._scans:
                return Entry(await self.model(path, content=False))
            async with self._domain_errors(path):
                await self._refuse_hidden(path)
                os_path = str(self.os_path(path))
                return await asyncio.to_thread(entry_at, self.manager, os_path, path)
        except DomainError:
            return None

    async def exists(self, path: str) -> bool:
        """Tell whether there is a file or folder at a path that may be seen."""
        try:
            if await self.is_hidden(path):
                return False
            path = self.normalized(path)
            return bool(await self.run(path, "exists", path))
        except DomainError:
            return False

    async def is_file(self, path: str) -> bool:
        """Tell whether a path is a file."""
        return bool(await self.run(path, "file_exists", self.normalized(path)))

    async def is_directory(self, path: str) -> bool:
        """Tell whether a path is a folder."""
        return bool(await self.run(path, "dir_exists", self.normalized(path)))

    async def is_hidden(self, path: str) -> bool:
        """Tell whether a path may not be seen; so is what cannot be a path."""
        try:
            path = self.normalized(path)
            return not self.manager.allow_hidden and bool(await self.run(path, "is_hidden", path))
        except (NotFoundError, BadRequestError):
            return True

    def is_within(self, path: str, other: str) -> bool:
        """Tell whether a path is another one or below it, by way of links too."""
        if path == other or not other or path.startswith(f"{other}/"):
            return True
        return self.files and self.os_path(path).resolve().is_relative_to(
            self.os_path(other).resolve()
        )

    async def for_client(
        self, path: str, notebook: dict[str, Any]
    ) -> tuple[dict[str, Any], str | None]:
        """Return a notebook as a client gets it, and why it is not valid, if so.

        As in Jupyter, each code cell says whether its outputs are trusted.
        """
        return await self._in_notary_thread(self._for_client, path, notebook)

    def _for_client(self, path: str, notebook: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        message = problem(notebook)
        node = _without_trust(notebook)
        self.manager.mark_trusted_cells(node, path)
        return node, message

    async def is_signed(self, notebook: dict[str, Any]) -> bool:
        """Tell whether this server's account trusts a notebook as it is, outputs and all."""
        return await self._in_notary_thread(
            lambda: bool(self.manager.notary.check_signature(_without_trust(notebook)))
        )

    async def sign(self, path: str, notebook: dict[str, Any], *, trust: bool = False) -> None:
        """Trust a notebook: if all its cells say that it is trusted, or at a person's word."""
        await self._in_notary_thread(self._sign, path, notebook, trust)

    def _sign(self, path: str, notebook: dict[str, Any], trust: bool) -> None:
        node: dict[str, Any] = nbformat.from_dict(notebook)  # type: ignore[no-untyped-call]
        for cell in node["cells"]:
            if cell["cell_type"] != "code":  # of code cells the notary takes it away itself
                cell["metadata"].pop("trusted", None)
        if trust:
            self.manager.notary.mark_cells(node, True)
        self.manager.check_and_sign(node, path)

    async def _in_notary_thread(self, function: Callable[..., T], /, *arguments: Any) -> T:
        """Call what uses the signature database, whose SQLite connection is one thread's only."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._notary_thread, function, *arguments)

    async def state(self, path: str) -> FileState:
        """Return what a file is now, reading it only if it may have changed since the last time."""
        path = self.normalized(path)
        if not self.files:
            return (await self.read_notebook(path)).state
        async with self._domain_errors(path):
            os_path = await self._file(path)
            seen = self._known_state(path, os_path)
            return seen or (await asyncio.to_thread(self._read, path, os_path))[1]

    async def read_notebook(self, path: str) -> NotebookFile:
        """Read a notebook; BadRequestError when it is not JSON or not a notebook."""
        path = self.normalized(path)
        async with self._domain_errors(path):
            if not self.files:
                model = await self.model(path, type="notebook")
                return await asyncio.to_thread(_from_model, model)
            os_path = await self._file(path)
            return await asyncio.to_thread(self._read_notebook, path, os_path)

    async def read_text(self, path: str) -> TextFile:
        """Read a text file; BadRequestError when it is not UTF-8."""
        path = self.normalized(path)
        if not self.files:
            raise BadRequestError(f"{path} cannot be edited together here")
        async with self._domain_errors(path):
            os_path = await self._file(path)
            content, state = await asyncio.to_thread(self._read, path, os_path)
        try:
            return TextFile.of(content, state)
        except UnicodeDecodeError:
            raise BadRequestError(f"{path} is not UTF-8 encoded", reason="bad format") from None

    async def write(
        self,
        path: str,
        content: bytes,
        expected_hash: str | None,
        *,
        content_hash: str | None = None,
    ) -> FileState:
        """Replace a notebook's or text file's content by `content`, atomically.

        `content_hash` is its SHA-256, for who knows it already. Raises DiskChangedError when the
        file's hash is not `expected_hash`. A file that is gone is written again; with
        `expected_hash` None there must be none.
        """
        path = self.normalized(path)
        if not self.files:
            return await self._save_notebook(path, content, expected_hash)
        async with self._domain_errors(path):
            await self._refuse_hidden(path)
            os_path = self.os_path(path)
            return await asyncio.to_thread(
                self._write, path, os_path, content, expected_hash, content_hash
            )

    async def _save_notebook(
        self, path: str, content: bytes, expected_hash: str | None
    ) -> FileState:
        if await self.exists(path) and (await self.state(path)).hash != expected_hash:
            raise DiskChangedError(path)
        notebook = nbformat.reads(content.decode(), 4)  # type: ignore[no-untyped-call]
        await self.run(
            path, "save", {"type": "notebook", "format": "json", "content": notebook}, path
        )
        return await self.state(path)

    async def keep_copy(self, path: str) -> tuple[str, FileState]:
        """Copy a file's bytes beside it, under a free name; return that path, and what it was."""
        path = self.normalized(path)
        if not self.files:
            raise BadRequestError(f"{path} cannot be copied here")
        async with self._domain_errors(path):
            os_path = await self._file(path)
            content, state = await asyncio.to_thread(self._read, path, os_path)
        stem, extension = posixpath.splitext(path)
        for number in itertools.count(1):
            copy = f"{stem}-unreadable{number if number > 1 else ''}{extension}"
            with contextlib.suppress(DiskChangedError):
                await self.write(copy, content, None)
                return copy, state
        raise AssertionError

    async def checkpoint(self, path: str) -> None:
        """Keep a copy of a file as it is, as Jupyter's checkpoint."""
        path = self.normalized(path)
        await self.run(path, "create_checkpoint", path)

    async def _refuse_hidden(self, path: str) -> None:
        if self.manager.allow_hidden:
            return
        if self.files:
            hidden = is_hidden(self.os_path(path), self.root_dir)
        else:
            hidden = await ensure_async(self.manager.is_hidden(path))
        if hidden:
            raise NotFoundError(f"No such file or directory: {path}")

    async def _file(self, path: str) -> Path:
        await self._refuse_hidden(path)
        os_path = self.os_path(path)
        if not os_path.exists():
            raise NotFoundError(f"No such file or directory: {path}")
        if not os_path.is_file():
            raise BadRequestError(f"{path} is not a file", reason="bad type")
        return os_path

    def _known_state(self, path: str, os_path: Path) -> FileState | None:
        """Return what a file was when it was last read, unless it may have changed since."""
        seen = self._seen.get(path)
        if seen is None or seen[0] != _signature(os_path):
            return None
        return seen[2] if seen[1] - seen[0][0] / 1e9 > _RACY_SECONDS else None

    def _read(self, path: str, os_path: Path) -> tuple[bytes, FileState]:
        while True:
            before = _signature(os_path)
            content = os_path.read_bytes()
            if before == _signature(os_path):
                return content, self._saw(path, os_path, content, before)

    def _saw(
        self,
        path: str,
        os_path: Path,
        content: bytes,
        signature: tuple[int, int, int],
        content_hash: str | None = None,
    ) -> FileState:
        # What a listing says of it, so that the rows agree.
        info = os_path.lstat()
        state = FileState(
            hash=content_hash or hashlib.sha256(content).hexdigest(),
            size=info.st_size,
            last_modified=datetime.fromtimestamp(info.st_mtime, UTC),
            created=datetime.fromtimestamp(info.st_ctime, UTC),
            writable=os.access(os_path, os.W_OK),
            key=f"{info.st_dev:x}:{info.st_ino:x}",
        )
        self._seen[path] = (signature, time.time(), state)
        return state

    def _read_notebook(self, path: str, os_path: Path) -> NotebookFile:
        content, state = self._read(path, os_path)
        try:
            raw = read_json(content)
        except UnicodeDecodeError:
            raise BadRequestError(f"{path} is not UTF-8 encoded", reason="bad format") from None
        except (ValueError, RecursionError) as error:
            raise BadRequestError(f"Unreadable Notebook: {path} {error!r}") from error
        try:
            notebook, message = as_v4(raw)
            return NotebookFile(notebook, state, int(raw["nbformat"]), message)
        except Exception as error:
            raise BadRequestError(f"Unreadable Notebook: {path} {error!r}") from error

    def _write(
        self,
        path: str,
        os_path: Path,
        content: bytes,
        expected_hash: str | None,
        content_hash: str | None,
    ) -> FileState:
        content_hash = content_hash or hashlib.sha256(content).hexdigest()
        if os_path.exists():
            found = self._known_state(path, os_path) or self._read(path, os_path)[1]
            if found.hash != expected_hash:
                raise DiskChangedError(path)
            if found.hash == content_hash:
                return found
        elif not os_path.parent.is_dir():
            raise NotFoundError(f"No such directory: {posixpath.dirname(path)}")
        with whole_file(os_path) as file:
            file.write(content)
        return self._saw(path, os_path, content, _signature(os_path), content_hash)

    @asynccontextmanager
    async def _domain_errors(self, path: str) -> AsyncIterator[None]:
        with domain_errors(path, self.root_dir):
            yield


def _from_model(model: dict[str, Any]) -> NotebookFile:
    """Return the notebook that a manager gave, its state being that of the bytes it would have."""
    notebook, message = as_v4(model["content"])
    for cell in notebook["cells"]:
        cell["metadata"].pop("trusted", None)
    content = serialized(notebook)
    state = FileState(
        hash=hashlib.sha256(content).hexdigest(),
        size=len(content),
        last_modified=model["last_modified"],
        created=model["created"],
        writable=bool(model["writable"]),
    )
    return NotebookFile(notebook, state, 4, message)


def _without_trust(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return a copy as files have it, and signatures: no cell says that it is trusted."""
    node: dict[str, Any] = nbformat.from_dict(notebook)  # type: ignore[no-untyped-call]
    for cell in node["cells"]:
        cell["metadata"].pop("trusted", None)
    return node


def _signature(os_path: Path) -> tuple[int, int, int]:
    info = os_path.stat()
    return info.st_mtime_ns, info.st_size, info.st_ino
