"""`/api/kernels/{id}/execute` and `/api/executions` (docs/api.md).

Outputs are whatever a kernel said, so answers are made with ExactJSONResponse here: FastAPI's own
serialisation fails on lone surrogates in keys and on JSON that is nested deeply.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.requests import ClientDisconnect

from app.auth.access import allow, identify
from app.auth.identity import Identity
from app.db.engine import Database
from app.documents.outputs import fold, output_of
from app.errors import BadRequestError, ForbiddenError, UnavailableError
from app.executions.acting import answer, stop
from app.executions.gathering import Gathering, is_built_in
from app.executions.nbmodel import accept_nbmodel
from app.executions.queries import (
    Wanted,
    newest_executions,
    pending_inputs,
    read_execution,
    shown_outputs,
)
from app.executions.schemas import execution_model
from app.executions.server_documents import accept_server_documents
from app.executions.submit import run_code
from app.kernels.host import KernelHost
from app.recorder.waiters import Waiters
from app.web import ExactJSONResponse, json_body, text_field
from models import InputRequest

router = APIRouter()

_MAX_WAIT_SECONDS = 3600.0
# Changes made by another process wake nobody here; they are found this late.
_POLL_SECONDS = 1.0

Wait = Annotated[float, Query(ge=0, le=_MAX_WAIT_SECONDS)]


@router.post("/api/kernels/{kernel_id}/execute", status_code=202)
async def execute(
    kernel_id: str,
    request: Request,
    identity: Annotated[Identity, allow("execute", "kernels")],
) -> Response:
    """Queue code or a cell; the record is committed when this answers.

    JupyterLab's executors send bodies of their own here, and are answered as they expect.
    """
    body = await json_body(request)
    if isinstance(body.get("metadata"), dict):
        return await accept_nbmodel(request, identity, kernel_id, body)
    if isinstance(body.get("cells"), list) and "code" not in body:
        return await accept_server_documents(request, identity, kernel_id, body)
    if is_built_in(body):
        gathering: Gathering = request.app.state.gathering
        found = await gathering.run(request.app.state, identity, kernel_id, body)
    else:
        found = await run_code(request.app.state, identity, kernel_id, body)
    base_url = request.app.state.settings.base_url
    location = f"{base_url}api/executions/{found.execution.id}"
    return ExactJSONResponse(execution_model(found), 202, {"Location": location})


@router.get("/api/executions")
async def list_executions(
    request: Request,
    identity: Annotated[Identity, allow("read", "executions")],
    *,
    kernel_id: str | None = None,
    path: str | None = None,
    cell_id: str | None = None,
    actor: str | None = None,
    status: str | None = None,
    since: datetime | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
) -> Response:
    """List executions that match, newest first."""
    if since is not None and since.tzinfo is None:
        raise BadRequestError("since needs a time zone, for example 2026-01-01T00:00:00Z")
    wanted = Wanted(
        kernel_id=kernel_id,
        path=path.lstrip("/") if path else path,
        cell_id=cell_id,
        actor=actor,
        status=status,
        since=since,
    )
    database: Database = request.app.state.database
    found = await newest_executions(
        database, wanted, everything=identity.admin, before_seq=cursor, limit=limit + 1
    )
    page = found[:limit]
    asking = await _asking(database, [row.execution.id for row in page])
    return ExactJSONResponse(
        {
            "executions": [execution_model(row, asking.get(row.execution.id)) for row in page],
            "next": page[-1].execution.seq if len(found) > limit else None,
        }
    )


async def _asking(database: Database, ids: list[uuid.UUID]) -> dict[uuid.UUID, InputRequest]:
    async with database.read() as tx:
        rows = (await tx.execute(pending_inputs(ids))).scalars()
        return {row.execution_id: row for row in rows}


@router.get("/api/executions/{execution_id}")
async def get_execution(
    execution_id: uuid.UUID,
    request: Request,
    _: Annotated[Identity, allow("read", "executions")],
    wait: Wait = 0,
) -> Response:
    """Return an execution with its outputs, after `wait` seconds or as soon as it has finished."""

    async def read() -> tuple[bool, dict[str, Any]]:
        found = await read_execution(database, execution_id)
        finished = found.execution.finished_at is not None
        if not finished and loop.time() < deadline:
            return False, {}
        # With its end, what it asked has been answered or is void.
        asking = {} if finished else await _asking(database, [execution_id])
        outputs = await shown_outputs(database, execution_id)
        model = execution_model(found, asking.get(execution_id))
        return True, {**model, "outputs": fold(outputs)}

    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait
    database: Database = request.app.state.database
    host: KernelHost = request.app.state.kernels
    answer = await _read_until(
        request, execution_id, deadline, read, in_vain=lambda: host.awaits(execution_id)
    )
    return ExactJSONResponse(answer)


async def _read_until(
    request: Request,
    execution_id: uuid.UUID,
    deadline: float,
    read: Callable[[], Awaitable[tuple[bool, dict[str, Any]]]],
    *,
    in_vain: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Call `read` whenever the execution may have changed, until it says that it is enough.

    As long as `in_vain` tells that it would not be, only the slow poll calls it. Ends
    with ClientDisconnect when nobody waits any more.
    """
    waiters: Waiters = request.app.state.waiters
    loop = asyncio.get_running_loop()
    polled, began = False, loop.time()
    with waiters.watch(execution_id) as changed:
        while True:
            changed.clear()
            if polled or loop.time() >= deadline or not in_vain():
                polled = False
                enough, answer = await read()
                if enough:
                    await _require_still_valid(request, loop.time() - began)
                    return answer
            if waiters.closed:
                raise UnavailableError("The server is shutting down")
            seconds = max(0.0, min(_POLL_SECONDS, deadline - loop.time()))
            try:
                async with asyncio.timeout(seconds):
                    await changed.wait()
            except TimeoutError:
                polled = True
                if await request.is_disconnected():
                    raise ClientDisconnect from None


