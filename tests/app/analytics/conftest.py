"""A generated history, made once for the tests that only read it."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest

from benchmarks.history import generate
from tests.conftest import database_named


@pytest.fixture(scope="module")
def history_url(postgres_url: str, template: str) -> Iterator[str]:
    """The URL of a database with four months of history, up to now."""
    name = f"history_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        url = database_named(postgres_url, name)
        with psycopg.connect(url) as filled:
            generate(filled, 25_000, days=120, say=lambda text: None)
        yield url
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def history(history_url: str) -> Iterator[psycopg.Connection]:
    """A connection to it, with the planner's costs of a disk that is not a rotating one."""
    with psycopg.connect(history_url) as connection:
        connection.execute("SET random_page_cost = 1.1")
        yield connection
        connection.rollback()
