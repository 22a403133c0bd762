"""A database with open comms, made before they had a state, is upgraded."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest

from alembic import command
from app.db import migrations
from tests.conftest import database_named


@pytest.fixture
def empty(postgres_url: str) -> Iterator[str]:
    name = f"empty_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield database_named(postgres_url, name)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_open_comms_begin_with_what_they_were_opened_with(empty: str) -> None:
    migrations.upgrade(empty, "0001")
    user, opened, closed = (uuid.uuid4() for _ in range(3))
    with psycopg.connect(empty) as connection:
        connection.execute("INSERT INTO users (id, name) VALUES (%s, 'ada')", [user])
        connection.execute(
            "INSERT INTO kernels (id, name, owner_id) VALUES ('k', 'python3', %s)", [user]
        )
        connection.execute(
            "INSERT INTO comms (id, kernel_id, incarnation, comm_id, target_name, state, closed_at)"
            " VALUES (%s, 'k', 1, 'a', 't', 'open', null), (%s, 'k', 1, 'b', 't', 'closed', now())",
            [opened, closed],
        )
        connection.execute(
            "INSERT INTO comm_messages (comm_id, msg_type, data, metadata, buffers) VALUES"
            """ (%s, 'comm_open', '{"n": 0}', '{"m": 1}', %s),"""
            """ (%s, 'comm_msg', '{"n": 1}', '{}', '{}')""",
            [opened, [b"x"], opened],
        )
    migrations.upgrade(empty)
    with psycopg.connect(empty) as connection:
        rows = connection.execute(
            "SELECT c.comm_id, data, metadata, buffers, messages_kept,"
            " last_message_id = (SELECT max(id) FROM comm_messages m WHERE m.comm_id = c.id)"
            " FROM comms c ORDER BY c.comm_id"
        ).fetchall()
        directions = connection.execute("SELECT DISTINCT direction FROM comm_messages").fetchall()
    assert rows == [("a", {"n": 0}, {"m": 1}, [b"x"], 2, True), ("b", {}, {}, [], 0, None)]
    assert directions == [("kernel",)]
    command.downgrade(migrations.config(empty), "0001")
    migrations.upgrade(empty)
