"""What real kernels say is all in the tables, in their order."""

import base64
import os
import signal

import pytest
from jupyter_client import AsyncKernelClient
from sqlalchemy import select, text

from app.db.embedded import EmbeddedPostgres
from app.db.engine import Database
from models import Comm, CommMessage, Execution, Output
from tests.conftest import serving
from tests.kernels import (
    execute,
    finished,
    read_notebook,
    run,
    start_kernel,
    status_is,
    text_of,
    until,
    write_notebook,
)


async def rows(database, query):
    async with database.read() as tx:
        return (await tx.execute(query)).scalars().all()


async def test_100_000_lines(client, database):
    kernel = await start_kernel(client)
    record = await run(client, kernel, "for i in range(100_000): print(i)")
    expected = "".join(f"{i}\n" for i in range(100_000))
    assert text_of(record) == expected
    assert record["output_bytes"] == len(expected)
    assert len(record["outputs"]) == 1, "joined for who reads"
    stored = await rows(database, select(Output.text).order_by(Output.seq))
    assert len(stored) > 1, "appended, not one growing row"
    assert "".join(stored) == expected


async def test_20_mb_in_one_print(client):
    kernel = await start_kernel(client)
    record = await run(client, kernel, "print('é0123456789' * 1_700_000)")
    assert text_of(record) == "é0123456789" * 1_700_000 + "\n"
    assert record["output_bytes"] == 12 * 1_700_000 + 1


async def test_3_000_displays(client, database):
    kernel = await start_kernel(client)
    code = "from IPython.display import display\nfor i in range(3000): display(i)"
    record = await run(client, kernel, code)
    assert [o["data"]["text/plain"] for o in record["outputs"]] == [str(i) for i in range(3000)]
    seqs = await rows(database, select(Output.seq).order_by(Output.id))
    assert seqs == sorted(seqs)


async def test_nul_and_lone_surrogates_come_back_exactly(client, root_dir):
    """ipykernel itself can send U+DC80..U+DCFF (as bytes that are not UTF-8) and, as JSON escapes
    of a kernel that writes its own messages, any lone surrogate."""
    (cell,) = write_notebook(root_dir / "a.ipynb", "print('a\\0b', 'c\\udc80d')")
    kernel = await start_kernel(client)
    record = await finished(client, await execute(client, kernel, path="a.ipynb", cell_id=cell))
    assert text_of(record) == "a\0b c\udc80d\n"

    def saved():
        return read_notebook(root_dir / "a.ipynb")["cells"][0]["outputs"]

    (output,) = await until(saved)
    assert "".join(output["text"]) == "a\0b c\\udc80d\n", "a file is UTF-8: shown escaped there"

    send = """
        import json
        kernel = get_ipython().kernel
        session = kernel.session
        content = b'{"name": "stdout", "text": "x\\\\ud800y"}'
        parts = [session.pack(session.msg_header("stream")),
                 session.pack(kernel.get_parent("shell")["header"]), b"{}", content]
        kernel.iopub_socket.send_multipart([b"stream", b"<IDS|MSG>", session.sign(parts), *parts])
        print("after")
    """
    record = await run(client, kernel, "\n".join(line[8:] for line in send.split("\n")))
    assert text_of(record) == "x\ud800yafter\n"


async def test_invalid_utf8_of_a_subprocess(client, monkeypatch):
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # with it ipykernel does not read its descriptors
    kernel = await start_kernel(client)
    code = "import subprocess, sys\nsubprocess.run(['printf', r'ok\\377\\376!'])\nprint('done')"
    record = await run(client, kernel, code)
    assert record["status"] == "ok"

    async def arrived():  # ipykernel reads the pipe of file descriptor 1 in a thread
        text = text_of((await client.get(f"/api/executions/{record['id']}")).json())
        return "ok\ufffd\ufffd!" in text and "done" in text

    await until(arrived)


