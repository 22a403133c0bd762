"""The protocol of jupyter-server-nbmodel, the executor through which JupyterLab asks `input()`.

A request is an execution under another name: `POST execute` answers 202 with where to look,
`GET requests/{id}` answers 202 while it runs, 300 while it asks a question, and 200 with its end.
What is read here is not consumed: any window may look.
"""

import asyncio
import json
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import select

from app.auth.access import allow
from app.auth.identity import Identity
from app.db.engine import Database
from app.documents.outputs import fold
from app.errors import BadRequestError, ConflictError, NotFoundError
from app.executions.acting import answer, stop
from app.executions.queries import ExecutionRow, pending_inputs, read_execution, shown_outputs
from app.executions.submit import run_code
from app.web import ExactJSONResponse, json_body, text_field
from models import Execution, InputRequest

router = APIRouter(include_in_schema=False)

# How long a cell may be on its way, by the room, that was inserted just before it was run.
_ARRIVAL_SECONDS = 2.0
_LOOK_SECONDS = 0.05
# Outputs of a document's cell come by its room; the answer repeats them while they are few.
_REPEATED_BYTES = 256 * 1024


async def accept_nbmodel(
    request: Request, identity: Identity, kernel_id: str, body: dict[str, Any]
) -> Response:
    """Queue the code as the cell's, or without a cell when no document has it; 202."""
    metadata: dict[str, Any] = body["metadata"]
    code = text_field(body, "code", any_text=True)
    if code is None:
        raise BadRequestError("Missing field in JSON data: code")
    if body.get("server") is not None:
        raise BadRequestError("Kernels of other servers are not run from here")
    found = await _run(request, identity, kernel_id, code, metadata)
    answer = _pending(found, metadata.get("document_path"))
    return ExactJSONResponse(answer, 202, {"Location": answer["request_url"]})


async def _run(
    request: Request, identity: Identity, kernel_id: str, code: str, metadata: dict[str, Any]
) -> ExecutionRow:
    state = request.app.state
    cell_id, document_id = text_field(metadata, "cell_id"), text_field(metadata, "document_id")
    path = text_field(metadata, "document_path")
    places = [{"document_id": document_id}] if document_id else []
    places += [{"path": path}] if path else []
    loop = asyncio.get_running_loop()
    # Without a room a cell is in the document once the notebook is saved; nobody waits for that.
    deadline = loop.time() + (_ARRIVAL_SECONDS if document_id else 0)
    state.kernels.get(kernel_id)
    while cell_id and places:
        for place in places:
            try:
                body = {"code": code, "cell_id": cell_id, **place}
                return await run_code(state, identity, kernel_id, body)
            except NotFoundError:
                continue
        if loop.time() >= deadline:
            break
        await asyncio.sleep(_LOOK_SECONDS)
    return await run_code(state, identity, kernel_id, {"code": code})


@router.get("/api/kernels/{kernel_id}/execute")
async def list_requests(
    kernel_id: str, request: Request, _: Annotated[Identity, allow("read", "kernels")]
) -> Response:
    """Return the executions of a kernel that have not finished, the oldest first."""
    request.app.state.kernels.get(kernel_id)
    query = (
        select(Execution.id)
        .where(Execution.kernel_id == kernel_id, Execution.finished_at.is_(None))
        .order_by(Execution.seq)
    )
    database: Database = request.app.state.database
    async with database.read() as tx:
        ids = (await tx.execute(query)).scalars().all()
    found = [await read_execution(database, execution_id) for execution_id in ids]
    requests = [_pending(row, row.execution.path) for row in found]
    return ExactJSONResponse({"kernel_id": kernel_id, "requests": requests})


@router.get("/api/kernels/{kernel_id}/requests/{execution_id}")
async def get_request(
    kernel_id: str,
    execution_id: uuid.UUID,
    request: Request,
    _: Annotated[Identity, allow("read", "executions")],
) -> Response:
    """Return how a request stands: 202, 300 with its question, or 200 with its end."""
    database: Database = request.app.state.database
    found = await _of_kernel(database, kernel_id, execution_id)
    row = found.execution
    if row.finished_at is not None:
        repeated = row.document_id is None or row.output_bytes <= _REPEATED_BYTES
        outputs = fold(await shown_outputs(database, row.id)) if repeated else []
        return ExactJSONResponse(
            {
                "status": "ok" if row.status == "ok" else "error",
                "execution_count": row.execution_count,
                "outputs": json.dumps(outputs),
            }
        )
    async with database.read() as tx:
        asking = (await tx.execute(pending_inputs([row.id]).limit(1))).scalar_one_or_none()
    if asking is None:
        return ExactJSONResponse(_pending(found, row.path), 202)
    question = {
        "parent_header": {"msg_id": row.msg_id, "msg_type": "input_request"},
        "input_request": {"prompt": asking.prompt, "password": asking.password},
    }
    # As the extension expects them, these addresses are relative to the base URL.
    return ExactJSONResponse(question, 300, {"Location": f"/api/kernels/{kernel_id}/input"})


@router.delete("/api/kernels/{kernel_id}/requests/{execution_id}", status_code=204)
async def stop_request(
    kernel_id: str,
    execution_id: uuid.UUID,
    request: Request,
    identity: Annotated[Identity, allow("execute", "executions")],
) -> None:
    """Cancel a queued request or interrupt a running one; 409 when it has finished."""
    await _of_kernel(request.app.state.database, kernel_id, execution_id)
    await stop(request.app.state, identity, execution_id)


@router.post("/api/kernels/{kernel_id}/input", status_code=201)
async def answer_kernel(
    kernel_id: str,
    request: Request,
    identity: Annotated[Identity, allow("execute", "kernels")],
) -> dict[str, str]:
    """Answer the question that a kernel asks, whichever execution asks it; 409 when none does."""
    value = (await json_body(request)).get("input")
    if not isinstance(value, str):
        raise BadRequestError("Missing field in JSON data: input")
    request.app.state.kernels.get(kernel_id)
    query = (
        select(InputRequest.execution_id)
        .where(InputRequest.kernel_id == kernel_id, InputRequest.status == "pending")
        .order_by(InputRequest.created_at)
        .limit(1)
    )
    async with request.app.state.database.read() as tx:
        execution_id = (await tx.execute(query)).scalar_one_or_none()
    if execution_id is None:
        raise ConflictError("The kernel does not wait for input")
    row_id = await answer(request.app.state, identity, execution_id, value)
    return {"id": str(row_id), "execution_id": str(execution_id)}


async def _of_kernel(database: Database, kernel_id: str, request_id: uuid.UUID) -> ExecutionRow:
    found = await read_execution(database, request_id)
    if found.execution.kernel_id != kernel_id:
        raise NotFoundError(f"Kernel {kernel_id} has no request {request_id}")
    return found


def _pending(found: ExecutionRow, path: Any) -> dict[str, Any]:
    row = found.execution
    return {
        "request_id": str(row.id),
        "kernel_id": row.kernel_id,
        "cell_id": row.cell_id,
        "document_path": path,
        "pending": True,
        "request_status": row.status,
        "request_url": f"/api/kernels/{row.kernel_id}/requests/{row.id}",
        "outputs": "[]",
    }
