"""The success after a failed run is the one that a look at all executions finds, in few places."""

import random
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, text, update

from app.settings import Settings
from app.upkeep.upkeep import Upkeep
from benchmarks.history import questions
from models import Content, Document, Execution, Kernel, User
from models.base import uuid7

ADA, BOB = uuid.uuid4(), uuid.uuid4()
# Of the months that follow, the first is the one in which ids may not tell the time yet.
FIRST = datetime.now(UTC).replace(day=1, hour=12, minute=0, second=0, microsecond=0)
MONTHS = 5
TRIES = "SELECT execution_id, success_id, succeeded_at, changed FROM analytics.failed_tries"
# What the view says, found by reading everything that the asker may see.
FULL = """
WITH runs AS (
    SELECT *, min(seq) FILTER (WHERE status = 'ok') OVER (
        PARTITION BY path, cell_id ORDER BY seq
        ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING) AS next
    FROM executions WHERE cell_id IS NOT NULL
)
SELECT e.id, s.id, s.finished_at, s.source_hash <> e.source_hash
FROM runs e LEFT JOIN runs s ON s.seq = e.next AND e.path IS NOT NULL
WHERE e.status = 'error'
"""


def at_month(number, day=10):
    """Noon of a day of the month so many months after the first."""
    months = FIRST.month - 1 + number
    return FIRST.replace(year=FIRST.year + months // 12, month=months % 12 + 1, day=day)


def id_at(at):
    """A UUIDv7 of a time."""
    milliseconds = int(at.timestamp() * 1000)
    return uuid.UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | uuid.uuid4().int % 2**62)


def run(at, status="ok", **changes):
    """An execution asked for at a time; not finished where its status says so."""
    made = changes.pop("id", None) or id_at(at)
    finished = None if status == "running" else at + timedelta(seconds=2)
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
        "queued_at": at,
        "started_at": at + timedelta(seconds=1),
        "finished_at": finished,
        "ename": "E" if status == "error" else None,
        "status": status,
    }
    return values | changes


async def record(database, *rows):
    """Write executions; they were asked for in this order."""
    for row in rows:
        async with database.transaction() as tx:
            await tx.execute(insert(Execution).values(row))


async def finish(database, row, status, at):
    async with database.transaction() as tx:
        end = {"status": status, "finished_at": at}
        await tx.execute(update(Execution).where(Execution.id == row["id"]).values(end))


async def tries(database):
    """What the view says by failed execution, after a comparison with a look at everything."""
    async with database.read() as tx:
        found = sorted((await tx.execute(text(TRIES))).all(), key=repr)
        assert found == sorted((await tx.execute(text(FULL))).all(), key=repr)
    return {failed: success for failed, success, _, _ in found}


@pytest.fixture
async def kernels(database):
    """Two people with a kernel each, and partitions of five months from this one on."""
    async with database.autocommit() as connection:
        for _ in range(MONTHS - 3):
            await connection.execute(
                text("SELECT datastore_make_next_partition('executions', 'month')")
            )
    async with database.transaction() as tx:
        tx.add_all([User(id=ADA, name="ada"), User(id=BOB, name="bob")])
        await tx.flush()
        tx.add_all(
            [Kernel(id="a", name="python3", owner_id=ADA), Kernel(id="b", name="ir", owner_id=BOB)]
        )


async def test_the_first_later_success_of_the_cell_counts(database, kernels):
    at = at_month(1)
    before, failed, again = run(at), run(at, "error"), run(at, "error")
    others = [run(at, cell_id="d"), run(at, path="b.ipynb"), run(at, "interrupted")]
    success, later = run(at, source_hash="new"), run(at)
    await record(database, before, failed, *others, again, success, later)
    assert await tries(database) == {failed["id"]: success["id"], again["id"]: success["id"]}


async def test_a_run_that_ends_late_counts_by_when_it_was_asked_for(database, kernels):
    at = at_month(1)
    failed, slow, fast = run(at, "error"), run(at, "running"), run(at)
    await record(database, failed, slow, fast)
    assert await tries(database) == {failed["id"]: fast["id"]}
    await finish(database, slow, "ok", at_month(3))
    assert await tries(database) == {failed["id"]: slow["id"]}


async def test_a_failure_that_ends_late_has_the_successes_since_it_was_asked_for(database, kernels):
    at = at_month(1)
    slow, success = run(at, "running"), run(at)
    await record(database, slow, success)
    assert await tries(database) == {}
    await finish(database, slow, "error", at_month(2))
    assert await tries(database) == {slow["id"]: success["id"]}


