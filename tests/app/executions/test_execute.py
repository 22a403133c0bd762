import asyncio

import pytest

from tests.kernels import (
    execute,
    finished,
    input_request,
    read_notebook,
    run,
    start_kernel,
    status_is,
    text_of,
    until,
    write_notebook,
)


async def test_code_runs_and_is_recorded(client):
    kernel = await start_kernel(client)
    response = await client.post(f"/api/kernels/{kernel}/execute", json={"code": "print(2); 1+1"})
    assert response.status_code == 202
    queued = response.json()
    assert response.headers["location"] == f"/api/executions/{queued['id']}"
    assert queued["status"] == "queued"
    record = await finished(client, queued)
    assert (record["status"], record["execution_count"]) == ("ok", 1)
    assert record["actor"] == record["run_as"] == "ada"
    assert record["queued_at"] <= record["started_at"] <= record["finished_at"]
    assert record["outputs"][0] == {"output_type": "stream", "name": "stdout", "text": "2\n"}
    assert record["outputs"][1]["data"] == {"text/plain": "2"}
    assert record["output_bytes"] > 2


async def test_an_error_is_recorded_with_its_traceback(client):
    kernel = await start_kernel(client)
    record = await run(client, kernel, "1/0")
    assert (record["status"], record["ename"]) == ("error", "ZeroDivisionError")
    assert record["evalue"] == "division by zero"
    assert any("\x1b[" in line for line in record["traceback"]), "colours are kept"
    assert record["outputs"][0]["ename"] == "ZeroDivisionError"


async def test_options_of_execute_request(client):
    kernel = await start_kernel(client)
    silent = await run(client, kernel, "x = 5; x", silent=True)
    assert (silent["status"], silent["outputs"]) == ("ok", [])
    record = await run(
        client, kernel, "None", store_history=False, user_expressions={"twice": "x * 2"}
    )
    assert record["reply"]["user_expressions"]["twice"]["data"] == {"text/plain": "10"}
    counted = await run(client, kernel, "1")
    assert counted["execution_count"] == 1, "neither of the first two counts"


