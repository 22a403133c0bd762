"""Roll-ups equal what a full count of the executions says, whenever and however those end."""

import asyncio
import json
import random
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, select, text, update

from app.settings import Settings
from app.upkeep.upkeep import Upkeep
from models import Execution, Kernel, User
from models.analytics import ROLL_UP, ROLL_UPS
from models.base import uuid7

ADA, BOB = uuid.uuid4(), uuid.uuid4()
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
FULL = """
SELECT {bucket}, e.run_as_id, e.actor_id, k.name, e.path, count(*),
       count(*) FILTER (WHERE status = 'ok'), count(*) FILTER (WHERE status = 'error'),
       count(*) FILTER (WHERE status = 'aborted'), count(*) FILTER (WHERE status = 'cancelled'),
       count(*) FILTER (WHERE status = 'interrupted'),
       round(coalesce(sum(extract(epoch FROM finished_at - started_at)), 0), 3),
       round(sum(greatest(
           extract(epoch FROM coalesce(started_at, finished_at) - queued_at), 0)), 3),
       sum(output_bytes)::bigint
FROM executions e JOIN kernels k ON k.id = e.kernel_id
WHERE finished_at IS NOT NULL GROUP BY 1, 2, 3, 4, 5
"""
ROLLED = """
SELECT {bucket}, run_as_id, actor_id, kernel_name, path, executions, ok, failed, aborted,
       cancelled, interrupted, round(run_seconds::numeric, 3), round(queue_seconds::numeric, 3),
       output_bytes
FROM analytics.{table}
"""


@pytest.fixture
async def kernels(database):
    async with database.transaction() as tx:
        tx.add_all([User(id=ADA, name="ada"), User(id=BOB, name="bob")])
        await tx.flush()
        tx.add_all(
            [Kernel(id="a", name="python3", owner_id=ADA), Kernel(id="b", name="ir", owner_id=BOB)]
        )


def execution(**changes):
    made = uuid7()
    values = {
        "id": made,
        "kernel_id": "a",
        "incarnation": 1,
        "actor_id": ADA,
        "run_as_id": ADA,
        "client": "api",
        "msg_id": str(made),
        "code": "",
        "source_hash": "",
        "path": "a.ipynb",
        "cell_id": "c",
        "queued_at": NOON,
        "started_at": NOON + timedelta(seconds=1),
        "status": "running",
    }
    return values | changes


async def roll_up(database):
    async with database.transaction(recorder=True) as tx:
        return (await tx.execute(ROLL_UP, {"at_most": 1000})).scalar_one()


async def agree(database):
    """Tell whether hours and days are what a full count says, and what there is of hours."""
    async with database.read() as tx:
        for table, bucket, expression in (
            ("rollup_hours", "hour", "date_trunc('hour', queued_at, 'UTC')"),
            ("rollup_days", "day", "(queued_at AT TIME ZONE 'UTC')::date"),
        ):
            full = (await tx.execute(text(FULL.format(bucket=expression)))).all()
            rolled = (await tx.execute(text(ROLLED.format(bucket=bucket, table=table)))).all()
            assert sorted(map(repr, rolled)) == sorted(map(repr, full))
    return rolled


async def test_a_late_end_counts_in_its_hour_and_once(database, kernels):
    late = execution()
    async with database.transaction() as tx:
        await tx.execute(insert(Execution), [late, execution(status="queued", started_at=None)])
    assert await roll_up(database) == 0
    end = {"status": "ok", "finished_at": NOON + timedelta(hours=5), "output_bytes": 7}
    async with database.transaction() as tx:
        await tx.execute(update(Execution).where(Execution.id == late["id"]).values(end))
    assert await roll_up(database) == 1
    await agree(database)
    # Output of a thread, after the end.
    async with database.transaction() as tx:
        more = {"output_bytes": Execution.output_bytes + 5}
        await tx.execute(update(Execution).where(Execution.id == late["id"]).values(more))
    assert await roll_up(database) == 1
    ((*_, output_bytes),) = await agree(database)
    assert output_bytes == 12
    assert await roll_up(database) == 0


