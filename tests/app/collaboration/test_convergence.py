"""Whatever peers, REST, kernels, the disk and restarts do at once: all end up with the same.

Rooms of two processes with peers whose messages are delivered in any order between them.
"""

import asyncio
import json
import os
import random
import uuid

import nbformat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text
from sqlalchemy import select, text

from app.auth.identity import Identity
from app.collaboration import protocol
from app.collaboration.protocol import Reader
from app.collaboration.rooms import Rooms
from app.contents.disk import Disk
from app.db.engine import Database
from app.documents.store import DocumentStore
from app.documents.undo import Undo
from app.settings import Settings
from models import Content, Permission, User
from tests.app.documents.conftest import (
    Recorder,
    as_in_file,
    check_invariant,
    code,
    plain,
    read,
    write,
)

EXAMPLES = int(os.environ.get("DATASTORE_TEST_EXAMPLES", "6"))
PEERS = 3


class Peer:
    """A browser: its document, what it has yet to send, and the room that it is in."""

    def __init__(self, identity):
        self.identity = identity
        self.doc = Doc()
        self.cells = self.doc.get("cells", type=Array)
        self.meta = self.doc.get("meta", type=Map)
        self.sending = []
        self.room = self.peer = None
        self._applying = False
        self._subscription = self.doc.observe(self._mine)

    def _mine(self, event):
        if not self._applying and self.room is not None:
            self.sending.append(protocol.sync(protocol.UPDATE, event.update))

    def enter(self, rooms, room):
        self.room, self.peer = room, rooms.peer(self.identity, "write")
        self.sending.clear()
        room.join(self.peer)
        room.receive(self.peer, protocol.sync(protocol.STEP1, self.doc.get_state()))

    def leave(self):
        if self.room is not None:
            self.room.leave(self.peer)
            self.room = None
            self.sending.clear()

    def send(self, count=10**6):
        while self.room is not None and self.sending and count:
            self.room.receive(self.peer, self.sending.pop(0))
            count -= 1

    def take(self, count=10**6):
        """Take what the room has sent; tell whether there was anything."""
        assert not self.peer.ended.is_set(), self.peer.ending
        taken = False
        while self.peer._queue and count:
            frame = self.peer._queue[0]
            self.peer.sent()
            reader = Reader(frame)
            if reader.number() != protocol.SYNC:
                continue
            taken = True
            kind, content = reader.number(), reader.bytes()
            if kind == protocol.STEP1:
                update = self.doc.get_update(content)
                self.sending.append(protocol.sync(protocol.STEP2, update))
            else:
                self._applying = True
                self.doc.apply_update(content)
                self._applying = False
            count -= 1
        return taken


class Process:
    def __init__(self, database, root):
        options = Settings(save_delay_seconds=60, room_linger_seconds=0)
        self.store = DocumentStore(database, Disk(root), options)
        self.rooms = Rooms(database, self.store, options)
        self.undo = Undo(database, self.store)

    async def close(self):
        await self.rooms.close()
        await self.store.close()


