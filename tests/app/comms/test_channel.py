"""The websocket of a comm: replay, live messages both ways, buffers, and how it ends."""

import asyncio
import json
import socket
import uuid

import pytest
from websockets.exceptions import InvalidStatus

from app.comms.schemas import request_of
from app.errors import BadRequestError
from app.recorder import followers
from tests.app.comms.conftest import ending, packed, received
from tests.app.comms.test_comms import TARGET, messages, open_comm, recorded
from tests.kernels import execute, finished, run, start_kernel, until


@pytest.fixture
async def kernel(client):
    kernel_id = await start_kernel(client)
    assert (await run(client, kernel_id, TARGET))["status"] == "ok"
    return kernel_id


@pytest.fixture
async def comm(client, kernel):
    return await open_comm(client, kernel)


def channel_of(client, comm, after=None, **options):
    query = "" if after is None else f"?after={after}"
    return client.connect(f"/api/comms/{comm['id']}/channel{query}", **options)


async def test_both_directions_with_buffers(client, comm):
    async with channel_of(client, comm) as channel, channel_of(client, comm) as other:
        for each in (channel, other):
            assert (await received(each))["msg_type"] == "comm_open"
        await channel.send(json.dumps({"data": {"n": 1}, "metadata": {"k": 2}}))
        await channel.send(packed({"data": {"n": 2}}, b"\x00abc", b"", b"z" * 100_000))
        for each in (channel, other):
            got = [await received(each) for _ in range(4)]
            assert [m["direction"] for m in got] == ["client", "kernel"] * 2
            assert (got[0]["data"], got[0]["metadata"]) == ({"n": 1}, {"k": 2})
            assert got[2]["buffers"] == [b"\x00abc", b"", b"z" * 100_000]
            assert got[3]["buffers"] == [b"cba\x00", b"", b"z" * 100_000]
            assert got[3]["data"] == {"got": {"n": 2}}
            assert (got[3]["metadata"], got[3]["msg_type"]) == ({"m": 1}, "comm_msg")
        assert got == [m for m in got if m["id"] > 0]
        recorded_ids = [m["id"] for m in (await messages(client, comm))["messages"]]
        assert recorded_ids[1:] == [m["id"] for m in got]


async def test_no_gap_and_no_duplicate_while_the_kernel_talks(client, kernel, comm):
    """Clients join, leave and resume while 600 messages are sent."""
    code = "import time\nfor i in range(600):\n    comms[0].send({'i': i})\n    time.sleep(0.002)"
    execution = await execute(client, kernel, code)

    async def follow(start_at, leave_every):
        await recorded(client, comm, start_at)
        got, after = [], 0
        while not got or got[-1] != 599:
            async with channel_of(client, comm, after) as channel:
                for _ in range(leave_every):
                    message = await received(channel)
                    assert message["id"] > after
                    after = message["id"]
                    if message["msg_type"] == "comm_msg":
                        got.append(message["data"]["i"])
                    if got and got[-1] == 599:
                        break
        return got

    followed = await asyncio.gather(follow(1, 10_000), follow(50, 100), follow(200, 37))
    assert followed == [list(range(600))] * 3
    assert (await finished(client, execution))["status"] == "ok"


async def test_closing_ends_every_connection(client, kernel, comm):
    async with channel_of(client, comm) as channel, channel_of(client, comm) as other:
        await received(channel)
        await channel.send(json.dumps({"msg_type": "comm_close", "data": {"bye": 1}}))
        last, code, _ = await ending(channel)
        assert (last["msg_type"], last["direction"], last["data"]) == (
            "comm_close",
            "client",
            {"bye": 1},
        )
        assert code == 1000
        assert (await ending(other))[0]["msg_type"] == "comm_close"
    async with channel_of(client, comm) as late:
        last, code, reason = await ending(late)
        assert (last["msg_type"], code, reason) == ("comm_close", 1000, "the comm was closed")
    record = await run(client, kernel, "print(len(get_ipython().kernel.comm_manager.comms))")
    assert record["outputs"][0]["text"] == "0\n"


async def test_what_was_dropped_is_replaced_by_the_state(client, kernel, settings):
    settings.comm_messages_kept = 1_000
    code = """
        from ipykernel.comm import Comm
        c = Comm(target_name='jupyter.widget', data={'state': {'value': 0, 'kept': 'so'}})
        for i in range(1, 1401):
            c.send({'method': 'update', 'state': {'value': i}})
    """
    assert (await run(client, kernel, "\n".join(line[8:] for line in code.split("\n"))))[
        "status"
    ] == "ok"
    (comm,) = [c for c in (await client.get(f"/api/kernels/{kernel}/comms")).json() if c["data"]]
    async with channel_of(client, comm) as channel:
        first = await received(channel)
        assert (first["msg_type"], first["snapshot"]) == ("comm_open", True)
        assert first["data"]["state"] == {"value": 1400, "kept": "so"}
        assert first["id"] == comm["dropped_through"]
        values = []
        while not values or values[-1] != 1400:
            values.append((await received(channel))["data"]["state"]["value"])
        assert values == list(range(values[0], 1401))
    # Who has read the state goes on from there.
    async with channel_of(client, comm, comm["last_message_id"]) as channel:
        await run(client, kernel, "c.send({'method': 'update', 'state': {'value': -1}})")
        assert (await received(channel))["data"]["state"] == {"value": -1}


