"""`/api/kernels` as Jupyter Server answers it."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from sqlalchemy import select

from app.auth.access import allow, require
from app.auth.identity import Identity
from app.db.engine import Database, Transaction
from app.errors import BadRequestError, NotFoundError
from app.kernels.host import KernelHost
from app.kernels.queries import living_kernel, living_kernels
from app.web import isoformat, json_body, object_field, text_field
from models import Kernel

router = APIRouter()


def kernel_model(row: Kernel) -> dict[str, Any]:
    """Return a kernel as clients see it; `reason` is there when there is something to explain."""
    model: dict[str, Any] = {
        "id": row.id,
        "name": row.name,
        "last_activity": isoformat(row.last_activity),
        "execution_state": row.execution_state,
        "connections": row.connections,
    }
    if row.reason:
        model["reason"] = row.reason
    return model


async def read_kernel(tx: Transaction, kernel_id: str) -> Kernel:
    """Return a living kernel's row; 404 when there is none."""
    row = (await tx.execute(living_kernel(kernel_id))).scalar_one_or_none()
    if row is None:
        raise NotFoundError(f"Kernel does not exist: {kernel_id}")
    return row


async def _answer(database: Database, kernel_id: str) -> dict[str, Any]:
    async with database.read() as tx:
        row = (await tx.execute(select(Kernel).where(Kernel.id == kernel_id))).scalar_one()
        return kernel_model(row)


@router.get("/api/kernels")
async def list_kernels(
    request: Request, _: Annotated[Identity, allow("read", "kernels")]
) -> list[dict[str, Any]]:
    """List the kernels that run."""
    async with request.app.state.database.read() as tx:
        return [kernel_model(row) for row in (await tx.execute(living_kernels())).scalars()]


@router.post("/api/kernels", status_code=201)
async def start_kernel(
    request: Request,
    response: Response,
    identity: Annotated[Identity, allow("write", "kernels")],
) -> dict[str, Any]:
    """Start a kernel; the answer comes as soon as its process has been started."""
    host: KernelHost = request.app.state.kernels
    body = await json_body(request)
    env = object_field(body, "env")
    if not all(isinstance(value, str) for value in env.values()):
        raise BadRequestError("env must be an object of strings")
    path = text_field(body, "path") or ""
    if path:
        await require(request.app.state.database, identity, "read", "contents", path)
    kernel = await host.start(
        identity,
        name=text_field(body, "name"),
        path=path,
        # Whether another has a kernel with an id is not to be found out by choosing it.
        kernel_id=text_field(body, "kernel_id") if identity.admin else None,
        env=env,
    )
    base_url = request.app.state.settings.base_url
    response.headers["Location"] = f"{base_url}api/kernels/{quote(kernel.id)}"
    return await _answer(request.app.state.database, kernel.id)


@router.get("/api/kernels/{kernel_id}")
async def get_kernel(
    kernel_id: str, request: Request, _: Annotated[Identity, allow("read", "kernels")]
) -> dict[str, Any]:
    """Return one kernel."""
    async with request.app.state.database.read() as tx:
        return kernel_model(await read_kernel(tx, kernel_id))


@router.delete("/api/kernels/{kernel_id}", status_code=204)
async def shutdown_kernel(
    kernel_id: str, request: Request, _: Annotated[Identity, allow("write", "kernels")]
) -> None:
    """End a kernel; what it had not finished is interrupted."""
    await request.app.state.kernels.shutdown(kernel_id)


@router.post("/api/kernels/{kernel_id}/interrupt", status_code=204)
async def interrupt_kernel(
    kernel_id: str, request: Request, _: Annotated[Identity, allow("execute", "kernels")]
) -> None:
    """Interrupt what the kernel runs."""
    await request.app.state.kernels.get(kernel_id).interrupt()


@router.post("/api/kernels/{kernel_id}/restart")
async def restart_kernel(
    kernel_id: str, request: Request, _: Annotated[Identity, allow("execute", "kernels")]
) -> dict[str, Any]:
    """Restart a kernel, a dead one too; answers when it is ready again."""
    kernel = request.app.state.kernels.get(kernel_id)
    await kernel.restart()
    await kernel.recorder.drain()
    return await _answer(request.app.state.database, kernel_id)
