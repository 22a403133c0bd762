import httpx
import psutil
import psycopg

from tests.live import live
from tests.servers import serving_process


def test_shutdown_ends_the_server_in_order(tmp_path, root_dir, database_url):
    (root_dir / "d").mkdir()
    options = ("--database-url", database_url)
    with serving_process(root_dir, tmp_path / "data", *options, SHELL="/bin/bash") as server:
        http = server.wait_until_up()
        assert httpx.post(f"{server.url}api/shutdown").status_code == 403
        assert http.post("api/kernels").status_code == 201
        assert http.post("api/terminals").status_code == 200
        shells = [
            process
            for process in psutil.Process(server.process.pid).children()
            if "bash" in process.name()
        ]
        url = f"JUPYTER_SERVER_URL={server.url}"
        assert any(url.split("=")[1] == s.environ().get("JUPYTER_SERVER_URL") for s in shells)
        response = http.post("api/shutdown")
        assert (response.status_code, response.content) == (200, b"")
        assert server.process.wait(60) == 0
        _, alive = psutil.wait_procs(shells, 20)
        assert not alive
    with psycopg.connect(database_url) as connection:
        for table in ("kernels", "terminals"):
            query = f"SELECT count(*) FROM {table} WHERE ended_at IS NULL"
            assert connection.execute(query).fetchone() == (0,), table
        query = "SELECT count(*) FROM server_status WHERE stopped_at IS NULL"
        assert connection.execute(query).fetchone() == (0,)


async def test_what_cannot_be_stopped_says_so(client):
    response = await client.post("/api/shutdown")
    assert response.status_code == 501
    assert set(response.json()) == {"message", "reason"}


async def test_an_open_terminal_does_not_hold_the_shutdown_up(settings, database_url, tmp_path):
    async with live(settings, database_url, tmp_path / "data") as server:
        name = (await server.http.post("/api/terminals")).json()["name"]
        websocket = await server.connect(f"/terminals/websocket/{name}")
        events = await server.connect("/api/events/subscribe")
    for connection in (websocket, events):
        await connection.wait_closed()
