"""The stream of JSON lines: whole, at least once, through whatever ends in between."""

import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.db.embedded import EmbeddedPostgres
from app.replication import stream as streaming
from app.replication.addresses import ReplicationError
from app.replication.sinks import FilePlace, format_mark, parse_mark
from tests.app.replication.clusters import (
    cluster,
    eventually,
    execute,
    kill_postmaster,
    make_history,
    new_database,
    one,
)


@pytest.fixture(scope="module")
def postgres(place: Path) -> Iterator[EmbeddedPostgres]:
    with cluster(place / "stream") as made:
        yield made


@pytest.fixture
def url(postgres: EmbeddedPostgres) -> Iterator[str]:
    made = new_database(postgres, f"s_{uuid.uuid4().hex[:8]}", migrated=True)
    yield made
    for (slot,) in execute(
        made, "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
    ):
        streaming.drop_slot(made, slot)


class Reader:
    """The command as a process, and its lines."""

    def __init__(self, url: str, *options: str) -> None:
        self.url = url
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app", "stream", "--database-url", url, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def wait_until_reading(self) -> "Reader":
        query = (
            "SELECT count(*) FROM pg_replication_slots"
            " WHERE active AND database = current_database()"
        )
        eventually(lambda: self.process.poll() is not None or one(self.url, query) == 1)
        assert self.process.poll() is None, self.process.communicate()
        return self

    def line(self) -> dict:
        return json.loads(self.process.stdout.readline())

    def lines_until(self, execution: str) -> list[dict]:
        """The lines up to that execution's end."""
        found = []
        while not found or not is_end(found[-1], execution):
            found.append(self.line())
        return found

    def acknowledge(self, line: dict) -> None:
        self.process.stdin.write(line["position"] + "\n")
        self.process.stdin.flush()

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.stderr.close()
        return self.process.wait(30)


def is_end(line: dict, execution: str) -> bool:
    record = line["record"]
    return (
        line["table"] == "executions" and record["id"] == execution and bool(record["finished_at"])
    )


def last_execution(url: str) -> str:
    return str(one(url, "SELECT id FROM executions ORDER BY seq DESC LIMIT 1"))


def unconfirmed(url: str) -> int:
    return one(
        url,
        "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint"
        " FROM pg_replication_slots WHERE database = current_database()",
    )


def test_lines_say_what_was_committed_in_order(url: str):
    reader = Reader(url).wait_until_reading()
    make_history(url, 12)
    lines = reader.lines_until(last_execution(url))
    assert len(lines) == 12 * 5
    positions = [parse_mark(line["position"]) for line in lines]
    assert positions == sorted(set(positions))
    executions = {}
    outputs = []
    for line in lines:
        if line["table"] == "executions":
            executions.setdefault(line["record"]["id"], {}).update(line["record"])
        else:
            assert line["record"]["execution_id"] in executions
            outputs.append(line["record"])
    for found in executions.values():
        row = one(url, "SELECT to_jsonb(e) FROM executions e WHERE id = %s", found["id"])
        del row["idempotency_key"]
        assert found.keys() == row.keys()
        assert {k: v for k, v in found.items() if not k.endswith("_at")} == {
            k: v for k, v in row.items() if not k.endswith("_at")
        }
    assert [record["data"] for record in outputs] == [{"n": 1.5, "s": "é"}] * 24
    assert "secret-" not in json.dumps(lines)
    eventually(lambda: unconfirmed(url) == 0, 30)
    assert reader.end() == 0
    execute(url, "DELETE FROM outputs")
    reader = Reader(url, "--table", "outputs").wait_until_reading()
    line = reader.line()
    assert (line["operation"], line["table"]) == ("delete", "outputs")
    assert set(line["record"]) == {"id", "partition_id"}
    reader.end()


def test_a_reader_that_acknowledges_gets_the_rest_again(url: str):
    reader = Reader(url, "--acknowledge").wait_until_reading()
    make_history(url, 3)
    lines = reader.lines_until(last_execution(url))
    first_ends = next(n for n, line in enumerate(lines) if line["record"].get("finished_at"))
    before = unconfirmed(url)
    reader.acknowledge(lines[first_ends])
    eventually(lambda: unconfirmed(url) < before)
    reader.end(signal.SIGKILL)
    make_history(url, 1)
    reader = Reader(url, "--acknowledge").wait_until_reading()
    again = reader.lines_until(last_execution(url))
    assert again[: len(lines) - first_ends - 1] == lines[first_ends + 1 :]
    # Half a transaction is not enough: it comes again as a whole.
    update = next(n for n, line in enumerate(again) if line["table"] == "outputs")
    reader.acknowledge(again[update])
    # A position that was never sent counts for nothing.
    reader.process.stdin.write("FFFF/0:0\nnonsense\n")
    reader.process.stdin.flush()
    reader.end(signal.SIGKILL)
    reader = Reader(url, "--acknowledge").wait_until_reading()
    assert parse_mark(reader.line()["position"])[0] <= parse_mark(again[update]["position"])[0]
    reader.process.stdin.close()  # nobody acknowledges any more
    assert reader.process.wait(30) == 1
    assert "closed its acknowledgements" in reader.process.stderr.read()


