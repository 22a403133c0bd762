"""The Python client when it does not read for a while: what the server does then loses nothing."""

import asyncio

from jupyter_datastore_client import Datastore

from tests.clients.conftest import LAG_SECONDS
from tests.clients.slow import write_much, writing
from tests.clients.test_python_client import Copy, assert_true, overhear
from tests.clients.wire import Wire
from tests.servers import TOKEN

SECONDS = 120


async def until_last(copy: Copy, last: str, count: int) -> None:
    await copy.live.wait_for(
        lambda live: sum(record["full_name"] == last for record in live.records) == count
    )


async def test_python_falls_behind_and_is_dropped(impatient):
    """Each change that listeners are told fits what they knew, and in the end all is known."""
    async with (
        asyncio.timeout(SECONDS),
        writing(impatient) as sql,
        Wire(impatient.port) as wire,
        Datastore(impatient.url, TOKEN) as other,
        Datastore(wire.url, TOKEN) as store,
    ):
        copy = Copy(await store.table("users").live())
        await until_last(copy, "0", 5)
        heard = overhear(store)
        wire.freeze()
        await write_much(sql, "slow5")
        wire.thaw()
        await until_last(copy, "slow5", 4)
        await assert_true(other, copy)
        assert "lagging" in {message["type"] for message in heard}

        heard.clear()
        wire.freeze()
        await write_much(sql, "slow4")
        await asyncio.sleep(LAG_SECONDS + 1)
        wire.thaw()
        await until_last(copy, "slow4", 3)
        await assert_true(other, copy)
        # The server had ended the connection, and on a new one it went on from its cursor.
        kinds = [message["type"] for message in heard]
        assert {"hello", "subscribed"} <= set(kinds)
        assert wire.connections > 1
