"""Opening, editing from several processes, rolling back, and what an edit costs."""

import asyncio
import json

import pytest
from jupyter_ydoc import YNotebook
from nbformat import v4
from pycrdt import Array, Doc, Map, Text
from sqlalchemy import event, func, select, text

from app.errors import BadRequestError, NotFoundError
from models import DocumentSnapshot, DocumentUpdate, Output
from tests.app.documents.conftest import check_invariant, code, count, plain, stream, write


async def test_opening_reads_the_file_once_and_writes_nothing(store, root, database):
    wanted = write(root / "a.ipynb", code("1", [stream("x")]), v4.new_markdown_cell("# t"))
    before = (root / "a.ipynb").stat().st_mtime_ns
    first = await store.open_notebook("a.ipynb", actor_id=None)
    second = await store.open_notebook("/a.ipynb/", actor_id=None)
    await store.save_now(first.id)
    assert first.id == second.id
    assert (second.version, second.saved_version) == (1, 1)
    assert await store.notebook(first.id) == wanted
    assert (root / "a.ipynb").stat().st_mtime_ns == before
    await check_invariant(database, store, first.id)


async def test_find_by_both_forms_of_the_id(store, root):
    write(root / "a.ipynb", code("1"))
    document = await store.find(path="a.ipynb")
    assert (await store.find(document_id=str(document.id))).id == document.id
    assert (await store.find(document_id=f"json:notebook:{document.id}")).id == document.id
    for unknown in ("nonsense", "00000000-0000-0000-0000-000000000000"):
        with pytest.raises(NotFoundError):
            await store.find(document_id=unknown)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("{no json", BadRequestError),
        ("[]", BadRequestError),
        ('{"a": 1}', BadRequestError),
        ('{"nbformat": 4, "cells": [{"cell_type": "zebra"}]}', BadRequestError),
    ],
)
async def test_a_file_that_is_no_notebook_is_refused(store, root, content, error):
    (root / "a.ipynb").write_text(content)
    with pytest.raises(error):
        await store.open_notebook("a.ipynb", actor_id=None)
    with pytest.raises(NotFoundError):
        await store.open_notebook("missing.ipynb", actor_id=None)


ODD = {
    "nbformat": 4,
    "nbformat_minor": 4,
    "unknown": {"top": [1, 2.5]},
    "metadata": {
        "x": 1.0,
        "big": 12345678901234567890,
        "nan": float("nan"),
        "é": "\x00",
        "n": None,
    },
    "cells": [
        {"cell_type": "raw", "metadata": {"format": "text/plain"}, "source": ""},
        {
            "cell_type": "markdown",
            "metadata": {"deep": {"a": [{}, [], None, True]}},
            "source": "![](attachment:a.png)",
            "attachments": {"a.png": {"image/png": "aGk="}},
        },
        {
            "cell_type": "code",
            "metadata": {"collapsed": False},
            "source": "print(1)\n",
            "future_key": {"kept": 1},
            "execution_count": 7,
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": "a\rb\n"},
                {"output_type": "stream", "name": "stdout", "text": "apart"},
                {
                    "output_type": "display_data",
                    "data": {"application/json": {"a": [1, 1.5]}},
                    "metadata": {},
                },
                {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["t"]},
                {"output_type": "strange", "kept": [1]},
            ],
        },
    ],
}


async def test_an_odd_notebook_keeps_everything_but_the_edit(make_store, root, database, recorder):
    (root / "a.ipynb").write_text(json.dumps(ODD))
    before = json.loads((root / "a.ipynb").read_text())
    store = make_store()
    document = await store.open_notebook("a.ipynb", actor_id=None)
    store = make_store()
    async with database.transaction() as tx:
        editor = await store.edit(tx, document.id, origin="execution")
        cell_id = editor.cell_ids()[2]
        execution = await recorder.execution(tx, document.id, cell_id)
        await editor.begin_execution(cell_id, execution)
        await recorder.output(
            tx,
            editor,
            cell_id,
            execution,
            {"output_type": "stream", "name": "stdout", "text": "new\r\n"},
        )
        await editor.end_execution(cell_id, execution, 8)
    await store.save_now(document.id)
    after = json.loads((root / "a.ipynb").read_text())
    assert after["cells"][2].pop("outputs") == [
        {"output_type": "stream", "name": "stdout", "text": ["new\n"]}
    ]
    assert after["cells"][2].pop("execution_count") == 8
    del before["cells"][2]["outputs"], before["cells"][2]["execution_count"]
    for cell in after["cells"]:
        cell["source"] = "".join(cell["source"])
    assert json.dumps(after, sort_keys=True) == json.dumps(before, sort_keys=True)
    await check_invariant(database, store, document.id)