def test_what_stays_in_a_pipe_comes_again(url: str):
    reader = Reader(url).wait_until_reading()
    kernel = make_history(url, 1)
    reader.lines_until(last_execution(url))
    eventually(lambda: unconfirmed(url) == 0, 30)
    make_history(url, 3, kernel=kernel)  # a few kilobytes, which a pipe holds
    eventually(lambda: unconfirmed(url) > 0)
    reader.end(signal.SIGKILL)
    reader = Reader(url).wait_until_reading()
    lines = reader.lines_until(last_execution(url))
    assert len(lines) == 15
    # The reader goes away, the command ends and says so.
    reader.process.stdout.close()
    make_history(url, 3, kernel=kernel)
    assert reader.process.wait(30) == 1
    assert "reader has gone" in reader.process.stderr.read()
    reader = Reader(url).wait_until_reading()
    assert len(reader.lines_until(last_execution(url))) >= 15
    reader.end()


def test_postgresql_restarts_and_no_line_comes_twice(postgres: EmbeddedPostgres, url: str):
    reader = Reader(url).wait_until_reading()
    kernel = make_history(url, 3)
    lines = reader.lines_until(last_execution(url))
    for kill in (True, False):
        if kill:
            kill_postmaster(postgres)
        else:
            postgres.stop()
        postgres.start()
        make_history(url, 3, kernel=kernel)
        lines += reader.lines_until(last_execution(url))
    positions = [line["position"] for line in lines]
    assert len(set(positions)) == len(positions)
    assert len(lines) == 9 * 5
    reader.end()


def test_a_file_has_whole_lines_and_all_of_them(url: str, tmp_path: Path):
    file = tmp_path / "history.jsonl"
    options = ("--output", str(file), "--slot", "to_a_file")
    reader = Reader(url, *options).wait_until_reading()
    kernel = make_history(url, 3)
    for _ in range(2):
        eventually(lambda: file.read_text().count('"executions"') > 0)
        reader.end(signal.SIGKILL)
        with file.open("a") as out:
            out.write('{"position": "half a li')
        make_history(url, 3, kernel=kernel)
        reader = Reader(url, *options).wait_until_reading()
    last = last_execution(url)
    eventually(lambda: any(is_end(json.loads(line), last) for line in whole(file)))
    assert reader.end() == 0
    assert len({json.loads(line)["position"] for line in whole(file)}) == 9 * 5


def whole(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]


def test_a_slot_that_lost_changes_says_so(place: Path):
    settings = {"max_slot_wal_keep_size": "32MB", "max_wal_size": "32MB", "min_wal_size": "32MB"}
    with cluster(place / "lost", **settings) as postgres:
        url = new_database(postgres, "lost", migrated=True)
        assert streaming.ensure_slot(url, "datastore_stream")
        assert not streaming.ensure_slot(url, "datastore_stream")
        for _ in range(6):
            make_history(url, 1)
            execute(url, "SELECT pg_switch_wal()")
        execute(url, "CHECKPOINT")
        reader = Reader(url)
        assert reader.process.wait(30) == 1
        assert "changes are lost" in reader.process.stderr.read()
        assert Reader(url, "--drop").process.wait(30) == 0
        assert one(url, "SELECT count(*) FROM pg_replication_slots") == 0


def test_slots_of_others_are_left_alone(postgres: EmbeddedPostgres, url: str):
    execute(url, "INSERT INTO replicas VALUES ('r', 'postgresql://h/r')")
    for use in (streaming.ensure_slot, streaming.drop_slot):
        with pytest.raises(ReplicationError, match="a replica's slot"):
            use(url, "datastore_r")
    other = new_database(postgres, "other")
    execute(other, "SELECT pg_create_logical_replication_slot('other', 'pgoutput')")
    with pytest.raises(ReplicationError, match="something else"):
        streaming.ensure_slot(url, "other")
    execute(other, "SELECT pg_drop_replication_slot('other')")


def test_marks():
    assert parse_mark(format_mark((0x1_0000_00AB, 7))) == (0x1_0000_00AB, 7)
    assert parse_mark("nonsense") is None
    assert parse_mark("") is None


def test_a_half_written_line_is_cut_off(tmp_path: Path):
    file = tmp_path / "lines"
    file.write_bytes(b'{"a":1}\n{"b":')
    place = FilePlace(file)
    assert place.received() is None
    place.write([b'{"c":2}\n'], (1, 0))
    assert file.read_bytes() == b'{"a":1}\n{"c":2}\n'
    assert place.received() == (1, 0)