async def test_a_success_counts_however_many_months_later(database, kernels):
    failed, success = run(at_month(1), "error"), run(at_month(4))
    await record(database, failed, success)
    assert await tries(database) == {failed["id"]: success["id"]}


async def test_clocks_that_differ_by_hours_change_nothing(database, kernels):
    """The order is that of `seq`, though the later id is of the month before."""
    failed = run(at_month(3, day=1), "error")
    success = run(failed["queued_at"] - timedelta(hours=23))
    await record(database, failed, success)
    assert await tries(database) == {failed["id"]: success["id"]}
    # A failed run whose own clock was far ahead of its id.
    failed = run(at_month(4), "error", id=id_at(at_month(2)), cell_id="d")
    success = run(at_month(2), cell_id="d")
    await record(database, failed, success)
    assert (await tries(database))[failed["id"]] == success["id"]


async def test_executions_whose_ids_do_not_tell_the_time(database, kernels):
    """Those recorded before the table was partitioned: random, or changed to ids of times."""
    high, low = (
        uuid.UUID(f"{first}1c44-7d3a-4c5e-8f10-5a6b7c8d9e0f") for first in ("9b2f", "00aa")
    )
    long_ago = FIRST - timedelta(days=100)
    this_month = datetime.now(UTC)
    rows = [
        run(long_ago, "error", cell_id="1", id=high),
        run(long_ago, cell_id="1", id=low),
        run(long_ago, "error", cell_id="2"),
        run(long_ago, cell_id="2", id=uuid.UUID(int=low.int + 1)),
        run(this_month, "error", cell_id="3", id=uuid7()),
        run(this_month, cell_id="3", id=uuid.UUID(int=low.int + 2)),
        run(long_ago, "error", cell_id="4", id=uuid.UUID(int=high.int + 1)),
        run(at_month(2), cell_id="4"),
    ]
    await record(database, *rows)
    pairs = zip(rows[::2], rows[1::2], strict=True)
    assert await tries(database) == {failed["id"]: later["id"] for failed, later in pairs}


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_it_is_what_a_look_at_everything_finds(database, kernels, seed, tmp_path):
    """In any order, on any number of kernels, and as retention takes the oldest away."""
    rng = random.Random(seed)
    rows, open_ones = [], []
    times = sorted(FIRST + timedelta(days=rng.uniform(0, 30 * (MONTHS - 1))) for _ in range(300))
    for at in times:
        status = rng.choice(["ok", "error", "error", "interrupted", "running"])
        made = at + timedelta(hours=rng.uniform(-11, 11))
        rows.append(
            run(
                at + timedelta(hours=rng.uniform(-11, 11)),
                status,
                id=id_at(max(made, FIRST.replace(hour=0))),
                path=rng.choice(["a.ipynb", "a.ipynb", "b.ipynb", None]),
                cell_id=rng.choice(["1", "2", "3", None]),
                source_hash=rng.choice(["x", "y"]),
            )
        )
        if status == "running":
            open_ones.append(rows[-1])
    async with database.transaction() as tx:
        for row in rows:
            await tx.execute(insert(Execution).values(row))
    before = await tries(database)
    assert {success is None for success in before.values()} == {True, False}
    for row in open_ones:
        end = row["queued_at"] + timedelta(days=rng.uniform(0, 60))
        await finish(database, row, rng.choice(["ok", "error"]), end)
    after = await tries(database)
    assert after.keys() > before.keys()
    assert any(after[failed] != success for failed, success in before.items())
    upkeep = Upkeep(database, Settings(root_dir=tmp_path, keep_executions_days=60))
    done = await upkeep.maintain(at_month(MONTHS - 1, day=20))
    assert [name for name in done.dropped if name.startswith("executions")] != []
    kept = await tries(database)
    assert kept == {failed: after[failed] for failed in kept}
    assert 0 < len(kept) < len(after)


