"""Clients that nobody here wrote: jupyter_kernel_client, and a Jupyter Server as our gateway's."""

import os
import re
import subprocess
import sys
import threading
import time
import uuid

import httpx
import psycopg
import pytest
from jupyter_kernel_client import JupyterKernelClient as KernelClient

from app.db.embedded import read_url
from tests.servers import TOKEN, serving_process, wait_for
from tests.websockets import V1, Front, connect


@pytest.fixture(scope="module")
def server(short_tmp):
    folder = short_tmp / "compatibility"
    root = folder / "root"
    root.mkdir(parents=True)
    folder.chmod(0o755)
    with serving_process(root, folder / "data") as running, running.wait_until_up() as client:
        running.client = client
        yield running


def history(server, code):
    """Return the rows of `execution_history` with this code, once all have ended."""

    def ended():
        with psycopg.connect(read_url(server.data_dir)) as connection:
            rows = connection.execute(
                "SELECT status, actor, client, execution_count FROM execution_history"
                " WHERE code = %s",
                (code,),
            ).fetchall()
        return rows if rows and all(row[0] not in ("queued", "running") for row in rows) else None

    return wait_for(ended)


def test_jupyter_kernel_client(server):
    with KernelClient(server_url=server.url.rstrip("/"), token=TOKEN) as client:
        reply = client.execute("print('hello'); 6*7")
        assert reply["status"] == "ok"
        assert reply["outputs"][0]["text"] == "hello\n"
        assert reply["outputs"][1]["data"]["text/plain"] == "42"
        assert client.execute("1/0")["status"] == "error"
        client.execute("x = 1")
        client.restart()
        assert client.execute("x")["status"] == "error", "it is a new process"
        kernel_id = client.id
    gone = server.client.get(f"/api/kernels/{kernel_id}")
    assert gone.status_code == 404
    assert history(server, "print('hello'); 6*7") == [("ok", "ada", "channel", 1)]
    assert history(server, "1/0")[0][0] == "error"


def test_jupyter_kernel_client_interrupts(server):
    with KernelClient(server_url=server.url.rstrip("/"), token=TOKEN) as client:
        running = "import time; time.sleep(50)"

        def interrupt() -> None:
            wait_for(
                lambda: server.client.get("/api/executions", params={"status": "running"}).json()[
                    "executions"
                ]
            )
            client.interrupt()

        thread = threading.Thread(target=interrupt)
        thread.start()
        start = time.monotonic()
        reply = client.execute(running)
        thread.join()
        assert reply["status"] == "error"
        assert time.monotonic() - start < 30
        assert client.execute("2")["status"] == "ok"


@pytest.fixture(scope="module")
def gateway_client(server, short_tmp):
    """A stock Jupyter Server that runs its kernels on ours; yields a client of it."""
    folder = short_tmp / "gateway"
    folder.mkdir()
    log = folder / "log"
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    environment |= {"JUPYTER_CONFIG_DIR": str(folder), "JUPYTER_RUNTIME_DIR": str(folder)}
    command = [sys.executable, "-m", "jupyter_server", "--port=0", "--no-browser", "--allow-root"]
    command += ["--ip=127.0.0.1", f"--IdentityProvider.token={TOKEN}", "--port-retries=0"]
    command += [f"--gateway-url={server.url.rstrip('/')}", f"--GatewayClient.auth_token={TOKEN}"]
    command += [f"--ServerApp.root_dir={folder}"]
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:

        def url():
            assert process.poll() is None, log.read_text()
            return re.search(r"(http://127\.0\.0\.1:\d+)/", log.read_text())

        base_url = wait_for(url, 60)[1]
        headers = {"Authorization": f"token {TOKEN}"}
        with httpx.Client(base_url=base_url, headers=headers, timeout=60) as client:
            yield client
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("subprotocol", [V1, None])
async def test_a_jupyter_server_uses_this_one_as_its_gateway(server, gateway_client, subprotocol):
    specs = gateway_client.get("/api/kernelspecs").json()
    assert specs["kernelspecs"]["python3"]["spec"]["language"] == "python"
    session = gateway_client.post(
        "/api/sessions",
        json={"path": f"{uuid.uuid4()}.ipynb", "type": "notebook", "kernel": {"name": "python3"}},
    )
    assert session.status_code == 201, session.text
    kernel = session.json()["kernel"]["id"]
    assert kernel in [k["id"] for k in server.client.get("/api/kernels").json()]

    url = str(gateway_client.base_url.copy_with(scheme="ws")) + f"/api/kernels/{kernel}/channels"
    async with connect(
        f"{url}?session_id={uuid.uuid4().hex}",
        subprotocols=[subprotocol] if subprotocol else None,
        additional_headers={"Authorization": f"token {TOKEN}"},
        max_size=None,
    ) as connection:
        client = Front(connection, uuid.uuid4().hex)
        code = f"print('through the gateway', {subprotocol!r}); 1/0"
        messages = await client.run(code)
        assert "through the gateway" in str(messages)
        ((status, actor, name, _),) = history(server, code)
        assert (status, actor, name) == ("error", "ada", "channel")
        assert gateway_client.post(f"/api/kernels/{kernel}/restart").status_code == 200
        again = await client.run(f"'after the restart', {subprotocol!r}")
        assert any(m["header"]["msg_type"] == "execute_result" for m in again)
    assert gateway_client.delete(f"/api/sessions/{session.json()['id']}").status_code == 204
    assert server.client.get(f"/api/kernels/{kernel}").status_code == 404