async def test_cells_without_ids_keep_theirs_when_the_file_changes(store, root, database):
    cells = [code("a"), code("b"), code("c")]
    write(root / "a.ipynb", *cells, minor=4)
    document = await store.open_notebook("a.ipynb", actor_id=None)
    _, notebook = await store.snapshot(document.id)
    ids = {cell["source"]: cell["id"] for cell in notebook["cells"]}
    write(root / "a.ipynb", code("new"), code("c"), code("a"), code("b!"), minor=4)
    await store.open_notebook("a.ipynb", actor_id=None)
    _, notebook = await store.snapshot(document.id)
    found = {cell["source"]: cell["id"] for cell in notebook["cells"]}
    assert list(found) == ["new", "c", "a", "b!"]
    assert found["a"] == ids["a"]
    assert all("id" not in cell for cell in (await store.notebook(document.id))["cells"])


async def test_a_repeated_cell_id_is_made_unique(store, root, database):
    write(root / "a.ipynb", code("1", id="same"), code("2", id="same"))
    document = await store.open_notebook("a.ipynb", actor_id=None)
    ids = [cell["id"] for cell in (await store.notebook(document.id))["cells"]]
    assert ids[0] == "same" != ids[1]
    await check_invariant(database, store, document.id)


async def test_an_old_format_is_upgraded_on_save_and_its_original_kept(store, root):
    old = {
        "nbformat": 3,
        "nbformat_minor": 0,
        "metadata": {"name": "x"},
        "worksheets": [
            {
                "cells": [
                    {
                        "cell_type": "code",
                        "input": "1",
                        "language": "python",
                        "outputs": [],
                        "prompt_number": 1,
                    }
                ]
            }
        ],
    }
    (root / "a.ipynb").write_text(json.dumps(old))
    document = await store.open_notebook("a.ipynb", actor_id=None)
    await store.save_now(document.id)
    assert json.loads((root / "a.ipynb").read_text()) == old
    notebook = await store.notebook(document.id)
    notebook["cells"][0]["source"] = "2"
    await store.put_notebook("a.ipynb", notebook, actor_id=None)
    assert json.loads((root / "a.ipynb").read_text())["nbformat"] == 4
    assert json.loads((root / ".ipynb_checkpoints/a-checkpoint.ipynb").read_text()) == old


async def test_a_rolled_back_edit_is_gone_from_memory(store, root, database):
    wanted = write(root / "a.ipynb", code("1", id="a"))
    document = await store.open_notebook("a.ipynb", actor_id=None)
    with pytest.raises(RuntimeError):  # noqa: PT012 (the transaction is what raises)
        async with database.transaction() as tx:
            editor = await store.edit(tx, document.id, origin="api")
            editor.replace({**wanted, "cells": []})
            await editor.flush()
            raise RuntimeError
    assert await store.notebook(document.id) == wanted
    assert await count(database, DocumentUpdate) == 1


async def test_two_processes_edit_one_document(make_store, root, database):
    one, two = make_store(), make_store()
    base = write(root / "a.ipynb", code("first\nsecond\n", id="a"), code("b", id="b"))
    document = await one.open_notebook("a.ipynb", actor_id=None)
    await two.notebook(document.id)
    for store, source in (
        (one, "FIRST\nsecond\n"),
        (two, "FIRST\nSECOND\n"),
        (one, "FIRST\nSECOND\nthird"),
    ):
        async with database.transaction() as tx:
            editor = await store.edit(tx, document.id, origin="api")
            assert await store.edit(tx, document.id, origin="api") is editor
            notebook = plain(editor.notebook())
            notebook["cells"][0]["source"] = source
            editor.replace(notebook)
        await check_invariant(database, one, document.id)
        await check_invariant(database, two, document.id)
    _, _, rows = await one.cells(document.id)
    assert [(row.source, row.version) for row in rows] == [("FIRST\nSECOND\nthird", 4), ("b", 1)]
    assert base["cells"][1] == (await two.notebook(document.id))["cells"][1]


