"""How executions get their rows: for whom, and what follows as the server."""

import uuid
from types import SimpleNamespace

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError

from app.db import asker
from app.executions import submit
from models import User
from tests.kernels import run, start_kernel


async def test_the_policies_come_before_the_server_goes_on(client, database):
    """The statement that inserts a cell's execution ends the asker's role, for who may alone."""
    kernel = await start_kernel(client)
    await run(client, kernel, "1")
    stranger, running = uuid.uuid4(), client.app.state.kernels.get(kernel)
    async with database.transaction(as_server=True) as tx:
        await tx.execute(insert(User).values(id=stranger, name="eve"))

    async def insert_as(person: uuid.UUID, owner: uuid.UUID) -> tuple[str, str]:
        identity = SimpleNamespace(id=person, name="somebody")
        of = SimpleNamespace(id=kernel, incarnation=1, owner_id=owner)
        values = submit._values(identity, of, submit._Piece("1"), submit.Options())
        given = values | submit._of_session(of, values)
        with asker.acting_for(person):
            async with database.transaction() as tx:
                connection = await tx.connection()
                before = await connection.scalar(text("SELECT current_user"))
                await connection.execute(submit._INSERT_AND_GO_ON, given)
                return before, await connection.scalar(text("SELECT current_user"))

    for owner in (stranger, running.owner_id):
        with pytest.raises(DBAPIError) as refused:
            await insert_as(stranger, owner)
        assert refused.value.orig.sqlstate == "42501"
    before, after = await insert_as(running.owner_id, running.owner_id)
    assert before == "datastore_request" != after
    async with database.transaction(as_server=True) as tx:
        count = "SELECT count(*) FROM executions WHERE kernel_id = :kernel"
        assert await tx.scalar(text(count), {"kernel": kernel}) == 2
        # The next transaction on the requests' connection is bound again.
    with asker.acting_for(stranger):
        async with database.transaction() as tx:
            assert await tx.scalar(text("SELECT current_user")) == "datastore_request"
            assert await tx.scalar(text("SELECT count(*) FROM executions")) == 0