async def test_an_unreadable_message_does_not_take_its_neighbours(client, database):
    kernel = await start_kernel(client)
    send = """
        kernel = get_ipython().kernel
        print("before", flush=True)
        forged = [b"x", b"<IDS|MSG>", b"forged", b"{}", b"{}", b"{}", b"{}"]
        kernel.iopub_socket.send_multipart(forged)
        kernel.iopub_socket.send_multipart([b"rubbish"])
        print("after", flush=True)
    """
    record = await run(client, kernel, "\n".join(line[8:] for line in send.split("\n")))
    assert text_of(record) == "before\nafter\n"
    unknown = await rows(database, select(Output).where(Output.output_type == "unknown"))
    assert len(unknown) == 2
    assert base64.b64decode(unknown[1].extra["frames"][0]) == b"rubbish"


async def test_what_the_database_refuses_is_noted_in_place(client, database):
    kernel = await start_kernel(client)
    async with database.transaction() as tx:
        await tx.execute(
            text("ALTER TABLE outputs ADD CONSTRAINT odd CHECK (data->>'text/plain' <> '666')")
        )
    code = "from IPython.display import display\nfor i in (1, 666, 2): display(i)"
    record = await run(client, kernel, code)
    assert record["status"] == "ok"
    shown = [o["data"]["text/plain"] if "data" in o else o for o in record["outputs"]]
    assert (shown[0], shown[2]) == ("1", "2")
    assert "odd" in shown[1]["reason"]
    assert "666" in shown[1]["refused"]


async def test_megabytes_of_images(client, root_dir):
    (cell,) = write_notebook(
        root_dir / "a.ipynb",
        "import base64, os\nfrom IPython.display import display, Image\n"
        "png = b'\\x89PNG' + b'\\0' * 3_000_000\n"
        "for _ in range(3): display(Image(png, format='png'))",
    )
    kernel = await start_kernel(client)
    record = await finished(client, await execute(client, kernel, path="a.ipynb", cell_id=cell))
    assert record["status"] == "ok", record["evalue"]
    images = [o["data"]["image/png"] for o in record["outputs"]]
    assert [len(base64.b64decode(image)) for image in images] == [3_000_004] * 3


async def test_clear_output(client, database, root_dir):
    code = """
        from IPython.display import clear_output, display
        print('one'); clear_output()
        print('two', flush=True); clear_output(wait=True); clear_output(wait=True)
        print('three'); display('four')
    """
    (cell,) = write_notebook(
        root_dir / "a.ipynb", "\n".join(line[8:] for line in code.split("\n")).strip()
    )
    kernel = await start_kernel(client)
    record = await finished(client, await execute(client, kernel, path="a.ipynb", cell_id=cell))
    assert text_of(record) == "three\n"
    assert len(record["outputs"]) == 2
    everything = await rows(database, select(Output).order_by(Output.id))
    assert [row.text for row in everything][:2] == ["one\n", "two\n"], "cleared, not forgotten"
    assert all((row.cleared_at is None) == (row.cell_id is not None) for row in everything)

    def saved():
        outputs = read_notebook(root_dir / "a.ipynb")["cells"][0]["outputs"]
        return outputs if len(outputs) == 2 else None

    assert "".join((await until(saved))[0]["text"]) == "three\n"


async def test_update_display_data_reaches_every_output_with_the_id(client, database, root_dir):
    first, second = write_notebook(
        root_dir / "a.ipynb",
        "from IPython.display import display\nh = display('one', display_id='d'); print('x')\n"
        "display('again', display_id='d');",
        "h.update('two'); h.update('three'); print('y')",
    )
    kernel = await start_kernel(client)
    records = []
    for cell in (first, second):
        execution = await execute(client, kernel, path="a.ipynb", cell_id=cell)
        records.append(await finished(client, execution))
    shown = (await client.get(f"/api/executions/{records[0]['id']}")).json()["outputs"]
    texts = [o["data"]["text/plain"] for o in shown if o["output_type"] == "display_data"]
    assert texts == ["'three'", "'three'"]

    def saved():
        cells = read_notebook(root_dir / "a.ipynb")["cells"]
        found = ["".join(o["data"]["text/plain"]) for o in cells[0]["outputs"] if "data" in o]
        return found == ["'three'", "'three'"] and len(cells[1]["outputs"]) == 1

    await until(saved)
    # In one execution, one batch: the update reaches what the same batch appends.
    record = await run(client, kernel, "h = display(1, display_id='e'); h.update(2)")
    assert [o["data"]["text/plain"] for o in record["outputs"]] == ["2"]


