"""A database with executions and outputs, made before they were partitioned, is upgraded."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from alembic import command
from app.db import migrations
from tests.conftest import database_named

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
# A random id, one that looks like one of a time to come, and one like one of long ago.
RANDOM = uuid.UUID("9b2f1c44-7d3a-4c5e-8f10-5a6b7c8d9e0f")
LIKE_LATER = uuid.UUID("03aa1c44-7d3a-4c5e-8f10-5a6b7c8d9e0f")
LIKE_EARLIER = uuid.UUID("00aa1c44-7d3a-4c5e-8f10-5a6b7c8d9e0f")


@pytest.fixture
def empty(postgres_url: str) -> Iterator[str]:
    name = f"empty_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield database_named(postgres_url, name)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def populate(connection):
    user, content, document, cell = (uuid.uuid4() for _ in range(4))
    connection.execute("INSERT INTO users (id, name) VALUES (%s, 'ada')", [user])
    connection.execute(
        "INSERT INTO kernels (id, name, owner_id) VALUES ('k', 'python3', %s)", [user]
    )
    connection.execute(
        "INSERT INTO contents (id, path, name, type) VALUES (%s, 'a', 'a', 'notebook')", [content]
    )
    connection.execute(
        "INSERT INTO documents (id, content_id, type, format) VALUES (%s, %s, 'notebook', 'json')",
        [document, content],
    )
    connection.execute(
        "INSERT INTO notebooks (id, nbformat, nbformat_minor, metadata) VALUES (%s, 4, 5, '{}')",
        [document],
    )
    for number, made in enumerate((RANDOM, LIKE_LATER, LIKE_EARLIER), 1):
        connection.execute(
            "INSERT INTO executions (id, kernel_id, incarnation, actor_id, run_as_id, client,"
            " msg_id, idempotency_key, code, source_hash, status, queued_at, finished_at)"
            " VALUES (%s, 'k', 1, %s, %s, 'api', %s, %s, %s, '', 'ok', %s, %s)",
            [made, user, user, f"m{number}", f"key{number}", f"code {number}", AT, AT],
        )
        connection.execute(
            "INSERT INTO outputs (execution_id, seq, output_type, text)"
            " VALUES (%s, 1, 'stream', %s)",
            [made, f"said by {number}"],
        )
        connection.execute(
            "INSERT INTO input_requests (id, execution_id, kernel_id, msg_id, prompt, password)"
            " VALUES (gen_random_uuid(), %s, 'k', %s, '?', false)",
            [made, f"i{number}"],
        )
    connection.execute(
        "INSERT INTO cells (id, notebook_id, cell_id, position, cell_type, source, metadata,"
        " execution_id) VALUES (%s, %s, 'c', 0, 'code', '', '{}', %s)",
        [cell, document, LIKE_LATER],
    )
    connection.execute(
        "INSERT INTO outputs (cell_id, output_type, text) VALUES (%s, 'stream', 'of a file')",
        [cell],
    )


def everything(connection):
    """What a reader of the tables finds, without the ids of executions."""
    return [
        connection.execute(query).fetchall()
        for query in (
            "SELECT seq, msg_id, idempotency_key, code, status, queued_at FROM executions"
            " ORDER BY seq",
            "SELECT o.id, o.seq, o.text, e.seq FROM outputs o LEFT JOIN executions e"
            " ON e.id = o.execution_id ORDER BY o.id",
            "SELECT i.msg_id, e.seq FROM input_requests i JOIN executions e"
            " ON e.id = i.execution_id ORDER BY i.msg_id",
            "SELECT e.seq FROM cells c JOIN executions e ON e.id = c.execution_id",
        )
    ]


def test_rows_survive_the_partitioning_and_its_end(empty: str) -> None:
    migrations.upgrade(empty, "0005")
    with psycopg.connect(empty) as connection:
        populate(connection)
        before = everything(connection)
    migrations.upgrade(empty, "0030")
    with psycopg.connect(empty) as connection:
        assert everything(connection) == before
        ids = dict(connection.execute("SELECT seq, id FROM executions").fetchall())
        assert (ids[1], ids[3]) == (RANDOM, LIKE_EARLIER)
        assert ids[2].version == 7
        at = connection.execute("SELECT datastore_time_of(%s)", [ids[2]]).fetchone()
        assert at == (AT,)
        places = connection.execute(
            "SELECT seq, tableoid::regclass::text FROM executions ORDER BY seq"
        ).fetchall()
        assert places == [
            (1, "partitions.executions_unordered"),
            (2, "partitions.executions_before"),
            (3, "partitions.executions_before"),
        ]
        keys = connection.execute("SELECT key, execution_id FROM idempotency_keys").fetchall()
        assert sorted(keys) == [(f"key{number}", ids[number]) for number in (1, 2, 3)]
        # Numbers go on after those that are there.
        connection.execute("INSERT INTO outputs (output_type, text) VALUES ('stream', 'later')")
        assert connection.execute("SELECT text FROM outputs ORDER BY id").fetchall()[-1] == (
            "later",
        )
        connection.execute("DELETE FROM outputs WHERE text = 'later'")
    command.downgrade(migrations.config(empty), "0005")
    with psycopg.connect(empty) as connection:
        assert everything(connection) == before
    migrations.upgrade(empty)
    with psycopg.connect(empty) as connection:
        assert everything(connection) == before
