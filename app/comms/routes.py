"""`/api/kernels/{id}/comms` and `/api/comms` (docs/api.md).

`{comm_id}` in a path is the id of the comm's row here: the kernel's own id of a comm, which its
record has as `comm_id`, is unique within that kernel only.
"""

import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response, WebSocket

from app.auth.access import allow
from app.auth.identity import Identity
from app.comms.channel import CommChannel
from app.comms.queries import kernel_comms, messages_after, read_comm
from app.comms.schemas import buffers_of, comm_model, comm_request, message_model
from app.db.engine import Database
from app.errors import BadRequestError, ConflictError, NotFoundError
from app.kernels.host import KernelHost
from app.kernels.routes import read_kernel
from app.kernels.running import RunningKernel
from app.web import ExactJSONResponse, json_body, text_field
from models import Comm

router = APIRouter()

After = Annotated[int, Query(ge=0, lt=2**63)]


def kernel_of(host: KernelHost, comm: Comm) -> RunningKernel:
    """Return the kernel of an open comm; ConflictError (409) when the comm is closed."""
    if comm.state == "closed":
        raise ConflictError("The comm is closed", reason=comm.reason)
    try:
        kernel = host.get(comm.kernel_id)
    except NotFoundError as error:
        raise ConflictError("The comm's kernel is not here any more") from error
    kernel.require_alive()
    return kernel


@router.get("/api/kernels/{kernel_id}/comms")
async def list_comms(
    kernel_id: str,
    request: Request,
    _: Annotated[Identity, allow("read", "comms")],
    *,
    state: Literal["open", "closed"] = "open",
    target_name: str | None = None,
    comm_id: str | None = None,
) -> Response:
    """List a kernel's open comms with their current state, in the order they were opened."""
    if any("\x00" in (text or "") for text in (kernel_id, target_name, comm_id)):
        raise NotFoundError("There is nothing with a NUL in its name")
    query = kernel_comms(kernel_id, state=state, target_name=target_name, comm_id=comm_id)
    async with request.app.state.database.read() as tx:
        await read_kernel(tx, kernel_id)
        rows = (await tx.execute(query)).scalars().all()
    return ExactJSONResponse([comm_model(row) for row in rows])


@router.post("/api/kernels/{kernel_id}/comms", status_code=201)
async def open_comm(
    kernel_id: str,
    request: Request,
    identity: Annotated[Identity, allow("execute", "comms")],
) -> Response:
    """Open a comm from the client's side; a kernel that does not know its target closes it."""
    kernel: RunningKernel = request.app.state.kernels.get(kernel_id)
    body = await json_body(request)
    target_name, comm_id = text_field(body, "target_name"), text_field(body, "comm_id")
    if not target_name:
        raise BadRequestError("Missing field in JSON data: target_name")
    if comm_id == "":
        raise BadRequestError("comm_id must not be empty")
    more = {"target_name": target_name}
    if (module := text_field(body, "target_module")) is not None:
        more["target_module"] = module
    wanted = comm_id or uuid.uuid4().hex
    opening = comm_request("comm_open", wanted, body, buffers_of(body), identity.id, **more)
    kernel.require_alive()
    query = kernel_comms(kernel_id, comm_id=wanted)
    database: Database = request.app.state.database
    async with database.read() as tx:
        if (await tx.execute(query)).scalar_one_or_none() is not None:
            raise ConflictError(f"The kernel has an open comm with this id: {wanted}")
    await kernel.send_comm(opening)
    async with database.read() as tx:
        row = (await tx.execute(query)).scalar_one_or_none()
    if row is None:
        raise ConflictError("The comm was closed at once")
    base_url = request.app.state.settings.base_url
    headers = {"Location": f"{base_url}api/comms/{row.id}"}
    return ExactJSONResponse(comm_model(row), 201, headers)


@router.get("/api/comms/{comm_id}")
async def get_comm(
    comm_id: uuid.UUID, request: Request, _: Annotated[Identity, allow("read", "comms")]
) -> Response:
    """Return a comm with its current state."""
    async with request.app.state.database.read() as tx:
        return ExactJSONResponse(comm_model(await read_comm(tx, comm_id)))


@router.delete("/api/comms/{comm_id}", status_code=204)
async def close_comm(
    comm_id: uuid.UUID, request: Request, identity: Annotated[Identity, allow("execute", "comms")]
) -> None:
    """Close a comm, also at the kernel; 409 when it is closed already."""
    body = await json_body(request)
    async with request.app.state.database.read() as tx:
        row = await read_comm(tx, comm_id, with_data=False)
    kernel = kernel_of(request.app.state.kernels, row)
    await kernel.send_comm(
        comm_request("comm_close", row.comm_id, body, buffers_of(body), identity.id)
    )


@router.get("/api/comms/{comm_id}/messages")
async def list_messages(
    comm_id: uuid.UUID,
    request: Request,
    _: Annotated[Identity, allow("read", "comms")],
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Return the messages recorded after the one with id `after`, in the kernel's order."""
    async with request.app.state.database.read() as tx:
        found = (await tx.execute(messages_after(comm_id, after, limit + 1))).scalars().all()
        # Read last, so that what was dropped since cannot be missed.
        row = await read_comm(tx, comm_id, with_data=False)
    page = found[:limit]
    return ExactJSONResponse(
        {
            "messages": [message_model(message) for message in page],
            "next": page[-1].id if len(found) > limit else None,
            "state": row.state,
            "last_message_id": row.last_message_id,
            "dropped_through": row.dropped_through,
        }
    )


@router.post("/api/comms/{comm_id}/messages", status_code=202)
async def send_message(
    comm_id: uuid.UUID, request: Request, identity: Annotated[Identity, allow("execute", "comms")]
) -> dict[str, Any]:
    """Send a comm_msg; it is recorded when the kernel takes it up."""
    body = await json_body(request)
    async with request.app.state.database.read() as tx:
        row = await read_comm(tx, comm_id, with_data=False)
    message = comm_request("comm_msg", row.comm_id, body, buffers_of(body), identity.id)
    await kernel_of(request.app.state.kernels, row).send_comm(message)
    return {"msg_id": message.msg_id, "comm": str(row.id)}


@router.websocket("/api/comms/{comm_id}/channel")
async def comm_channel(
    websocket: WebSocket,
    comm_id: uuid.UUID,
    identity: Annotated[Identity, allow("execute", "comms")],
    after: After = 0,
) -> None:
    """Speak on a comm in both directions; begins with what is recorded after `after`."""
    async with websocket.app.state.database.read() as tx:
        row = await read_comm(tx, comm_id, with_data=False)
    await CommChannel(websocket, row, identity, after).run()
