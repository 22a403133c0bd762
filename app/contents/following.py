"""Rows follow the disk: what a listing shows is recorded, with what changed, moved and vanished.

A folder is compared with its rows in one statement; only differences take the lock under which
rows are written (and the folder is read again there, since what was seen before may be old). A
file that turns up under another name is told from a new one by device and inode with the same size
and time, a notebook also by its content's hash; then its row, and so its id, its document, its
sessions and its history, go with it.
"""

import asyncio
import hashlib
import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Row
from sqlalchemy.exc import DBAPIError

from app.contents import rows
from app.contents.disk import Disk
from app.contents.listing import Entry, folders_below
from app.db.engine import Database, Transaction
from app.documents.store import DocumentStore
from app.errors import BadRequestError, DomainError, ForbiddenError, NotFoundError

log = logging.getLogger(__name__)

_FOLDERS_AT_ONCE = 50
# A listing is answered all the same when others rename and record for longer than this.
_WAIT_SECONDS = 2
_LOCK_NOT_AVAILABLE = "55P03"
# PostgreSQL keeps microseconds, and so does Python's conversion, which may round the other way.
_SAME_TIME = timedelta(microseconds=2)


@dataclass
class Found:
    """What a look at the disk brought into the tables; paths."""

    folders: int = 0
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    renamed: list[dict[str, str]] = field(default_factory=list)
    merged: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    truncated: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as clients get it."""
        return asdict(self)


class Following:
    """Brings the disk's folders into the tables."""

    def __init__(
        self, database: Database, disk: Disk, documents: DocumentStore, *, folder_limit: int
    ) -> None:
        self._database = database
        self._disk = disk
        self._documents = documents
        self._folder_limit = folder_limit

    async def listing(self, path: str) -> dict[str, Any]:
        """Return a folder's model with its content, recorded.

        The rows are read while the disk is: what is recorded in between only costs a second look.
        """
        path = self._disk.normalized(path)
        reading = asyncio.ensure_future(self._known([path]))
        try:
            model, entries = await self._disk.listing(path)
        except BaseException:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            raise
        storable = [entry for entry in entries if rows.storable(entry.model["path"])]
        difference = _Difference(await reading, {path: storable})
        if rows.storable(path) and difference.found:
            try:
                await self._record([path], Found(), wait_seconds=_WAIT_SECONDS)
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                    raise
                log.warning("%r is not recorded now: others are at it", path)
        return model

    async def note(self, path: str) -> None:
        """Record one file or folder as it is now."""
        path = self._disk.normalized(path)
        async with self._database.transaction(as_server=True) as tx:
            await rows.lock(tx)
            entry = await self._disk.entry(path)
            if entry is None:
                await rows.mark_missing(tx, [], [path])
            elif path:
                await rows.record(tx, path.rpartition("/")[0], [entry])

    async def refresh(self, path: str) -> Found:
        """Bring all that is at and below a path into the tables; merge open notebooks.

        Links to folders are not followed, hidden folders not entered, and after the limit of
        folders it ends, which the answer tells. NotFoundError when there is nothing, and was
        nothing.
        """
        path = self._disk.normalized(path)
        found = Found()
        if await self._disk.is_directory(path) and not await self._disk.is_hidden(path):
            folders, found.truncated = await self.folders_below(path)
            if path:
                await self.note(path)
        else:
            await self._check_known(path)
            folders = [path.rpartition("/")[0]]
        return await self.refresh_folders(folders, found)

    async def refresh_folders(self, folders: Collection[str], found: Found | None = None) -> Found:
        """Bring the entries of folders, without those below, into the tables."""
        found = found or Found()
        ordered = sorted(set(folders))
        for start in range(0, len(ordered), _FOLDERS_AT_ONCE):
            chunk = ordered[start : start + _FOLDERS_AT_ONCE]
            scans = await self._scan(chunk)
            if await self._any_differs(scans):
                await self._record(chunk, found)
            await self._merge(chunk, found)
        found.folders += len(ordered)
        return found

    async def known_folders(self) -> list[str]:
        """Return the paths of the folders that were ever listed."""
        async with self._database.read(as_server=True) as tx:
            return list((await tx.execute(rows.known_folders())).scalars())

    async def folders_below(self, path: str) -> tuple[list[str], bool]:
        """Return a folder and those below it, the nearest first, and whether there are more."""
        if self._disk.files:
            os_path = str(self._disk.os_path(path))
            return await asyncio.to_thread(
                folders_below, self._disk.manager, os_path, path, self._folder_limit
            )
        found = [path]
        for folder in found:
            _, entries = await self._disk.listing(folder)
            found += [e.model["path"] for e in entries if e.model["type"] == "directory"]
            if len(found) > self._folder_limit:
                return found[: self._folder_limit], True
        return found, False

    async def forget_vanished(self) -> None:
        """Remove rows of what vanished a while ago and was never opened."""
        async with self._database.transaction(as_server=True) as tx:
            await rows.lock(tx)
            await rows.forget_vanished(tx)

    async def _check_known(self, path: str) -> None:
        if await self._disk.exists(path):
            return
        async with self._database.read(as_server=True) as tx:
            if not await rows.may_have_moved(tx, [], [path]):
                raise NotFoundError(f"No such file or directory: {path}")

    async def _scan(self, folders: Iterable[str]) -> dict[str, list[Entry] | None]:
        """Return the entries of folders, None for those that are gone or may not be read."""
        scans: dict[str, list[Entry] | None] = {}
        for folder in folders:
            try:
                entries = (await self._disk.listing(folder))[1]
            except (NotFoundError, BadRequestError, ForbiddenError):
                scans[folder] = None
            else:
                scans[folder] = [e for e in entries if rows.storable(e.model["path"])]
        return scans

    async def _known(self, folders: Collection[str]) -> Sequence[Row[Any]]:
        async with self._database.read(as_server=True) as tx:
            return (await tx.execute(rows.children(folders))).all()

    async def _any_differs(self, scans: dict[str, list[Entry] | None]) -> bool:
        return _Difference(await self._known(scans.keys()), scans).found

    async def _record(
        self, folders: list[str], found: Found, *, wait_seconds: int | None = None
    ) -> None:
        """Write what folders hold now, in a transaction of its own."""
        async with self._database.transaction(as_server=True) as tx:
            await rows.lock(tx, wait_seconds=wait_seconds)
            scans = await self._scan(folders)
            moved: dict[str, str] = {}
            vanished: set[str] = set()
            while True:
                known = (await tx.execute(rows.children(scans.keys()))).all()
                difference = _Difference(known, scans)
                gone = difference.vanished
                files = [row.path for row in gone if row.type != "directory"]
                dirs = [row.path for row in gone if row.type == "directory"]
                await rows.mark_missing(tx, files, dirs)
                vanished.update(row.path for row in gone)
                renames = await self._renames(tx, difference.new)
                if not renames:
                    break
                for old, new in renames.items():
                    await rows.move(tx, old, new)
                moved.update(renames)
            for folder, entries in difference.by_folder().items():
                await rows.record(tx, folder, entries)
            await rows.forget_vanished(tx)
        targets = set(moved.values())
        found.added += [e.model["path"] for e in difference.new]
        found.changed += [
            e.model["path"] for e in difference.changed if e.model["path"] not in targets
        ]
        found.removed += sorted(vanished - moved.keys())
        found.renamed += [{"from": old, "to": new} for old, new in sorted(moved.items())]

    async def _renames(self, tx: Transaction, new: list[Entry]) -> dict[str, str]:
        """Return old and new paths of entries that are rows' files under another name."""
        keys = [entry.key for entry in new if entry.key]
        if not keys:
            return {}
        found = await rows.may_have_moved(tx, keys, [entry.model["path"] for entry in new])
        known = {row.path for row in found}
        renames: dict[str, str] = {}
        # Folders first: what is in them goes with them.
        for entry in sorted(new, key=lambda e: (e.model["type"] != "directory", e.model["path"])):
            path = entry.model["path"]
            if path in known or any(path.startswith(f"{target}/") for target in renames.values()):
                continue
            for row in found:
                if row.path not in renames and await self._is_renamed(tx, row, entry):
                    renames[row.path] = path
                    break
            if entry.model["type"] == "directory" and path in renames.values():
                return renames  # then its entries are known again
        return renames

    async def _is_renamed(self, tx: Transaction, row: Row[Any], entry: Entry) -> bool:
        model = entry.model
        if row.type != model["type"]:
            return False
        if row.file_key == entry.key:
            if row.missing_since is None and await self._disk.exists(row.path):
                return False  # a hard link, or the listing is from before
            same_time = (
                row.last_modified is not None
                and abs(row.last_modified - model["last_modified"]) <= _SAME_TIME
            )
            if same_time and row.size == model["size"]:
                return True
            return model["type"] == "directory" and await self._shares_an_entry(tx, row.path, model)
        return (
            model["type"] == "notebook"
            and row.hash is not None
            and row.missing_since is not None
            and row.size == model["size"]
            and row.hash == await asyncio.to_thread(_hash, self._disk.os_path(model["path"]))
        )

    async def _shares_an_entry(self, tx: Transaction, path: str, model: dict[str, Any]) -> bool:
        """Tell whether a folder has a file that the rows of `path` know: inodes are reused."""
        keys = await rows.children_keys(tx, path)
        try:
            entries = (await self._disk.listing(model["path"]))[1]
        except DomainError:
            return False
        return any(keys.get(e.model["name"]) == e.key for e in entries if e.key)

    async def _merge(self, folders: list[str], found: Found) -> None:
        """Take into open notebooks what other programs wrote to their files."""
        async with self._database.read(as_server=True) as tx:
            documents = (await tx.execute(rows.documents_in(folders))).all()
        for document in documents:
            try:
                differs = (await self._disk.state(document.path)).hash != document.disk_hash
                if differs or document.save_error is not None:
                    await self._documents.follow(document.path, actor_id=None)
                if differs:
                    found.merged.append(document.path)
            except NotFoundError:
                continue
            except DomainError as error:
                log.info("%s is not merged: %s", document.path, error)
                found.unreadable.append(document.path)


class _Difference:
    """What folders hold that their rows do not say."""

    def __init__(self, known: Iterable[Row[Any]], scans: dict[str, list[Entry] | None]) -> None:
        by_path = {row.path: row for row in known}
        self.new: list[Entry] = []
        self.changed: list[Entry] = []
        present = set()
        for entries in scans.values():
            for entry in entries or ():
                path = entry.model["path"]
                present.add(path)
                row = by_path.get(path)
                if row is None or row.missing_since is not None:
                    self.new.append(entry)
                elif not rows.is_as_recorded(entry, row):
                    self.changed.append(entry)
        self.vanished = [
            row
            for path, row in by_path.items()
            if path not in present and row.missing_since is None
        ]

    @property
    def found(self) -> bool:
        """Whether there is any."""
        return bool(self.new or self.changed or self.vanished)

    def by_folder(self) -> dict[str, list[Entry]]:
        """Return the entries that are to be recorded."""
        found: dict[str, list[Entry]] = {}
        for entry in (*self.new, *self.changed):
            found.setdefault(entry.model["path"].rpartition("/")[0], []).append(entry)
        return found


def _hash(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