async def test_a_stream_goes_on_in_another_process(make_store, root, database, recorder):
    write(root / "a.ipynb", code("1", id="a"))
    document = await make_store().open_notebook("a.ipynb", actor_id=None)
    execution = None
    for piece in ("one\rX", "\rY", "\b\bZ", "\r", "ab", "\n", "\rq"):
        store = make_store()
        async with database.transaction() as tx:
            editor = await store.edit(tx, document.id, origin="execution")
            if execution is None:
                execution = await recorder.execution(tx, document.id, "a")
                await editor.begin_execution("a", execution)
            await recorder.output(
                tx,
                editor,
                "a",
                execution,
                {"output_type": "stream", "name": "stdout", "text": piece},
            )
        await check_invariant(database, store, document.id)
    assert (await store.notebook(document.id))["cells"][0]["outputs"][0]["text"] == "abe\nq"


async def test_a_late_output_of_a_former_run_is_not_shown(store, root, database, recorder):
    write(root / "a.ipynb", code("1", id="a"))
    document = await store.open_notebook("a.ipynb", actor_id=None)
    async with database.transaction() as tx:
        editor = await store.edit(tx, document.id, origin="execution")
        first = await recorder.execution(tx, document.id, "a")
        second = await recorder.execution(tx, document.id, "a")
        await editor.begin_execution("a", first)
        await recorder.output(tx, editor, "a", first, plain(stream("old")))
        await editor.begin_execution("a", second)
        assert not await recorder.output(tx, editor, "a", first, plain(stream("late")))
        assert not await editor.end_execution("a", first, 1)
        assert not editor.append_output("gone", first, plain(stream("x")))
        assert await recorder.output(tx, editor, "a", second, plain(stream("new")))
    cell = (await store.notebook(document.id))["cells"][0]
    assert [output["text"] for output in cell["outputs"]] == ["new"]
    assert await count(database, Output) == 3
    await check_invariant(database, store, document.id)


async def test_outputs_of_a_running_cell_are_the_servers(store, root, database, recorder):
    write(root / "a.ipynb", code("1", id="a"), code("2", id="b"))
    document = await store.open_notebook("a.ipynb", actor_id=None)
    stale = await store.notebook(document.id)
    async with database.transaction() as tx:
        editor = await store.edit(tx, document.id, origin="execution")
        execution = await recorder.execution(tx, document.id, "a")
        await editor.begin_execution("a", execution)
        await recorder.output(tx, editor, "a", execution, plain(stream("said\r")))
    stale["cells"].reverse()
    await store.put_notebook("a.ipynb", stale, actor_id=None)
    async with database.transaction() as tx:
        editor = await store.edit(tx, document.id, origin="execution")
        await recorder.output(tx, editor, "a", execution, plain(stream("SA")))
        await editor.end_execution("a", execution, 1)
    notebook = await store.notebook(document.id)
    assert [cell["id"] for cell in notebook["cells"]] == ["b", "a"]
    assert [output["text"] for output in notebook["cells"][1]["outputs"]] == ["SAid"]
    await check_invariant(database, store, document.id)


async def test_an_output_costs_the_same_in_a_large_notebook(store, root, database, recorder):
    statements = []

    def note(connection, cursor, statement, *rest):
        statements.append(statement)

    costs = []
    for size in (2, 300):
        write(root / f"{size}.ipynb", *[code(f"{n}", id=f"c{n}") for n in range(size)])
        document = await store.open_notebook(f"{size}.ipynb", actor_id=None)
        async with database.transaction() as tx:
            editor = await store.edit(tx, document.id, origin="execution")
            execution = await recorder.execution(tx, document.id, "c1")
            await editor.begin_execution("c1", execution)
        engine = database._requests.sync_engine
        event.listen(engine, "before_cursor_execute", note)
        statements.clear()
        async with database.transaction() as tx:
            editor = await store.edit(tx, document.id, origin="execution")
            for _ in range(20):
                editor.append_output("c1", execution, plain(stream("line\n")))
        event.remove(engine, "before_cursor_execute", note)
        costs.append(len(statements))
        async with database.read() as session:
            query = select(DocumentUpdate.update).where(DocumentUpdate.document_id == document.id)
            update = (
                (await session.execute(query.order_by(DocumentUpdate.version.desc())))
                .scalars()
                .first()
            )
        assert len(update) < 400
    assert costs[0] == costs[1] <= 4


async def test_snapshots_shorten_loading_and_lose_nothing(make_store, root, database, monkeypatch):
    monkeypatch.setattr("app.documents.updates._SNAPSHOT_UPDATES", 200)
    store = make_store()
    wanted = write(root / "a.ipynb", code("", id="a"))
    document = await store.open_notebook("a.ipynb", actor_id=None)
    for number in range(205):
        wanted["cells"][0]["source"] = f"{number}"
        async with database.transaction() as tx:
            (await store.edit(tx, document.id, origin="api")).replace(plain(wanted))
    assert await count(database, DocumentSnapshot) == 1
    assert await count(database, DocumentUpdate) == 206
    assert await make_store().notebook(document.id) == wanted
    await check_invariant(database, make_store(), document.id)


