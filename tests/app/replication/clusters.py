"""Real clusters, a working day's rows, and what replicas are asked in these tests."""

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg

from app.db import migrations
from app.db.embedded import EmbeddedPostgres
from app.replication import check, replicas, status
from app.replication.publisher import Replica
from models.base import uuid7

# Tests wait for workers that come back: not five seconds each time.
QUICK = {"fsync": "off", "wal_retrieve_retry_interval": "200ms", "log_min_messages": "warning"}


def cluster(folder: Path, major: int = 18, **settings: str) -> EmbeddedPostgres:
    return EmbeddedPostgres(folder, major=major, settings={**QUICK, **settings})


def eventually(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


def execute(url: str, query: str, *values: object) -> list[tuple]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query, values or None)
        return cursor.fetchall() if cursor.description else []


def one(url: str, query: str, *values: object) -> object:
    return execute(url, query, *values)[0][0]


def kill_postmaster(postgres: EmbeddedPostgres) -> None:
    """kill -9 of the postmaster and its backends, as when a machine runs out of memory."""
    assert postgres.pid is not None
    family = [psutil.Process(postgres.pid)]
    family += family[0].children(recursive=True)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            os.kill(process.pid, signal.SIGKILL)
    psutil.wait_procs(family, 30)
    eventually(lambda: not postgres.is_running())


def make_history(url: str, executions: int, *, kernel: str = "") -> str:
    """A kernel whose executions end with outputs, an error among ten and a question among ten."""
    kernel = kernel or uuid.uuid4().hex
    with psycopg.connect(url) as connection:
        user = connection.execute(
            "INSERT INTO users (id, name) VALUES (gen_random_uuid(), %s)"
            " ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id",
            ["ada"],
        ).fetchone()
        assert user is not None
        connection.execute(
            "INSERT INTO kernels (id, name, owner_id, connection_info)"
            """ VALUES (%s, 'python3', %s, '{"key": "the-signing-key"}') ON CONFLICT DO NOTHING""",
            [kernel, user[0]],
        )
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(executions):
            run_one(connection, kernel, user[0])
    return kernel


def run_one(connection: psycopg.Connection, kernel: str, user: uuid.UUID) -> uuid.UUID:
    """One execution as the server writes it: queued, running with outputs, finished."""
    execution = uuid7()
    last = execution.int % 10
    with connection.transaction():
        connection.execute(
            "INSERT INTO executions (id, kernel_id, incarnation, actor_id, run_as_id, client,"
            " msg_id, idempotency_key, code, source_hash)"
            " VALUES (%s, %s, 1, %s, %s, 'api', %s, %s, %s, 'hash')",
            [execution, kernel, user, user, str(execution), f"secret-{execution}", "x = 1\n" * 900],
        )
    with connection.transaction():
        connection.execute(
            "UPDATE executions SET status = 'running', started_at = now() WHERE id = %s",
            [execution],
        )
        for seq in range(2):
            connection.execute(
                "INSERT INTO outputs (execution_id, partition_id, seq, kernel_id, output_type,"
                " name, text, data) VALUES (%s, %s, %s, %s, 'stream', 'stdout', %s, %s)",
                [
                    execution,
                    execution,
                    seq,
                    kernel,
                    f"line {seq} \u00e9\n",
                    '{"n": 1.5, "s": "\u00e9"}',
                ],
            )
        if last == 0:
            connection.execute(
                "INSERT INTO input_requests (id, execution_id, kernel_id, msg_id, prompt, password,"
                " status, value, answered_at) VALUES"
                " (gen_random_uuid(), %s, %s, 'm', 'Name?', false, 'answered', 'typed', now()),"
                " (gen_random_uuid(), %s, %s, 'm', 'Secret?', true, 'answered', null, now())",
                [execution, kernel, execution, kernel],
            )
    with connection.transaction():
        connection.execute(
            "UPDATE executions SET status = %s, finished_at = now(), ename = %s,"
            " execution_count = 1, traceback = %s WHERE id = %s",
            [
                "error" if last == 1 else "ok",
                "KeyError" if last == 1 else None,
                '["Traceback", "KeyError"]' if last == 1 else None,
                execution,
            ],
        )
        connection.execute(
            "UPDATE kernels SET recorded_batch = recorded_batch + 1 WHERE id = %s", [kernel]
        )
    return execution


def new_database(postgres: EmbeddedPostgres, name: str, *, migrated: bool = False) -> str:
    url = postgres.url
    execute(url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    execute(url, f'CREATE DATABASE "{name}"')
    made = url.replace("/datastore?", f"/{name}?")
    if migrated:
        migrations.upgrade(made)
    return made


def add_replica(url: str, target: str, **options: object) -> Replica:
    """Add a replica and wait for its first copy."""
    made = replicas.add(url, target, **options)  # type: ignore[arg-type]
    *_, last = replicas.follow_copy(target, made)
    assert all(copy.is_done for copy in last)
    return made


def differences(url: str, name: str) -> dict[str, int]:
    """The tables of a replica that differ, with how many rows; it is given time to catch up."""
    return {found.table: found.different for found in check.check(url, name) if not found.is_equal}


def status_of(url: str, name: str, wait_seconds: float = 10) -> status.Status:
    (found,) = status.read(url, wait_seconds=wait_seconds, name=name)
    return found
