import asyncio
import json
import os
import signal

import httpx
import psutil
import psycopg
import pytest

from app.terminals import client as client_module
from app.terminals.pty import Scrollback
from tests.kernels import until
from tests.live import live, receive_json, refused
from tests.servers import serving_process, wait_for


@pytest.fixture
def settings(settings):
    settings.terminal_command = "/bin/bash --norc --noprofile"
    return settings


@pytest.fixture
async def server(settings, database_url, tmp_path):
    async with live(settings, database_url, tmp_path / "data") as made:
        yield made


class Screen:
    """What a client of a terminal has been sent."""

    def __init__(self, websocket):
        self.websocket = websocket
        self.text = ""
        self.ended = False

    async def read(self):
        kind, *rest = await receive_json(self.websocket)
        if kind == "stdout":
            self.text += rest[0]
        self.ended = self.ended or kind == "disconnect"
        return kind

    async def shows(self, text):
        while text not in self.text:
            await self.read()

    async def type(self, text):
        await self.websocket.send(json.dumps(["stdin", text]))

    async def resize(self, rows, columns):
        await self.websocket.send(json.dumps(["set_size", rows, columns, 0, 0]))


async def started(server, **body):
    response = await server.http.post("/api/terminals", json=body)
    assert response.status_code == 200, response.text
    return response.json()["name"]


def path_of(name):
    return f"/terminals/websocket/{name}"


async def rows(database_url):
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        query = "SELECT name, cwd, ended_at IS NULL FROM terminals ORDER BY created_at"
        return await (await connection.execute(query)).fetchall()


async def test_two_clients_share_a_terminal_and_a_third_sees_the_past(server):
    name = await started(server)
    assert name == "1"
    async with server.connect(path_of(name)) as one, server.connect(path_of(name)) as two:
        first, second = Screen(one), Screen(two)
        assert await receive_json(one) == ["setup", {}]
        assert await receive_json(two) == ["setup", {}]
        await first.type("echo $((40+2)) 'ünïcode'\n")
        await first.shows("42 ünïcode")
        await second.shows("42 ünïcode")
        await second.type("echo from-$((1+1))\n")
        await first.shows("from-2")
    async with server.connect(path_of(name)) as three:
        await Screen(three).shows("42 ünïcode")


async def test_the_size_is_the_smallest_clients(server):
    name = await started(server)
    async with server.connect(path_of(name)) as one:
        first = Screen(one)
        await first.resize(40, 100)
        async with server.connect(path_of(name)) as two:
            await Screen(two).resize(20, 120)
            # The answer to what is typed afterwards, on the same connection, has the new size.
            await Screen(two).type("stty size; echo size-$((0+1))\n")
            await first.shows("size-1")
            assert "20 100" in first.text
        await until(lambda: server.app.state.terminals.get(name).ptyproc.getwinsize() == (40, 100))


async def test_models_rows_and_deletion(server, database_url, root_dir):
    (root_dir / "sub").mkdir()
    assert (await server.http.get("/api/terminals")).json() == []
    name = await started(server, cwd="sub")
    response = await server.http.get(f"/api/terminals/{name}")
    assert set(response.json()) == {"name", "last_activity"}
    assert (await server.http.get("/api/terminals")).json()[0]["name"] == name
    assert await rows(database_url) == [(name, str(root_dir / "sub"), True)]
    shell = psutil.Process(server.app.state.terminals.get(name).ptyproc.pid)
    assert shell.cwd() == str(root_dir / "sub")
    async with server.connect(path_of(name)) as websocket:
        assert (await server.http.delete(f"/api/terminals/{name}")).status_code == 204
        screen = Screen(websocket)
        while not screen.ended:
            await screen.read()
    await until(lambda: not psutil.pid_exists(shell.pid))
    assert [row[2] for row in await rows(database_url)] == [False]
    for method in ("GET", "DELETE"):
        gone = await server.http.request(method, f"/api/terminals/{name}")
        assert (gone.status_code, gone.json()["message"]) == (404, f"Terminal not found: {name}")
    assert await refused(server, path_of(name)) == 404
    assert await started(server) == name