async def test_a_keystroke_takes_few_bytes(store, root, database):
    write(root / "a.ipynb", code("", id="a"))
    document = await store.open_notebook("a.ipynb", actor_id=None)
    client = Doc()
    client.apply_update((await store.merge_state(document.id))[1])
    sent = []
    subscription = client.observe(lambda event: sent.append(event.update))
    for _ in range(300):
        client.get("cells", type=Array)[0]["source"].insert(0, "a")
        async with database.transaction() as tx:
            (await store.edit(tx, document.id, origin="room")).apply_update(sent.pop())
    del subscription
    size = func.pg_column_size(text("document_updates"))
    query = select(size, func.length(DocumentUpdate.update))
    async with database.read() as session:
        found = (await session.execute(query.where(DocumentUpdate.origin == "room"))).all()
    # PostgreSQL's 24, document, version, update, origin; at a multiple of 8, the time.
    assert all(row <= (24 + 16 + 8 + 1 + update + 5 + 7) // 8 * 8 + 8 for row, update in found)
    # The whole document again and again would cost more than what is typed.
    assert await count(database, DocumentSnapshot) == 0


async def test_what_a_room_sends_is_projected(make_store, root, database, recorder):
    store = make_store()
    write(root / "a.ipynb", code("one", [stream("x")], id="a"), code("two", id="b"))
    document = await store.open_notebook("a.ipynb", actor_id=None)
    async with database.read() as session:
        query = select(DocumentUpdate.update).where(DocumentUpdate.document_id == document.id)
        stored = (await session.execute(query)).scalar_one()
    client = Doc()
    client.apply_update(stored)
    before = client.get_state()
    cells = client.get("cells", type=Array)
    with client.transaction():
        cells[0]["source"].insert(3, "!")
        del cells[0]["outputs"][:]
        cells.insert(
            0,
            Map(
                {
                    "id": "b",
                    "cell_type": "code",
                    "source": Text("copy of b"),
                    "metadata": Map({"k": 1}),
                    "outputs": Array([]),
                    "execution_state": "idle",
                    "execution_count": None,
                }
            ),
        )
        cells.append(
            Map({"id": "m", "cell_type": "markdown", "source": Text("# m"), "metadata": Map({})})
        )
    async with database.transaction() as tx:
        editor = await store.edit(tx, document.id, origin="room")
        editor.apply_update(client.get_update(before))
    notebook = await store.notebook(document.id)
    assert [cell["source"] for cell in notebook["cells"]] == ["copy of b", "one!", "two", "# m"]
    assert len({cell["id"] for cell in notebook["cells"]}) == 4
    await check_invariant(database, store, document.id)
    await check_invariant(database, make_store(), document.id)


async def test_many_edit_at_once_and_none_is_lost(make_store, root, database):
    stores = [make_store(), make_store()]
    write(root / "a.ipynb", *[code("", id=f"c{n}") for n in range(8)])
    document = await stores[0].open_notebook("a.ipynb", actor_id=None)

    async def edit(number):
        for turn in range(5):
            store = stores[(number + turn) % 2]
            async with database.transaction() as tx:
                editor = await store.edit(tx, document.id, origin="api")
                notebook = plain(editor.notebook())
                notebook["cells"][number]["source"] += f"{turn}"
                editor.replace(notebook)
            await stores[turn % 2].notebook(document.id)

    async with asyncio.timeout(120):
        await asyncio.gather(*(edit(number) for number in range(8)))
    for store in stores:
        notebook = await store.notebook(document.id)
        assert {cell["source"] for cell in notebook["cells"]} == {"01234"}
        await check_invariant(database, store, document.id)
    assert await count(database, DocumentUpdate) == 41


async def test_one_file_opened_by_many_is_one_document(make_store, root, database):
    stores = [make_store(), make_store()]
    write(root / "a.ipynb", code("1"))
    found = await asyncio.gather(
        *(stores[n % 2].open_notebook("a.ipynb", actor_id=None) for n in range(10))
    )
    assert len({document.id for document in found}) == 1
    assert await count(database, DocumentUpdate) == 1


async def test_a_stream_goes_on_in_turns_of_two_processes(make_store, root, database, recorder):
    stores = [make_store(), make_store()]
    write(root / "a.ipynb", code("1", id="a"))
    document = await stores[0].open_notebook("a.ipynb", actor_id=None)
    execution = None
    for turn, piece in enumerate(("abc\r", "X", "Y\r", "\bZ", "\n", "q\r", "r")):
        async with database.transaction() as tx:
            editor = await stores[turn % 2].edit(tx, document.id, origin="execution")
            if execution is None:
                execution = await recorder.execution(tx, document.id, "a")
                await editor.begin_execution("a", execution)
            await recorder.output(tx, editor, "a", execution, plain(stream(piece)))
    for store in stores:
        assert (await store.notebook(document.id))["cells"][0]["outputs"][0]["text"] == "ZYc\nr"
        await check_invariant(database, store, document.id)


async def test_a_late_piece_goes_on_in_a_cell_that_was_moved(store, root, database, recorder):
    write(root / "a.ipynb", code("1", id="a"), code("2", id="b"), code("3", id="c"))
    document = await store.open_notebook("a.ipynb", actor_id=None)
    async with database.transaction() as tx:
        editor = await store.edit(tx, document.id, origin="execution")
        execution = await recorder.execution(tx, document.id, "a")
        await editor.begin_execution("a", execution)
        await recorder.output(tx, editor, "a", execution, plain(stream("abc\r")))
        await editor.end_execution("a", execution, 1)
    notebook = await store.notebook(document.id)
    notebook["cells"].append(notebook["cells"].pop(0))
    await store.put_notebook("a.ipynb", notebook, actor_id=None)
    async with database.transaction() as tx:
        editor = await store.edit(tx, document.id, origin="execution")
        await recorder.output(tx, editor, "a", execution, plain(stream("X")))
    cells = (await store.notebook(document.id))["cells"]
    outputs = {cell["id"]: [output["text"] for output in cell["outputs"]] for cell in cells}
    assert outputs == {"b": [], "c": [], "a": ["Xbc"]}
    await check_invariant(database, store, document.id)


async def test_displays_are_found_behind_streams_and_after_a_restart(
    make_store, root, database, recorder
):
    store = make_store()
    write(root / "a.ipynb", code("1", id="a"), code("2", id="b"))
    document = await store.open_notebook("a.ipynb", actor_id=None)
    display = {"output_type": "display_data", "data": {"text/plain": "old"}, "metadata": {}}
    async with database.transaction() as tx:
        editor = await store.edit(tx, document.id, origin="execution")
        for cell_id in ("a", "b"):
            execution = await recorder.execution(tx, document.id, cell_id)
            await editor.begin_execution(cell_id, execution)
            for text in ("one", "two", "three"):
                await recorder.output(tx, editor, cell_id, execution, plain(stream(text)))
            await recorder.output(tx, editor, cell_id, execution, display, "d")
            await recorder.output(tx, editor, cell_id, execution, plain(stream("after")))
            await recorder.output(tx, editor, cell_id, execution, display, "other")
        assert await recorder.update_display(tx, editor, "d", {"text/plain": "at once"}) == 2
    await check_invariant(database, store, document.id)
    store = make_store()
    async with database.transaction() as tx:
        assert await store.showing(tx, "kernel-1", ["d"]) == {document.id}
        assert await store.showing(tx, "kernel-2", ["d"]) == set()
        editor = await store.edit(tx, document.id, origin="execution")
        assert await recorder.update_display(tx, editor, "d", {"text/plain": "later"}) == 2
        assert await editor.update_display("kernel-2", "d", {}, {}) == 0
    for cell in (await store.notebook(document.id))["cells"]:
        assert [o["data"]["text/plain"] for o in cell["outputs"] if "data" in o] == ["later", "old"]
    await check_invariant(database, store, document.id)


async def test_the_document_has_the_shape_of_jupyter_ydoc(store, root, database):
    wanted = write(
        root / "a.ipynb",
        code("1", [stream("x")], id="a", metadata={"n": 1}),
        v4.new_markdown_cell("# t", id="b"),
        kernelspec={"name": "python3", "display_name": "Python 3"},
    )
    document = await store.open_notebook("a.ipynb", actor_id=None)
    async with database.read() as session:
        query = select(DocumentUpdate.update).where(DocumentUpdate.document_id == document.id)
        stored = (await session.execute(query)).scalar_one()
    doc = Doc()
    shared = YNotebook(doc)
    doc.apply_update(stored)
    assert shared.get() == wanted
    assert isinstance(shared.ycells[0]["outputs"][0]["text"], Text)
    assert isinstance(shared.ycells[0]["metadata"], Map)
    assert shared.ycells[0]["execution_state"] == "idle"
    assert "outputs" not in shared.ycells[1]
