"""Replicas through the failures that will come: afterwards they are equal, or it is said plainly
that they must be copied again."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from app.db import migrations
from app.db.embedded import EmbeddedPostgres
from app.replication import check, publisher, replicas
from app.replication.addresses import ReplicationError, connect
from tests.app.replication.clusters import (
    add_replica,
    cluster,
    differences,
    eventually,
    execute,
    kill_postmaster,
    make_history,
    one,
    status_of,
)
from tests.app.replication.conftest import Clusters

BULK = int(os.environ.get("DATASTORE_TEST_REPLICA_ROWS", "5000"))

count = "SELECT count(*) FROM executions"


@contextmanager
def at_work(url: str) -> Iterator[None]:
    """History is made meanwhile, through losses of the connection."""
    ended = threading.Event()
    made = []

    def work() -> None:
        while not ended.is_set():
            with suppress(psycopg.Error):
                make_history(url, 5)
                made.append(5)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(60)
    assert made


@pytest.fixture(scope="module")
def both(clusters: Clusters) -> Iterator[Clusters]:
    """Two replicas of a database with history."""
    migrations.upgrade(clusters.publisher.url)
    make_history(clusters.publisher.url, 10)
    add_replica(clusters.publisher.url, clusters.first.url, name="first")
    add_replica(clusters.publisher.url, clusters.second.url, name="second")
    yield clusters
    for name in ("first", "second"):
        replicas.remove(clusters.publisher.url, name)


def equal(both: Clusters) -> None:
    url = both.publisher.url
    assert differences(url, "first") == {}
    assert differences(url, "second") == {}
    assert one(both.first.url, count) == one(both.second.url, count) == one(url, count)


def test_a_killed_replica(both: Clusters):
    with at_work(both.publisher.url):
        for _ in range(2):
            eventually(lambda: status_of(both.publisher.url, "first", 1).seconds is not None)
            kill_postmaster(both.first)
            both.first.start()
    equal(both)


def test_a_killed_publisher(both: Clusters):
    url = both.publisher.url
    with at_work(url):
        for _ in range(2):
            before = one(url, count)
            kill_postmaster(both.publisher)
            both.publisher.start()
            eventually(lambda before=before: one(url, count) > before)
    equal(both)


def test_a_replica_that_was_away_for_long(both: Clusters):
    url = both.publisher.url
    both.first.stop()
    kernel = make_history(url, 50)
    execute(
        url,
        "INSERT INTO outputs (execution_id, seq, kernel_id, output_type, name, text)"
        " SELECT (SELECT id FROM executions WHERE kernel_id = %s LIMIT 1), n + 10, %s, 'stream',"
        " 'stdout', repeat(md5(n::text), 20) FROM generate_series(1, %s) n",
        kernel,
        kernel,
        BULK,
    )
    execute(url, "UPDATE outputs SET cleared_at = now() WHERE id % 3 = 0")
    execute(url, "DELETE FROM outputs WHERE id % 7 = 0")
    state = status_of(url, "first", 0.2)
    assert state.word == "unreachable"
    assert state.slot is not None
    assert not state.slot.active
    assert state.slot.lag_bytes > 1_000_000
    assert state.slot.inactive is not None
    assert state.advice
    assert status_of(url, "second", 60).word == "following", "nobody else waits for it"
    both.first.start()
    assert status_of(url, "first", 60).word == "following"
    equal(both)


def test_a_dropped_slot_is_told_and_copied_again(both: Clusters):
    url = both.publisher.url
    with closing(connect(url)) as connection:
        publisher.drop_slot(connection, "datastore_first")
    make_history(url, 5)
    state = status_of(url, "first", 0.2)
    assert state.must_be_copied_again
    assert state.word == "must be copied again"
    assert "--copy-again" in state.advice[0]
    with pytest.raises(ReplicationError, match="must be copied again"):
        list(check.check(url, "first"))
    with at_work(url):
        add_replica(url, both.first.url, copy_again=True)
    equal(both)


def test_a_checked_replica_is_compared_while_everybody_works(both: Clusters):
    with at_work(both.publisher.url):
        for _ in range(2):
            assert differences(both.publisher.url, "second") == {}
    equal(both)


def test_a_replica_that_was_away_for_longer_than_the_cap(place: Path, both: Clusters):
    settings = {"max_slot_wal_keep_size": "32MB", "max_wal_size": "32MB", "min_wal_size": "32MB"}
    with cluster(place / "capped", **settings) as capped:
        migrations.upgrade(capped.url)
        execute(both.second.url, "CREATE DATABASE away")
        target = both.second.url.replace("/datastore?", "/away?")
        add_replica(capped.url, target, name="away")
        execute(target, "ALTER SUBSCRIPTION datastore_away DISABLE")
        eventually(lambda: not status_of(capped.url, "away", 0).slot.active)
        for _ in range(6):
            make_history(capped.url, 1)
            execute(capped.url, "SELECT pg_switch_wal()")
        execute(capped.url, "CHECKPOINT")
        state = status_of(capped.url, "away", 0.2)
        assert state.word == "must be copied again"
        assert state.cap_bytes == 32 * 1024 * 1024
        assert "max_slot_wal_keep_size" in state.advice[0]
        add_replica(capped.url, target, copy_again=True)
        assert differences(capped.url, "away") == {}
        assert status_of(capped.url, "away").word == "following"


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.decode()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a file system")
def test_a_replica_whose_disk_is_full(place: Path, both: Clusters):
    url = both.publisher.url
    settings = {"max_wal_size": "32MB", "min_wal_size": "32MB"}
    with tmpfs(place / "small", "300m"), cluster(place / "small" / "data", **settings) as small:
        target = small.url
        add_replica(url, target, name="small")
        ballast = place / "small" / "ballast"
        with ballast.open("wb") as file, suppress(OSError):
            while True:
                file.write(bytes(1 << 20))
        kernel = make_history(url, 5)
        execute(
            url,
            "INSERT INTO outputs (execution_id, seq, kernel_id, output_type, name, text)"
            " SELECT (SELECT id FROM executions WHERE kernel_id = %s LIMIT 1), n + 10, %s,"
            " 'stream', 'stdout', (SELECT string_agg(md5(random()::text), '')"
            " FROM generate_series(1, 60) WHERE n > 0) FROM generate_series(1, 8000) n",
            kernel,
            kernel,
        )
        eventually(lambda: not small.is_running() or _has_failed(url))
        state = status_of(url, "small", 0.2)
        assert state.word in ("unreachable", "behind", "disconnected")
        assert state.advice
        assert not state.must_be_copied_again
        assert status_of(url, "second", 60).word == "following", "nobody else waits for it"
        ballast.unlink()
        if not small.is_running():
            small.start()
        assert status_of(url, "small", 60).word == "following"
        assert differences(url, "small") == {}
        assert replicas.remove(url, "small") == []
    equal(both)


def _has_failed(url: str) -> bool:
    subscription = status_of(url, "small", 0).subscription
    return subscription is not None and subscription.apply_errors > 0


@pytest.mark.parametrize("major", [16])
def test_an_older_publisher(place: Path, both: Clusters, major: int):
    with cluster(place / f"publisher-{major}", major) as old:
        _follows(old, both)


def _follows(old: EmbeddedPostgres, both: Clusters) -> None:
    migrations.upgrade(old.url)
    make_history(old.url, 20)
    execute(both.second.url, "CREATE DATABASE newer")
    target = both.second.url.replace("/datastore?", "/newer?")
    add_replica(old.url, target, name="newer")
    with at_work(old.url):
        eventually(lambda: one(target, count) > 25)
    assert differences(old.url, "newer") == {}
    state = status_of(old.url, "newer")
    assert state.word == "following"
    assert state.server is not None
    assert state.server.startswith("18")
    assert replicas.remove(old.url, "newer") == []
