"""The Python client against a real server: live tables, resuming over its death, actions."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

import pytest
from jupyter_datastore_client import (
    ApiError,
    ClosedError,
    Datastore,
    FeedError,
    NotAllowedError,
)

from tests.clients.conftest import Restartable
from tests.clients.wire import Wire
from tests.servers import TOKEN

SECONDS = 150


@contextlib.asynccontextmanager
async def store_of(server: Restartable, token: str = TOKEN, **options) -> AsyncIterator[Datastore]:
    async with asyncio.timeout(SECONDS), Datastore(server.url, token, **options) as store:
        yield store


class Copy:
    """What someone knows who has only the first records and then each change."""

    def __init__(self, live):
        self.live = live
        self.records = dict(live)
        self.changes = []
        live.listen(self.take)

    def take(self, changes):
        for change in changes:
            self.changes.append(change)
            assert self.records.get(change.id) == change.previous
            if change.op == "delete":
                del self.records[change.id]
            else:
                assert (change.op == "insert") == (change.id not in self.records)
                self.records[change.id] = change.record


async def assert_true(store: Datastore, *copies: Copy) -> None:
    """Hold each copy against a fresh read, once everything committed before it has come."""
    for copy in copies:
        table = store.table(copy.live.name)
        fresh = {str(record["id"]): record for record in await table.read(limit=7)}
        await copy.live.wait_for(lambda live, fresh=fresh: dict(live) == fresh)
        assert copy.records == fresh


async def test_an_execution_streams_into_live_tables(server):
    async with (
        store_of(server) as store,
        store.table("executions").live() as executions,
        store.table("kernels").live() as kernels,
    ):
        copies = Copy(executions), Copy(kernels)
        kernel = await store.kernels.start()
        assert kernel["id"] == (await kernels.wait_for(lambda live: live.get(kernel["id"])))["id"]
        outputs = await store.table("outputs").where(kernel_id=kernel["id"]).live()
        pieces = outputs.changes()
        # Whoever is told of the end has the outputs.
        shown_at_end = []
        executions.listen(
            lambda changes: shown_at_end.extend(
                "".join(o["text"] or "" for o in outputs.records)
                for change in changes
                if change.record["finished_at"]
            )
        )
        code = "import time\nfor i in range(3):\n print(i, flush=True)\n time.sleep(0.2)\n6*7"
        execution = await store.executions.execute(kernel["id"], code)
        said = ""
        async for change in pieces:
            said += change.record["text"] or ""
            if change.record["output_type"] == "execute_result":
                break
        assert said == "0\n1\n2\n"
        assert change.record["data"] == {"text/plain": "42"}
        done = await executions.wait_for(
            lambda live: live[execution["id"]]["finished_at"] and live[execution["id"]]
        )
        assert done["status"] == "ok"
        assert shown_at_end == ["0\n1\n2\n"]
        statuses = [
            change.record["status"]
            for change in copies[0].changes
            if change.id == execution["id"] and change.op == "update"
        ]
        assert statuses[-1] == "ok"
        await store.kernels.shut_down(kernel["id"])
        await kernels.wait_for(lambda live: live[kernel["id"]]["execution_state"] == "dead")
        await assert_true(store, *copies)


async def test_listeners_on_records_and_fields(server):
    async with store_of(server) as store:
        kernel = await store.kernels.start()
        other = await store.kernels.start()
        async with store.table("kernels").live() as kernels:
            states, records, everything = [], [], []
            stop = kernels.listen(
                lambda changes: states.extend(c.record["execution_state"] for c in changes),
                record=kernel["id"],
                field="execution_state",
            )
            kernels.listen(
                lambda changes: records.extend(c.id for c in changes), record=kernel["id"]
            )
            kernels.listen(everything.extend)

            def broken(changes):
                raise ValueError("a listener that fails")

            kernels.listen(broken)
            await store.executions.run(kernel["id"], "1")
            await store.executions.run(other["id"], "1")
            await kernels.wait_for(
                lambda live: all(
                    live[k["id"]]["execution_state"] == "idle" for k in (kernel, other)
                )
            )
            assert "busy" in states or "idle" in states
            assert set(records) == {kernel["id"]}
            assert {change.id for change in everything} >= {kernel["id"], other["id"]}
            assert all(
                change.record[name] != change.previous[name]
                for change in everything
                if change.op == "update"
                for name in change.changed
            )
            stop()
            known = list(states)
            await store.kernels.shut_down(kernel["id"])
            await kernels.wait_for(lambda live: live[kernel["id"]]["execution_state"] == "dead")
            assert states == known
            await store.kernels.shut_down(other["id"])


async def test_filters_columns_and_sharing(server):
    async with store_of(server) as store:
        await store.contents.save("folder", type="directory")
        for path in ("folder/one.txt", "folder/two.txt", "outside.txt"):
            await store.contents.save(path, type="file", format="text", content="x")
        inside = store.table("contents").where(path_prefix="folder")
        async with inside.live() as live, inside.live() as again:
            await live.wait_for(lambda live: len(live) == 3)
            assert dict(again) == dict(live)
            assert {r["path"] for r in live.records} == {
                "folder",
                "folder/one.txt",
                "folder/two.txt",
            }
            ends = asyncio.create_task(anext(live.changes(field="path")))
            await asyncio.sleep(0)
            await store.contents.rename("folder/two.txt", "elsewhere.txt")
            gone = await ends
            assert (gone.op, gone.previous["path"]) == ("delete", "folder/two.txt")
            live.close()
            with pytest.raises(ClosedError):
                await live.wait_for(lambda _: False)
            await store.contents.rename("elsewhere.txt", "folder/back.txt")
            await again.wait_for(lambda again: any(r["name"] == "back.txt" for r in again.records))
        names = store.table("contents").where(path="outside.txt").columns("name")
        async with names.live() as live:
            (record,) = live.records
            assert record.keys() == {"id", "name"}
            assert await names.read() == [record]
        with pytest.raises(FeedError) as refused:
            await store.table("contents").where(nothing="x").live()
        assert refused.value.reason == "unknown_filter"
        with pytest.raises(FeedError) as refused:
            await store.table("secrets").live()
        assert refused.value.reason == "unknown_table"
        with pytest.raises(ApiError) as unknown:
            await store.table("secrets").read()
        assert unknown.value.status == 404


async def test_a_token_that_is_not_valid_ends_the_attempt(server):
    async with store_of(server, token="wrong") as store:
        with pytest.raises(NotAllowedError):
            await store.table("kernels").live()
        assert store.status == "closed"


async def test_presence(server):
    async with store_of(server, name="one") as one, store_of(server, name="two") as two:
        async with two.table("presence").live() as present:
            one.say_presence(path="a.ipynb", state="active")
            mine = await present.wait_for(
                lambda live: (
                    one.presence_id in live
                    and live[one.presence_id]["data"]
                    and live[one.presence_id]
                )
            )
            assert (mine["client"], mine["data"]["path"]) == ("one", "a.ipynb")
            gone = one.presence_id
            await one.close()
            await present.wait_for(lambda live: gone not in live)


def overhear(store: Datastore) -> list[dict]:
    """Return a list that grows by what the server says, but for what merely passes the time."""
    heard: list[dict] = []
    feed = store._connection.feed
    take = feed.received

    def received(message):
        if message["type"] != "heartbeat":
            heard.append(message)
        take(message)

    feed.received = received
    return heard


async def test_a_connection_that_is_cut_or_frozen(server):
    async with Wire(server.port) as wire, store_of(server) as other:
        async with asyncio.timeout(SECONDS), Datastore(wire.url, TOKEN) as store:
            copy = Copy(await store.table("contents").live())

            async def change_while_away(name):
                await other.contents.save(name, type="file", format="text", content="x")
                await copy.live.wait_for(
                    lambda live: any(record["path"] == name for record in live.records)
                )
                await assert_true(other, copy)

            heard = overhear(store)
            wire.cut()
            await change_while_away("while-cut.txt")
            assert [m["resumed"] for m in heard if m["type"] == "subscribed"] == [True]
            assert "snapshot" not in {m["type"] for m in heard}

            # A frozen connection is told by silence: three heartbeats, of a second here.
            heard.clear()
            connections = wire.connections
            wire.freeze()
            frozen = asyncio.create_task(change_while_away("while-frozen.txt"))
            while store.status == "live":
                await asyncio.sleep(0.05)
            wire.thaw()
            await frozen
            assert wire.connections > connections
            assert "snapshot" not in {m["type"] for m in heard}

            # What the server cannot resume it sends anew, and listeners see what differs.
            heard.clear()
            told = len(copy.changes)
            (subscription,) = store._connection.feed.subscriptions.values()
            subscription.cursor = "no cursor"
            wire.cut()
            await change_while_away("while-lost.txt")
            refetched = [m["reason"] for m in heard if m["type"] == "must_refetch"]
            assert refetched == ["cursor"]
            assert "snapshot" in {m["type"] for m in heard}
            named = {change.record["name"] for change in copy.changes[told:] if change.record}
            assert named <= {"while-lost.txt", ""}  # the file, and the folder that it is in


async def test_the_server_is_killed_and_started_again(server):
    """Snapshot and changes are what a fresh read says, over kill -9 with code running."""
    async with store_of(server) as store, store_of(server) as reader:
        statuses = []
        store.listen_status(statuses.append)
        kernel = await store.kernels.start()
        copies = [
            Copy(await store.table(name).live())
            for name in ("kernels", "executions", "outputs", "contents", "server_status")
        ]
        outputs = copies[2].live
        code = "import time\nfor i in range(10**6):\n print(i, flush=True)\n time.sleep(.01)"
        execution = await store.executions.execute(kernel["id"], code)
        await outputs.wait_for(
            lambda live: sum(o["execution_id"] == execution["id"] for o in live.records) > 20
        )
        waiting = asyncio.create_task(store.executions.wait(execution["id"]))
        await asyncio.sleep(0)
        before = {copy.live.name: len(copy.changes) for copy in copies}
        snapshots = {copy.live.name: dict(copy.live) for copy in copies}
        heard = overhear(store)
        await asyncio.to_thread(server.process.stop, signal.SIGKILL)
        # Changes that nobody told while the server was away: its start settles what was left.
        await asyncio.to_thread(server.start)
        ended = await waiting
        assert ended["status"] == "interrupted"
        await copies[0].live.wait_for(lambda live: live[kernel["id"]]["execution_state"] == "dead")
        await assert_true(reader, *copies)
        assert "waiting" in statuses
        assert statuses[-1] == "live"
        resumed = [message for message in heard if message["type"] == "subscribed"]
        assert len(resumed) == len(copies)
        assert all(message["resumed"] for message in resumed)
        assert not [m for m in heard if m["type"] in ("snapshot", "must_refetch")]
        # What it held stayed, and only what differs was told.
        for copy in copies:
            told = copy.changes[before[copy.live.name] :]
            held = snapshots[copy.live.name]
            assert not [c for c in told if c.op == "insert" and c.id in held]
        # And goes on.
        await store.contents.save("after.txt", type="file", format="text", content="x")
        await copies[3].live.wait_for(
            lambda live: any(r["path"] == "after.txt" for r in live.records)
        )
        await assert_true(reader, *copies)


async def assert_documents(store: Datastore, document_id: str, neighbour: str) -> None:
    """Edit a notebook's cells, take it back and restore it; every answer says what it did."""
    documents = store.documents
    made = await documents.insert_cell(document_id, "1 + 1", before=neighbour)
    assert (made["type"], made["source"], made["position"]) == ("code", "1 + 1", 1)
    named = await documents.name_version(document_id, name="with a sum / first")
    assert named["version"] == made["document_version"]
    changed = await documents.change_cell(
        document_id, made["id"], source="1 + 2", version=made["version"]
    )
    assert changed["source"] == "1 + 2"
    with pytest.raises(ApiError) as stale:
        await documents.change_cell(document_id, made["id"], source="", version=made["version"])
    assert stale.value.status == 409
    assert (await documents.move_cell(document_id, made["id"], after=neighbour))["position"] == 2
    steps = await documents.undo_steps(document_id)
    undone = await documents.undo(document_id, 2)
    assert (undone["done"], undone["undo"]) == (1, steps["undo"] - 2)
    assert (await documents.redo(document_id))["redo"] == undone["redo"] - 1
    await documents.delete_cell(document_id, made["id"])
    history = await documents.history(document_id, limit=1)
    assert history["changes"][0]["cells"] == {made["id"]: ["deleted"]}
    then = await documents.content(document_id, name=named["name"])
    assert [cell["source"] for cell in then["content"]["cells"]][1] == "1 + 1"
    assert (await documents.restore(document_id, name=named["name"]))["restored"] == then["version"]
    assert await documents.overwrite(document_id) == {"kept": None}
    assert made["id"] in [cell["id"] for cell in (await documents.cells(document_id))["cells"]]
    assert [v["name"] for v in (await documents.versions(document_id))["versions"]] == [
        named["name"]
    ]
    await documents.forget_version(document_id, named["name"])
    assert (await documents.versions(document_id))["versions"] == []
    await documents.delete_cell(document_id, made["id"])


