"""Comms over HTTP: opening, sending, listing, closing, and what is refused."""

import base64
import json
import uuid

import pytest
from sqlalchemy import func, select

from app.recorder import tracked_comms
from models import Comm, CommMessage
from tests.kernels import (
    execute,
    finished,
    input_request,
    run,
    start_kernel,
    status_is,
    text_of,
    until,
)
from tests.websockets import front

# A target that answers each message with its buffers reversed.
TARGET = """
from ipykernel.comm import Comm
comms = []
def opened(comm, message):
    comms.append(comm)
    comm.on_msg(lambda m: comm.send({'got': m['content']['data']}, metadata={'m': 1},
                                    buffers=[bytes(b)[::-1] for b in m['buffers']]))
    comm.on_close(lambda m: print('closed with', m['content']['data']))
get_ipython().kernel.comm_manager.register_target('echo', opened)
"""


@pytest.fixture
async def kernel(client):
    kernel_id = await start_kernel(client)
    assert (await run(client, kernel_id, TARGET))["status"] == "ok"
    return kernel_id


async def open_comm(client, kernel, **body):
    response = await client.post(
        f"/api/kernels/{kernel}/comms", json={"target_name": "echo", **body}
    )
    assert response.status_code == 201, response.text
    return response.json()


async def messages(client, comm, **params):
    response = await client.get(f"/api/comms/{comm['id']}/messages", params=params)
    assert response.status_code == 200, response.text
    return response.json()


async def recorded(client, comm, count):
    async def there():
        found = (await messages(client, comm, limit=1000))["messages"]
        return found if len(found) >= count else None

    return await until(there)


async def test_open_send_read_close(client, kernel):
    buffers = [base64.b64encode(b"\x00\xffopen").decode()]
    odd = {"text": "\ud800\x00", "n": 1.5, "\udfff\x00": {"\ud800": 1}}
    body = json.dumps(
        {"target_name": "echo", "data": odd, "metadata": {"k": 1}, "buffers": buffers}
    )
    response = await client.post(f"/api/kernels/{kernel}/comms", content=body)
    assert response.status_code == 201, response.text
    comm = response.json()
    assert (comm["state"], comm["data"], comm["metadata"]) == ("open", odd, {"k": 1})
    assert comm["buffers"] == buffers
    url = f"/api/comms/{comm['id']}/messages"
    sent = {"data": {"n": 1}, "buffers": [base64.b64encode(b"abc").decode(), ""]}
    msg_id = (await client.post(url, json=sent)).json()["msg_id"]
    opening, mine, answer = await recorded(client, comm, 3)
    assert (opening["msg_type"], opening["direction"], opening["data"]) == (
        "comm_open",
        "client",
        odd,
    )
    assert (mine["msg_id"], mine["direction"], mine["data"]) == (msg_id, "client", {"n": 1})
    assert mine["buffers"] == sent["buffers"]
    assert (answer["direction"], answer["data"]) == ("kernel", {"got": {"n": 1}})
    assert [base64.b64decode(b) for b in answer["buffers"]] == [b"cba", b""]
    assert answer["metadata"] == {"m": 1}
    page = await messages(client, comm, after=opening["id"], limit=1)
    assert [m["id"] for m in page["messages"]] == [mine["id"]]
    assert page["next"] == mine["id"]
    assert page["last_message_id"] == answer["id"]
    listed = (await client.get(f"/api/kernels/{kernel}/comms")).json()
    assert listed == [{**comm, "last_message_id": answer["id"]}]
    params = {"comm_id": comm["comm_id"], "target_name": "echo"}
    listed = (await client.get(f"/api/kernels/{kernel}/comms", params=params)).json()
    assert [c["id"] for c in listed] == [comm["id"]]
    body = json.dumps({"data": {"bye": 1}})
    gone = await client.request("DELETE", f"/api/comms/{comm['id']}", content=body)
    assert gone.status_code == 204
    assert (await client.get(f"/api/kernels/{kernel}/comms")).json() == []
    closed = (await client.get(f"/api/comms/{comm['id']}")).json()
    assert (closed["state"], closed["data"], closed["buffers"]) == ("closed", {}, [])
    assert closed["closed_at"]
    assert (await client.delete(f"/api/comms/{comm['id']}")).status_code == 409
    error = await client.post(url, json={"data": {}})
    assert (error.status_code, error.json()["message"]) == (409, "The comm is closed")
    assert (await messages(client, comm))["messages"] == []


async def test_a_target_that_the_kernel_does_not_know(client, kernel):
    comm = await open_comm(client, kernel, target_name="nobody")

    async def closed():
        return (await client.get(f"/api/comms/{comm['id']}")).json()["state"] == "closed"

    await until(closed)


