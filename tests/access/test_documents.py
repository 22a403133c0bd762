"""Documents with real permissions: their rooms, and running cells over a kernel's websocket."""

import asyncio
import json
import time
import uuid

import httpx
import pytest
import websockets
from pycrdt import Map
from sqlalchemy import text

from app.collaboration import protocol
from app.collaboration.rooms import FORBIDDEN
from tests.access.world import NOBODIES, NOTEBOOK, World
from tests.kernels import until, write_notebook
from tests.rooms import RoomPeer

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOON = 1.0 + 4.0  # on a crowded machine
OPEN = {"format": "json", "type": "notebook"}


async def opened(made: World, person: str) -> dict:
    path = f"/api/collaboration/session/{NOTEBOOK}"
    answer = await made.ask(person, "PUT", path, json=OPEN)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


async def peer(made: World, person: str, found: dict) -> RoomPeer:
    return RoomPeer(made.server, found, token=made.tokens[person])


async def grant(made: World, person: str, role: str, **target: str) -> str:
    body = {"user": person, "role": role, **(target or {"path": NOTEBOOK})}
    answer = await made.ask("olga", "POST", "/api/permissions", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def revoke(made: World, permission: str) -> None:
    answer = await made.ask("olga", "DELETE", f"/api/permissions/{permission}")
    assert answer.status_code == 204


async def cell_ids(made: World) -> list[str]:
    path = f"/api/documents/{made.ids['document_id']}/cells"
    return [cell["id"] for cell in (await made.ask("olga", "GET", path)).json()["cells"]]


async def seconds_to_end(one: RoomPeer) -> float:
    began = time.monotonic()
    code, _ = await one.ended()
    assert code == FORBIDDEN
    return time.monotonic() - began


@pytest.mark.parametrize("person", ["viewer", "runner", "member"])
async def test_who_may_not_write_follows_and_changes_nothing(made: World, person: str) -> None:
    before = await cell_ids(made)
    found = await opened(made, "olga")
    reader = await peer(made, person, await opened(made, person))
    reader.cells.append(Map({"id": "evil"}))  # sent in step 2, as the server asks for it
    async with await peer(made, "olga", found) as olga, await peer(made, "editor", found) as editor:
        async with reader:
            await olga.announce({"user": "olga"})
            await olga.type("x")
            await reader.until(lambda: "x" in {str(c.get("source"))[:1] for c in reader.cells})
            await editor.until(lambda: olga.doc.client_id in editor.awareness)
            reader.cells.append(Map({"id": "evil2"}))
            await reader.flush()
            update = reader.doc.get_update()
            await reader._websocket.send(protocol.sync(protocol.STEP2, update))
            await reader._websocket.send(protocol.sync(protocol.UPDATE, update))
            await reader.announce({"user": "evil"}, clock=99, client_id=olga.doc.client_id)
            assert await reader.save() == "failed"
            await reader.announce({"user": person})
            await editor.until(lambda: reader.doc.client_id in editor.awareness)
            assert json.loads(editor.awareness[olga.doc.client_id].state) == {"user": "olga"}
            assert editor.ids() == olga.ids() == before
        assert await cell_ids(made) == before
        # Whoever may write does.
        await editor.type("y")
        await olga.until(lambda: olga.text().startswith("yx"))


async def test_rooms_that_one_may_not_see_are_not_there(made: World) -> None:
    found = await opened(made, "olga")
    fork = await made.ask(
        "olga", "PUT", f"/api/collaboration/fork/{made.ids['document_id']}", json={"title": "f"}
    )
    timeline = await made.ask("olga", "GET", f"/api/collaboration/timeline/{NOTEBOOK}")
    rooms = {
        f"json:notebook:{found['fileId']}": f"json:notebook:{uuid.UUID(int=1)}",
        f"text:file:{found['fileId']}": f"text:file:{uuid.UUID(int=1)}",
        fork.json()["fork_roomid"]: uuid.UUID(int=1).hex,
        timeline.json()["forkRoom"]: uuid.UUID(int=1).hex,
    }
    async with RoomPeer(made.server, found, token=made.tokens["olga"]):
        for person in ("stranger", "expired", "revoked"):
            answer = await made.ask(
                person, "PUT", f"/api/collaboration/session/{NOTEBOOK}", json=OPEN
            )
            assert answer.status_code == 404
            for there, nowhere in rooms.items():
                ends = [await end_of(made, person, name, found) for name in (there, nowhere)]
                assert ends[0][0] == 4404, (person, there, ends)
                secrets = (there.rpartition(":")[2], nowhere.rpartition(":")[2])
                assert ends[0][1].replace(secrets[0], "*") == ends[1][1].replace(secrets[1], "*")
                assert ends[0][0] == ends[1][0]
            for method, path in (
                ("DELETE", "/api/collaboration/fork/{}"),
                ("PUT", "/api/collaboration/undo_redo/x?action=undo&forkRoom={}"),
            ):
                names = {"DELETE": fork.json()["fork_roomid"], "PUT": timeline.json()["forkRoom"]}
                here = await made.ask(person, method, path.format(names[method]))
                not_here = await made.ask(person, method, path.format(uuid.UUID(int=1).hex))
                assert here.status_code == not_here.status_code == 404
                assert here.text.replace(names[method], "*") == not_here.text.replace(
                    uuid.UUID(int=1).hex, "*"
                )
        for person in NOBODIES:
            with pytest.raises(websockets.InvalidStatus) as refused:
                await end_of(made, person, next(iter(rooms)), found)
            assert refused.value.response.status_code == 403


async def end_of(made: World, person: str, name: str, found: dict) -> tuple[int, str]:
    """Return how a room's websocket was closed before anything was sent."""
    url = f"ws://{made.server.address}/api/collaboration/room/{name}?sessionId={found['sessionId']}"
    async with websockets.connect(url, additional_headers=made.headers(person)) as websocket:
        with pytest.raises(websockets.ConnectionClosed):
            async with asyncio.timeout(20):
                await websocket.recv()
        return websocket.close_code, websocket.close_reason


async def test_a_right_that_ends_ends_in_rooms(made: World) -> None:
    before = await cell_ids(made)
    await grant(made, "stranger", "editor")
    found = await opened(made, "stranger")
    fork = await made.ask(
        "olga", "PUT", f"/api/collaboration/fork/{found['fileId']}", json={"title": "f"}
    )
    url = f"/api/collaboration/room/{fork.json()['fork_roomid']}"
    async with (
        await peer(made, "olga", found) as olga,
        await peer(made, "stranger", found) as stranger,
        made.server.connect(url, token=made.tokens["stranger"]) as fork_socket,
    ):
        await stranger.type("a")
        await olga.until(lambda: olga.text().startswith("a"))
        viewing = await grant(made, "stranger", "viewer")  # in the place of the former

        async def may_save_no_more() -> bool:
            stranger.raw.clear()
            return await stranger.save() == "failed"

        await until(may_save_no_more)
        stranger.cells.append(Map({"id": "evil"}))
        assert await stranger.save(2) == "failed"
        await revoke(made, viewing)
        assert await seconds_to_end(stranger) < SOON
        async with asyncio.timeout(SOON):
            await fork_socket.wait_closed()
        assert fork_socket.close_code == FORBIDDEN
        assert await cell_ids(made) == before == olga.ids()
        assert olga.closed is None
    answer = await made.ask("stranger", "PUT", f"/api/collaboration/session/{NOTEBOOK}", json=OPEN)
    assert answer.status_code == 404


async def test_a_token_in_a_room_is_what_it_is_for(made: World) -> None:
    """A token to read stays one beside another of its person, and its end is its room's."""
    body = {"name": "reads", "scopes": ["read"]}
    answer = await made.ask("editor", "POST", "/api/tokens", json=body)
    made.tokens["reads"] = answer.json()["token"]
    found = await opened(made, "editor")
    before = await cell_ids(made)
    async with (
        await peer(made, "editor", found) as editor,
        await peer(made, "reads", found) as reads,
    ):
        await made.server.app.state.rooms.look()
        reads.cells.append(Map({"id": "evil"}))
        assert await reads.save() == "failed"
        assert await editor.save() == "success"
        everywhere = "/api/collaboration/room/JupyterLab:globalAwareness"
        async with made.server.connect(everywhere, token=made.tokens["reads"]) as socket:
            gone = await made.ask("editor", "DELETE", f"/api/tokens/{answer.json()['id']}")
            assert gone.status_code == 204
            assert await seconds_to_end(reads) < SOON
            async with asyncio.timeout(SOON):
                await socket.wait_closed()
            assert socket.close_code == FORBIDDEN
        assert editor.closed is None
    assert await cell_ids(made) == before


async def run_cell(made: World, person: str, cell_id: str) -> dict:
    """Run a cell as a front end does over the kernel's websocket; return the execution's row."""
    msg_id = uuid.uuid4().hex
    header = {"msg_id": msg_id, "msg_type": "execute_request", "session": "s", "username": person}
    message = {
        "channel": "shell",
        "header": header | {"version": "5.3", "date": "2026-11-25T00:00:00Z"},
        "parent_header": {},
        "metadata": {"cellId": cell_id},
        "content": {"code": "1", "silent": False},
        "buffers": [],
    }
    path = f"/api/kernels/{made.ids['kernel_id']}/channels"
    query = text("SELECT * FROM executions WHERE msg_id = :m AND finished_at IS NOT NULL")

    async def found() -> dict | None:
        async with made.database.read(as_server=True) as tx:
            row = (await tx.execute(query, {"m": msg_id})).mappings().first()
            return dict(row) if row else None

    async with made.server.connect(path, token=made.tokens[person]) as websocket:
        await websocket.send(json.dumps(message))
        return await until(found)


async def test_a_client_of_a_kernel_names_cells_that_it_may_run(made: World) -> None:
    """To have a kernel is not to have the notebook of its session."""
    cell_id = (await cell_ids(made))[0]
    query = text("SELECT execution_id, execution_count FROM cells WHERE notebook_id = :d")

    async def cells() -> list:
        async with made.database.read(as_server=True) as tx:
            return (await tx.execute(query, {"d": uuid.UUID(made.ids["document_id"])})).all()

    before = await cells()
    permission = await grant(made, "stranger", "runner", kernel_id=made.ids["kernel_id"])
    ran = await run_cell(made, "stranger", cell_id)
    assert (ran["status"], ran["document_id"], ran["cell_version"]) == ("ok", None, None)
    assert await cells() == before
    await revoke(made, permission)
    ran = await run_cell(made, "runner", cell_id)
    assert str(ran["document_id"]) == made.ids["document_id"]
    assert [row.execution_id for row in await cells()] == [ran["id"]]


async def test_jupyterlab_starts_a_shared_notebooks_session_beside_it(made: World) -> None:
    """It makes sessions under a path of its own first, a UUID beside the notebook."""
    path = "shared-alone.ipynb"
    write_notebook(made.server.app.state.settings.root_dir / path, "1")
    answer = await made.ask("admin", "GET", f"/api/contents/{path}")
    assert answer.status_code == 200, answer.text
    body = {"user": "stranger", "path": path, "role": "runner"}
    assert (await made.ask("admin", "POST", "/api/permissions", json=body)).status_code == 201

    async def start(person: str, name: str, place: str = "") -> httpx.Response:
        session = {"path": place + str(uuid.uuid4()), "type": "notebook", "name": name}
        return await made.ask(person, "POST", "/api/sessions", json={**session, "kernel": {}})

    assert (await start("stranger", NOTEBOOK.rpartition("/")[2])).status_code == 404
    assert (await start("stranger", "none.ipynb")).status_code == 404
    assert (await start("stranger", path, "home/olga/")).status_code == 404
    answer = await start("stranger", path)
    assert answer.status_code == 201, answer.text
    session_id = answer.json()["id"]
    moved = {"path": NOTEBOOK}
    answer = await made.ask("stranger", "PATCH", f"/api/sessions/{session_id}", json=moved)
    assert answer.status_code == 404
    moved = {"path": path, "name": path}
    answer = await made.ask("stranger", "PATCH", f"/api/sessions/{session_id}", json=moved)
    assert answer.status_code == 200, answer.text
    assert answer.json()["path"] == path
    answer = await made.ask("stranger", "DELETE", f"/api/sessions/{session_id}")
    assert answer.status_code == 204