async def test_progress_bar_is_shown_as_its_last_state(client, root_dir):
    (cell,) = write_notebook(
        root_dir / "a.ipynb",
        "import sys\nfor i in range(0, 101):\n    print(f'\\r{i}%', end='', flush=True)\nprint()",
    )
    kernel = await start_kernel(client)
    record = await finished(client, await execute(client, kernel, path="a.ipynb", cell_id=cell))
    assert "\r50%" in text_of(record), "the record has what was said"

    def saved():
        outputs = read_notebook(root_dir / "a.ipynb")["cells"][0]["outputs"]
        return outputs and "".join(outputs[0]["text"]) == "100%\n"

    await until(saved)


async def test_comms_are_recorded_in_order_with_buffers(client, database):
    kernel = await start_kernel(client)
    code = """
        from ipykernel.comm import Comm
        c = Comm(target_name='t', data={'n': 0})
        for i in range(1, 4): c.send({'n': i}, buffers=[bytes([i])])
        d = Comm(target_name='gone'); d.send({'x': 1}); d.close()
    """
    record = await run(client, kernel, "\n".join(line[8:] for line in code.split("\n")))
    assert record["status"] == "ok", record["evalue"]
    messages = await rows(database, select(CommMessage).order_by(CommMessage.id))
    assert [m.data for m in messages] == [{"n": i} for i in range(4)]
    assert [m.buffers for m in messages] == [[], [b"\1"], [b"\2"], [b"\3"]]
    states = {c.target_name: c.state for c in await rows(database, select(Comm))}
    assert states == {"t": "open", "gone": "closed"}
    await client.post(f"/api/kernels/{kernel}/restart")
    assert {c.state for c in await rows(database, select(Comm))} == {"closed"}
    assert await rows(database, select(CommMessage)) == []


async def test_another_client_of_the_kernel_is_recorded_too(client, database):
    kernel = await start_kernel(client)
    await run(client, kernel, "1")
    running = client.app.state.kernels.get(kernel)
    other = AsyncKernelClient()
    other.load_connection_info(running.process.manager.get_connection_info())
    other.start_channels()
    try:
        await other.wait_for_ready(timeout=30)
        msg_id = other.execute("print('from elsewhere'); 1/0")

        async def recorded():
            found = await rows(database, select(Execution).where(Execution.msg_id == msg_id))
            return found[0] if found and found[0].finished_at else None

        execution = await until(recorded)
    finally:
        other.stop_channels()
    record = (await client.get(f"/api/executions/{execution.id}")).json()
    assert (record["status"], record["ename"]) == ("error", "ZeroDivisionError")
    assert (record["run_as"], record["actor"], record["cell_id"]) == ("ada", None, None)
    assert record["code"] == "print('from elsewhere'); 1/0"
    assert text_of(record) == "from elsewhere\n"


async def test_output_that_comes_late_belongs_to_its_execution(client):
    kernel = await start_kernel(client)
    code = (
        "import threading, time\n"
        "def later():\n    time.sleep(0.5); print('late', flush=True)\n"
        "threading.Thread(target=later).start()"
    )
    record = await run(client, kernel, code)
    assert record["outputs"] == []

    async def arrived():
        got = (await client.get(f"/api/executions/{record['id']}")).json()
        return text_of(got) == "late\n" and got["status"] == "ok"

    await until(arrived)


async def test_a_cell_run_again_shows_only_the_new_outputs(client, database, root_dir):
    (cell,) = write_notebook(root_dir / "a.ipynb", "print('old'); n = 1; n")
    kernel = await start_kernel(client)
    for _ in range(2):
        await finished(client, await execute(client, kernel, path="a.ipynb", cell_id=cell))
    shown = await rows(database, select(Output).where(Output.cell_id.is_not(None)))
    assert len(shown) == 2
    assert len({row.execution_id for row in shown}) == 1
    assert len(await rows(database, select(Output))) == 4, "history keeps the first run's"


