"""What writes more than a client that does not read is kept for."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg

from app.db.doorbell import asyncpg_url
from tests.clients.conftest import Restartable


@contextlib.asynccontextmanager
async def writing(server: Restartable) -> AsyncIterator[Any]:
    sql = await asyncpg.connect(asyncpg_url(server.database_url))
    await sql.execute(
        "INSERT INTO users (id, name, full_name) SELECT gen_random_uuid(), 'slow' || n, '0'"
        " FROM generate_series(1, 5) n ON CONFLICT DO NOTHING"
    )
    yield sql
    await sql.execute("DELETE FROM users WHERE name LIKE 'slow%'")
    await sql.close()


async def write_much(sql: Any, last: str) -> None:
    """More than the sockets and the server's queue take, in records that are small by the end."""
    for number in range(14):
        await sql.execute(
            "UPDATE users SET full_name = $1::text || repeat('x', 300000) WHERE name LIKE 'slow%'",
            str(number),
        )
    await sql.execute("DELETE FROM users WHERE name LIKE 'slow%' AND name = $1", last)
    await sql.execute("UPDATE users SET full_name = $1 WHERE name LIKE 'slow%'", last)
