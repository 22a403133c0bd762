"""The server as a process: how it starts, what survives its death, what it leaves behind."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from websockets.sync.client import connect

from app.db.embedded import read_url
from tests.conftest import database_named
from tests.kernels import read_notebook, text_of, write_notebook
from tests.servers import TOKEN, ServerProcess, outputs_on_disk, serving_process, wait_for


@pytest.fixture
def data_dir(short_tmp: Path):
    folder = short_tmp / uuid.uuid4().hex[:8]
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def open_session(client: httpx.Client, path: str) -> dict:
    response = client.post("api/sessions", json={"path": path, "type": "notebook"})
    assert response.status_code == 201, response.text
    return response.json()


def run_all(client: httpx.Client, session: dict) -> list[dict]:
    response = client.post(f"api/sessions/{session['id']}/run", json={"cells": "all"})
    assert response.status_code == 202, response.text
    return response.json()["executions"]


def record(client: httpx.Client, execution: dict, wait: float = 0) -> dict:
    return client.get(f"api/executions/{execution['id']}", params={"wait": wait}).json()


SLOW = "import time\nfor i in range(600):\n    print(i, flush=True)\n    time.sleep(0.05)"


def test_kill_in_the_middle_of_a_run_then_start_again(root_dir, data_dir):
    path = root_dir / "a.ipynb"
    write_notebook(path, "print('done before')", SLOW, "print('never')")
    with serving_process(root_dir, data_dir) as server:
        client = server.wait_until_up()
        session = open_session(client, "a.ipynb")
        done, slow, queued = run_all(client, session)
        record(client, done, wait=60)
        committed = wait_for(
            lambda: (text := text_of(record(client, slow))).count("\n") > 20 and text
        )
        kernel_pid = next(
            child.pid
            for child in psutil.Process(server.process.pid).children(recursive=True)
            if "ipykernel" in " ".join(child.cmdline())
        )
        server.stop(signal.SIGKILL)
        wait_for(lambda: not psutil.pid_exists(kernel_pid))
        assert read_url(data_dir) is None, "PostgreSQL has ended with the server"

    with serving_process(root_dir, data_dir) as server:
        client = server.wait_until_up()
        assert client.get("api/kernels").json() == [] == client.get("api/sessions").json()
        assert record(client, done)["status"] == "ok"
        for execution in (slow, queued):
            after = record(client, execution)
            assert (after["status"], after["reason"]) == (
                "interrupted",
                "the server that ran it ended without notice",
            )
        kept = text_of(record(client, slow))
        assert kept.startswith(committed), "everything that was committed is there"
        assert kept == "".join(f"{i}\n" for i in range(kept.count("\n")))
        wait_for(lambda: "".join(outputs_on_disk(path, 1)[0]["text"]) == kept)
        cells = client.get(f"api/documents/{slow['document_id']}/cells").json()["cells"]
        assert [cell["execution_state"] for cell in cells] == ["idle"] * 3
        notebook = read_notebook(path)
        assert notebook["cells"][0]["outputs"][0]["text"] == ["done before\n"]
        # New work runs at once, in the same document.
        again = run_all(client, open_session(client, "a.ipynb"))[0]
        assert record(client, again, wait=60)["status"] == "ok"
        assert again["document_id"] == done["document_id"]
        assert server.stop() == 0


def test_a_killed_containers_data_in_a_new_one(root_dir, data_dir):
    """Which has another host name; the embedded database has only ever had servers of one place."""
    path = root_dir / "a.ipynb"
    write_notebook(path, SLOW)
    with serving_process(root_dir, data_dir) as server:
        client = server.wait_until_up()
        (slow,) = run_all(client, open_session(client, "a.ipynb"))
        wait_for(lambda: record(client, slow)["status"] == "running")
        with psycopg.connect(read_url(data_dir)) as connection:
            connection.execute("UPDATE server_status SET hostname = 'a-former-container'")
        server.stop(signal.SIGKILL)

    with serving_process(root_dir, data_dir) as server:
        client = server.wait_until_up()
        assert record(client, slow)["status"] == "interrupted"
        assert client.get("api/kernels").json() == [] == client.get("api/sessions").json()
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (0o755, "may not write in"),
        (0o700, "may not be read by user id"),
    ],
)
def test_a_folder_of_another_account_is_told_of(tmp_path, mode, said):
    folder = tmp_path / "theirs"
    folder.mkdir()
    as_somebody: tuple[str, ...] = ()
    if os.geteuid() == 0:
        os.chown(folder, 12345, 12345)
        as_somebody = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    else:
        mode &= 0o055
    folder.chmod(mode)
    nowhere = "postgresql://127.0.0.1:1/none"
    command = (sys.executable, "-m", "app", "serve", "--port", "0", "--database-url", nowhere)
    done = subprocess.run(
        [*as_somebody, *command],
        env={**os.environ, "DATASTORE_ROOT_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    folder.chmod(0o755)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_all_addresses_are_named_by_one_that_this_machine_knows(root_dir, data_dir, database_url):
    options = ("--database-url", database_url, "--host", "0.0.0.0")
    with serving_process(root_dir, data_dir, *options) as server:
        client = server.wait_until_up()
        port = client.base_url.port
        wait_for(lambda: f"http://127.0.0.1:{port}/lab?token={TOKEN}" in server.log)
        assert f"http://{socket.gethostname()}:{port}/lab?token={TOKEN}" in server.log


def test_stopping_in_the_middle_of_a_run_saves_and_says_so(root_dir, data_dir):
    path = root_dir / "a.ipynb"
    write_notebook(path, SLOW)
    with serving_process(root_dir, data_dir) as server:
        client = server.wait_until_up()
        (slow,) = run_all(client, open_session(client, "a.ipynb"))
        wait_for(lambda: text_of(record(client, slow)).count("\n") > 5)
        assert server.stop(signal.SIGTERM) == 0
        assert "Traceback" not in server.log
    on_disk = "".join(outputs_on_disk(path)[0]["text"])
    with serving_process(root_dir, data_dir) as server:
        client = server.wait_until_up()
        after = record(client, slow)
        assert (after["status"], after["reason"]) == ("interrupted", "the server was shut down")
        assert on_disk == text_of(after)
        server.stop()


def test_a_killed_postgresql_comes_back_and_nothing_is_lost(root_dir, data_dir):
    code = "import time\nfor i in range(100):\n    print(i, flush=True)\n    time.sleep(0.03)"
    write_notebook(root_dir / "a.ipynb", code)
    with serving_process(root_dir, data_dir) as server:
        client = server.wait_until_up()
        (execution,) = run_all(client, open_session(client, "a.ipynb"))
        wait_for(lambda: record(client, execution)["status"] == "running")
        postmaster = next(
            child
            for child in psutil.Process(server.process.pid).children()
            if child.name() == "postgres"
        )
        postmaster.kill()

        def ended():
            response = client.get(f"api/executions/{execution['id']}")
            assert response.status_code in (200, 503), response.text
            return response.status_code == 200 and response.json()["finished_at"] and response

        assert text_of(wait_for(ended).json()) == "".join(f"{i}\n" for i in range(100))
        server.stop()


def test_ctrl_c_ends_quietly(root_dir, data_dir):
    with serving_process(root_dir, data_dir) as server:
        server.wait_until_up()
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.process.wait(30) == 0
        assert "Traceback" not in server.log
        assert read_url(data_dir) is None


def test_base_url_and_busy_port(root_dir, data_dir):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        options = ["--host", "127.0.0.1", "--port", str(port), "--base-url", "user/ada"]
        with serving_process(root_dir, data_dir, *options) as server:
            client = server.wait_until_up()
            assert f"Port {port} is in use" in server.log
            assert server.url.endswith("/user/ada/")
            assert client.get("api").json()["version"]
            assert client.get(server.url.replace("user/ada/", "api")).status_code == 404
            started = client.post("api/kernels")
            assert started.headers["location"] == f"/user/ada/api/kernels/{started.json()['id']}"
            server.stop()


def test_without_the_token_everything_is_forbidden(root_dir, data_dir):
    with serving_process(root_dir, data_dir) as server:
        good = server.wait_until_up()
        token = good.headers["Authorization"].split()[1]
        for wrong in ({}, {"Authorization": "token wrong"}, {"Authorization": "Basic eDp5"}):
            for path in ("api/kernels", "api/contents", "api/executions", "api/status"):
                response = httpx.get(server.url + path, headers=wrong)
                assert (response.status_code, response.json()["message"]) == (403, "Forbidden")
        assert httpx.get(server.url + "api/status", params={"token": token}).status_code == 200
        bearer = {"Authorization": f"Bearer {token}"}
        assert httpx.get(server.url + "api/status", headers=bearer).status_code == 200
        server.stop()


def fails(*options: str, **environment: str) -> str:
    """Run `serve` where it cannot start and return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "app", "serve", "--port", "0", "--no-browser", *options],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_an_external_database_must_be_there_and_current(root_dir, postgres_url, data_dir):
    name = f"external_{uuid.uuid4().hex}"
    url = database_named(postgres_url, name)
    options = ["--root-dir", str(root_dir), "--data-dir", str(data_dir), "--database-url"]
    assert "cannot be used" in fails(*options, "postgresql://nobody@127.0.0.1:1/x")
    assert "cannot be used" in fails(*options, "not a url")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        try:
            assert "jupyter-datastore db upgrade" in fails(*options, url)
            environment = {**os.environ, "DATASTORE_DATABASE_URL": url}
            upgrade = [sys.executable, "-m", "app", "db", "upgrade"]
            subprocess.run(upgrade, env=environment, check=True, capture_output=True)
            secrets = {"DATASTORE_DATABASE_URL": url, "datastore_cookie_secret": "c" * 32}
            with serving_process(root_dir, data_dir, **secrets) as server:
                client = server.wait_until_up()
                assert client.get("api/status").json()["kernels"] == 0
                # Kernels get the environment without what the server keeps to itself.
                kernel = client.post("api/kernels").json()
                code = "import os; print([n for n in os.environ if n.upper().startswith('DATAST')])"
                execute = client.post(f"api/kernels/{kernel['id']}/execute", json={"code": code})
                assert text_of(record(client, execute.json(), wait=60)) == "['DATASTORE_OWNER']\n"
                server.stop()
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_what_cannot_be_served_is_said_clearly(root_dir, data_dir):
    assert "does not exist" in fails("--root-dir", str(root_dir / "missing"))
    wrong = {"DATASTORE_SAVE_DELAY_SECONDS": "soon"}
    assert "save_delay_seconds" in fails("--data-dir", str(data_dir), **wrong)
    server = ServerProcess(root_dir, data_dir)
    try:
        server.wait_until_up()
        message = fails("--root-dir", str(root_dir), "--data-dir", str(data_dir))
        assert str(server.process.pid) in message, message
        server.stop()
    finally:
        server.close()


