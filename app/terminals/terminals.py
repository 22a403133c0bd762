"""The terminals that this process hosts, and the rows that say so.

Activity is written some seconds late, so that a busy terminal costs no write for each line.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import shlex
import shutil
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from app.auth.identity import Identity
from app.db.engine import Database, Transaction
from app.errors import ConflictError, DomainError, NotFoundError
from app.settings import Settings
from app.terminals.pty import Pty, PtyManager
from app.web import isoformat
from models import ServerProcess, Terminal

log = logging.getLogger(__name__)

_ACTIVITY_SECONDS = 5.0


class TerminalStartError(DomainError):
    """The shell could not be started."""

    status = 500


class Terminals:
    """Starts, finds and ends terminals."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        server_id: uuid.UUID,
        *,
        server_url: str | None = None,
    ) -> None:
        self.enabled = settings.terminals_enabled
        self._database = database
        self._root_dir = settings.root_dir
        self._server_id = server_id
        self._ids: dict[str, uuid.UUID] = {}
        self._active: dict[uuid.UUID, datetime] = {}
        self._ended: dict[uuid.UUID, datetime] = {}
        self._starting = asyncio.Lock()
        self._changed = asyncio.Event()
        self._hurry = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._cull_after = timedelta(seconds=settings.terminal_cull_inactive_timeout)
        self._cull_seconds = settings.terminal_cull_interval
        self._ptys = PtyManager(
            _command(settings),
            # terminado removes what is None.
            {"JUPYTER_SERVER_ROOT": str(settings.root_dir), "JUPYTER_SERVER_URL": server_url},
            self._on_active,
            self._on_ended,
        )

    async def open(self) -> None:
        """Settle what ended servers left behind, begin to record and, if so set, to cull."""
        await self.settle()
        self._tasks.append(asyncio.create_task(self._write_changes(), name="terminals"))
        if self._cull_after:
            self._tasks.append(asyncio.create_task(self._cull(), name="terminals' culler"))

    async def close(self) -> None:
        """End all terminals."""
        await self._ptys.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._write()

    async def settle(self) -> None:
        """Say of the rows whose server has ended, or has no such terminal, that they have too."""
        stopped = select(ServerProcess.id).where(ServerProcess.stopped_at.is_not(None))
        async with self._starting, self._database.transaction(as_server=True) as tx:
            await tx.execute(
                update(Terminal)
                .where(
                    Terminal.ended_at.is_(None),
                    Terminal.server_id.is_(None)
                    | Terminal.server_id.in_(stopped)
                    | (
                        (Terminal.server_id == self._server_id)
                        & Terminal.id.not_in(list(self._ids.values()))
                    ),
                )
                .values(ended_at=datetime.now(UTC))
                .execution_options(synchronize_session=False)
            )

    async def list(self) -> list[dict[str, Any]]:
        """Return the models of living terminals, oldest first."""
        async with self._database.read() as tx:
            rows = await _living(tx)
        return [self._model(row) for row in rows if row.id not in self._ended]

    async def model(self, name: str) -> dict[str, Any]:
        """Return a living terminal's model; NotFoundError when there is none."""
        async with self._database.read() as tx:
            rows = await _living(tx)
        for row in rows:
            if row.name == name and row.id not in self._ended:
                return self._model(row)
        raise NotFoundError(f"Terminal not found: {name}")

    def get(self, name: str) -> Pty:
        """Return a terminal hosted here; NotFoundError when there is none."""
        pty = self._ptys.terminals.get(name) if name in self._ids else None
        if not isinstance(pty, Pty):
            raise NotFoundError(f"Terminal not found: {name}")
        return pty

    async def create(
        self, identity: Identity, *, name: str | None = None, cwd: str | None = None
    ) -> dict[str, Any]:
        """Start a terminal and return its model; ConflictError when its name is taken.

        A `cwd` that is no folder, neither as it is nor below the root, is not heeded, as in
        Jupyter.
        """
        folder = self._folder(cwd)
        async with self._starting:
            row = await self._reserve(identity, name, folder)
            try:
                pty = await self._ptys.start(row.name, folder)
            except Exception as error:
                self._on_gone(row.id)
                raise TerminalStartError(
                    "The terminal's shell could not be started", reason=str(error)
                ) from error
            except BaseException:
                self._on_gone(row.id)
                raise
            self._ids[row.name] = row.id
            if pty.ended:
                self._on_ended(pty)
        return self._model(row)

    async def delete(self, name: str) -> None:
        """End a terminal."""
        await self._ptys.end(self.get(name))
        await self._write()

    async def _cull(self) -> None:
        """End terminals that nobody typed into and that said nothing for long, as in Jupyter."""
        while True:
            await asyncio.sleep(self._cull_seconds)
            for name in list(self._ids):
                with contextlib.suppress(NotFoundError):
                    inactive = datetime.now(UTC) - self.get(name).last_activity
                    if inactive > self._cull_after:
                        log.info("terminal %s is culled: nothing happened for %s", name, inactive)
                        await self._cull_one(name)

    async def _cull_one(self, name: str) -> None:
        try:
            await self.delete(name)
        except Exception as error:  # noqa: BLE001 (the row is written later)
            log.warning("terminal %s: %s", name, error)

    async def _reserve(self, identity: Identity, name: str | None, folder: Path) -> Terminal:
        """Make the row of a terminal to be started, with the first free number without a name."""
        await self._write()  # names of ended terminals are free again
        while True:
            async with self._database.read(as_server=True) as tx:
                taken = {row.name for row in await _living(tx)}
            if name in taken:
                raise ConflictError(f"A terminal named {name} exists already")
            free = name or next(str(n) for n in itertools.count(1) if str(n) not in taken)
            row = Terminal(
                id=uuid.uuid4(),
                name=free,
                owner_id=identity.id,
                server_id=self._server_id,
                cwd=str(folder),
                last_activity=datetime.now(UTC),
            )
            try:
                async with self._database.transaction() as tx:
                    tx.add(row)
                return row
            except IntegrityError as error:
                if "terminals_living_name_key" not in str(error.orig):
                    raise
                # Another server has just taken it.

    def _folder(self, cwd: str | None) -> Path:
        for candidate in (Path(cwd), self._root_dir / cwd.lstrip("/")) if cwd else ():
            if candidate.is_absolute() and candidate.is_dir():
                return candidate.resolve()
        return self._root_dir

    def _model(self, row: Terminal) -> dict[str, Any]:
        activity = max(row.last_activity, self._active.get(row.id, row.last_activity))
        return {"name": row.name, "last_activity": isoformat(activity)}

    # what terminals tell

    def _on_active(self, pty: Pty) -> None:
        if terminal_id := self._ids.get(str(pty.term_name)):
            self._active[terminal_id] = pty.last_activity
            self._changed.set()

    def _on_ended(self, pty: Pty) -> None:
        if terminal_id := self._ids.pop(str(pty.term_name), None):
            self._on_gone(terminal_id)

    def _on_gone(self, terminal_id: uuid.UUID) -> None:
        self._ended[terminal_id] = datetime.now(UTC)
        self._changed.set()
        self._hurry.set()

    async def _write_changes(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._hurry.clear()
            try:
                await self._write()
            except Exception as error:  # noqa: BLE001 (the database may be away for a while)
                log.warning("terminals are not recorded yet: %s", error)
                self._changed.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ACTIVITY_SECONDS):
                    await self._hurry.wait()

    async def _write(self) -> None:
        """Write ends and activity to the rows; what cannot be written is kept for the next time."""
        ended, active = dict(self._ended), dict(self._active)
        if not ended and not active:
            return
        async with self._database.transaction(as_server=True) as tx:
            for terminal_id in sorted(ended.keys() | active.keys()):
                values: dict[str, Any] = {}
                if terminal_id in active:
                    values["last_activity"] = active[terminal_id]
                if terminal_id in ended:
                    values["ended_at"] = ended[terminal_id]
                await tx.execute(
                    update(Terminal)
                    .where(Terminal.id == terminal_id, Terminal.ended_at.is_(None))
                    .values(**values)
                    .execution_options(synchronize_session=False)
                )
        for terminal_id in ended:
            self._ended.pop(terminal_id, None)
        for terminal_id, moment in active.items():
            if self._active.get(terminal_id) == moment:
                del self._active[terminal_id]


async def _living(tx: Transaction) -> list[Terminal]:
    query = (
        select(Terminal)
        .where(Terminal.ended_at.is_(None))
        .order_by(Terminal.created_at, Terminal.name)
    )
    return list((await tx.execute(query)).scalars())


def _command(settings: Settings) -> list[str]:
    """Return the shell's command: a login shell when the server was not started from one."""
    if settings.terminal_command:
        return shlex.split(settings.terminal_command)
    shell = os.environ.get("SHELL") or shutil.which("sh") or "/bin/sh"
    return [shell] if sys.stdout.isatty() else [shell, "-l"]
