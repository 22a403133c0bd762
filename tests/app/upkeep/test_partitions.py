"""Partitions are made ahead and dropped, and nobody is locked out meanwhile."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, select, text

from app.contents import rows as rows_of_files
from app.settings import Settings
from app.upkeep import partitions
from app.upkeep.upkeep import Upkeep
from models import (
    Cell,
    Content,
    Document,
    Execution,
    IdempotencyKey,
    InputRequest,
    Kernel,
    Notebook,
    Output,
    User,
)

NOW = datetime.now(UTC).replace(day=15)
MONTH = timedelta(days=31)


def id_at(at):
    """A UUIDv7 of a time."""
    milliseconds = int(at.timestamp() * 1000)
    return uuid.UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | uuid.uuid4().int % 2**62)


@pytest.fixture
def upkeep(database, tmp_path):
    """Upkeep that keeps outputs for 40 days and executions for 100."""

    def made(**changes):
        values = {"root_dir": tmp_path, "keep_outputs_days": 40, "keep_executions_days": 100}
        return Upkeep(database, Settings(**(values | changes)))

    return made


@pytest.fixture
async def history(database):
    """An execution a month, from now on for five months, each with outputs; a cell shows one."""
    user, content, document, cell = (uuid.uuid4() for _ in range(4))
    async with database.autocommit() as connection:
        for _ in range(4):
            await connection.execute(
                text("SELECT datastore_make_next_partition('executions', 'month')")
            )
    async with database.transaction() as tx:
        tx.add(User(id=user, name="ada"))
        tx.add(Content(id=content, path="a.ipynb", name="a.ipynb", type="notebook"))
        await tx.flush()
        tx.add(Kernel(id="k", name="python3", owner_id=user))
        tx.add(Document(id=document, content_id=content, type="notebook", format="json"))
        await tx.flush()
        tx.add(Notebook(id=document, nbformat=4, nbformat_minor=5, metadata_={}))
        await tx.flush()
        tx.add(
            Cell(
                id=cell,
                notebook_id=document,
                cell_id="c",
                position=0,
                cell_type="code",
                source="",
                metadata_={},
            )
        )
        await tx.flush()
        ids = []
        for month in range(5):
            at = NOW + month * MONTH
            ids.append(id_at(at))
            values = {"kernel_id": "k", "incarnation": 1, "run_as_id": user, "client": "api"}
            tx.add(
                Execution(
                    id=ids[-1],
                    msg_id=str(month),
                    code="",
                    source_hash="",
                    status="ok",
                    queued_at=at,
                    finished_at=at,
                    **values,
                )
            )
            tx.add(IdempotencyKey(actor_id=user, key=str(month), execution_id=ids[-1]))
            tx.add(
                InputRequest(
                    execution_id=ids[-1], kernel_id="k", msg_id="i", prompt="", password=False
                )
            )
            await tx.flush()
            for seq, shown in ((1, cell if month == 0 else None), (2, None)):
                tx.add(
                    Output(
                        execution_id=ids[-1],
                        seq=seq,
                        cell_id=shown,
                        output_type="stream",
                        text=f"{month}.{seq}",
                        created_at=at,
                    )
                )
                await tx.flush()
    return ids


async def names(database, parent):
    async with database.autocommit() as connection:
        return [p.name for p in await partitions.existing(connection) if p.parent == parent]


async def rows(database, query):
    async with database.read() as tx:
        return [tuple(row) for row in await tx.execute(query)]


async def test_partitions_are_made_ahead_of_time(database, upkeep):
    keeping = upkeep(keep_outputs_days=None, keep_executions_days=None)
    assert (await keeping.maintain(NOW)).made == []  # a new database has enough
    done = await keeping.maintain(NOW + 3 * MONTH)
    assert len([made for made in done.made if made.startswith("executions")]) == 3
    assert done.dropped == []
    assert (await keeping.maintain(NOW + 3 * MONTH)).made == []
    for parent in ("executions", "outputs"):
        async with database.autocommit() as connection:
            found = [p for p in await partitions.existing(connection) if p.parent == parent]
        periods = [p for p in found if p.is_period]
        assert [p.low for p in periods[1:]] == [p.high for p in periods[:-1]]
        assert sum(p.low > NOW + 3 * MONTH for p in periods) == 2


async def test_another_unit_goes_on_where_the_last_one_ended(database, upkeep):
    keeping = upkeep(partition_unit="week", partitions_ahead=6)
    done = await keeping.maintain(NOW)
    assert len([made for made in done.made if made.startswith("executions")]) == 4
    async with database.autocommit() as connection:
        found = await partitions.existing(connection)
    ends = [p.high for p in found if p.parent == "executions" and p.is_period]
    assert ends[-1].weekday() == 0
    assert ends[-1] - ends[-2] == timedelta(days=7)


async def test_the_change_log_has_days_or_hours(database, upkeep):
    later = datetime.now(UTC) + timedelta(days=400)
    done = await upkeep(keep_outputs_days=None, keep_executions_days=None).maintain(later)
    days = [made for made in done.made if made.startswith("changes")]
    assert len(days) == 3  # none for the 400 days
    async with database.autocommit() as connection:
        found = [p for p in await partitions.existing(connection) if p.parent == "changes"]
    assert any(p.is_period and p.low <= later < p.high for p in found)
    done = await upkeep(feed_retention_seconds=3600, partitions_ahead=4).maintain(later)
    assert [made for made in done.made if made.startswith("changes")] == [
        f"{days[-1]} {hour:02}:00" for hour in (1, 2)
    ]


async def test_upkeep_keeps_nobody_from_the_list_of_files(database, upkeep):
    async with upkeep()._alone(), database.transaction() as tx:
        await rows_of_files.lock(tx, wait_seconds=1)


async def test_a_server_that_comes_back_late_finds_its_partition(database, upkeep):
    later = NOW + timedelta(days=900)
    await upkeep(keep_outputs_days=None, keep_executions_days=None).maintain(later)
    async with database.autocommit() as connection:
        found = await partitions.existing(connection)
    for parent in ("executions", "outputs"):
        assert any(p.parent == parent and p.is_period and p.low <= later < p.high for p in found)


async def test_outputs_go_before_their_executions_and_what_is_shown_stays(
    database, upkeep, history
):
    # 75 days after the first: its outputs are over, its execution is not.
    done = await upkeep().maintain(NOW + timedelta(days=75))
    assert [name.rpartition("_01")[0] for name in done.dropped] == [f"outputs_{NOW:%Y_%m}"]
    assert done.outputs_kept == 1
    said = select(Output.text).order_by(Output.id)
    first = await rows(database, said.where(Output.execution_id == history[0]))
    assert first == [("0.1",)]
    assert len(await rows(database, said)) == 9
    assert len(await rows(database, select(Execution.id))) == 5
    # 125 days after: the execution and what belongs to it.
    done = await upkeep().maintain(NOW + timedelta(days=125))
    assert [name for name in done.dropped if name.startswith("executions")] == [
        f"executions_{NOW:%Y_%m}_01"
    ]
    for model in (Execution.id, IdempotencyKey.execution_id, InputRequest.execution_id):
        assert {row[0] for row in await rows(database, select(model))} == set(history[1:])
    assert (await rows(database, said))[0] == ("0.1",)
    # A cell that shows it no longer lets it go.
    async with database.transaction() as tx:
        await tx.execute(text("UPDATE outputs SET cell_id = NULL"))
    done = await upkeep().maintain(NOW + timedelta(days=125))
    assert done.rows_deleted == 1


async def test_an_unfinished_execution_keeps_its_partition(database, upkeep, history):
    async with database.transaction() as tx:
        row = (
            (await tx.execute(select(Execution.__table__).where(Execution.id == history[0])))
            .mappings()
            .one()
        )
        values = {**row, "id": id_at(NOW), "msg_id": "running", "status": "running"}
        values |= {"started_at": NOW, "finished_at": None}
        values.pop("seq")
        await tx.execute(insert(Execution).values(values))
    done = await upkeep().maintain(NOW + timedelta(days=125))
    assert done.postponed == {f"executions_{NOW:%Y_%m}_01": "an execution has not finished"}
    assert len(await rows(database, select(Execution.id))) == 6


async def test_rows_of_no_period_are_deleted_by_their_times(database, upkeep, history):
    old, new = uuid.UUID("ffffffff-0000-4000-8000-000000000000"), uuid.uuid4()
    new = uuid.UUID(int=new.int | 1 << 127)
    async with database.transaction() as tx:
        row = (
            (await tx.execute(select(Execution.__table__).where(Execution.id == history[0])))
            .mappings()
            .one()
        )
        base = {key: value for key, value in row.items() if key != "seq"}
        for execution_id, at in ((old, NOW - 200 * timedelta(days=1)), (new, NOW)):
            times = {"queued_at": at, "finished_at": at, "msg_id": str(execution_id)}
            await tx.execute(insert(Execution).values({**base, **times, "id": execution_id}))
            for seq, cell in ((1, (await tx.execute(select(Cell.id))).scalar_one()), (2, None)):
                await tx.execute(
                    insert(Output).values(
                        execution_id=execution_id,
                        seq=seq,
                        cell_id=cell,
                        output_type="stream",
                        created_at=at,
                        text=f"{seq}",
                    )
                )
    done = await upkeep().maintain(NOW)
    assert done.rows_deleted == 2  # an output, then its execution
    assert done.outputs_kept == 1
    found = await rows(database, select(Execution.id).where(Execution.id.in_([old, new])))
    assert found == [(new,)]
    left = select(Output.seq).where(Output.execution_id == old)
    assert await rows(database, left) == [(1,)]


async def test_nobody_waits_for_a_partition_that_is_in_use(database, upkeep, history):
    """A long query keeps its partition; others read and write on, and the next time it goes."""
    keeping, later = upkeep(keep_executions_days=None), NOW + timedelta(days=75)
    async with database.transaction() as reader:
        await reader.execute(select(Output.text).where(Output.execution_id == history[0]))
        work = asyncio.create_task(keeping.maintain(later))
        waits = []
        while not work.done():
            begun = asyncio.get_running_loop().time()
            async with database.transaction() as tx:
                await tx.execute(
                    insert(Output).values(
                        execution_id=history[2], seq=100 + len(waits), output_type="stream"
                    )
                )
                await tx.execute(select(Execution.id).where(Execution.id == history[0]))
            waits.append(asyncio.get_running_loop().time() - begun)
            await asyncio.wait({work}, timeout=0.05)
        done = work.result()
        name = f"outputs_{NOW:%Y_%m}_01"
        assert done.dropped == []
        assert list(done.postponed) == [name]
        assert len(waits) > 5
        assert max(waits) < 2  # a lock_timeout of 0.3 s and a crowded machine
    assert (await keeping.maintain(later)).dropped == [name]
    assert name not in await names(database, "outputs")


async def test_one_does_the_work_at_a_time(database, upkeep):
    first, second = upkeep(), upkeep()
    async with first._alone() as connection:
        assert connection is not None
        assert await second.maintain(NOW) is None
    assert await second.maintain(NOW) is not None


async def test_partitions_are_not_read_past_the_policies(database, history):
    role = f"reader_{uuid.uuid4().hex}"
    async with database.transaction() as tx:
        await tx.execute(text(f"CREATE ROLE {role}"))
        await tx.execute(text(f"GRANT USAGE ON SCHEMA partitions TO {role}"))
        await tx.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA partitions TO {role}"))
    try:
        async with database.transaction() as tx:
            ada = "SELECT set_config('datastore.user_id', (SELECT id::text FROM users), true)"
            await tx.execute(text(ada))
            await tx.execute(text(f"SET LOCAL ROLE {role}"))
            for parent in ("executions", "outputs"):
                for name in await names(database, parent):
                    found = await tx.execute(text(f"SELECT count(*) FROM partitions.{name}"))
                    assert found.scalar_one() == 0
    finally:
        async with database.transaction() as tx:
            await tx.execute(text(f"DROP OWNED BY {role}"))
            await tx.execute(text(f"DROP ROLE {role}"))


async def test_a_table_of_times_is_partitioned_too(database, upkeep):
    """What the change log needs: a table that is partitioned by a time."""
    async with database.autocommit() as connection:
        await connection.execute(
            text(
                "CREATE TABLE rings (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz"
                " NOT NULL DEFAULT now(), PRIMARY KEY (at, id)) PARTITION BY RANGE (at)"
            )
        )
        await connection.execute(text("SELECT datastore_make_next_partition('rings', 'day')"))
        await connection.execute(text("INSERT INTO rings DEFAULT VALUES"))
        done = partitions.Done()
        now = datetime.now(UTC)
        await partitions.make_ahead(connection, now, unit="day", ahead=3, done=done)
        assert len([made for made in done.made if made.startswith("rings")]) == 3
        await partitions.drop_expired(
            database,
            connection,
            now + timedelta(days=4),
            keep={"rings": timedelta(days=2)},
            done=done,
        )
        assert len(done.dropped) == 2
        assert (await connection.execute(text("SELECT count(*) FROM rings"))).scalar_one() == 0