async def test_actions(server):
    server.notebook("actions.ipynb", "x = input('name? ')", "print('hello', x)")
    async with store_of(server) as store:
        assert await store.server.version()
        assert (await store.server.me())["identity"]["username"] == "ada"
        assert (await store.kernelspecs.list())["default"] in (await store.kernelspecs.refresh())[
            "kernelspecs"
        ]
        session = await store.sessions.start("actions.ipynb")
        kernel_id = session["kernel"]["id"]
        async with store.table("input_requests").live() as questions:
            first, second = await store.sessions.run(session["id"])
            question = await questions.wait_for(
                lambda live: [q for q in live.records if q["execution_id"] == first["id"]]
            )
            assert question[0]["prompt"] == "name? "
            await store.executions.input(first["id"], "Ada")
            with pytest.raises(ApiError) as late:
                await store.executions.input(first["id"], "Eve")
            assert late.value.status == 409
        done = await store.executions.wait(second["id"])
        assert (done["status"], done["outputs"][0]["text"]) == ("ok", "hello Ada\n")
        pieces = [piece async for piece in store.executions.outputs(second["id"])]
        assert "".join(piece["text"] for piece in pieces) == "hello Ada\n"
        cells = await store.documents.cells(second["document_id"])
        assert [cell["execution_state"] for cell in cells["cells"]] == ["idle", "idle"]
        await assert_documents(store, second["document_id"], second["cell_id"])
        assert (await store.kernels.complete(kernel_id, "prin", wait_seconds=60))["matches"]
        assert (await store.kernels.is_complete(kernel_id, "if 1:", wait_seconds=60))[
            "status"
        ] == "incomplete"
        endless = await store.executions.execute(kernel_id, "while True: pass")
        async with store.table("executions").where(id=endless["id"]).live() as live:
            await live.wait_for(lambda live: live[endless["id"]]["status"] == "running")
            await store.executions.cancel(endless["id"])
            ended = await live.wait_for(
                lambda live: live[endless["id"]]["finished_at"] and live[endless["id"]]
            )
            assert ended["ename"] == "KeyboardInterrupt"
        listed = await store.executions.list(kernel_id=kernel_id, limit=1)
        assert [e["id"] for e in listed["executions"]] == [endless["id"]]
        code = (
            "from ipykernel.comm import Comm\n"
            "comm = Comm(target_name='echo')\n"
            "comm.on_msg(lambda m: comm.send({'got': m['content']['data']}))"
        )
        async with store.table("comms").where(kernel_id=kernel_id).live() as comms:
            assert (await store.executions.run(kernel_id, code))["status"] == "ok"
            comm = (await comms.wait_for(lambda live: live.records))[0]
            async with store.table("comm_messages").where(comm_id=comm["id"]).live() as messages:
                await store.comms.send(comm["id"], data={"n": 1})
                await messages.wait_for(
                    lambda live: any(m["data"] == {"got": {"n": 1}} for m in live.records)
                )
            await store.comms.close(comm["id"])
        await store.contents.upload("bytes.bin", b"\x00\xff")
        assert await store.contents.download("bytes.bin") == b"\x00\xff"
        checkpoint = await store.contents.create_checkpoint("bytes.bin")
        assert await store.contents.checkpoints("bytes.bin") == [checkpoint]
        await store.contents.delete_checkpoint("bytes.bin", checkpoint["id"])
        made = await store.contents.create(type="notebook")
        assert made["path"] in {c["path"] for c in (await store.contents.get())["content"]}
        await store.contents.delete(made["path"])
        with pytest.raises(ApiError) as missing:
            await store.contents.get(made["path"])
        assert missing.value.status == 404
        assert b"<html" in await store.contents.convert("actions.ipynb", "html")
        terminal = await store.terminals.start()
        async with store.table("terminals").live() as terminals:
            assert terminal["name"] in {t["name"] for t in terminals.records}
            await store.terminals.end(terminal["name"])
            await terminals.wait_for(lambda live: all(t["ended_at"] for t in live.records))
        assert await store.config.update("clientstest", {"a": {"b": 1}}) == {"a": {"b": 1}}
        assert (await store.config.get("clientstest"))["a"] == {"b": 1}
        assert (await store.request("GET /api/status"))["kernels"] >= 1
        token = await store.people.create_token(note="clients")
        async with store_of(server, token=token["token"]) as another:
            assert (await another.server.me())["identity"]["username"] == "ada"
        await store.people.revoke_token(token["id"])
        assert "ada" in {user["name"] for user in await store.people.users()}
        await store.sessions.end(session["id"])
        with pytest.raises(ApiError):
            await store.sessions.get(session["id"])