def test_db_url_and_current_find_the_running_server(root_dir, data_dir):
    def db(command: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if k != "DATASTORE_DATABASE_URL"}
        return subprocess.run(
            [sys.executable, "-m", "app", "db", command, "--data-dir", str(data_dir)],
            env=environment,
            capture_output=True,
            text=True,
        )

    with serving_process(root_dir, data_dir) as server:
        server.wait_until_up()
        with psycopg.connect(db("url").stdout.strip()) as connection:
            assert connection.execute("SELECT count(*) FROM execution_history").fetchone() == (0,)
        assert "this version needs" in db("current").stdout
        server.stop()
    assert db("url").returncode == 1
    assert "jupyter-datastore serve" in db("url").stderr


def test_feeds_do_not_hold_up_the_end_and_logs_have_no_tokens(root_dir, data_dir):
    """uvicorn logs each websocket's address, where clients that are no browsers put theirs."""
    with serving_process(root_dir, data_dir) as server:
        client = server.wait_until_up()
        feed = "api/datastore/feed"
        address = server.url.replace("http", "ws", 1) + f"{feed}?token={TOKEN}&client=x"
        with (
            connect(address) as socket,
            client.stream("GET", "api/datastore/events", params={"table": "kernels"}) as events,
        ):
            socket.recv()
            lines = events.iter_lines()
            assert next(lines) == "event: hello"
            wait_for(lambda: feed in server.log)
            shown = server.log[server.log.index(feed) :]
            assert "?token=[secret]&client=x" in shown
            assert TOKEN not in shown
            assert server.stop() == 0
            assert list(lines)  # to its end, which is a good one
        # Neither "Cancel 1 running task(s), timeout graceful shutdown exceeded" nor a traceback.
        assert not re.findall("^E .*|Traceback", server.log, re.MULTILINE), server.log
