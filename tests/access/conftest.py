"""The world, made once for all tests of a module."""

import uuid
from collections.abc import AsyncIterator

import psycopg
import pytest_asyncio

from tests.access.world import World, world
from tests.conftest import database_named


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made(postgres_url, template, tmp_path_factory) -> AsyncIterator[World]:
    name = f"test_{uuid.uuid4().hex}"
    folder = tmp_path_factory.mktemp("world")
    (folder / "root").mkdir()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        url = database_named(postgres_url, name)
        try:
            async with world(folder / "root", url, folder / "data") as made:
                yield made
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