async def test_messages_to_a_busy_kernel_have_the_kernels_order(client, kernel):
    comm = await open_comm(client, kernel)
    code = "import time\ncomms[0].send({'first': 1})\ninput()\ncomms[0].send({'second': 2})"
    execution = await execute(client, kernel, code)
    await status_is(client, execution, "running")
    await recorded(client, comm, 2)
    for n in range(3):
        await client.post(f"/api/comms/{comm['id']}/messages", json={"data": {"n": n}})

    async def asks():
        return (await client.get(f"/api/executions/{execution['id']}")).json()["input_request"]

    await until(asks)
    assert len((await messages(client, comm))["messages"]) == 2, "not taken up yet"
    await client.post(f"/api/executions/{execution['id']}/input", json={"value": ""})
    await finished(client, execution)
    told = [m["data"] for m in await recorded(client, comm, 9)]
    assert told == [
        {},
        {"first": 1},
        {"second": 2},
        *[data for n in range(3) for data in ({"n": n}, {"got": {"n": n}})],
    ]


async def test_one_comm_id_in_two_kernels(client, kernel):
    other = await start_kernel(client)
    await run(client, other, TARGET)
    comms = [await open_comm(client, k, comm_id="same") for k in (kernel, other)]
    assert comms[0]["id"] != comms[1]["id"]
    assert {c["comm_id"] for c in comms} == {"same"}
    again = await client.post(
        f"/api/kernels/{kernel}/comms", json={"target_name": "echo", "comm_id": "same"}
    )
    assert again.status_code == 409
    await client.post(f"/api/comms/{comms[0]['id']}/messages", json={"data": {"to": 1}})
    await recorded(client, comms[0], 3)
    assert len((await messages(client, comms[1]))["messages"]) == 1
    assert (await client.delete(f"/api/comms/{comms[0]['id']}")).status_code == 204
    # A closed one's id may be used again; nothing of its first life is left.
    comm = await open_comm(client, kernel, comm_id="same", data={"life": 2})
    assert [m["data"] for m in (await messages(client, comm))["messages"]] == [{"life": 2}]


@pytest.fixture
def settings(settings):
    settings.comm_messages_kept = 20
    settings.comm_bytes_kept = 100_000
    return settings


async def test_many_messages_stay_small_and_the_state_is_whole(client, database):
    """A slider dragged for long, and a widget with a large buffer."""
    kernel = await start_kernel(client)
    code = """
        from ipykernel.comm import Comm
        state = {'value': 0, 'kept': 'as it was', 'array': {'shape': [2]}}
        c = Comm(target_name='jupyter.widget', metadata={'version': '2.1.0'}, buffers=[b'one'],
                 data={'state': state, 'buffer_paths': [['array', 'data']]})
        for i in range(1, 501):
            c.send({'method': 'update', 'state': {'value': i}, 'buffer_paths': []})
        other = Comm(target_name='big')
        for i in range(5):
            other.send({'i': i}, buffers=[b'x' * 70_000])
    """
    record = await run(client, kernel, "\n".join(line[8:] for line in code.split("\n")))
    assert record["status"] == "ok", record["evalue"]
    widget, big = (await client.get(f"/api/kernels/{kernel}/comms")).json()
    assert widget["data"]["state"] == {"value": 500, "kept": "as it was", "array": {"shape": [2]}}
    assert widget["data"]["buffer_paths"] == [["array", "data"]]
    assert [base64.b64decode(b) for b in widget["buffers"]] == [b"one"]
    kept = (await messages(client, widget, limit=1000))["messages"]
    assert 20 <= len(kept) <= 25
    assert kept[-1]["data"]["state"]["value"] == 500
    assert kept[-1]["id"] == widget["last_message_id"]
    assert widget["dropped_through"] < kept[0]["id"]
    assert widget["dropped_through"] > 0
    assert [m["data"]["i"] for m in (await messages(client, big))["messages"]] == [4]
    async with database.read() as tx:
        row = (
            await tx.execute(select(Comm).where(Comm.target_name == "jupyter.widget"))
        ).scalar_one()
        query = select(func.count(), func.sum(CommMessage.size_bytes))
        counted = (await tx.execute(query.where(CommMessage.comm_id == row.id))).one()
    assert (row.messages_kept, row.bytes_kept) == tuple(counted)