class World:
    def __init__(self, database, root, seed):
        self.database, self.root = database, root
        self.random = random.Random(seed)
        self.recorder = Recorder(database, "kernel-1")
        self.latest = {}
        self.known = {"cells": []}
        self.count = 0

    async def begin(self):
        await self.recorder.begin()
        write(self.root / "a.ipynb", code("one", id="c0"), code("two", id="c1"))
        self.processes = [await self.process(), await self.process()]
        document = await self.processes[0].store.open_notebook("a.ipynb", actor_id=None)
        self.id = document.id
        async with self.database.transaction() as tx:
            content_id = await tx.scalar(select(Content.id).where(Content.path == "a.ipynb"))
            tx.add(
                Permission(
                    subject="everyone",
                    resource="contents",
                    content_id=content_id,
                    actions=["read", "write"],
                )
            )
        self.peers = []
        for number in range(PEERS):
            async with self.database.transaction() as tx:
                user = User(id=uuid.uuid4(), name=f"peer-{number}-{uuid.uuid4().hex[:6]}")
                tx.add(user)
            peer = Peer(Identity(user.id, user.name, user.name))
            await self.enter(peer, number % 2)
            self.peers.append(peer)

    async def process(self):
        made = Process(self.database, self.root)
        await made.rooms.start()
        return made

    async def enter(self, peer, process):
        rooms = self.processes[process].rooms
        room = await rooms.enter(f"json:notebook:{self.id}", self.id)
        peer.process = process
        peer.enter(rooms, room)

    async def step(self, kind):
        await getattr(self, f"do_{kind}")()
        await asyncio.sleep(0)

    # What people do in their windows

    def someone(self):
        return self.random.choice(self.peers)

    def place(self, peer):
        return self.random.randrange(len(peer.cells)) if len(peer.cells) else None

    async def do_type(self):
        peer = self.someone()
        place = self.place(peer)
        if place is not None:
            source = peer.cells[place]["source"]
            source.insert(self.random.randint(0, len(str(source))), self.random.choice("abc"))

    async def do_cut(self):
        peer = self.someone()
        place = self.place(peer)
        if place is not None and len(source := peer.cells[place]["source"]):
            del source[self.random.randrange(len(source))]

    async def do_insert(self):
        peer = self.someone()
        self.count += 1
        cell = {
            "id": f"n{self.count}",
            "cell_type": "code",
            "source": Text("new"),
            "metadata": Map({}),
            "outputs": Array([]),
            "execution_count": None,
            "execution_state": "idle",
        }
        peer.cells.insert(self.random.randint(0, len(peer.cells)), Map(cell))

    async def do_delete(self):
        peer = self.someone()
        if (place := self.place(peer)) is not None and len(peer.cells) > 1:
            del peer.cells[place]

    async def do_move(self):
        peer = self.someone()
        if (place := self.place(peer)) is None:
            return
        found = peer.cells[place].to_py()
        cell = {key: value for key, value in found.items() if key not in ("source", "metadata")}
        cell |= {
            "source": Text(found["source"]),
            "metadata": Map(found["metadata"]),
            "outputs": Array(
                [Map({**one, "text": Text(one["text"])}) for one in found.get("outputs", [])]
            ),
        }
        with peer.doc.transaction():
            del peer.cells[place]
            peer.cells.insert(self.random.randint(0, len(peer.cells)), Map(cell))

    async def do_clear(self):
        peer = self.someone()
        place = self.place(peer)
        if place is not None and len(outputs := peer.cells[place]["outputs"]):
            del outputs[:]

    async def do_send(self):
        self.someone().send(self.random.randint(1, 3))

    async def do_take(self):
        peer = self.someone()
        if peer.room is not None:
            peer.take(self.random.randint(1, 3))

    async def do_away(self):
        self.someone().leave()

    async def do_back(self):
        peer = self.someone()
        peer.leave()
        await self.enter(peer, self.random.randrange(2))

    # What happens elsewhere

    def store(self):
        return self.random.choice(self.processes).store

    async def do_rest(self):
        store = self.store()
        notebook = await store.notebook(self.id)
        cells = notebook["cells"]
        if cells:
            self.random.choice(cells)["source"] += "R"
            self.random.choice(cells)["metadata"]["rest"] = self.random.random()
        await store.put_notebook("a.ipynb", notebook, actor_id=None)

    async def do_disk(self):
        path = self.root / "a.ipynb"
        found = read(path)
        if found["cells"]:
            self.random.choice(found["cells"])["source"] += "D"
            if self.random.random() < 0.3:
                found["cells"].append(plain(code("disk", id=f"d{self.count}")))
                self.count += 1
        write(path, *[nbformat.from_dict(cell) for cell in found["cells"]])
        await self.store().open_notebook("a.ipynb", actor_id=None)

    async def do_read_by_another(self):
        self.known = read(self.root / "a.ipynb")

    async def do_old_base(self):
        """Write what another program made of what it had read."""
        found = json.loads(json.dumps(self.known))
        if not found["cells"]:
            return
        cell = self.random.choice(found["cells"])
        cell["source"] = self.random.choice(("import x\n", "")) + cell["source"] + "O"
        write(self.root / "a.ipynb", *[nbformat.from_dict(cell) for cell in found["cells"]])
        await self.store().open_notebook("a.ipynb", actor_id=None)

    async def do_line(self):
        peer = self.someone()
        if (place := self.place(peer)) is not None:
            source = peer.cells[place]["source"]
            source.insert(len(str(source).encode()), "\nline")

    async def do_save(self):
        await self.store().save_now(self.id)

    async def do_output(self):
        store = self.store()
        async with self.database.transaction() as tx:
            editor = await store.edit(tx, self.id, origin="execution")
            ids = editor.cell_ids()
            if not ids:
                return
            cell = self.random.choice(ids)
            if cell not in self.latest or self.random.random() < 0.3:
                execution = await self.recorder.execution(tx, self.id, cell)
                if await editor.begin_execution(cell, execution):
                    self.latest[cell] = execution
            if cell in self.latest:
                output = {"output_type": "stream", "name": "stdout", "text": "said\n"}
                await self.recorder.output(tx, editor, cell, self.latest[cell], output)
            if self.random.random() < 0.3 and cell in self.latest:
                await editor.end_execution(cell, self.latest[cell], 1)

    async def do_undo(self):
        peer = self.someone()
        process = self.processes[self.random.randrange(2)]
        await process.undo.perform(
            self.id, peer.identity.id, redo=self.random.random() < 0.3, steps=1
        )

    async def do_restart(self):
        number = self.random.randrange(2)
        here = [peer for peer in self.peers if peer.room is not None and peer.process == number]
        for peer in here:
            peer.leave()
        await self.processes[number].close()
        self.processes[number] = await self.process()

    # The end

    async def settle(self):
        """Let everyone come back, and everything arrive."""
        for peer in self.peers:
            if peer.room is None:
                await self.enter(peer, self.random.randrange(2))
        async with asyncio.timeout(60):
            while True:
                for process in self.processes:
                    for room in process.rooms.open_rooms().values():
                        await room.drained()
                version, _ = await self.processes[0].store.snapshot(self.id)
                versions = {
                    room.version
                    for process in self.processes
                    for room in process.rooms.open_rooms().values()
                }
                # After the rooms: what they have just taken in is in the peers' queues.
                busy = False
                for peer in self.peers:
                    busy |= bool(peer.sending)
                    peer.send()
                    busy |= peer.take()
                if not busy and versions == {version}:
                    return
                await asyncio.sleep(0.01)

    async def check(self):
        await self.settle()
        for process in self.processes:
            await check_invariant(self.database, process.store, self.id)
        _, state = await self.processes[0].store.merge_state(self.id)
        stored = Doc()
        stored.apply_update(state)
        wanted = stored.get("cells", type=Array).to_py()
        for peer in self.peers:
            assert peer.cells.to_py() == wanted
            assert peer.doc.get_state() == stored.get_state() or same_state(peer.doc, stored)
        ids = [cell["id"] for cell in wanted]
        assert len(ids) == len(set(ids))
        await self.processes[0].store.save_now(self.id)
        saved = read(self.root / "a.ipynb")
        assert saved == as_in_file(await self.processes[1].store.notebook(self.id))
        assert [cell["id"] for cell in saved["cells"]] == ids
        assert [cell["source"] for cell in saved["cells"]] == [cell["source"] for cell in wanted]

    async def close(self):
        for peer in self.peers:
            peer.leave()
        for process in self.processes:
            await process.close()


