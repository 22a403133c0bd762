"""The kernels that this process hosts, and the rows that say so."""

import asyncio
import logging
import os
import re
import socket
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from jupyter_client.kernelspec import KernelSpecManager
from sqlalchemy import literal, or_, select, update
from sqlalchemy.exc import IntegrityError

from app import __version__
from app.auth.identity import Identity
from app.db.engine import Database, Transaction, is_transient
from app.documents.store import DocumentStore
from app.errors import BadRequestError, ConflictError, NotFoundError, UnavailableError
from app.kernels.process import KernelProcess, make_context
from app.kernels.running import RunningKernel, process_started_at
from app.recorder.backlog import Backlog
from app.recorder.comms import Retention, close_comms
from app.recorder.recorder import Recorder
from app.recorder.tracker import Tracker
from app.recorder.waiters import Waiters
from app.recorder.writer import BatchWriter
from app.settings import Settings
from models import Comm, Execution, InputRequest, Kernel, ServerProcess, Session

log = logging.getLogger(__name__)

_HEARTBEAT_SECONDS = 10.0
# What Jupyter Server takes for a kernel id in a URL.
_KERNEL_ID = re.compile(r"[A-Za-z0-9_]{1,64}(-[A-Za-z0-9_]{1,64}){4}")


class KernelHost:
    """Starts, finds and ends this process's kernels."""

    def __init__(
        self,
        database: Database,
        documents: DocumentStore,
        waiters: Waiters,
        settings: Settings,
        *,
        data_dir: Path,
        has_own_database: bool = False,
    ) -> None:
        self.has_own_database = has_own_database
        self.specs = KernelSpecManager()
        self._database = database
        self._documents = documents
        self._waiters = waiters
        self._settings = settings
        self._log_dir = data_dir / "kernels"
        self._context = make_context()
        self._kernels: dict[str, RunningKernel] = {}
        self._starting: set[str] = set()
        self._ending: set[RunningKernel] = set()
        self._closing = False
        self._retention = Retention(settings.comm_messages_kept, settings.comm_bytes_kept)
        self.server_id = uuid.uuid4()
        self._heart: asyncio.Task[None] | None = None

    # the server process's own row

    async def open(self) -> None:
        """Register this process and settle what dead ones on this machine left behind."""
        started = process_started_at(os.getpid())
        async with self._database.transaction(as_server=True) as tx:
            tx.add(
                ServerProcess(
                    id=self.server_id,
                    hostname=socket.gethostname(),
                    pid=os.getpid(),
                    process_started_at=started or datetime.now(UTC),
                    version=__version__,
                )
            )
        async with self._database.transaction(as_server=True) as tx:
            await settle_dead_servers(
                tx, self._documents, self.server_id, has_own_database=self.has_own_database
            )
        self._heart = asyncio.create_task(self._beat(), name="heartbeat")

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            try:
                async with self._database.transaction(as_server=True) as tx:
                    await tx.execute(
                        update(ServerProcess)
                        .where(ServerProcess.id == self.server_id)
                        .values(heartbeat_at=datetime.now(UTC))
                    )
            except Exception as error:  # noqa: BLE001 (the next beat tries again)
                log.warning("heartbeat: %s", error)

    async def close(self) -> None:
        """End all kernels and this process's row."""
        if self._heart is not None:
            self._heart.cancel()
        self._closing = True
        kernels = [*self._kernels.values(), *self._ending]
        self._kernels.clear()
        patience = self._settings.shutdown_timeout_seconds
        stops = (
            kernel.stop("the server was shut down", patience_seconds=patience) for kernel in kernels
        )
        for ended in await asyncio.gather(*stops, return_exceptions=True):
            if isinstance(ended, BaseException):
                log.error("ending a kernel", exc_info=ended)
        try:
            async with asyncio.timeout(patience), self._database.transaction(as_server=True) as tx:
                now = datetime.now(UTC)
                await end_sessions(tx, [kernel.id for kernel in kernels])
                await tx.execute(
                    update(ServerProcess)
                    .where(ServerProcess.id == self.server_id)
                    .values(stopped_at=now, heartbeat_at=now)
                )
        except Exception as error:
            if not is_transient(error):
                raise
            # The next server on this machine settles what could not be written.
            log.error("the database is away: %s", error)
        self._context.destroy(linger=0)

    # kernels

    def get(self, kernel_id: str) -> RunningKernel:
        """Return a hosted kernel; NotFoundError when there is none with this id."""
        kernel = self._kernels.get(kernel_id)
        if kernel is None:
            raise NotFoundError(f"Kernel does not exist: {kernel_id}")
        return kernel

    def awaits(self, execution_id: uuid.UUID) -> bool:
        """Tell whether a hosted kernel is known not to have finished an execution.

        False says nothing: another process may run it, or its end may be about to be committed.
        """
        return any(
            kernel.recorder.tracker.awaits(execution_id) for kernel in self._kernels.values()
        )

    def backlog(self) -> int:
        """Return how many messages wait to be recorded."""
        return sum(kernel.recorder.backlog for kernel in self._kernels.values())

    def known(self) -> set[str]:
        """Return the ids of hosted kernels, and of those being started or ended."""
        return self._starting | self._kernels.keys() | {kernel.id for kernel in self._ending}

    def ids(self) -> list[str]:
        """Return the ids of hosted kernels."""
        return list(self._kernels)

    async def start(
        self,
        identity: Identity,
        *,
        name: str | None = None,
        path: str = "",
        kernel_id: str | None = None,
        env: dict[str, str] | None = None,
        session_name: str | None = None,
    ) -> RunningKernel:
        """Start a kernel for `path` and return it at once, in the state `starting`.

        Raises NoSuchKernelspecError for an unknown kernelspec, BadRequestError for values that no
        process can be given, ConflictError for an id that is taken, and KernelStartError when the
        process cannot be started; nothing is left of it then.
        """
        if self._closing:
            raise UnavailableError("The server is shutting down")
        kernel_id = kernel_id or str(uuid.uuid4())
        _check_kernel_id(kernel_id)
        taken = kernel_id in self._kernels or kernel_id in self._starting
        if taken or await self._was_used(kernel_id):
            raise ConflictError(f"Kernel already exists: {kernel_id}")
        name = name or self.default_name()
        environment = dict(env or {})
        if session_name:
            environment["JPY_SESSION_NAME"] = session_name
        _check_process_values(path, environment)
        environment = {"PYDEVD_DISABLE_FILE_VALIDATION": "1", **os.environ, **environment}
        self._starting.add(kernel_id)
        try:
            process = KernelProcess(kernel_id, name, self.specs, self._context, self._log_dir)
            await process.start(cwd=str(self._cwd(path)), env=environment)
            await self._add_row(process, identity, name, path)
        finally:
            self._starting.discard(kernel_id)
        recorder = Recorder(
            self._database,
            Tracker(kernel_id, identity.id),
            BatchWriter(kernel_id, self._documents, self._retention),
            self._waiters,
            Backlog(self._log_dir, self._settings.recorder_memory_bytes),
        )
        kernel = self._kernels[kernel_id] = RunningKernel(
            process, recorder, identity.id, self._settings
        )
        kernel.begin()
        if self._closing:  # `close` did not see it
            await self.shutdown(kernel_id, "the server was shut down")
            raise UnavailableError("The server is shutting down")
        return kernel

    async def _add_row(
        self, process: KernelProcess, identity: Identity, name: str, path: str
    ) -> None:
        """Commit the row of a kernel just started; ends its process when that fails."""
        kernel_id = str(process.manager.kernel_id)
        try:
            async with self._database.transaction() as tx:
                tx.add(
                    Kernel(
                        id=kernel_id,
                        name=name,
                        path=path,
                        owner_id=identity.id,
                        server_id=self.server_id,
                        pid=process.pid,
                        pid_started_at=process_started_at(process.pid),
                    )
                )
        except BaseException as error:
            await process.stop(now=True)
            if isinstance(error, IntegrityError):
                raise ConflictError(f"Kernel {kernel_id} existed already") from error
            raise

    async def _was_used(self, kernel_id: str) -> bool:
        """Tell whether an id is taken, be it by a kernel of the past: its history has it."""
        async with self._database.read(as_server=True) as tx:
            return await tx.get(Kernel, kernel_id) is not None

    async def shutdown(self, kernel_id: str, reason: str = "the kernel was shut down") -> None:
        """End a kernel and the sessions that use it."""
        await self.end(self.withdraw(kernel_id), reason)

    def withdraw(self, kernel_id: str) -> RunningKernel:
        """Return a kernel that is to be ended; from now on no request finds it."""
        kernel = self.get(kernel_id)
        del self._kernels[kernel_id]
        self._ending.add(kernel)
        return kernel

    async def end(self, kernel: RunningKernel, reason: str) -> None:
        """End a withdrawn kernel and the sessions that use it."""
        try:
            await kernel.stop(reason)
        finally:
            self._ending.discard(kernel)
        async with self._database.transaction(as_server=True) as tx:
            await end_sessions(tx, [kernel.id])

    def default_name(self) -> str:
        """Return the default kernelspec's name, as Jupyter Server has it."""
        return "python3"

    def _cwd(self, path: str) -> Path:
        """Return the folder of an API path, or the nearest one above it that exists."""
        root = self._settings.root_dir.resolve()
        folder = root / path.strip("/")
        try:
            folder = folder.resolve()
            while folder != root and not (folder.is_dir() and folder.is_relative_to(root)):
                if folder == folder.parent:
                    return root
                folder = folder.parent
        except OSError:  # too long a name, for one
            return root
        return folder