async def test_a_slow_client_is_cut_off_and_can_resume(client, kernel, comm, monkeypatch):
    monkeypatch.setattr(followers, "_QUEUE_BYTES", 10_000_000)
    host, port = client.base_url.host, client.base_url.port
    thin = socket.socket()
    thin.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    thin.connect((host, port))
    request = (
        f"GET /api/comms/{comm['id']}/channel HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"Sec-WebSocket-Version: 13\r\nAuthorization: {client.headers['authorization']}\r\n\r\n"
    )
    thin.sendall(request.encode())  # and never reads
    waiters = client.app.state.waiters
    await until(lambda: waiters.comms.kernels() == {kernel})
    code = """
import time
for i in range(150):
    comms[0].send({'i': i}, buffers=[b'x' * 200_000])
    time.sleep(0.005)
"""
    async with channel_of(client, comm) as quick:
        assert (await received(quick))["msg_type"] == "comm_open"
        execution = await execute(client, kernel, code)
        got = [await received(quick) for _ in range(150)]
        assert [m["data"]["i"] for m in got] == list(range(150)), "others are not held up"
        await finished(client, execution)
    await until(lambda: not waiters.comms.kernels(), 15)
    thin.close()
    async with channel_of(client, comm, got[130]["id"]) as channel:
        assert (await received(channel))["data"] == {"i": 131}


async def test_a_follower_behind_is_told_why(client, kernel, comm, monkeypatch):
    monkeypatch.setattr(followers, "_QUEUE_MESSAGES", 0)
    async with channel_of(client, comm) as channel:
        first = await received(channel)
        await run(client, kernel, "comms[0].send({'i': 1})")
        _, code, reason = await ending(channel)
    assert (code, reason) == (1013, f"too slow: connect again with after={first['id']}")


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "no json",
        "[1]",
        '{"data": []}',
        '{"metadata": 1}',
        '{"msg_type": "comm_open"}',
        "[" * 100_000,
        b"",
        b"\x00\x00\x00\x01",
        b"\xff\xff\xff\xff" * 4,
        b"\x00\x00\x00\x01\x00\x00\x00\x09{}",
        b"\x00\x00\x00\x02\x00\x00\x00\x0c\x00\x00\x00\x01{}",
        b"\x00\x00\x00\x01\x00\x00\x00\x08\xff\xff",
        packed({"data": 1}, b"x"),
    ],
)
def test_frames_that_cannot_be(frame):
    text, data = (frame, None) if isinstance(frame, str) else (None, frame)
    with pytest.raises(BadRequestError):
        request_of(text, data, "c", uuid.uuid4())


async def test_a_bad_frame_ends_only_its_connection(client, kernel, comm):
    async with channel_of(client, comm) as good:
        await received(good)
        for frame in ("[" * 100_000, '{"msg_type": "comm_open"}', b"\xff\xff\xff\xff"):
            async with channel_of(client, comm) as bad:
                await bad.send(frame)
                _, code, reason = await ending(bad)
                assert code == 1007
                assert reason
        await good.send(json.dumps({"data": {"still": "here"}}))
        assert (await received(good))["data"] == {"still": "here"}


async def test_who_may_connect(client, kernel, comm):
    async def refused(path, **options):
        with pytest.raises(InvalidStatus) as error:
            async with client.connect(path, **options):
                pass
        return error.value.response

    path = f"/api/comms/{comm['id']}/channel"
    response = await refused(path, headers={})
    assert response.status_code == 403
    assert json.loads(response.body)["message"] == "Forbidden"
    for unknown in ("00000000-0000-0000-0000-000000000000", "no-id"):
        assert (await refused(f"/api/comms/{unknown}/channel")).status_code == 404
    assert (await refused(f"{path}?after=x")).status_code == 400


async def test_the_kernels_death_closes_it(client, kernel, comm):
    async with channel_of(client, comm) as channel:
        await received(channel)
        await run(client, kernel, "import os; os._exit(7)")
        last, code, reason = await ending(channel)
    assert last["reason"] == "the kernel exited with status 7"
    assert (code, reason) == (1000, last["reason"])
