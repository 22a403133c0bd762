"""`/api/resolvePath`: what a path that a person or a traceback names stands for."""

import asyncio
import os
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from app.auth.access import allow, may
from app.auth.identity import Identity
from app.contents.disk import Disk
from app.db.engine import Database
from app.errors import BadRequestError, DomainError, NotFoundError
from app.kernels.host import KernelHost
from app.web import storable

router = APIRouter()


@router.get("/api/resolvePath")
async def resolve_path(
    request: Request,
    identity: Annotated[Identity, allow("read", "api")],
    path: Annotated[str, Query()],
    kernel: str | None = None,
) -> dict[str, Any]:
    """Return a path as the server's contents have it, and as the `kernel` sees it."""
    storable(path, "path")
    resolved = []
    database: Database = request.app.state.database
    found = await _in_contents(request.app.state.disk, path)
    if found is not None and await may(database, identity, "read", "contents", found):
        resolved.append({"scope": "server", "path": found})
    answer: dict[str, Any] = {"resolved": resolved}
    if kernel and not await may(database, identity, "execute", "kernels", kernel):
        reason = f"Kernel {kernel} could not be found"
        answer["unresolved"] = [{"scope": "kernel", "reason": reason}]
    elif kernel:
        host: KernelHost = request.app.state.kernels
        try:
            process = host.get(kernel).process
        except NotFoundError:
            reason = f"Kernel {kernel} could not be found"
            answer["unresolved"] = [{"scope": "kernel", "reason": reason}]
        else:
            seen = await asyncio.to_thread(_in_kernel, process.manager, path)
            if seen is not None and await _may_know(request, identity, seen):
                resolved.append({"scope": "kernel", "path": seen})
    return answer


async def _may_know(request: Request, identity: Identity, seen: str) -> bool:
    """Tell whether a file's existence may be told: what is in the contents is theirs to hide."""
    disk: Disk = request.app.state.disk
    if not Path(seen).is_relative_to(disk.root_dir):
        return True
    inside = Path(seen).relative_to(disk.root_dir).as_posix()
    return await may(request.app.state.database, identity, "read", "contents", inside)


async def _in_contents(disk: Disk, path: str) -> str | None:
    """Return the API path of a file under the root, given so or as the system's path."""
    relative = _below(disk.root_dir, path)
    if relative is None:
        return None
    try:
        await disk.model(relative, content=False)
    except DomainError:  # none, hidden, outside, or a name that no file can have
        return None
    return relative


def _below(root: Path, path: str) -> str | None:
    try:
        expanded = Path(path).expanduser()
    except RuntimeError:  # no such user
        expanded = Path(path)
    if str(expanded) != path and expanded.is_absolute():
        given = os.path.normpath(expanded)
        if not Path(given).is_relative_to(root):
            return None
    else:
        given = path
    return "/".join(part for part in given.removeprefix(str(root)).split("/") if part)


def _in_kernel(manager: Any, path: str) -> str | None:
    try:
        found: str | None = manager.resolve_path(path)
    except (OSError, RuntimeError, ValueError) as error:
        raise BadRequestError(f"path: {error}") from error
    return found
