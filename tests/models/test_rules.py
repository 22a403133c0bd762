"""What the database refuses, whoever asks."""

import uuid
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import IntegrityError

from models import Cell, Content, Document, Execution, InputRequest, Kernel, Notebook, Output, User
from models.base import uuid7

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def execution(database):
    """A running execution, with the kernel and user it needs."""
    user, made = User(id=uuid.uuid4(), name="ada"), uuid7()
    async with database.transaction() as tx:
        tx.add(user)
        await tx.flush()
        tx.add(Kernel(id="k", name="python3", owner_id=user.id))
        await tx.flush()
        tx.add(
            Execution(
                id=made,
                kernel_id="k",
                incarnation=1,
                actor_id=user.id,
                run_as_id=user.id,
                client="api",
                msg_id="m",
                code="1",
                source_hash="",
                status="running",
                started_at=NOW,
            )
        )
    return made


async def refused(database, statement, constraint):
    with pytest.raises(IntegrityError) as caught:
        async with database.transaction() as tx:
            await tx.execute(statement)
    assert constraint in str(caught.value.orig)


async def test_a_final_status_is_final(database, execution):
    async with database.transaction() as tx:
        await tx.execute(update(Execution).values(status="ok", finished_at=NOW))
    again = update(Execution).values(status="running", finished_at=None)
    await refused(database, again, "has finished as ok")
    async with database.transaction() as tx:  # other columns may still be written
        await tx.execute(update(Execution).values(output_bytes=5))


async def test_status_and_times_agree(database, execution):
    await refused(database, update(Execution).values(status="ok"), "finished_is_final")
    await refused(database, update(Execution).values(status="odd", finished_at=NOW), "status")
    await refused(database, update(Execution).values(started_at=None), "running_has_started")


async def test_outputs_are_appended_only(database, execution):
    values = {"execution_id": execution, "seq": 1, "output_type": "stream", "text": "a"}
    async with database.transaction() as tx:
        await tx.execute(insert(Output).values(values))
    await refused(database, update(Output).values(text="b"), "can only be appended")
    await refused(database, insert(Output).values(values), "execution_id_seq_key")
    async with database.transaction() as tx:
        await tx.execute(update(Output).values(data={"a": 1}, cleared_at=NOW))


async def test_a_message_id_is_unique_for_its_kernel(database, execution):
    async with database.transaction() as tx:
        row = (await tx.execute(select(Execution.__table__))).mappings().one()
    values = {key: value for key, value in row.items() if key != "seq"} | {"id": uuid7()}
    await refused(database, insert(Execution).values(values), "kernel_id_msg_id_key")


async def test_outputs_are_where_their_execution_is(database, execution):
    values = {"execution_id": execution, "seq": 1, "output_type": "stream", "text": "a"}
    stray = insert(Output).values({**values, "partition_id": uuid7()})
    await refused(database, stray, "partition_is_of_execution")
    unknown = insert(Output).values({**values, "execution_id": uuid7()})
    await refused(database, unknown, "execution_id_fkey")
    async with database.transaction() as tx:
        await tx.execute(insert(Output).values(values))
        await tx.execute(insert(Output).values(output_type="stream", text="of a file"))
        found = select(Output.text, text("tableoid::regclass::text")).order_by(Output.id)
        rows = [tuple(row) for row in await tx.execute(found)]
    this_month = f"partitions.outputs_{datetime.now(UTC):%Y_%m}_01"
    assert rows == [("a", this_month), ("of a file", "partitions.outputs_kept")]


async def test_input_is_answered_once_and_passwords_have_no_value(database, execution):
    values = {"execution_id": execution, "kernel_id": "k", "msg_id": "i", "prompt": "?"}
    secret = insert(InputRequest).values(**values, password=True, value="s")
    await refused(database, secret, "password_not_stored")
    async with database.transaction() as tx:
        await tx.execute(insert(InputRequest).values(**values, password=False))
        await tx.execute(update(InputRequest).values(status="answered", answered_at=NOW, value="x"))
    await refused(database, update(InputRequest).values(value="y"), "is already answered")


async def test_a_cell_id_is_unique_in_its_notebook(database):
    content, document = uuid.uuid4(), uuid.uuid4()
    async with database.transaction() as tx:
        tx.add(Content(id=content, path="a.ipynb", name="a.ipynb", type="notebook"))
        await tx.flush()
        tx.add(Document(id=document, content_id=content, type="notebook", format="json"))
        await tx.flush()
        tx.add(Notebook(id=document, nbformat=4, nbformat_minor=5, metadata_={}))
        await tx.flush()
    cell = {
        "notebook_id": document,
        "cell_id": "c",
        "position": 0,
        "cell_type": "code",
        "source": "",
        "metadata_": {},
    }
    async with database.transaction() as tx:
        await tx.execute(insert(Cell).values(cell))
    await refused(database, insert(Cell).values(cell), "cells_notebook_id_cell_id_key")


async def test_another_role_sees_its_own_rows_only(database, execution):
    """Row-level security: a login with SELECT on everything is shown what is its own."""
    role = f"reader_{uuid.uuid4().hex}"
    async with database.transaction() as tx:
        await tx.execute(text(f"CREATE ROLE {role}"))
        await tx.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"))
        ada = (await tx.execute(select(User.id))).scalar_one()
    try:
        for user_id, seen in ((None, 0), ("", 0), (str(uuid.uuid4()), 0), (str(ada), 1)):
            async with database.transaction() as tx:
                await tx.execute(text(f"SET LOCAL ROLE {role}"))
                if user_id is not None:
                    setting = text("SELECT set_config('datastore.user_id', :id, true)")
                    await tx.execute(setting, {"id": user_id})
                for relation in ("executions", "kernels", "users", "execution_history"):
                    count = await tx.execute(text(f"SELECT count(*) FROM {relation}"))
                    assert count.scalar_one() == seen, (relation, user_id)
    finally:
        async with database.transaction() as tx:
            await tx.execute(text(f"DROP OWNED BY {role}"))
            await tx.execute(text(f"DROP ROLE {role}"))