@pytest.mark.parametrize("subprotocol", ["v1.kernel.websocket.jupyter.org", None])
async def test_what_a_front_end_says_on_the_kernels_websocket(client, kernel, subprotocol):
    odd = {"text": "\ud800\x00"} if subprotocol is None else {"text": "x"}
    async with front(client, kernel, subprotocol=subprotocol) as page:
        content = {"comm_id": "of\x00 a page", "target_name": "echo", "data": odd}
        opening = await page.send("comm_open", content)
        said = {"comm_id": "of\x00 a page", "data": {"n": 1}}
        sent = await page.send("comm_msg", said, metadata={"k": 2}, buffers=[b"\x00abc"])
        await page.send("comm_msg", {"data": {"without": "an id"}})

        async def there():
            return (await client.get(f"/api/kernels/{kernel}/comms")).json()

        (comm,) = await until(there)
        assert (comm["comm_id"], comm["data"]) == ("of\x00 a page", odd)
        first, second, third = await recorded(client, comm, 3)
        assert (first["msg_id"], first["direction"]) == (opening, "client")
        assert (second["msg_id"], second["direction"]) == (sent, "client")
        assert (second["data"], second["metadata"]) == ({"n": 1}, {"k": 2})
        assert second["buffers"] == [base64.b64encode(b"\x00abc").decode()]
        assert (third["direction"], third["data"]) == ("kernel", {"got": {"n": 1}})
        await page.send("comm_close", {"comm_id": "of\x00 a page", "data": {}})

        async def closed():
            record = (await client.get(f"/api/comms/{comm['id']}")).json()
            return record["state"] == "closed"

        await until(closed)


async def test_a_kernel_that_takes_nothing_up_is_not_drowned(client, kernel, monkeypatch):
    comm = await open_comm(client, kernel)
    execution = await execute(client, kernel, "input()")
    await input_request(client, execution)
    monkeypatch.setattr(tracked_comms, "_WAITING", 2)
    url = f"/api/comms/{comm['id']}/messages"
    assert (await client.post(url, json={})).status_code == 202
    assert (await client.post(url, json={})).status_code == 202
    await client.app.state.kernels.get(kernel).recorder.drain()
    assert (await client.post(url, json={})).status_code == 503
    await client.post(f"/api/executions/{execution['id']}/input", json={"value": ""})
    await recorded(client, comm, 5)
    assert (await client.post(url, json={})).status_code == 202


async def test_what_is_refused(client, kernel):
    comm = await open_comm(client, kernel)
    opening, sending = f"/api/kernels/{kernel}/comms", f"/api/comms/{comm['id']}/messages"
    for url, body in [
        (opening, {}),
        (opening, {"target_name": ""}),
        (opening, {"target_name": 1}),
        (opening, {"target_name": "echo", "comm_id": ""}),
        (opening, {"target_name": "echo", "data": []}),
        (sending, {"data": 1}),
        (sending, {"metadata": "x"}),
        (sending, {"buffers": "AAAA"}),
        (sending, {"buffers": ["not base64!"]}),
        (sending, {"buffers": [1]}),
        (sending, []),
    ]:
        response = await client.post(url, json=body)
        assert response.status_code == 400, (url, body, response.text)
        assert set(response.json()) == {"message", "reason"}
    for params in ({"after": -1}, {"after": 2**63}, {"limit": 0}, {"after": "x"}):
        assert (await client.get(sending, params=params)).status_code == 400
    assert (await client.get(opening, params={"state": "ajar"})).status_code == 400
    assert (await client.get(opening, params={"comm_id": "\x00"})).status_code == 400
    for unknown in (str(uuid.uuid4()), "not-an-id"):
        for method, path in [
            ("GET", f"/api/comms/{unknown}"),
            ("DELETE", f"/api/comms/{unknown}"),
            ("GET", f"/api/comms/{unknown}/messages"),
            ("POST", f"/api/comms/{unknown}/messages"),
            ("GET", f"/api/kernels/{unknown}/comms"),
            ("POST", f"/api/kernels/{unknown}/comms"),
        ]:
            body = {} if method == "GET" else {"content": json.dumps({"target_name": "t"})}
            response = await client.request(method, path, **body)
            assert response.status_code == 404, (method, path, response.text)
            anonymous = await client.request(method, path, headers={"Authorization": ""}, **body)
            assert anonymous.status_code in (403, 404), (method, path)
    for method, path in [
        ("GET", f"/api/comms/{comm['id']}"),
        ("DELETE", f"/api/comms/{comm['id']}"),
        ("GET", sending),
        ("POST", sending),
        ("GET", opening),
        ("POST", opening),
    ]:
        anonymous = await client.request(method, path, headers={"Authorization": ""})
        assert anonymous.status_code == 403, (method, path)
    assert (await client.get(f"/api/comms/{comm['id']}")).json()["state"] == "open"
    text = text_of(await run(client, kernel, "print(len(comms))"))
    assert text == "1\n", "nothing that was refused reached the kernel"
