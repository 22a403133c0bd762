"""Ending kernels that nobody uses, by what the tables know.

The settings are Jupyter Server's. What differs is what counts as use: a kernel with a queued or
running execution or with a question that waits for its answer is never culled, whoever looks at it
or not, and a busy one only with `cull_busy`, for kernels that other programs keep busy past us.
"""

import asyncio
import logging
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Select, and_, exists, or_, select

from app.db.engine import Database
from app.errors import NotFoundError
from app.kernels.host import KernelHost
from app.recorder.waiters import Waiters
from app.settings import Settings
from models import Comm, Execution, InputRequest, Kernel

log = logging.getLogger(__name__)


def idle_kernels(
    server_id: uuid.UUID, settings: Settings, now: datetime, connected: Iterable[str] = ()
) -> Select[Kernel]:
    """The kernels of a server that may be culled at the time `now`, in order of their ids.

    `connected` are kernels that have clients beside those that their rows count.
    """
    states = ["idle", "unknown", "dead"] + ["busy"] * settings.cull_busy
    query = (
        select(Kernel)
        .where(
            Kernel.server_id == server_id,
            Kernel.ended_at.is_(None),
            Kernel.execution_state.in_(states),
            Kernel.last_activity < now - timedelta(seconds=settings.cull_idle_timeout),
            ~exists().where(Execution.kernel_id == Kernel.id, Execution.finished_at.is_(None)),
            ~exists().where(InputRequest.kernel_id == Kernel.id, InputRequest.status == "pending"),
        )
        .order_by(Kernel.id)
    )
    if not settings.cull_connected:
        unused = and_(Kernel.connections == 0, Kernel.id.not_in(list(connected)))
        # Nobody can use a dead kernel, however many look at it.
        query = query.where(or_(unused, Kernel.execution_state == "dead"))
    if not settings.cull_open_comms:
        query = query.where(~exists().where(Comm.kernel_id == Kernel.id, Comm.state == "open"))
    return query


class Culler:
    """Looks for idle kernels of this server every `cull_interval` seconds, if so set."""

    def __init__(
        self, database: Database, host: KernelHost, waiters: Waiters, settings: Settings
    ) -> None:
        self._database = database
        self._host = host
        self._waiters = waiters
        self._settings = settings
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look, unless `cull_idle_timeout` is 0."""
        if self._settings.cull_idle_timeout > 0:
            self._task = asyncio.create_task(self._run(), name="culler")

    async def close(self) -> None:
        """Stop looking; a kernel that is being ended is ended first, as nobody else would.

        Not for ever: the database may be away.
        """
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=self._settings.shutdown_timeout_seconds)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(self._settings.cull_interval):
                    await self._stopping.wait()
            except TimeoutError:
                await self._look()

    async def _look(self) -> None:
        try:
            await self.cull(datetime.now(UTC))
        except Exception:
            log.exception("culling")

    async def cull(self, now: datetime) -> list[str]:
        """End the kernels that are idle at the time `now` and return their ids."""
        query = self._idle(now).with_only_columns(Kernel.id)
        async with self._database.read(as_server=True) as tx:
            found = (await tx.execute(query)).scalars().all()
        return [kernel_id for kernel_id in found if await self._end(kernel_id, now)]

    def _idle(self, now: datetime) -> Select[Kernel]:
        connected = self._waiters.comms.kernels()
        return idle_kernels(self._host.server_id, self._settings, now, connected)

    async def _end(self, kernel_id: str, now: datetime) -> bool:
        """End a kernel unless it has come into use again.

        The lock waits for nobody and lets nobody in: while a request inserts an execution, that
        holds the kernel's row (by its foreign key) and the kernel is passed over.
        """
        try:
            kernel = self._host.get(kernel_id)
        except NotFoundError:
            return False  # being shut down
        query = self._idle(now).where(Kernel.id == kernel_id).with_for_update(skip_locked=True)
        async with self._database.transaction(as_server=True) as tx:
            row = (await tx.execute(query)).scalar_one_or_none()
            if row is None or kernel.queue.length:
                return False
            seconds = (now - row.last_activity).total_seconds()
            reason = f"culled: idle for {seconds:.0f} seconds"
            if row.execution_state == "dead" and row.reason:
                reason = f"{reason}; it was dead: {row.reason}"
            ending = self._host.withdraw(kernel_id)
        log.info("kernel %s: %s", kernel_id, reason)
        await self._host.end(ending, reason)
        return True
