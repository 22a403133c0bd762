"""What waits to be recorded keeps its order, in memory or not."""

import random
from datetime import UTC, datetime

import psycopg
import pytest

from app.recorder.backlog import Backlog
from app.recorder.messages import Message, Unreadable
from app.recorder.tracker import Concluded, KernelEvent
from tests.conftest import serving
from tests.kernels import execute, finished, run, start_kernel, text_of, until

NOW = datetime.now(UTC)


def message(number, size=1000):
    content = {"name": "stdout", "text": f"{number} \ud800\0".ljust(size, "x")}
    parent = (f"p{number}", None, None, None)
    return Message("iopub", "stream", *parent, {}, {}, content, [b"\0\xff"], size, NOW)


@pytest.mark.parametrize("limit_bytes", [0, 30_000, 10**9])
def test_order_and_content_are_kept(tmp_path, limit_bytes):
    backlog, expected, found = Backlog(tmp_path, limit_bytes), [], []
    chance = random.Random(limit_bytes)
    most = 0
    for number in range(500):
        item = chance.choice(
            [message(number), Unreadable("shell", "x", ["a"], NOW), KernelEvent({"a": number}, NOW)]
        )
        backlog.append(item)
        expected.append(item)
        most = max(most, backlog.put_away)
        while backlog and chance.random() < 0.45:
            found.append(backlog.popleft())
    while backlog:
        first = backlog.first()
        found.append(backlog.popleft())
        assert first in (None, found[-1])
    assert found == expected
    assert (most > 0) == (limit_bytes < 10**9)
    assert list(tmp_path.iterdir()) == [], "the file has no name"
    backlog.close()


def test_the_file_is_emptied_and_used_again(tmp_path):
    backlog = Backlog(tmp_path, 0)
    for _ in range(3):
        backlog.append(message(1, 100_000))
        assert backlog._file.seek(0, 2) > 100_000
        assert backlog.popleft() == message(1, 100_000)
        assert backlog._file.seek(0, 2) == 0
    backlog.close()


def test_what_cannot_be_read_back_leaves_a_note(tmp_path):
    backlog = Backlog(tmp_path, 0)
    backlog.append(message(1))
    backlog.append(message(2))
    backlog._file.truncate(10)
    assert [type(backlog.popleft()) for _ in range(2)] == [Unreadable, Unreadable]
    backlog.append(message(3))
    assert backlog.popleft() == message(3)
    backlog.close()


def test_where_the_disk_takes_nothing_the_memory_does(tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    backlog = Backlog(tmp_path / "file", 0)
    items = [message(0), message(1), Concluded(None, NOW)]
    for item in items:
        backlog.append(item)
    assert backlog.put_away == 0
    assert [backlog.popleft() for _ in items] == items
    assert caplog.text.count("stay in memory") == 1


async def test_what_is_said_while_nothing_can_be_written(settings, database_url, tmp_path):
    settings = settings.model_copy(update={"recorder_memory_bytes": 50_000})
    async with serving(settings, database_url, tmp_path / "data") as client:
        kernel = await start_kernel(client)
        await run(client, kernel, "1")
        items = client.app.state.kernels.get(kernel).recorder._items
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            await connection.execute("LOCK TABLE outputs IN SHARE MODE")
            code = "for i in range(2000): print('x' * 200, i, flush=True)"
            execution = await execute(client, kernel, code)

            async def put_away():
                return items.put_away > 100

            await until(put_away)
            await connection.rollback()
        # It must not overtake what the first said.
        second = await execute(client, kernel, "print('then')")
        expected = "".join(f"{'x' * 200} {i}\n" for i in range(2000))
        record = await finished(client, execution)
        assert (record["status"], text_of(record)) == ("ok", expected)
        assert text_of(await finished(client, second)) == "then\n"
        assert (items.put_away, len(items)) == (0, 0)