def is_kernel_id(kernel_id: str) -> bool:
    """Tell whether a kernel can have this id, which is part of files' names."""
    return _KERNEL_ID.fullmatch(kernel_id) is not None


def _check_kernel_id(kernel_id: str) -> None:
    if not is_kernel_id(kernel_id):
        raise BadRequestError(
            "A kernel's id may have five groups of letters, digits and _, as a UUID"
        )


def _check_process_values(path: str, environment: dict[str, str]) -> None:
    """Raise BadRequestError for what cannot be a folder or an environment of a process."""
    for name in environment:
        if not name or "=" in name:
            raise BadRequestError(f"env has a name that is not one: {name!r}")
    for value in (path, *environment, *environment.values()):
        try:
            refused = "\0" in value or not os.fsencode(value)
        except UnicodeEncodeError:
            refused = True
        if refused and value:
            raise BadRequestError(f"Not a text that a process can be given: {value[:100]!r}")


async def end_sessions(tx: Transaction, kernel_ids: list[str]) -> None:
    """End all sessions that use any of these kernels."""
    await tx.execute(
        update(Session)
        .where(Session.kernel_id.in_(kernel_ids), Session.ended_at.is_(None))
        .values(ended_at=datetime.now(UTC))
        .execution_options(synchronize_session=False)
    )