async def _require_still_valid(request: Request, waited_seconds: float) -> None:
    """Raise ForbiddenError when the token that a long wait began with has ended meanwhile.

    The policies have asked anew for the person, but do not know of tokens.
    """
    if waited_seconds > 1 and await identify(request) is None:
        raise ForbiddenError("Forbidden", reason="a valid token is required")


@router.get("/api/executions/{execution_id}/outputs")
async def follow_outputs(
    execution_id: uuid.UUID,
    request: Request,
    _: Annotated[Identity, allow("read", "executions")],
    cursor: str = "",
    wait: Wait = 0,
) -> Response:
    """Return what is new since the cursor: output pieces, a new status or a new question."""
    after = _cursor_seq(cursor)

    async def read() -> tuple[bool, dict[str, Any]]:
        found = await read_execution(database, execution_id)
        asking = (await _asking(database, [execution_id])).get(execution_id)
        rows = await shown_outputs(database, execution_id, after_seq=after, limit=500)
        last = rows[-1].seq if rows else after
        new = f"{last}.{found.execution.status}.{asking.id if asking else ''}"
        if new == cursor and loop.time() < deadline and found.execution.finished_at is None:
            return False, {}
        return True, {
            "outputs": [{"seq": row.seq, **output_of(row)} for row in rows],
            "cursor": new,
            "execution": execution_model(found, asking),
        }

    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait
    database: Database = request.app.state.database
    return ExactJSONResponse(await _read_until(request, execution_id, deadline, read))


def _cursor_seq(cursor: str) -> int:
    seq = cursor.partition(".")[0]
    if not cursor:
        return 0
    if not (seq.isascii() and seq.isdigit()) or len(seq) > 9:
        raise BadRequestError("cursor is not one that this server gave")
    return int(seq)


@router.delete("/api/executions/{execution_id}", status_code=204)
async def stop_execution(
    execution_id: uuid.UUID,
    request: Request,
    identity: Annotated[Identity, allow("execute", "executions")],
) -> None:
    """Cancel a queued execution or interrupt a running one; 409 when it has finished."""
    await stop(request.app.state, identity, execution_id)


@router.post("/api/executions/{execution_id}/input", status_code=201)
async def answer_input(
    execution_id: uuid.UUID,
    request: Request,
    identity: Annotated[Identity, allow("execute", "executions")],
) -> dict[str, Any]:
    """Answer the question that an execution asks; the first answer counts, a second gets 409."""
    body = await json_body(request)
    value = body.get("value")
    if not isinstance(value, str):
        raise BadRequestError("Missing field in JSON data: value")
    wanted = text_field(body, "input_request_id")
    row_id = await answer(request.app.state, identity, execution_id, value, wanted=wanted)
    return {"id": str(row_id), "execution_id": str(execution_id)}
