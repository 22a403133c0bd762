"""Finding rows that reality has left behind: of dead servers, ended kernels, their sessions."""

import asyncio
from datetime import UTC, datetime

from sqlalchemy import select, update

from app.db.engine import Database, Transaction
from app.documents.store import DocumentStore
from app.kernels.host import KernelHost, interrupt_executions, settle_dead_servers
from app.kernels.running import RunningKernel
from app.settings import Settings
from models import Kernel, Session

_REASON = "its process has gone"


async def settle_servers(database: Database, documents: DocumentStore, host: KernelHost) -> None:
    """Settle servers of this machine that ended without notice, with their kernels."""
    async with database.transaction(as_server=True) as tx:
        await settle_dead_servers(
            tx, documents, host.server_id, has_own_database=host.has_own_database
        )


async def settle_kernels(
    database: Database, documents: DocumentStore, host: KernelHost, settings: Settings
) -> None:
    """Settle kernels whose process has gone: this server's and those of dead servers here.

    A kernel of this server that died a moment ago is waited for until that is in its row.
    """
    await settle_servers(database, documents, host)
    limit = 2 * settings.kernel_poll_seconds + 1
    kernels = [host.get(kernel_id) for kernel_id in host.ids()]
    await asyncio.gather(*(_notice_death(kernel, limit) for kernel in kernels))
    async with database.transaction(as_server=True) as tx:
        lost = (
            await tx.execute(
                select(Kernel)
                .where(Kernel.server_id == host.server_id, Kernel.ended_at.is_(None))
                .where(Kernel.id.not_in(list(host.known())))
                .order_by(Kernel.id)
                .with_for_update(skip_locked=True)
            )
        ).scalars()
        # What was started meanwhile is the host's.
        gone = [kernel for kernel in lost if kernel.id not in host.known()]
        now = datetime.now(UTC)
        for kernel in gone:
            kernel.execution_state, kernel.reason, kernel.ended_at = "dead", _REASON, now
        await interrupt_executions(tx, documents, {k.id: now for k in gone}, _REASON)
        await end_orphans(tx)


async def _notice_death(kernel: RunningKernel, limit_seconds: float) -> None:
    """Wait until a kernel whose process has gone is known to be dead or restarted."""
    if kernel.state != "dead" and not await kernel.process.is_alive():
        incarnation = kernel.incarnation
        end = asyncio.get_running_loop().time() + limit_seconds
        while (  # noqa: ASYNC110 (its watcher polls the process too)
            kernel.incarnation == incarnation
            and kernel.state != "dead"
            and asyncio.get_running_loop().time() < end
        ):
            await asyncio.sleep(0.02)
    await kernel.recorder.drain()


async def end_orphans(tx: Transaction) -> None:
    """End the sessions whose kernel has ended."""
    ended = select(Kernel.id).where(Kernel.ended_at.is_not(None))
    await tx.execute(
        update(Session)
        .where(Session.ended_at.is_(None), Session.kernel_id.in_(ended))
        .values(ended_at=datetime.now(UTC))
        .execution_options(synchronize_session=False)
    )
