"""The `refresh` actions: each brings rows up to date with reality and answers as the GET does."""

from typing import Annotated, Any

from fastapi import APIRouter, Request

from app.auth.access import allow
from app.auth.identity import Identity
from app.kernels.routes import list_kernels
from app.kernelspecs.routes import list_kernelspecs
from app.refresh.settle import settle_kernels, settle_servers
from app.sessions.routes import list_sessions
from app.status.routes import status

router = APIRouter()


async def _settle_kernels(request: Request) -> None:
    state = request.app.state
    await settle_kernels(state.database, state.documents, state.kernels, state.settings)


@router.post("/api/kernelspecs/refresh")
async def refresh_kernelspecs(
    request: Request, identity: Annotated[Identity, allow("write", "kernelspecs")]
) -> dict[str, Any]:
    """Record the kernelspecs that are on disk now, and list them."""
    return await list_kernelspecs(request, identity)


@router.post("/api/status/refresh")
async def refresh_status(
    request: Request, identity: Annotated[Identity, allow("write", "server")]
) -> dict[str, Any]:
    """Settle what servers of this machine that have died left behind; return the status."""
    state = request.app.state
    await settle_servers(state.database, state.documents, state.kernels)
    await state.terminals.settle()
    return await status(request, identity)


@router.post("/api/kernels/refresh")
async def refresh_kernels(
    request: Request, identity: Annotated[Identity, allow("write", "kernels")]
) -> list[dict[str, Any]]:
    """Settle kernels whose process has gone, and list those that run."""
    await _settle_kernels(request)
    return await list_kernels(request, identity)


@router.post("/api/sessions/refresh")
async def refresh_sessions(
    request: Request, identity: Annotated[Identity, allow("write", "sessions")]
) -> list[dict[str, Any]]:
    """End sessions whose kernel has gone, and list those that run."""
    await _settle_kernels(request)
    return await list_sessions(request, identity)
