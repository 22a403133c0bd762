"""`jupyter-datastore run` against a real server: a terminal that goes away loses nothing."""

import os
import signal
import subprocess
import sys
import uuid

import pytest

from tests.kernels import read_notebook, text_of, write_notebook
from tests.servers import TOKEN, serving_process, wait_for


@pytest.fixture(scope="module")
def root_dir(short_tmp):
    folder = short_tmp / f"root-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def server(root_dir, short_tmp):
    with serving_process(root_dir, short_tmp / uuid.uuid4().hex[:8]) as started:
        started.client = started.wait_until_up()
        yield started
        started.stop()


def command(server, *arguments):
    return [sys.executable, "-m", "app", "run", "--url", server.url, "--token", TOKEN, *arguments]


def latest(server, path):
    return server.client.get("api/executions", params={"path": path}).json()["executions"]


def test_exit_status_tells_success_from_failure(server, root_dir):
    write_notebook(root_dir / "good.ipynb", "print('hello')", "1+1")
    done = subprocess.run(command(server, "good.ipynb"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "hello" in done.stdout
    write_notebook(root_dir / "bad.ipynb", "1/0", "print('never')")
    done = subprocess.run(command(server, "bad.ipynb"), capture_output=True, text=True)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stdout + done.stderr
    assert "aborted" in done.stdout
    done = subprocess.run(command(server, "none.ipynb"), capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_killed_terminal_loses_nothing(server, root_dir):
    path = root_dir / "long.ipynb"
    write_notebook(
        path,
        "import time\nfor i in range(60):\n    print(i, flush=True)\n    time.sleep(0.05)",
        "name = input('Who? ')\nprint('hello', name)",
        "raise ValueError('as planned')",
    )
    terminal = subprocess.Popen(command(server, "long.ipynb"), stdout=subprocess.DEVNULL)
    wait_for(lambda: (ran := latest(server, "long.ipynb")) and ran[-1]["status"] == "running")
    terminal.kill()
    terminal.wait()
    asking = wait_for(
        lambda: next((e for e in latest(server, "long.ipynb") if e["input_request"]), None)
    )
    url = f"api/executions/{asking['id']}/input"
    assert server.client.post(url, json={"value": "world"}).status_code == 201

    def ended():
        executions = latest(server, "long.ipynb")
        return all(execution["finished_at"] for execution in executions) and executions

    ran = wait_for(ended)
    assert [e["status"] for e in reversed(ran)] == ["ok", "ok", "error"]
    records = [server.client.get(f"api/executions/{e['id']}").json() for e in reversed(ran)]
    assert text_of(records[0]) == "".join(f"{i}\n" for i in range(60))

    def saved():
        cells = read_notebook(path)["cells"]
        return all(cell["outputs"] for cell in cells) and cells

    cells = wait_for(saved)
    assert "".join(cells[0]["outputs"][0]["text"]) == text_of(records[0])
    assert "hello world" in text_of(cells[1])
    assert cells[2]["outputs"][0]["ename"] == "ValueError"
    attached = subprocess.run(
        command(server, "--attach", "long.ipynb"), capture_output=True, text=True
    )
    assert attached.returncode == 1
    assert "as planned" in attached.stdout + attached.stderr


def test_ctrl_c_detaches_and_attach_goes_on(server, root_dir):
    write_notebook(root_dir / "d.ipynb", "print('first')\nx = input()", "print('then', x)")
    terminal = subprocess.Popen(
        command(server, "d.ipynb"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    asking = wait_for(
        lambda: next((e for e in latest(server, "d.ipynb") if e["input_request"]), None)
    )
    terminal.send_signal(signal.SIGINT)
    said, _ = terminal.communicate(timeout=30)
    assert terminal.returncode == 128 + signal.SIGINT
    assert "--attach" in said
    attached = subprocess.Popen(
        command(server, "--attach", "d.ipynb"), stdout=subprocess.PIPE, text=True
    )
    said = attached.stdout.readline()
    while "first" not in said:
        said += attached.stdout.readline()
    server.client.post(f"api/executions/{asking['id']}/input", json={"value": "42"})
    said = attached.communicate(timeout=60)[0]
    assert attached.returncode == 0
    assert "then 42" in said


def test_finds_the_server_of_this_machine_by_its_file(server, root_dir):
    write_notebook(root_dir / "found.ipynb", "print('found')")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DATASTORE_")}
    done = subprocess.run(
        [sys.executable, "-m", "app", "run", str(root_dir / "found.ipynb")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "found" in done.stdout