def same_state(left, right):
    """Whether two documents have the same, in whatever order their clients come."""
    return left.get_update(right.get_state()) == right.get_update(left.get_state())


KINDS = [
    *["type"] * 8,
    "cut",
    "cut",
    "insert",
    "insert",
    "delete",
    "move",
    "clear",
    *["send"] * 6,
    *["take"] * 6,
    "away",
    "back",
    "rest",
    "disk",
    "line",
    "read_by_another",
    "old_base",
    "save",
    "save",
    "output",
    "output",
    "undo",
    "restart",
]


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
@given(
    steps=st.lists(st.sampled_from(KINDS), min_size=10, max_size=60),
    seed=st.integers(0, 2**32),
)
def test_all_agree_in_the_end(database_url, tmp_path_factory, steps, seed):
    async def run():
        database = Database(database_url)
        try:
            async with database.transaction() as tx:
                await tx.execute(text("TRUNCATE contents, documents, kernels, users CASCADE"))
            world = World(database, tmp_path_factory.mktemp("files"), seed)
            await world.begin()
            try:
                for step in steps:
                    await world.step(step)
                await world.check()
            finally:
                await world.close()
        finally:
            await database.close()

    asyncio.run(run())


def test_json_of_close_reasons_fits():
    reason = {"reason": "unknown_session", "sessionId": "x" * 40, "reloadable": True}
    assert len(json.dumps(reason)) <= 123
