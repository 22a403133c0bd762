"""A hundred peers in one room: all type, all see what all typed, and the server stays small."""

import asyncio
import gc
import random

import psutil

from tests.app.documents.conftest import check_invariant, read
from tests.rooms import RoomPeer, session

PEERS = 100
EDITS = 3
# What the server, the test's own hundred documents and websockets in the same process, and all
# that is in flight may take for each peer.
PEER_BYTES = 600_000


async def test_a_hundred_peers_type_at_once(server, notebook, database):
    found = await session(server.http, "a.ipynb")
    peers = [RoomPeer(server, found) for _ in range(PEERS)]
    before = psutil.Process().memory_info().rss
    try:
        gc.collect()
        for start in range(0, PEERS, 10):
            await asyncio.gather(*(peer.connect() for peer in peers[start : start + 10]))
        assert all(peer.ids() == ["c1", "c2"] for peer in peers)
        chance = random.Random(6)

        async def type_all(number, peer):
            for edit in range(EDITS):
                at = chance.randrange(len(peer.text(number % 2)) + 1)
                await peer.type(f"<{number:02d}.{edit}>", place=number % 2, at=at)

        await asyncio.gather(*(type_all(number, peer) for number, peer in enumerate(peers)))
        total = len("onetwo") + PEERS * EDITS * len("<00.0>")
        async with asyncio.timeout(60):
            for peer in peers:
                await peer.until(lambda peer=peer: len(peer.text(0) + peer.text(1)) == total)
        texts = {(peer.text(0), peer.text(1)) for peer in peers}
        assert len(texts) == 1
        took = psutil.Process().memory_info().rss - before
        assert took < PEERS * PEER_BYTES, f"{took / PEERS / 1e3:.0f} kB for each peer"
        assert await peers[0].save() == "success"
    finally:
        await asyncio.gather(*(peer.disconnect() for peer in peers))
    (one,) = texts
    assert tuple(cell["source"] for cell in read(notebook)["cells"]) == one
    rows = (await server.http.get(f"/api/documents/{found['fileId']}/cells")).json()
    assert tuple(cell["source"] for cell in rows["cells"]) == one
    await check_invariant(database, server.app.state.documents, found["fileId"])