async def test_names_and_folders(server, root_dir, tmp_path):
    assert await started(server, name="mine") == "mine"
    taken = await server.http.post("/api/terminals", json={"name": "mine"})
    assert taken.status_code == 409
    assert await started(server, cwd="no/such/folder") == "1"
    assert await started(server, cwd=str(tmp_path)) == "2"
    folders = [
        psutil.Process(server.app.state.terminals.get(name).ptyproc.pid).cwd() for name in "12"
    ]
    assert folders == [str(root_dir), str(tmp_path)]


@pytest.mark.parametrize(
    "body",
    [
        {"name": "a/b"},
        {"name": "a\x00"},
        {"name": ""},
        {"name": 1},
        {"name": "\ud800"},
        {"cwd": "a\x00b"},
        {"cwd": ["x"]},
    ],
)
async def test_bad_bodies(server, body):
    response = await server.http.post("/api/terminals", content=json.dumps(body))
    assert response.status_code == 400
    assert set(response.json()) == {"message", "reason"}


async def test_a_body_that_is_no_object(server):
    for content in ("[1]", "{", '"x"'):
        response = await server.http.post("/api/terminals", content=content)
        assert response.status_code == 400


async def test_anonymous(server):
    async with httpx.AsyncClient(base_url=server.http.base_url) as nobody:
        for method, path in [
            ("GET", "/api/terminals"),
            ("POST", "/api/terminals"),
            ("GET", "/api/terminals/1"),
            ("DELETE", "/api/terminals/1"),
        ]:
            assert (await nobody.request(method, path)).status_code == 403
    assert await refused(server, path_of("1"), token=None) == 403
    assert await refused(server, path_of("nope")) == 404


async def test_the_shell_exits(server, database_url):
    name = await started(server)
    async with server.connect(path_of(name)) as websocket:
        screen = Screen(websocket)
        await screen.type("exit\n")
        while not screen.ended:
            await screen.read()
    assert (await server.http.get("/api/terminals")).json() == []
    assert (await server.http.get(f"/api/terminals/{name}")).status_code == 404

    async def recorded():
        return not (await rows(database_url))[0][2]

    await until(recorded)


async def test_what_is_no_message_ends_the_connection_only(server):
    name = await started(server)
    for bad in ("{", "[]", '"stdin"', '["stdin"]', '["stdin", 1]', '["set_size", -1, 2]', b"\xff"):
        async with server.connect(path_of(name)) as websocket:
            await websocket.send(bad)
            await until(lambda ws=websocket: _closed(ws))
            assert websocket.close_code == 1003
    async with server.connect(path_of(name)) as websocket:
        await websocket.send('["a-later-kind", 1]')
        screen = Screen(websocket)
        await screen.type("echo still-$((1+0))\n")
        await screen.shows("still-1")


async def _closed(websocket):
    try:
        async with asyncio.timeout(0.02):
            await websocket.recv()
    except TimeoutError:
        return False
    except Exception:
        return True
    return False


async def test_a_slow_client_is_bounded_and_sees_the_present_later(
    settings, database_url, tmp_path, monkeypatch
):
    monkeypatch.setattr(client_module, "_PENDING_CHARACTERS", 64 * 1024)
    async with live(settings, database_url, tmp_path / "data", send_buffer=16 * 1024) as server:
        name = await started(server)
        async with (
            server.connect(
                path_of(name), max_queue=1, sock=server.slow_socket(), compression=None
            ) as slow,
            server.connect(path_of(name)) as quick,
        ):
            await receive_json(slow)
            screen = Screen(quick)
            await screen.type("head -c 8000000 /dev/zero | tr '\\0' x | fold; echo all-$((1+0))\n")
            last = ""
            async with asyncio.timeout(60):
                while "all-1" not in last:
                    kind, text = await receive_json(quick)
                    last = last[-20:] + text if kind == "stdout" else last
            clients = server.app.state.terminals.get(name).clients
            assert any(c._lags for c in clients)
            assert all(c._pending_size <= 64 * 1024 + 65536 for c in clients)
            # Once it reads again it gets the recent output on a fresh screen.
            behind = Screen(slow)
            await behind.shows("all-1")
            assert "\x1bc" in behind.text
            assert len(behind.text) < 4_000_000


