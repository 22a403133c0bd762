"""Kernels' messages over websockets, with real kernels and a real server."""

import asyncio
import contextlib
import json
import os
import signal
import struct
import uuid
from socket import IPPROTO_TCP, TCP_NODELAY

import pytest
import pytest_asyncio
from sqlalchemy import select
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.errors import ForbiddenError
from app.settings import Settings
from models import Execution, InputRequest
from tests.conftest import TOKEN
from tests.kernels import finished, start_kernel, text_of, until
from tests.websockets import (
    V1,
    encode_v1,
    front,
    is_idle,
    is_reply,
    listening,
    parent_id,
    streamed,
    url_of,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(module_database_url, tmp_path_factory):
    folder = tmp_path_factory.mktemp("channels")
    settings = Settings(
        root_dir=folder,
        owner="ada",
        kernel_poll_seconds=0.2,
        save_delay_seconds=0.05,
        channel_buffer_bytes=20_000,
        channel_queue_bytes=8_000_000,
        websocket_max_message_bytes=100_000,
    )
    async with listening(settings, module_database_url, folder / "data") as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kernel(server):
    """A kernel that all tests share which leave it as it was."""
    return await start_kernel(server)


@pytest_asyncio.fixture(loop_scope="module")
async def own_kernel(server):
    """A kernel of one test's own."""
    kernel = await start_kernel(server)
    yield kernel
    await server.delete(f"/api/kernels/{kernel}")


async def record_of(server, msg_id):
    """Return the record of an execution that has been recorded by now or soon."""

    async def found():
        query = {"limit": 1000}
        records = (await server.get("/api/executions", params=query)).json()["executions"]
        return [record for record in records if record["msg_id"] == msg_id]

    (record,) = await until(found)
    return record


async def finished_record(server, msg_id):
    return await finished(server, await record_of(server, msg_id))


async def connections(server, kernel):
    return (await server.get(f"/api/kernels/{kernel}")).json()["connections"]


@pytest.mark.parametrize("subprotocol", [V1, None])
async def test_code_runs_and_is_recorded_with_its_actor(server, kernel, subprotocol):
    async with front(server, kernel, subprotocol=subprotocol) as client:
        assert client.connection.subprotocol == subprotocol
        assert await connections(server, kernel) == 1
        messages = await client.run("print('é', 1); 6*7")
        types = [(m["channel"], m["header"]["msg_type"]) for m in messages]
        assert ("shell", "execute_reply") in types
        order = [name for channel, name in types if channel == "iopub"]
        assert order == ["status", "execute_input", "stream", "execute_result", "status"]
        assert streamed(messages) == "é 1\n"
        result = next(m for m in messages if m["header"]["msg_type"] == "execute_result")
        if subprotocol is None:
            assert messages[0]["msg_type"] == messages[0]["header"]["msg_type"]
            assert messages[0]["msg_id"] == messages[0]["header"]["msg_id"]
        record = await finished_record(server, parent_id(messages[0]))
    assert (record["status"], record["client"], record["actor"]) == ("ok", "channel", "ada")
    assert record["code"] == "print('é', 1); 6*7"
    assert record["execution_count"] == result["content"]["execution_count"]
    assert text_of(record) == "é 1\n"

    async def gone():
        return await connections(server, kernel) == 0

    await until(gone)


@pytest.mark.parametrize("subprotocol", [V1, None])
async def test_buffers_go_both_ways(server, kernel, subprotocol):
    async with front(server, kernel, subprotocol=subprotocol) as client:
        await client.run(
            "def opened(comm, message):\n"
            "    comm.send({'n': 1}, buffers=[b'', *message['buffers'], bytes(range(256))])\n"
            "get_ipython().kernel.comm_manager.register_target('echo', opened)"
        )
        content = {"comm_id": "c1", "target_name": "echo", "data": {}}
        await client.send("comm_open", content, buffers=[b"\0\xff", b"second"])
        found = await client.until(lambda m: m["header"]["msg_type"] == "comm_msg")
        assert found[-1]["buffers"] == [b"", b"\0\xff", b"second", bytes(range(256))]
        assert found[-1]["content"]["data"] == {"n": 1}


async def test_replies_and_questions_go_to_the_client_that_asked(server, kernel):
    async with front(server, kernel) as one, front(server, kernel, subprotocol=None) as other:
        assert await connections(server, kernel) == 2
        msg_id = await one.execute("print('name', input('who? '))")
        (*before, question) = await one.until(lambda m: m["channel"] == "stdin")
        assert question["content"] == {"prompt": "who? ", "password": False}
        await one.send(
            "input_reply",
            {"value": "Ada", "status": "ok"},
            channel="stdin",
            parent_header=question["header"],
        )
        messages = before + await one.done(msg_id)
        assert "name Ada" in streamed(messages)
        seen = await other.until(lambda m: is_idle(m, msg_id))
        assert streamed(seen) == streamed(messages), "both see all of iopub"
        assert {m["channel"] for m in seen} == {"iopub"}, "the reply is not for the other"
        await one.run("1")
        row = await question_of(server, await finished_record(server, msg_id))
    assert (row.status, row.value) == ("answered", "Ada")


async def question_of(server, record):
    query = select(InputRequest).where(InputRequest.execution_id == uuid.UUID(record["id"]))
    async with server.app.state.database.read() as tx:
        return (await tx.execute(query)).scalar_one()


async def test_a_password_is_not_stored_and_an_answer_needs_no_parent(server, kernel):
    async with front(server, kernel) as client:
        msg_id = await client.execute("import getpass; print(len(getpass.getpass()))")
        await client.until(lambda m: m["channel"] == "stdin")
        await client.send("input_reply", {"value": "secret"}, channel="stdin")
        assert streamed(await client.done(msg_id)) == "6\n"
        row = await question_of(server, await finished_record(server, msg_id))
    assert (row.status, row.value, row.password) == ("answered", None, True)


async def test_anyone_may_answer_after_the_browser_has_gone(server, kernel):
    async with front(server, kernel) as client:
        msg_id = await client.execute("print('said', input('? '))")
        await client.until(lambda m: m["channel"] == "stdin")
    record = await record_of(server, msg_id)

    async def asks():
        return (await server.get(f"/api/executions/{record['id']}")).json()["input_request"]

    await until(asks)
    answer = await server.post(f"/api/executions/{record['id']}/input", json={"value": "yes"})
    assert answer.status_code == 201
    again = await server.post(f"/api/executions/{record['id']}/input", json={"value": "no"})
    assert again.status_code == 409
    assert "said yes" in text_of(await finished(server, record))


async def test_only_the_first_answer_reaches_the_kernel(server, kernel):
    async with front(server, kernel) as client:
        msg_id = await client.execute("a = input('a'); b = input('b'); print(a, b)")
        first = (await client.until(lambda m: m["channel"] == "stdin"))[-1]
        record = await record_of(server, msg_id)

        async def answered():
            body = {"value": "rest"}
            return (
                await server.post(f"/api/executions/{record['id']}/input", json=body)
            ).is_success

        await until(answered)
        second = (await client.until(lambda m: m["channel"] == "stdin"))[-1]
        # A late answer to the first question must not be taken for one to the second.
        for question, value in ((first, "late"), (second, "socket")):
            await client.send(
                "input_reply", {"value": value}, channel="stdin", parent_header=question["header"]
            )
        assert streamed(await client.done(msg_id)).endswith("rest socket\n")


async def test_the_control_channel(server, kernel):
    async with front(server, kernel) as client:
        msg_id = await client.execute("import time; print('on'); time.sleep(60)")
        await client.until(lambda m: m["header"]["msg_type"] == "stream")
        info = {"type": "request", "seq": 1, "command": "debugInfo", "arguments": {}}
        debug_id = await client.send("debug_request", info, channel="control")
        reply = await client.reply(debug_id)
        assert (reply["channel"], reply["content"]["success"]) == ("control", True)
        await server.post(f"/api/kernels/{kernel}/interrupt")
        await client.done(msg_id)
        record = await finished_record(server, msg_id)
    assert (record["status"], record["ename"]) == ("error", "KeyboardInterrupt")


async def test_two_hundred_queued_executions_are_answered_in_order(server, kernel):
    async with front(server, kernel) as client:
        ids = [await client.execute(f"print({i})") for i in range(200)]
        messages = await client.done(ids[-1])
        replies = [m for m in messages if m["channel"] == "shell"]
        assert [parent_id(m) for m in replies] == ids
        assert streamed(messages) == "".join(f"{i}\n" for i in range(200))
        await finished_record(server, ids[-1])
    query = select(Execution).where(Execution.msg_id.in_(ids)).order_by(Execution.seq)
    async with server.app.state.database.read() as tx:
        rows = (await tx.execute(query)).scalars().all()
    assert [row.msg_id for row in rows] == ids
    assert {row.status for row in rows} == {"ok"}


async def test_an_error_aborts_what_is_queued_behind_it(server, kernel):
    async with front(server, kernel) as client:
        ids = [await client.execute(code) for code in ("import time; time.sleep(.3); 1/0", "2")]
        replies = [m for m in await client.done(ids[1]) if m["channel"] == "shell"]
        assert [m["content"]["status"] for m in replies] == ["error", "aborted"]
        failed, aborted = [await finished_record(server, msg_id) for msg_id in ids]
    assert (failed["status"], failed["ename"]) == ("error", "ZeroDivisionError")
    assert aborted["status"] == "aborted"


async def test_an_execution_of_a_client_can_be_stopped_over_http(server, kernel):
    async with front(server, kernel) as client:
        running = await client.execute("import time; print('on'); time.sleep(60)")
        await client.until(lambda m: m["header"]["msg_type"] == "stream")
        queued = await client.execute("time.sleep(60)", stop_on_error=False)
        ok = await client.execute("'after'")
        queued_record = await record_of(server, queued)
        running_record = await record_of(server, running)

        assert (await server.delete(f"/api/executions/{queued_record['id']}")).status_code == 204
        assert (await server.delete(f"/api/executions/{running_record['id']}")).status_code == 204
        await client.done(ok)
    assert (await finished(server, running_record))["ename"] == "KeyboardInterrupt"
    assert (await finished(server, queued_record))["status"] in ("aborted", "error")


async def test_nothing_is_held_back_or_compressed(server, kernel):
    async with front(server, kernel) as client:  # which offers to compress
        assert client.connection.protocol.extensions == []
        for connection in server.uvicorn.server_state.connections:
            socket = connection.transport.get_extra_info("socket")
            assert socket.getsockopt(IPPROTO_TCP, TCP_NODELAY)


# coming back


async def test_what_was_said_meanwhile_is_replayed_in_order(server, kernel):
    code = (
        "import time\nprint('start', flush=True)\ntime.sleep(.5)\n"
        "for i in range(20): print(i, flush=True)"
    )
    async with front(server, kernel) as witness:
        async with front(server, kernel, session="any string é/1") as client:
            msg_id = await client.execute(code)
            before = await client.until(lambda m: m["header"]["msg_type"] == "stream")
        await witness.until(lambda m: is_idle(m, msg_id))
        async with front(server, kernel, session="any string é/1", subprotocol=None) as client:
            after = await client.done(msg_id)
            expected = "start\n" + "".join(f"{i}\n" for i in range(20))
            assert streamed(before + after) == expected
            assert sum(is_reply(m, msg_id) for m in after) == 1, "its reply was kept too"
            # What has been replayed is gone, and the connection is live.
            assert streamed(await client.run("print('live')")) == "live\n"


async def test_what_does_not_fit_is_said(server, kernel):
    async with front(server, kernel, session="s") as client, front(server, kernel) as witness:
        msg_id = await client.execute(
            "import time; time.sleep(.5)\nfor i in range(100): print('x' * 999, flush=True)"
        )
        await client.until(lambda m: m["header"]["msg_type"] == "execute_input")
        await client.connection.close()
        await witness.until(lambda m: is_idle(m, msg_id))
    async with front(server, kernel, session="s") as client:
        messages = await client.until(lambda m: is_idle(m, msg_id))
        notice = messages[0]
        assert notice["content"]["name"] == "stderr"
        assert "not kept" in notice["content"]["text"]
        assert parent_id(notice) == msg_id, "shown where it is missing"
        assert 0 < streamed(messages[1:]).count("\n") < 100
        record = await finished_record(server, msg_id)
    assert text_of(record) == ("x" * 999 + "\n") * 100, "the tables have it all"


async def test_a_new_connection_of_a_session_replaces_the_old_one(server, kernel):
    async with front(server, kernel, session="s") as old:
        await old.run("1")
        msg_id = await old.execute("import time; time.sleep(.3); print('x')")
        async with front(server, kernel, session="s") as new:
            closed = await old.closed()
            assert closed.rcvd.code == 1000
            assert "x" in streamed(await new.until(lambda m: is_reply(m, msg_id)))
            assert await connections(server, kernel) == 1
            assert streamed(await new.run("print(2)")) == "2\n"


# slow and bad clients


async def test_a_client_that_does_not_read_is_closed_and_costs_nobody(server, kernel):
    async with (
        front(server, kernel, session="slow", close_timeout=0.2) as slow,
        front(server, kernel) as other,
    ):
        # Its socket's buffers fill, and nobody empties them.
        slow.connection.transport.pause_reading()
        # Not faster than the other, which shares this thread with the server, can read.
        code = "import time\nfor i in range(200): print('x' * 99_999, flush=True); time.sleep(0.01)"
        messages = await other.run(code)
        assert len(streamed(messages)) == 20_000_000
        assert (await finished_record(server, parent_id(messages[0])))["output_bytes"] == 20_000_000
        hub = server.app.state.kernels.get(kernel).clients
        await until(lambda: hub.count == 1)
        kept = max(client.queued_bytes for client in hub._away.values())
        assert kept <= 20_000, "no more than for any other client that is away"


async def test_rubbish_closes_one_client_only(server, kernel):
    async with front(server, kernel) as witness:
        for subprotocol, frame, code in [
            (None, "{", 1007),
            (None, "[1]", 1007),
            (None, b"", 1007),
            (None, b"\0\0\0\1\0\0\0\xff{}", 1007),
            (None, struct.pack("!I", 2**31), 1007),
            (V1, b"", 1007),
            (V1, b"\1", 1007),
            (V1, struct.pack("<Q", 2**63), 1007),
            (V1, struct.pack("<7Q", 6, 0, 1, 2, 3, 4, 5), 1007),
            (V1, struct.pack("<7Q", 6, 56, 99, 57, 58, 59, 60) + b"12345678", 1007),
            (V1, "text", 1003),
        ]:
            async with front(server, kernel, subprotocol=subprotocol) as client:
                await client.connection.send(frame)
                closed = await client.closed()
                assert closed.rcvd.code == code, (frame, closed)
                assert closed.rcvd.reason
        assert streamed(await witness.run("print(1)")) == "1\n"


async def test_messages_that_no_kernel_can_be_sent_are_ignored(server, kernel):
    async with front(server, kernel) as client:
        good = client.message("kernel_info_request", {})
        for change in (
            {"channel": "nowhere"},
            {"channel": "iopub"},
            {"header": {}},
            {"header": []},
            {"header": {**good["header"], "msg_id": 5}},
            {"header": {**good["header"], "msg_id": "x" * 256}},
            {"header": {**good["header"], "msg_type": None}},
        ):
            await client.connection.send(encode_v1({**good, **change}))
        broken = client.message("execute_request", {"code": "print('no')"})
        await client.connection.send(encode_v1(broken).replace(b'"print(', b'"print(\n', 1))
        await client.connection.send(encode_v1({**broken, "content": ["no"]}))
        await client.send("input_reply", {"value": "nobody asked"}, channel="stdin")
        odd = {"cellId": "c\0\ud800", "deletedCells": 5}
        ids = [await client.execute("print('odd')", metadata=odd)]
        ids.append(await client.execute("print('long')", metadata={"cellId": "c" * 10_000}))
        nul = client.message("execute_request", {"code": "print('nul')\n"})
        # Its own in each run: the test may be tried again, on the same kernel.
        nul["header"]["msg_id"] = f"{client.session}\0"
        await client.connection.send(encode_v1(nul))
        said = await client.done(nul["header"]["msg_id"])
        assert streamed(said + await client.run("print('yes')")) == "odd\nlong\nnul\nyes\n"
        ids.append(f"{client.session}\ufdd00000")
        records = [await finished_record(server, msg_id) for msg_id in ids]
    assert [text_of(r) for r in records] == ["odd\n", "long\n", "nul\n"]
    assert [r["status"] for r in records] == ["ok"] * 3
    assert [r["cell_id"] for r in records] == ["c\ufdd00000\ufdd0d800", None, None]


async def test_the_same_message_id_twice(server, kernel):
    """The kernel drops a message that it has had already; two rows could not be told apart."""
    async with front(server, kernel) as client:
        message = client.message("execute_request", {"code": "print('once')"})
        await client.connection.send(encode_v1(message))
        await client.done(message["header"]["msg_id"])
        await client.connection.send(encode_v1(message))
        await client.run("2")
        record = await finished_record(server, message["header"]["msg_id"])
    assert text_of(record) == "once\n"


async def test_messages_over_the_limit_are_refused(server, kernel):
    async with front(server, kernel) as client, front(server, kernel) as other:
        with contextlib.suppress(ConnectionClosed):
            await client.execute("#" * 100_001)
        closed = await client.closed()
        assert closed.rcvd.code == 1009
        # What the kernel says is not limited by this.
        assert len(streamed(await other.run("print('x' * 500_000)"))) == 500_001


async def test_a_client_that_goes_in_mid_frame(server, kernel):
    async with front(server, kernel) as client, front(server, kernel) as other:
        # The head of a masked binary frame of 1,000 bytes, and no more.
        client.connection.transport.write(b"\x82\xfe\x03\xe8\0\0\0\0half")
        client.connection.transport.abort()

        async def noticed():
            return await connections(server, kernel) == 1

        await until(noticed)
        assert streamed(await other.run("print(1)")) == "1\n"


async def test_who_may_connect(server, kernel):
    refused = [
        (kernel, {}, {}, 403),
        (kernel, {"token": "wrong"}, {}, 403),
        ("00000000-0000-0000-0000-000000000000", {"token": TOKEN}, {}, 404),
    ]
    for kernel_id, query, headers, status in refused:
        with pytest.raises(InvalidStatus) as answer:
            await connect(url_of(server, kernel_id, **query), additional_headers=headers)
        assert answer.value.response.status_code == status
        assert set(json.loads(answer.value.response.body)) == {"message", "reason"}
    for query, headers in [
        ({"token": TOKEN}, {}),
        ({}, {"Authorization": f"Bearer {TOKEN}"}),
    ]:
        async with connect(url_of(server, kernel, **query), additional_headers=headers) as made:
            assert made.subprotocol is None, "without a session_id too"


async def test_the_origin_is_asked_about(server, kernel):
    def check(connection):
        if connection.headers.get("origin") == "http://evil":
            raise ForbiddenError("Forbidden", reason="origin")

    server.app.state.check_origin = check
    with pytest.raises(InvalidStatus) as answer:
        await connect(url_of(server, kernel, token=TOKEN), origin="http://evil")
    assert answer.value.response.status_code == 403
    del server.app.state.check_origin


# restarts and deaths


async def test_a_restart_is_seen_by_all_clients_and_their_websockets_stay(server, own_kernel):
    kernel = own_kernel
    async with front(server, kernel) as one, front(server, kernel, subprotocol=None) as other:
        msg_id = await one.execute("x = 1; import time; print('on'); time.sleep(60)")
        await one.until(lambda m: m["header"]["msg_type"] == "stream")
        queued = await other.execute("2")
        assert (await server.post(f"/api/kernels/{kernel}/restart")).status_code == 200
        # Nobody waits for ever for what the ended process had not done.
        for client, waiting in ((one, msg_id), (other, queued)):
            (reply,) = [m for m in await client.done(waiting) if is_reply(m, waiting)]
            assert reply["content"]["status"] in ("aborted", "error")
            await client.until(lambda m: m["content"].get("execution_state") == "starting")
        assert streamed(await one.run("print('x' in globals())")) == "False\n"
        assert streamed(await other.run("print('still here')")) == "still here\n"
        records = [await finished_record(server, waiting) for waiting in (msg_id, queued)]
    assert [r["status"] for r in records] == ["interrupted", "interrupted"]
    assert records[0]["reason"] == "the kernel was restarted"


async def test_a_killed_kernel_comes_back_and_says_so(server, own_kernel):
    kernel = own_kernel  # connected to while it starts
    async with front(server, kernel) as client:
        msg_id = await client.execute("import time; print('on'); time.sleep(60)")
        await client.until(lambda m: m["header"]["msg_type"] == "stream")
        os.kill(server.app.state.kernels.get(kernel).process.pid, signal.SIGKILL)
        messages = await client.until(lambda m: m["content"].get("execution_state") == "restarting")
        assert any(is_reply(m, msg_id) for m in messages)
        # Sent while it starts: it waits for the new process.
        assert streamed(await client.run("print('again')")) == "again\n"
        first = await finished_record(server, msg_id)
    assert first["status"] == "interrupted"
    assert "SIGKILL" in first["reason"]


async def test_a_kernel_that_stays_dead(server, own_kernel, monkeypatch):
    kernel = own_kernel
    running = server.app.state.kernels.get(kernel)
    async with front(server, kernel) as client:
        await client.run("1")
        monkeypatch.setattr(running._settings, "kernel_restart_limit", 0)
        os.kill(running.process.pid, signal.SIGKILL)
        await client.until(lambda m: m["content"].get("execution_state") == "dead")
        with pytest.raises(InvalidStatus) as answer:
            async with front(server, kernel):
                pass
        assert answer.value.response.status_code == 404
        # The websocket is there when somebody brings the kernel back.
        assert (await server.post(f"/api/kernels/{kernel}/restart")).status_code == 200
        assert streamed(await client.run("print('back')")) == "back\n"


async def test_shutting_down_closes_the_websockets(server, own_kernel):
    kernel = own_kernel
    async with front(server, kernel) as client:
        await client.run("1")
        await server.delete(f"/api/kernels/{kernel}")
        closed = await client.closed()
        assert closed.rcvd.reason == "the kernel was shut down"


async def test_many_clients(server, kernel):
    async def one(number):
        async with front(server, kernel, subprotocol=V1 if number % 2 else None) as client:
            msg_id = await client.execute(f"print({number})")
            mine = await client.done(msg_id)
            assert [m["channel"] for m in mine].count("shell") == 1
            return streamed([m for m in mine if parent_id(m) == msg_id])

    said = await asyncio.gather(*(one(number) for number in range(20)))
    assert said == [f"{number}\n" for number in range(20)]
