import contextlib
import json

import httpx
import pytest
import websockets

from app.events import events as events_module
from app.events.events import CONTENTS, KERNELS
from tests.kernels import until
from tests.live import live, receive_json, refused

EVENT = {"schema_id": CONTENTS, "version": "1", "data": {"action": "get", "path": "a"}}


@pytest.fixture
async def server(settings, database_url, tmp_path):
    async with live(settings, database_url, tmp_path / "data") as made:
        yield made


async def subscribed(server, count=1):
    await until(lambda: len(server.app.state.events._subscriptions) == count)


async def test_published_events_reach_every_subscriber_in_order(server):
    async with server.connect("/api/events/subscribe") as one:
        async with server.connect("/api/events/subscribe") as two:
            await subscribed(server, 2)
            for n in range(3):
                event = {**EVENT, "data": {"action": "get", "path": str(n)}}
                assert (await server.http.post("/api/events", json=event)).status_code == 204
            for websocket in (one, two):
                got = [await receive_json(websocket) for _ in range(3)]
                assert got == [
                    {"schema_id": CONTENTS, "action": "get", "path": str(n)} for n in range(3)
                ]
        await subscribed(server, 1)
        timed = {**EVENT, "timestamp": "2022-05-26T13:50:00+05:00Z", "version": 1}
        assert (await server.http.post("/api/events", json=timed)).status_code == 204
        assert (await receive_json(one))["path"] == "a"


async def test_bad_events(server):
    for bad in (
        {},
        {"schema_id": CONTENTS, "version": "1"},
        {**EVENT, "schema_id": "https://nope"},
        {**EVENT, "schema_id": ["x"]},
        {**EVENT, "schema_id": "\x00"},
        {**EVENT, "version": "2"},
        {**EVENT, "data": {"action": "dance", "path": "a"}},
        {**EVENT, "data": {"path": "a"}},
        {**EVENT, "data": "x"},
        {**EVENT, "data": None},
        {**EVENT, "timestamp": "yesterday"},
        {**EVENT, "timestamp": 1},
        {**EVENT, "timestamp": None},
    ):
        response = await server.http.post("/api/events", json=bad)
        assert response.status_code == 400, bad
        assert response.json()["message"]
    assert (await server.http.post("/api/events", content="[")).status_code == 400


async def test_actions_are_told(server, root_dir):
    (root_dir / "t.txt").write_text("t")
    async with server.connect("/api/events/subscribe") as websocket:
        await subscribed(server)
        await server.http.get("/api/contents/t.txt")
        assert await receive_json(websocket) == {
            "schema_id": CONTENTS,
            "action": "get",
            "path": "t.txt",
        }
        model = {"type": "file", "format": "text", "content": "u"}
        await server.http.put("/api/contents/t.txt", json=model)
        assert (await receive_json(websocket))["action"] == "save"
        assert (await server.http.get("/api/contents/missing")).status_code == 404
        kernel = (await server.http.post("/api/kernels")).json()["id"]
        started = await receive_json(websocket)
        assert started["schema_id"] == KERNELS
        assert (started["action"], started["status"]) == ("start", "success")
        assert started["kernel_id"] == kernel
        await server.http.delete(f"/api/kernels/{kernel}")
        assert (await receive_json(websocket))["action"] == "shutdown"
        await server.http.post(f"/api/kernels/{kernel}/interrupt")
        failed = await receive_json(websocket)
        assert (failed["action"], failed["status"], failed["status_code"]) == (
            "interrupt",
            "error",
            404,
        )


async def test_a_slow_subscriber_is_told_that_it_missed_events(server, monkeypatch):
    monkeypatch.setattr(events_module, "_WAITING", 3)
    async with server.connect("/api/events/subscribe") as websocket:
        await subscribed(server)
        for n in range(50):  # without a pause in which anything could be sent
            server.app.state.events.tell(CONTENTS, {"action": "get", "path": str(n)})
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await receive_json(websocket)
        assert websocket.close_code == 1013
    await subscribed(server, 0)


async def test_anonymous(server):
    async with httpx.AsyncClient(base_url=server.http.base_url) as nobody:
        answer = await nobody.post("/api/events", content=json.dumps(EVENT))
        assert answer.status_code == 403
    assert await refused(server, "/api/events/subscribe", token=None) == 403