async def settle_dead_servers(
    tx: Transaction,
    documents: DocumentStore,
    server_id: uuid.UUID,
    *,
    has_own_database: bool,
) -> None:
    """Say what became of the kernels and executions of servers of this machine that are gone.

    A killed server cannot say so itself. Surviving kernel processes are ended: nothing records
    them any more. All servers of a database that only this machine can reach were here, whatever
    its name was then: a new container on the volume of a killed one has another.
    """
    query = (
        select(ServerProcess)
        .where(
            or_(literal(has_own_database), ServerProcess.hostname == socket.gethostname()),
            ServerProcess.stopped_at.is_(None),
            ServerProcess.id != server_id,
        )
        .with_for_update()
    )
    gone = [row for row in (await tx.execute(query)).scalars() if not _is_alive(row)]
    if not gone:
        return
    reason = "the server that ran it ended without notice"
    last_seen = {row.id: row.heartbeat_at for row in gone}
    kernels = (
        await tx.execute(
            select(Kernel)
            .where(Kernel.server_id.in_([row.id for row in gone]), Kernel.ended_at.is_(None))
            .order_by(Kernel.id)
        )
    ).scalars()
    ended = {}
    for kernel in kernels:
        _end_process(kernel)
        assert kernel.server_id is not None
        # Nobody knows when it ended: the last sign of life, so that a night is not a run time.
        ended[kernel.id] = max(kernel.last_activity, last_seen[kernel.server_id])
        kernel.execution_state = "dead"
        kernel.reason = reason
        kernel.ended_at = ended[kernel.id]
    await interrupt_executions(tx, documents, ended, reason)
    await end_sessions(tx, list(ended))
    for row in gone:
        row.stopped_at = row.heartbeat_at
    if ended:
        log.warning("%d kernels of ended servers were settled", len(ended))


async def interrupt_executions(
    tx: Transaction,
    documents: DocumentStore,
    ended: Mapping[str, datetime],
    reason: str,
) -> None:
    """Mark all that kernels had not finished as interrupted, and their cells as idle.

    `ended` gives the time at which each kernel (by id) ended.
    """
    ids = list(ended)
    unfinished = (
        await tx.execute(
            select(Execution)
            .where(Execution.kernel_id.in_(ids), Execution.finished_at.is_(None))
            .order_by(Execution.seq)
        )
    ).scalars()
    executions = list(unfinished)
    for document_id in sorted({e.document_id for e in executions if e.document_id}):
        editor = await documents.edit_if_exists(tx, document_id, origin="execution")
        if editor is None:
            continue
        for execution in executions:
            if execution.document_id == document_id and execution.cell_id:
                await editor.end_execution(
                    execution.cell_id, execution.id, execution.execution_count
                )
    for execution in executions:
        execution.status = "interrupted"
        execution.reason = reason
        began = execution.started_at or execution.queued_at
        execution.finished_at = max(began, ended[execution.kernel_id])
    await tx.execute(
        update(InputRequest)
        .where(InputRequest.kernel_id.in_(ids), InputRequest.status == "pending")
        .values(status="cancelled")
    )
    open_comms = select(Comm.id).where(Comm.kernel_id.in_(ids), Comm.state == "open")
    await close_comms(tx, await tx.scalars(open_comms), datetime.now(UTC), reason)


def _is_alive(row: ServerProcess) -> bool:
    started = process_started_at(row.pid)
    return started is not None and abs(started - row.process_started_at) < timedelta(seconds=2)


def _end_process(kernel: Kernel) -> None:
    """Kill a kernel process that outlived its server, unless the pid is another's by now."""
    started = process_started_at(kernel.pid)
    if started is None or kernel.pid_started_at is None or kernel.pid is None:
        return
    if abs(started - kernel.pid_started_at) < timedelta(seconds=2):
        try:
            psutil.Process(kernel.pid).kill()
        except psutil.Error:
            log.warning("kernel %s: its process %d could not be ended", kernel.id, kernel.pid)