async def test_typing_into_a_program_that_does_not_read(server):
    busy, idle = await started(server), await started(server)
    async with server.connect(path_of(busy)) as one, server.connect(path_of(idle)) as two:
        screen = Screen(one)
        await screen.type("stty raw -echo; echo asleep-$((1+0)); sleep 1000\n")
        await screen.shows("asleep-1")
        await screen.type("x" * 3_000_000)
        other = Screen(two)
        await other.type("echo alive-$((1+0))\n")
        await other.shows("alive-1")
    # The client has left though its text waits to be read.
    await until(lambda: not server.app.state.terminals.get(busy).clients)
    assert (await server.http.delete(f"/api/terminals/{busy}")).status_code == 204


def test_scrollback_is_bounded():
    kept = Scrollback(10)
    for piece in ("aaaa", "bbbb", "cccc"):
        kept.append(piece)
    assert kept.text() == "bbbbcccc"


async def test_a_shell_that_is_missing(settings, database_url, tmp_path):
    settings.terminal_command = "/no/such/shell"
    async with live(settings, database_url, tmp_path / "data") as server:
        response = await server.http.post("/api/terminals")
        assert response.status_code == 500
        assert "/no/such/shell" in response.json()["reason"]
        assert (await server.http.get("/api/terminals")).json() == []


async def test_disabled(settings, database_url, tmp_path):
    settings.terminals_enabled = False
    async with live(settings, database_url, tmp_path / "data") as server:
        for method, path in [("GET", ""), ("POST", ""), ("GET", "/1"), ("DELETE", "/1")]:
            response = await server.http.request(method, f"/api/terminals{path}")
            assert response.status_code == 404
        assert await refused(server, path_of("1")) == 404


async def test_ended_with_the_server(settings, database_url, tmp_path):
    async with live(settings, database_url, tmp_path / "data") as server:
        name = await started(server)
        pid = server.app.state.terminals.get(name).ptyproc.pid
    assert not psutil.pid_exists(pid)
    assert [row[2] for row in await rows(database_url)] == [False]


async def test_kill_9_of_the_server_hangs_up(tmp_path, database_url, settings):
    options = ("--database-url", database_url)
    with serving_process(
        settings.root_dir, tmp_path / "one", *options, SHELL="/bin/bash"
    ) as killed:
        http = killed.wait_until_up()
        assert http.post("api/terminals").status_code == 200
        assert [row[2] for row in await rows(database_url)] == [True]
        children = psutil.Process(killed.process.pid).children()
        shells = [child for child in children if "bash" in child.name()]
        assert len(shells) == 1
        os.kill(killed.process.pid, signal.SIGKILL)
        killed.process.wait(20)
        wait_for(lambda: not shells[0].is_running())
    async with live(settings, database_url, tmp_path / "two") as server:
        assert (await server.http.get("/api/terminals")).json() == []
        assert [row[2] for row in await rows(database_url)] == [False]


async def test_only_a_terminal_in_which_nothing_happens_is_culled(settings, database_url, tmp_path):
    settings.terminal_cull_inactive_timeout = 1.5
    settings.terminal_cull_interval = 0.1
    async with live(settings, database_url, tmp_path / "data") as server:
        quiet, busy = await started(server), await started(server)
        async with server.connect(path_of(busy)) as websocket, server.connect(path_of(quiet)) as q:
            screen, watched = Screen(websocket), Screen(q)
            await screen.type("while sleep 0.2; do echo busy; done\r")
            async with asyncio.timeout(20):
                while not watched.ended:
                    await watched.read()
            response = await server.http.get("/api/terminals")
            assert [found["name"] for found in response.json()] == [busy]
            await screen.shows("busy")
        assert [row[2] for row in await rows(database_url)] == [False, True]