async def test_what_is_not_committed_yet_is_counted_when_it_is(database, kernels):
    """A transaction that began earlier and commits later is not missed."""
    slow = execution(status="ok", finished_at=NOON + timedelta(seconds=2))
    fast = execution(status="ok", finished_at=NOON + timedelta(seconds=2))
    async with database.transaction() as tx:
        await tx.execute(insert(Execution).values(slow))
        async with database.transaction() as other:
            await other.execute(insert(Execution).values(fast))
        assert await roll_up(database) == 1
    assert await roll_up(database) == 1
    await agree(database)


@pytest.mark.parametrize("seed", [1, 2])
async def test_roll_ups_equal_a_full_count(database, kernels, seed):
    """Executions begin, end and say more in any order while roll-ups run at the same time."""
    rng = random.Random(seed)
    open_ones, ended = [], []

    async def work():
        for _ in range(60):
            async with database.transaction() as tx:
                kernel = rng.choice([("a", ADA), ("b", BOB)])
                row = execution(
                    kernel_id=kernel[0],
                    run_as_id=kernel[1],
                    actor_id=rng.choice([ADA, BOB, None]),
                    path=rng.choice(["a.ipynb", "b.ipynb", None]),
                    queued_at=NOON + timedelta(minutes=rng.randrange(3000)),
                )
                row["started_at"] = row["queued_at"] + timedelta(milliseconds=rng.randrange(900))
                await tx.execute(insert(Execution).values(row))
                open_ones.append(row)
                if len(open_ones) > 3:
                    row = open_ones.pop(rng.randrange(len(open_ones)))
                    status = rng.choice(["ok", "error", "aborted", "cancelled", "interrupted"])
                    end = {
                        "status": status,
                        "finished_at": row["started_at"] + timedelta(seconds=rng.randrange(9)),
                        "output_bytes": rng.randrange(100),
                        "ename": "E" if status == "error" else None,
                    }
                    await tx.execute(update(Execution).where(Execution.id == row["id"]).values(end))
                    ended.append(row["id"])
                if ended and rng.random() < 0.3:
                    more = {"output_bytes": Execution.output_bytes + 3}
                    await tx.execute(
                        update(Execution).where(Execution.id == rng.choice(ended)).values(more)
                    )

    async def roll():
        while not worker.done():
            await roll_up(database)
            await asyncio.sleep(0)

    worker = asyncio.create_task(work())
    await asyncio.gather(worker, roll(), roll())
    await roll_up(database)
    await agree(database)
    async with database.read() as tx:
        for table, column, query in (
            ("rollup_errors", "errors", "SELECT count(*) FROM executions WHERE status = 'error'"),
            (
                "rollup_kernels",
                "executions",
                "SELECT count(*) FROM executions WHERE finished_at IS NOT NULL",
            ),
            (
                "rollup_cells",
                "executions",
                "SELECT count(*) FROM executions WHERE finished_at IS NOT NULL"
                " AND path IS NOT NULL",
            ),
        ):
            sums = await tx.execute(text(f"SELECT sum({column}) FROM analytics.{table}"))
            assert sums.scalar_one() == (await tx.execute(text(query))).scalar_one()


async def test_upkeep_rolls_up(database, kernels, tmp_path):
    row = execution(status="ok", finished_at=NOON + timedelta(seconds=2))
    async with database.transaction() as tx:
        await tx.execute(insert(Execution).values(row))
    done = await Upkeep(database, Settings(root_dir=tmp_path)).maintain(datetime.now(UTC))
    assert done.rolled_up == 1
    await agree(database)