async def test_the_same_key_never_runs_twice(client):
    kernel = await start_kernel(client)
    body = {"code": "n = globals().get('n', 0) + 1; print(n)", "idempotency_key": "k1"}
    answers = await asyncio.gather(
        *(client.post(f"/api/kernels/{kernel}/execute", json=body) for _ in range(5))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    record = await finished(client, answers[0].json())
    again = await execute(client, kernel, **body)
    assert (again["id"], again["status"]) == (record["id"], "ok")
    assert text_of(await run(client, kernel, "print(n)")) == "1\n"
    other = await client.post(
        f"/api/kernels/{kernel}/execute", json={"code": "2", "idempotency_key": "k1"}
    )
    assert other.status_code == 422


async def test_a_cell_runs_and_its_outputs_reach_rows_and_file(client, root_dir):
    first, second = write_notebook(root_dir / "a.ipynb", "print('hello')", "6*7")
    kernel = await start_kernel(client)
    record = await finished(client, await execute(client, kernel, path="a.ipynb", cell_id=second))
    assert (record["path"], record["cell_id"], record["code"]) == ("a.ipynb", second, "6*7")
    cells = (await client.get(f"/api/documents/{record['document_id']}/cells")).json()["cells"]
    assert [cell["id"] for cell in cells] == [first, second]
    assert cells[1]["execution_state"] == "idle"
    assert cells[1]["execution_id"] == record["id"]

    def saved():
        cell = read_notebook(root_dir / "a.ipynb")["cells"][1]
        return cell if cell["outputs"] else None

    cell = await until(saved)
    assert cell["execution_count"] == record["execution_count"] == 1
    assert cell["outputs"][0]["data"]["text/plain"] == ["42"], "as nbformat writes it"
    by_id = await execute(
        client, kernel, document_id=f"json:notebook:{record['document_id']}", cell_id=first
    )
    assert text_of(await finished(client, by_id)) == "hello\n"


async def test_a_changed_cell_is_a_conflict(client, root_dir):
    (cell,) = write_notebook(root_dir / "a.ipynb", "1")
    kernel = await start_kernel(client)
    ran = await finished(
        client, await execute(client, kernel, path="a.ipynb", cell_id=cell, cell_version=1)
    )
    assert ran["cell_version"] == 1
    model = (await client.get("/api/contents/a.ipynb")).json()
    model["content"]["cells"][0]["source"] = "2"
    assert (await client.put("/api/contents/a.ipynb", json=model)).status_code == 200
    body = {"path": "a.ipynb", "cell_id": cell, "cell_version": 1}
    response = await client.post(f"/api/kernels/{kernel}/execute", json=body)
    assert response.status_code == 409
    assert "version 2" in response.json()["reason"]
    listed = (await client.get("/api/executions", params={"path": "a.ipynb"})).json()
    assert len(listed["executions"]) == 1, "a refused request leaves nothing"


async def test_session_runs_all_cells_in_order_and_an_error_aborts_the_rest(client, root_dir):
    ids = write_notebook(root_dir / "a.ipynb", "# Title", "x = 1", "", "1/0", "print(x)")
    session = (
        await client.post("/api/sessions", json={"path": "a.ipynb", "type": "notebook"})
    ).json()
    url = f"/api/sessions/{session['id']}/run"
    response = await client.post(url, json={"cells": "all"})
    assert response.status_code == 202, response.text
    queued = response.json()["executions"]
    assert [e["cell_id"] for e in queued] == [ids[1], ids[3], ids[4]], "no markdown, no empty cell"
    records = [await finished(client, e) for e in queued]
    assert [r["status"] for r in records] == ["ok", "error", "aborted"]
    assert records[2]["reason"]
    response = await client.post(url, json={"cells": [ids[3], ids[4]], "stop_on_error": False})
    records = [await finished(client, e) for e in response.json()["executions"]]
    assert [r["status"] for r in records] == ["error", "ok"]
    assert text_of(records[1]) == "1\n"
    missing = await client.post(url, json={"cells": [ids[1], "nope"]})
    assert missing.status_code == 404
    listed = (await client.get("/api/executions", params={"status": "queued"})).json()
    assert listed["executions"] == [], "nothing of a refused request is queued"


async def test_what_is_asked_right_after_an_error_is_not_aborted(client):
    kernel = await start_kernel(client)
    for _ in range(10):
        failed = await execute(client, kernel, "1/0")
        await finished(client, failed)
        assert (await run(client, kernel, "1"))["status"] == "ok"


async def test_cancel_and_interrupt(client):
    kernel = await start_kernel(client)
    running = await execute(client, kernel, "import time\nprint('on')\ntime.sleep(60)")
    waiting = await execute(client, kernel, "print('never')")
    await status_is(client, running, "running")
    assert (await client.delete(f"/api/executions/{waiting['id']}")).status_code == 204
    cancelled = await finished(client, waiting)
    assert (cancelled["status"], cancelled["started_at"]) == ("cancelled", None)
    assert "ada" in cancelled["reason"]
    assert (await client.delete(f"/api/executions/{running['id']}")).status_code == 204
    interrupted = await finished(client, running)
    assert (interrupted["status"], interrupted["ename"]) == ("error", "KeyboardInterrupt")
    assert (await client.delete(f"/api/executions/{running['id']}")).status_code == 409


async def test_input_is_answered_exactly_once(client, database):
    kernel = await start_kernel(client)
    execution = await execute(client, kernel, "print('hi', input('Name? '))")
    question = await input_request(client, execution)
    assert (question["prompt"], question["password"]) == ("Name? ", False)
    url = f"/api/executions/{execution['id']}/input"
    other = {"value": "eve", "input_request_id": execution["id"]}
    assert (await client.post(url, json=other)).status_code == 409, "meant for another question"
    answers = await asyncio.gather(
        *(client.post(url, json={"value": name}) for name in ("ada", "bob", "eve"))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409]
    record = await finished(client, execution)
    assert record["status"] == "ok"
    assert text_of(record).strip().startswith("hi ")
    assert (await client.post(url, json={"value": "late"})).status_code == 409


async def test_a_password_is_never_stored(client, database):
    kernel = await start_kernel(client)
    secret = "correct horse battery staple"
    execution = await execute(
        client, kernel, "import getpass; n = len(getpass.getpass('Secret: ')); print(n)"
    )
    assert (await input_request(client, execution))["password"] is True
    url = f"/api/executions/{execution['id']}/input"
    assert (await client.post(url, json={"value": secret})).status_code == 201
    assert text_of(await finished(client, execution)).strip() == str(len(secret))
    from sqlalchemy import text

    async with database.read() as tx:
        tables = (
            await tx.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
        ).scalars()
        for table in list(tables):
            rows = (await tx.execute(text(f"SELECT t::text FROM {table} t"))).scalars()
            assert not any(secret in row for row in rows), table


async def test_an_interrupted_question_is_void(client):
    kernel = await start_kernel(client)
    execution = await execute(client, kernel, "input('?')")
    await input_request(client, execution)
    await client.delete(f"/api/executions/{execution['id']}")
    record = await finished(client, execution)
    assert (record["status"], record["input_request"]) == ("error", None)
    response = await client.post(f"/api/executions/{execution['id']}/input", json={"value": "x"})
    assert response.status_code == 409


async def test_without_allow_stdin_input_fails(client):
    kernel = await start_kernel(client)
    record = await run(client, kernel, "input('?')", allow_stdin=False)
    assert record["ename"] == "StdinNotImplementedError"


async def test_listing_filters_and_pages(client, root_dir):
    (cell,) = write_notebook(root_dir / "a.ipynb", "1")
    kernel = await start_kernel(client)
    ran = [await run(client, kernel, str(n)) for n in range(4)]
    failed = await run(client, kernel, "1/0")
    in_cell = await finished(client, await execute(client, kernel, path="a.ipynb", cell_id=cell))

    async def listed(**params):
        response = await client.get("/api/executions", params=params)
        assert response.status_code == 200, response.text
        return [e["id"] for e in response.json()["executions"]]

    everything = [in_cell, failed, *reversed(ran)]
    assert await listed() == [e["id"] for e in everything]
    assert await listed(status="error") == [failed["id"]]
    assert await listed(path="a.ipynb") == [in_cell["id"]] == await listed(cell_id=cell)
    assert await listed(actor="nobody") == [] == await listed(kernel_id="nope")
    assert len(await listed(actor="ada", kernel_id=kernel)) == 6
    assert await listed(since=failed["queued_at"]) == [in_cell["id"], failed["id"]]
    pages, cursor = [], None
    while True:
        params = {"limit": 4} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/api/executions", params=params)).json()
        pages.append([e["id"] for e in page["executions"]])
        if (cursor := page["next"]) is None:
            break
    assert [len(page) for page in pages] == [4, 2]
    assert [e for page in pages for e in page] == [e["id"] for e in everything]


async def test_following_outputs_as_they_come(client):
    kernel = await start_kernel(client)
    await run(client, kernel, "1")
    code = "for i in range(3):\n    print(i, flush=True)\n    input(str(i))"
    execution = await execute(client, kernel, code)
    cursor, text, asked = "", "", []
    for _ in range(200):
        response = await client.get(
            f"/api/executions/{execution['id']}/outputs", params={"cursor": cursor, "wait": 20}
        )
        page = response.json()
        cursor = page["cursor"]
        text += "".join(o["text"] for o in page["outputs"] if o["output_type"] == "stream")
        question = page["execution"]["input_request"]
        if question and question["id"] not in asked:
            asked.append(question["id"])
            assert f"{len(asked) - 1}\n" in text, "what was printed before the question is there"
            await client.post(f"/api/executions/{execution['id']}/input", json={"value": ""})
        if page["execution"]["finished_at"]:
            break
    assert len(asked) == 3
    assert page["execution"]["status"] == "ok"
    assert [line for line in text.split() if line] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[1]", 400),
        (b"{}", 400),
        (b'{"code": 1}', 400),
        (b'{"code": "1", "silent": "yes"}', 400),
        (b'{"code": "1", "user_expressions": {"a": 1}}', 400),
        (b'{"cell_id": "x"}', 400),
        (b'{"cell_id": "x", "path": "missing.ipynb"}', 404),
        (b'{"cell_id": "x", "path": "../outside.ipynb"}', 404),
        (b'{"cell_id": "x", "path": "a.ipynb"}', 404),
        (b'{"cell_id": "x", "document_id": "nope"}', 404),
        (b'{"code": "1", "idempotency_key": ""}', 400),
    ],
)
async def test_bad_requests_leave_nothing(client, root_dir, body, status):
    write_notebook(root_dir / "a.ipynb", "1")
    kernel = await start_kernel(client)
    response = await client.post(f"/api/kernels/{kernel}/execute", content=body)
    assert response.status_code == status, response.text
    assert set(response.json()) == {"message", "reason"}
    assert "Traceback" not in response.text
    assert (await client.get("/api/executions")).json() == {"executions": [], "next": None}


async def test_unknown_things_are_404(client):
    gone = "00000000-0000-0000-0000-000000000000"
    for method, path in [
        ("POST", f"/api/kernels/{gone}/execute"),
        ("GET", f"/api/executions/{gone}"),
        ("GET", "/api/executions/not-an-id"),
        ("DELETE", f"/api/executions/{gone}"),
        ("GET", f"/api/executions/{gone}/outputs"),
        ("POST", f"/api/sessions/{gone}/run"),
        ("GET", f"/api/documents/{gone}/cells"),
        ("GET", "/api/nothing"),
    ]:
        body = {"code": "1", "cells": "all", "value": ""}
        response = await client.request(method, path, json=body)
        assert response.status_code == 404, (method, path, response.text)
        assert set(response.json()) == {"message", "reason"}