async def test_who_may_not_see_a_success_is_told_the_next_one(database, kernels):
    """A person's answer is that of a history of what they may see and nothing else."""
    shared, own = uuid.uuid4(), uuid.uuid4()
    async with database.transaction() as tx:
        for content, document, path in (
            (uuid.uuid4(), shared, "ada/shared.ipynb"),
            (uuid.uuid4(), own, "ada/own.ipynb"),
        ):
            tx.add(Content(id=content, path=path, name=path, type="notebook"))
            await tx.flush()
            tx.add(Document(id=document, content_id=content, type="notebook", format="json"))
            await tx.flush()
            if document == shared:
                await tx.execute(
                    text(
                        "INSERT INTO permissions (id, subject, user_id, resource, content_id,"
                        " actions) VALUES (gen_random_uuid(), 'user', :user, 'contents', :content,"
                        " '{read}')"
                    ),
                    {"user": BOB, "content": content},
                )
    at = at_month(1)
    bobs = {"actor_id": BOB, "run_as_id": BOB, "kernel_id": "b"}
    # Bob's own run failed; Ada's success is in a notebook that he may not read, as it says.
    failed, hidden, success = run(at, "error", **bobs), run(at, document_id=own), run(at, **bobs)
    # Ada's failed run that he may see with its notebook, and what he may not see.
    seen = run(at, "error", document_id=shared, cell_id="d")
    seen_later = run(at_month(3), document_id=shared, cell_id="d")
    unseen = run(at, "error", document_id=own, cell_id="e")
    unseen_later = run(at, document_id=own, cell_id="e")
    await record(database, failed, hidden, success, seen, seen_later, unseen, unseen_later)
    assert await tries(database) == {
        failed["id"]: hidden["id"],
        seen["id"]: seen_later["id"],
        unseen["id"]: unseen_later["id"],
    }
    role = f"reader_{uuid.uuid4().hex}"
    expected = {
        ADA: {seen["id"]: seen_later["id"], unseen["id"]: unseen_later["id"]},
        BOB: {failed["id"]: success["id"], seen["id"]: seen_later["id"]},
        uuid.uuid4(): {},
    }
    async with database.transaction() as tx:
        await tx.execute(text(f"CREATE ROLE {role}"))
        for schema in ("public", "analytics"):
            await tx.execute(text(f"GRANT USAGE ON SCHEMA {schema} TO {role}"))
            await tx.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}"))
    try:
        for user, said in expected.items():
            async with database.transaction() as tx:
                setting = text("SELECT set_config('datastore.user_id', :id, true)")
                await tx.execute(setting, {"id": str(user)})
                await tx.execute(text(f"SET LOCAL ROLE {role}"))
                found = (await tx.execute(text(TRIES))).all()
                assert {failed: success for failed, success, _, _ in found} == said
                full = (await tx.execute(text(FULL))).all()
                assert sorted(found, key=repr) == sorted(full, key=repr)
    finally:
        async with database.transaction() as tx:
            await tx.execute(text(f"DROP OWNED BY {role}"))
            await tx.execute(text(f"DROP ROLE {role}"))


def test_of_a_generated_history_too(history):
    found = history.execute(TRIES).fetchall()
    assert len(found) > 500
    assert sorted(found, key=repr) == sorted(history.execute(FULL).fetchall(), key=repr)


def looked_into(connection, query, alias):
    """Return the partitions of the history that a query really looked into, by a table's alias."""
    ((plan,),) = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}").fetchall()
    found = set()

    def walk(node):
        name = node.get("Alias", "")
        if (name == alias or name.startswith(f"{alias}_")) and node["Actual Loops"] > 0:
            found.add(node["Relation Name"])
        for child in node.get("Plans", []):
            walk(child)

    walk(plan[0]["Plan"])
    return found


def test_the_success_is_not_looked_for_in_earlier_months(history):
    """Each partition is a place of the disk for each failed run."""
    ((query,),) = [[q] for heading, q in questions() if "tries" in heading]
    first_of_month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    since = first_of_month - timedelta(days=2)
    query = query.replace("now() - interval '1 day'", f"'{since}'")
    assert "now()" not in query
    failed = history.execute(
        "SELECT count(*) FROM executions WHERE status = 'error' AND queued_at > %s", [since]
    ).fetchone()
    assert failed[0] > 0
    periods = dict(
        history.execute(
            "SELECT name, low FROM datastore_partitions()"
            " WHERE parent = 'executions' AND low IS NOT NULL"
        ).fetchall()
    )
    assert sum(1 for low in periods.values() if low < since) >= 3
    reached = looked_into(history, query, "s") & set(periods)
    month = (first_of_month - timedelta(days=1)).replace(day=1)
    assert {low for name, low in periods.items() if name in reached} >= {first_of_month}
    assert {name for name in reached if periods[name] < month} == set()
