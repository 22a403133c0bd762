"""What is done to an execution that is on record: stopping it, answering its question."""

import uuid
from datetime import datetime

from sqlalchemy import update
from starlette.datastructures import State

from app.auth.identity import Identity
from app.db.engine import Database
from app.errors import ConflictError, NotFoundError
from app.executions.queries import pending_inputs, read_execution
from app.kernels.running import RunningKernel
from models import InputRequest


async def stop(state: State, identity: Identity, execution_id: uuid.UUID) -> None:
    """Cancel a queued execution or interrupt a running one.

    ConflictError (409) when it has finished, NotFoundError (404) when there is none.
    """
    database: Database = state.database
    found = (await read_execution(database, execution_id)).execution
    if found.finished_at is not None:
        raise ConflictError(f"The execution has finished: {found.status}")
    try:
        kernel: RunningKernel = state.kernels.get(found.kernel_id)
    except NotFoundError as error:
        raise ConflictError("The execution's kernel is not here any more") from error
    reason = f"cancelled by {identity.name}"
    if not await kernel.stop_execution(execution_id, found.msg_id, reason):
        found = (await read_execution(database, execution_id)).execution
        raise ConflictError(f"The execution has finished: {found.status}")


async def answer(
    state: State,
    identity: Identity,
    execution_id: uuid.UUID,
    value: str,
    *,
    wanted: str | None = None,
) -> uuid.UUID:
    """Answer the question that an execution asks and return the question's id.

    The first answer counts; ConflictError (409) when it is answered, when nothing is asked, or
    when the question is not the one `wanted`.
    """
    database: Database = state.database
    found = (await read_execution(database, execution_id)).execution
    async with database.transaction() as tx:
        row = (
            await tx.execute(pending_inputs([execution_id]).limit(1).with_for_update())
        ).scalar_one_or_none()
        if row is None:
            raise ConflictError("The execution does not wait for input")
        if wanted not in (None, str(row.id)):
            raise ConflictError("This question was answered; the execution asks another one")
        kernel: RunningKernel = state.kernels.get(found.kernel_id)
        # Taken before it is committed: a client of the websocket may answer at the same moment.
        header = kernel.clients.claim(row.msg_id)
        if header is None:
            raise ConflictError("The kernel no longer waits for this input")
        msg_id = row.msg_id
        tx.on_finish(
            lambda committed: None if committed else kernel.clients.unclaim(msg_id, header)
        )
        await tx.execute(
            update(InputRequest)
            .where(InputRequest.id == row.id)
            .values(
                status="answered",
                value=None if row.password else value,
                answered_by_id=identity.id,
                answered_at=datetime.now().astimezone(),
            )
            .execution_options(synchronize_session=False)
        )
    await kernel.answer(header, value)
    state.waiters.wake([execution_id])
    return row.id