@pytest.fixture
def own_postgres(short_tmp):
    """A PostgreSQL that the test may stop."""
    embedded = EmbeddedPostgres(short_tmp / f"own-{os.urandom(4).hex()}")
    with embedded:
        yield embedded


@pytest.mark.parametrize("how", ["restart", "kill"])
async def test_postgresql_restarts_in_the_middle_of_a_run(
    own_postgres, settings, root_dir, tmp_path, how
):
    from app.db import migrations

    migrations.upgrade(own_postgres.url)
    code = "import time\nfor i in range(150):\n    print(i, flush=True)\n    time.sleep(0.02)"
    (cell,) = write_notebook(root_dir / "a.ipynb", code)
    async with serving(settings, own_postgres.url, tmp_path / "data") as client:
        kernel = await start_kernel(client)
        execution = await execute(client, kernel, path="a.ipynb", cell_id=cell)
        await status_is(client, execution, "running")
        for _ in range(2):
            if how == "kill":
                os.kill(own_postgres.pid, signal.SIGKILL)
                await until(lambda: not own_postgres.is_running())
            else:
                own_postgres.stop()
            own_postgres.start()

        async def ended():
            response = await client.get(f"/api/executions/{execution['id']}")
            return (
                response.json()
                if response.status_code == 200 and response.json()["finished_at"]
                else None
            )

        record = await until(ended, 40)
        assert text_of(record) == "".join(f"{i}\n" for i in range(150))
        assert record["status"] == "ok"

        def saved():
            outputs = read_notebook(root_dir / "a.ipynb")["cells"][0]["outputs"]
            return outputs and "".join(outputs[0]["text"]) == text_of(record)

        await until(saved, 40)


async def test_a_lost_answer_to_a_commit_does_not_store_twice(client, database, monkeypatch):
    """The connection breaks after the commit took effect: the batch is not written again."""
    kernel = await start_kernel(client)
    await run(client, kernel, "1")
    real, real_alone = Database.transaction, Database.write_alone
    broken = []

    from contextlib import asynccontextmanager

    def lose(recorder):
        if recorder and len(broken) < 3:
            broken.append(1)
            raise ConnectionResetError("the answer to COMMIT was lost")

    @asynccontextmanager
    async def transaction(self, *, recorder=False):
        async with real(self, recorder=recorder) as tx:
            yield tx
        lose(recorder)

    async def write_alone(self, *given, recorder=False, **more):
        rows = await real_alone(self, *given, recorder=recorder, **more)
        lose(recorder)
        return rows

    monkeypatch.setattr(Database, "transaction", transaction)
    monkeypatch.setattr(Database, "write_alone", write_alone)
    short = await run(client, kernel, "print('a')")
    assert (len(broken) > 0, text_of(short), short["output_bytes"]) == (True, "a\n", 2)
    broken.clear()
    record = await run(client, kernel, "for i in range(20): print(i, flush=True)")
    assert len(broken) == 3
    assert text_of(record) == "".join(f"{i}\n" for i in range(20))
    assert record["output_bytes"] == len(text_of(record))


async def test_execution_history_answers_who_ran_what(client, database, root_dir):
    (cell,) = write_notebook(root_dir / "a.ipynb", "import time; time.sleep(0.05); 1/0")
    kernel = await start_kernel(client)
    await run(client, kernel, "print('console')")
    await finished(client, await execute(client, kernel, path="a.ipynb", cell_id=cell))
    async with database.read() as tx:
        found = (await tx.execute(text("SELECT * FROM execution_history"))).mappings().all()
    console, in_cell = found
    assert (console["notebook_path"], console["cell"]) == (None, None)
    assert console["output_bytes"] == len("console\n")
    assert (in_cell["actor"], in_cell["notebook_path"], in_cell["cell"]) == ("ada", "a.ipynb", cell)
    assert (in_cell["status"], in_cell["error_name"]) == ("error", "ZeroDivisionError")
    assert in_cell["run_seconds"] >= 0.05
    assert in_cell["queue_seconds"] >= 0
