"""What people do to files: make, save, copy, rename, delete, trust.

The contents manager does it to the disk; here a notebook's document, its sessions and the rows go
with it. Answers are jupyter_server's models, and so are the errors, where it has one.
"""

import asyncio
import contextlib
import time
import uuid
from typing import Any

from sqlalchemy.exc import DBAPIError

from app.contents import rows
from app.contents.disk import Disk
from app.contents.following import Following
from app.contents.manager import UnsupportedError
from app.contents.notebook_format import as_notebook
from app.documents.store import DocumentStore
from app.errors import BadRequestError, DomainError, NotFoundError

_TYPES = ("directory", "file", "notebook")
_ATTEMPTS = 3
_DEADLOCK = "40P01"
# An upload that stopped for this long is forgotten.
_UPLOAD_SECONDS = 3600


class Actions:
    """Changes files and folders, with all that belongs to them."""

    def __init__(self, disk: Disk, documents: DocumentStore, following: Following) -> None:
        self._disk = disk
        self._documents = documents
        self._following = following
        self._uploads: dict[str, tuple[int, float]] = {}

    async def create(self, folder: str, model: dict[str, Any]) -> dict[str, Any]:
        """Make an untitled file, notebook or folder, or a copy of `copy_from`; return its model.

        `model` may have `type` and `ext`. 400 when `folder` is a file, 404 when there is none.
        """
        folder = self._disk.normalized(folder)
        if await self._disk.is_file(folder):
            raise BadRequestError("Cannot POST to files, use PUT instead.")
        if copy_from := _text(model, "copy_from"):
            return await self._copy(copy_from, folder)
        kind, ext = _kind(model), _text(model, "ext") or ""
        if "/" in ext or "\x00" in ext:
            raise BadRequestError(f"{ext!a} cannot be a file's extension")
        if await self._disk.is_hidden(folder):
            raise NotFoundError(f"No such directory: {folder}")
        made: dict[str, Any] = await self._disk.run(folder, "new_untitled", folder, kind or "", ext)
        await self._following.note(made["path"])
        return made

    async def _copy(self, source: str, target: str) -> dict[str, Any]:
        hidden = [await self._disk.is_hidden(path) for path in (target, source)]
        if any(hidden):
            raise BadRequestError(f"Cannot copy file or directory {target!r}")
        source = self._disk.normalized(source)
        if self._disk.is_within(target, source):
            # Jupyter copies it into itself until the disk is full or a name is too long.
            raise BadRequestError(f"Cannot copy {source or 'the root'!r} into itself")
        await self._documents.save_below(source)
        made: dict[str, Any] = await self._disk.run(source, "copy", source, target)
        await self._following.note(made["path"])
        return made

    async def save(
        self, path: str, model: dict[str, Any], *, actor_id: uuid.UUID | None
    ) -> tuple[dict[str, Any], bool]:
        """Save a notebook, a file (whole or a chunk) or a folder; return its model, and if new.

        Without a model an untitled file is made in the folder at `path`. What is new may lack type
        and content; a notebook is then an empty one.
        """
        path = self._disk.normalized(path)
        if not model:
            return await self.create_untitled(path), True
        if model.get("copy_from"):
            raise BadRequestError("Cannot copy with PUT, only POST")
        named = _text(model, "path")
        if await self._disk.is_hidden(path) or (named and await self._disk.is_hidden(named)):
            raise BadRequestError(f"Cannot create file or directory {path!r}")
        kind = _kind(model)
        new = not await self._disk.is_file(path)
        if kind is None:
            if not new:
                raise BadRequestError("No file type provided")
            kind = "notebook" if path.endswith(".ipynb") else "file"
        _text(model, "format")
        model = {**model, "type": kind}
        if not await self._disk.is_directory(path.rpartition("/")[0]):
            raise NotFoundError(f"No such directory: {path.rpartition('/')[0]}")
        if new and kind != "directory" and await self._disk.is_directory(path):
            raise BadRequestError(f"{path} is a directory, not a {kind}", reason="bad type")
        if kind == "notebook" and "content" in model and model.get("chunk") is None:
            return await self._save_notebook(path, model["content"], actor_id=actor_id), new
        return await self._save_any(path, model, new=new, actor_id=actor_id), new

    async def _save_any(
        self, path: str, model: dict[str, Any], *, new: bool, actor_id: uuid.UUID | None
    ) -> dict[str, Any]:
        """Save what is no whole notebook; a text file that is open merges it."""
        if _is_text(model) and await self._documents.type_at(path) == "file":
            await self._documents.put_text(path, model["content"], actor_id=actor_id)
            opened: dict[str, Any] = await self._disk.model(path, content=False)
            return opened
        saved = await self._save_file(path, model, new=new)
        await self._following.note(path)
        if model.get("chunk") in (None, -1):
            with contextlib.suppress(DomainError):  # what was saved need not be a notebook
                await self._documents.follow(path, actor_id=actor_id)
        return saved

    async def create_untitled(self, folder: str) -> dict[str, Any]:
        """Make an untitled file in a folder."""
        if not await self._disk.is_directory(folder):
            raise NotFoundError(f"No such directory: {folder}")
        return await self.create(folder, {})

    async def _save_notebook(
        self, path: str, content: Any, *, actor_id: uuid.UUID | None
    ) -> dict[str, Any]:
        notebook, message = await asyncio.to_thread(as_notebook, content)
        await self._documents.put_notebook(path, notebook, actor_id=actor_id)
        await self._disk.sign(path, _with_trust(notebook, content))
        # As in Jupyter there is always one to go back to.
        with contextlib.suppress(UnsupportedError):
            if not await self._disk.run(path, "list_checkpoints", path):
                await self._disk.run(path, "create_checkpoint", path)
        saved = await self._disk.model(path, content=False)
        if message:
            saved["message"] = message
        return saved

    async def _save_file(self, path: str, model: dict[str, Any], *, new: bool) -> dict[str, Any]:
        chunk = model.get("chunk")
        if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int)):
            raise BadRequestError("chunk must be a number")
        if chunk is not None:
            self._check_chunk(path, chunk, new=new)
        operation = "new" if new else "save"
        saved: dict[str, Any] = await self._disk.run(path, operation, model, path)
        if chunk is not None and chunk != -1:
            self._uploads[path] = chunk, time.monotonic()
        else:
            self._uploads.pop(path, None)
        return saved

    def _check_chunk(self, path: str, chunk: int, *, new: bool) -> None:
        """Refuse a chunk that does not follow the one before: Jupyter would append it unseen.

        Another process may have had the one before, so what this one does not know is taken.
        """
        now = time.monotonic()
        for other, (_, when) in list(self._uploads.items()):
            if now - when > _UPLOAD_SECONDS:
                del self._uploads[other]
        if chunk == 1:
            return
        last = self._uploads.get(path)
        if new or (last is not None and chunk not in (-1, last[0] + 1)):
            before = last[0] if last and not new else "none"
            raise BadRequestError(f"Chunk {chunk} of {path} does not follow chunk {before}")

    async def rename(self, old: str, new: str) -> dict[str, Any]:
        """Rename or move a file or folder and what belongs to it; return its model.

        Ids stay. ConflictError (409) when there is something at the new path.
        """
        old = self._disk.normalized(old)
        if await self._disk.is_hidden(old) or await self._disk.is_hidden(new):
            raise BadRequestError(f"Cannot rename file or directory {old!r}")
        new = self._disk.normalized(new)
        if old == new:
            return await self._disk.model(old, content=False)
        if not old or new.startswith(f"{old}/"):
            raise BadRequestError(f"Cannot move {old or 'the root'!r} into itself")
        for path in (old, new):
            with contextlib.suppress(DomainError):  # a full disk can still rename
                await self._documents.save_below(path)
        renamed = False
        try:
            async with self._documents.holding(old) as tx:
                await rows.lock(tx)
                if not await self._disk.exists(new):
                    await rows.remove(tx, new)
                    await rows.move(tx, old, new)
                await self._disk.run(old, "rename", old, new)
                renamed = True
        except BaseException:
            if renamed:  # the rows could not be committed
                await self._disk.run(new, "rename", new, old)
            raise
        await self._following.note(new)
        return await self._disk.model(new, content=False)

    async def delete(self, path: str) -> None:
        """Delete a file or folder, with its documents; executions keep the path they had.

        It goes to the trash where the setting says so. BadRequestError when a folder is not empty
        and may not be deleted, NotFoundError when there is nothing.
        """
        path = self._disk.normalized(path)
        if await self._disk.is_hidden(path):
            raise BadRequestError(f"Cannot delete file or directory {path!r}")
        for attempt in range(_ATTEMPTS):
            try:
                async with self._documents.holding(path) as tx:
                    await rows.lock(tx)
                    if path:
                        await rows.remove(tx, path)
                    await self._disk.run(path, "delete", path)
                return
            except DBAPIError as error:
                # A recorder may hold what the cascade wants; the disk was not touched yet.
                if getattr(error.orig, "sqlstate", None) != _DEADLOCK or attempt + 1 == _ATTEMPTS:
                    raise

    async def trust(self, path: str, *, actor_id: uuid.UUID | None) -> None:
        """Trust a notebook as it is now; BadRequestError when it is none."""
        path = self._disk.normalized(path)
        document = await self._documents.open_notebook(path, actor_id=actor_id)
        await self._disk.sign(path, await self._documents.notebook(document.id), trust=True)


def _text(model: dict[str, Any], name: str) -> str | None:
    value = model.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequestError(f"{name} must be a string")
    return value


def _kind(model: dict[str, Any]) -> str | None:
    """Return a known type, None for none; an unknown one is a file, as in Jupyter."""
    kind = _text(model, "type")
    if not kind:
        return None
    return kind if kind in _TYPES else "file"


def _is_text(model: dict[str, Any]) -> bool:
    """Tell whether a model is a whole text file."""
    return (
        model.get("type") == "file"
        and model.get("format") == "text"
        and isinstance(model.get("content"), str)
        and model.get("chunk") is None
    )


def _with_trust(notebook: dict[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a notebook whose cells are as trusted as those that the client sent."""
    cells = []
    for cell, original in zip(notebook["cells"], sent.get("cells") or [], strict=False):
        trusted = (original.get("metadata") or {}).get("trusted", False)
        cells.append({**cell, "metadata": {**cell["metadata"], "trusted": trusted}})
    return {**notebook, "cells": cells}