async def test_sums_of_old_days_go(database, kernels, tmp_path):
    """Of all roll-ups, and those of the last day that is kept stay."""
    days = (40, 31, 30, 1)
    async with database.transaction() as tx:
        for back in days:
            at = NOON.replace(hour=1) + timedelta(days=1 - back)
            failed = {"status": "error", "ename": "E", "traceback": []}
            times = {"queued_at": at, "started_at": at, "finished_at": at + timedelta(seconds=2)}
            await tx.execute(insert(Execution).values(execution(**failed, **times)))
    now = NOON.replace(hour=12) + timedelta(days=1)
    everything = Upkeep(database, Settings(root_dir=tmp_path))
    assert (await everything.maintain(now)).rows_deleted == 0
    done = await Upkeep(database, Settings(root_dir=tmp_path, keep_rollups_days=30)).maintain(now)
    assert done.rows_deleted == 2 * len(ROLL_UPS)
    async with database.read() as tx:
        for table in ROLL_UPS:
            found = await tx.execute(text(f"SELECT count(*) FROM analytics.{table}"))
            assert found.scalar_one() == 2, table


async def test_a_reader_is_shown_its_own_rows_only(database, kernels):
    """Each view, to a login that may merely read: as the executions themselves."""
    rows = [
        execution(
            kernel_id=kernel,
            run_as_id=user,
            actor_id=user,
            status="error",
            ename="E",
            finished_at=NOON + timedelta(seconds=2),
        )
        for kernel, user in (("a", ADA), ("a", ADA), ("b", BOB))
    ]
    async with database.transaction() as tx:
        await tx.execute(insert(Execution), rows)
    await roll_up(database)
    role = f"reader_{uuid.uuid4().hex}"
    expected = {
        "execution_history": 2,
        "activity_by_hour": 1,
        "activity_by_day": 1,
        "cells_by_day": 1,
        "errors": 2,
        "errors_by_day": 1,
        "failed_tries": 2,
        "kernel_hours": 1,
        "run_comparison": 1,
    }
    async with database.transaction() as tx:
        await tx.execute(text(f"CREATE ROLE {role}"))
        for schema in ("public", "analytics"):
            await tx.execute(text(f"GRANT USAGE ON SCHEMA {schema} TO {role}"))
            await tx.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}"))
    try:
        for user, factor in ((ADA, 1), (uuid.uuid4(), 0)):
            async with database.transaction() as tx:
                setting = text("SELECT set_config('datastore.user_id', :id, true)")
                await tx.execute(setting, {"id": str(user)})
                await tx.execute(text(f"SET LOCAL ROLE {role}"))
                for view, count in expected.items():
                    found = await tx.execute(text(f"SELECT count(*) FROM analytics.{view}"))
                    assert found.scalar_one() == count * factor, view
                pending = await tx.execute(text("SELECT count(*) FROM analytics.rollup_pending"))
                assert pending.scalar_one() == 0
    finally:
        async with database.transaction() as tx:
            await tx.execute(text(f"DROP OWNED BY {role}"))
            await tx.execute(text(f"DROP ROLE {role}"))


IPYTHON = [
    "\x1b[31m---------\x1b[39m",
    "\x1b[31mKeyError\x1b[39m        Traceback (most recent call last)",
    "\x1b[36mCell\x1b[39m\x1b[36m \x1b[39m\x1b[32mIn[1]\x1b[39m\x1b[32m, line 1\x1b[39m\n----> 1",
]


@pytest.mark.parametrize(
    ("traceback", "library"),
    [
        (IPYTHON, "notebook"),
        (
            [
                *IPYTHON,
                "File \x1b[32m/v/lib/python3.11/site-packages/pandas/core/x.py:9\x1b[39m, in f",
            ],
            "pandas",
        ),
        ([*IPYTHON, "File /usr/lib/python3.11/json/decoder.py:355, in f(s)"], "json"),
        ([*IPYTHON, "File pandas/_libs/index.pyx:167, in get_loc()"], "pandas"),
        ([*IPYTHON, "File <frozen importlib._bootstrap>:1204, in f"], "importlib"),
        ([*IPYTHON, "File ~/course/tools.py:3, in g()"], "own code"),
        (['  File "/v/site-packages/numpy/a.py", line 3, in f', "ValueError"], "numpy"),
        (["Error in f(): no such thing"], None),
        ([], None),
    ],
)
async def test_the_library_of_an_error(database, traceback, library):
    async with database.read() as tx:
        query = select(text("analytics.error_library(CAST(:t AS jsonb))"))
        found = await tx.execute(query, {"t": json.dumps(traceback)})
        assert found.scalar_one() == library
