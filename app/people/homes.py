"""The folders of people's homes: on the disk whenever a row says that somebody has one."""

import asyncio
import logging
from pathlib import Path

from sqlalchemy import select

from app.db.engine import Database
from models import Content, User

log = logging.getLogger(__name__)


class Homes:
    """Makes the home folders that are missing."""

    def __init__(self, database: Database, root_dir: Path) -> None:
        self._database = database
        self._root_dir = root_dir
        self._made: set[str] = set()
        self._making = asyncio.Lock()

    async def make(self) -> None:
        """Make every home that this process has not yet seen; never fails."""
        query = (
            select(Content.path)
            .join(User, User.home_id == Content.id)
            .where(User.disabled_at.is_(None))
        )
        async with self._making:
            try:
                async with self._database.read(as_server=True) as tx:
                    wanted = set((await tx.execute(query)).scalars()) - self._made
                for path in sorted(wanted):
                    await asyncio.to_thread((self._root_dir / path).mkdir, 0o755, True, True)
                    self._made.add(path)
            except Exception as error:  # noqa: BLE001 (tried again when people change)
                log.warning("home folders: %s", error)
