"""`GET /api`, `GET /api/status` and `POST /api/shutdown`."""

import logging
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import func, select

from app import __version__
from app.auth.access import allow, public
from app.auth.identity import Identity
from app.errors import DomainError
from app.web import isoformat
from models import Kernel, ServerProcess

router = APIRouter()
log = logging.getLogger(__name__)


class NoShutdownError(DomainError):
    """What runs the application did not say how to stop it."""

    status = 501


@router.get("/api")
@public
async def version() -> dict[str, str]:
    """Say that this is a Jupyter server, and its version."""
    return {"version": __version__}


@router.get("/api/status")
async def status(request: Request, _: Annotated[Identity, allow("read", "api")]) -> dict[str, Any]:
    """Return activity and counts, as Jupyter Server does, of the kernels that the asker sees."""
    kernels = (
        select(func.count(), func.coalesce(func.sum(Kernel.connections), 0))
        .select_from(Kernel)
        .where(Kernel.ended_at.is_(None))
    )
    activity = select(func.max(Kernel.last_activity))
    started = select(func.max(ServerProcess.started_at)).where(ServerProcess.stopped_at.is_(None))
    async with request.app.state.database.read() as tx:
        count, connections = (await tx.execute(kernels)).one()
        last = (await tx.execute(activity)).scalar_one()
    async with request.app.state.database.read(as_server=True) as tx:
        began = (await tx.execute(started)).scalar_one()
    return {
        "started": isoformat(began),
        "last_activity": isoformat(max(last or began, began)),
        "connections": connections,
        "kernels": count,
    }


@router.post("/api/shutdown")
async def shutdown(
    request: Request, identity: Annotated[Identity, allow("write", "server")]
) -> Response:
    """Stop the server in order, once this is answered: kernels and terminals end with it."""
    stop: Callable[[], None] | None = request.app.state.request_shutdown
    if stop is None:
        raise NoShutdownError("This server is stopped by what started it")
    log.info("%s asked the server to stop", identity.name)
    stop()
    return Response()
