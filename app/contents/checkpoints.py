"""Checkpoints of files: copies that the contents manager keeps, and their rows.

jupyter_server's managers answer a checkpoint of what is not there with a server error, and make
folders for it; that is settled here before they are asked.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from app.contents import rows
from app.contents.disk import Disk
from app.contents.following import Following
from app.db.engine import Database
from app.documents.store import DocumentStore
from app.errors import BadRequestError, NotFoundError
from models import Checkpoint, Content


class Checkpoints:
    """Makes, lists, restores and deletes checkpoints."""

    def __init__(
        self, database: Database, disk: Disk, documents: DocumentStore, following: Following
    ) -> None:
        self._database = database
        self._disk = disk
        self._documents = documents
        self._following = following

    async def of(self, path: str) -> list[dict[str, Any]]:
        """Return a file's checkpoints, none for what is no file."""
        path = self._disk.normalized(path)
        if await self._disk.is_hidden(path) or not await self._disk.is_file(path):
            return []
        found: list[dict[str, Any]] = await self._disk.run(path, "list_checkpoints", path)
        await self._record(path, found)
        return found

    async def create(self, path: str) -> dict[str, Any]:
        """Keep a file as it is, a notebook as its document is, and return the checkpoint."""
        path = self._disk.normalized(path)
        await self._require_file(path)
        await self._documents.save_below(path)
        made: dict[str, Any] = await self._disk.run(path, "create_checkpoint", path)
        await self._following.note(path)
        await self._record(path, await self._disk.run(path, "list_checkpoints", path))
        return made

    async def restore(self, path: str, checkpoint_id: str) -> None:
        """Put a checkpoint in the place of its file; an open notebook takes it over."""
        path = self._disk.normalized(path)
        await self._require(path, checkpoint_id)
        await self._documents.save_below(path)
        await self._disk.run(path, "restore_checkpoint", checkpoint_id, path)
        await self._following.note(path)
        await self._documents.follow(path, actor_id=None)

    async def delete(self, path: str, checkpoint_id: str) -> None:
        """Remove a checkpoint."""
        path = self._disk.normalized(path)
        await self._require(path, checkpoint_id)
        await self._disk.run(path, "delete_checkpoint", checkpoint_id, path)
        await self._record(path, await self._disk.run(path, "list_checkpoints", path))

    async def _require_file(self, path: str) -> None:
        if not await self._disk.exists(path):
            raise NotFoundError(f"No such file or directory: {path}")
        if not await self._disk.is_file(path):
            raise BadRequestError(f"{path} is not a file", reason="bad type")

    async def _require(self, path: str, checkpoint_id: str) -> None:
        if all(found["id"] != checkpoint_id for found in await self.of(path)):
            raise NotFoundError(f"Checkpoint does not exist: {path}@{checkpoint_id}")

    async def _record(self, path: str, found: list[dict[str, Any]]) -> None:
        """Make a file's rows say what its checkpoints are, if the file has a row."""
        if not rows.storable(path):
            return
        wanted: dict[str, datetime] = {one["id"]: one["last_modified"] for one in found}
        query = (
            select(Content.id, Checkpoint.checkpoint_id, Checkpoint.last_modified)
            .outerjoin(Checkpoint, Checkpoint.content_id == Content.id)
            .where(Content.path == path)
        )
        async with self._database.transaction(as_server=True) as tx:
            known = (await tx.execute(query)).all()
            stored = {row.checkpoint_id: row.last_modified for row in known if row.checkpoint_id}
            if not known or stored == wanted:
                return
            content_id = known[0].id
            gone = delete(Checkpoint).where(
                Checkpoint.content_id == content_id, Checkpoint.checkpoint_id.not_in(wanted)
            )
            await tx.execute(gone, execution_options={"synchronize_session": False})
            for checkpoint_id, time in sorted(wanted.items()):
                values = {"checkpoint_id": checkpoint_id, "last_modified": time}
                await tx.execute(
                    insert(Checkpoint)
                    .values(content_id=content_id, **values)
                    .on_conflict_do_update(
                        index_elements=["content_id", "checkpoint_id"],
                        set_={"last_modified": time},
                    )
                )
