"""Undo and redo for each user: what they take back, and what they leave alone."""

import asyncio
import os
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from app.contents.disk import Disk
from app.db.engine import Database
from app.documents import cells
from app.documents.store import DocumentStore
from app.documents.undo import Undo
from app.settings import Settings
from models import User
from tests.app.documents.conftest import check_invariant, code, stream, write


class People:
    """Two users on one notebook; each edit through a store of its own process, if asked."""

    def __init__(self, database, root):
        self.database, self.root = database, root
        self.ids = {}
        self.restart()

    def restart(self):
        self.store = DocumentStore(self.database, Disk(self.root), Settings(save_delay_seconds=60))
        self.undoing = Undo(self.database, self.store)

    async def begin(self, path="a.ipynb"):
        async with self.database.transaction() as tx:
            for name in ("ada", "bob"):
                user = User(id=uuid.uuid4(), name=f"{name}-{uuid.uuid4().hex[:8]}")
                tx.add(user)
                self.ids[name] = user.id
        self.document = (await self.store.open_notebook(path, actor_id=None)).id

    async def edit(self, who, function, *arguments):
        async with self.database.transaction() as tx:
            editor = await self.store.edit(tx, self.document, origin="api", actor_id=self.ids[who])
            return function(editor, *arguments)

    async def undo(self, who, steps=1):
        return await self.undoing.perform(self.document, self.ids[who], redo=False, steps=steps)

    async def redo(self, who, steps=1):
        return await self.undoing.perform(self.document, self.ids[who], redo=True, steps=steps)

    async def notebook(self):
        return (await self.store.snapshot(self.document))[1]

    async def texts(self):
        return [cell["source"] for cell in (await self.notebook())["cells"]]

    async def ids_of_cells(self):
        return [cell["id"] for cell in (await self.notebook())["cells"]]


@pytest.fixture
async def people(database, root):
    write(root / "a.ipynb", code("one", [stream("said")], id="c1"), code("two", id="c2"))
    made = People(database, root)
    await made.begin()
    return made


async def test_text_of_others_stays(people):
    await people.edit("ada", cells.change, "c1", {"source": "ADA one"})
    await people.edit("bob", cells.change, "c1", {"source": "ADA and BOB one"})
    await people.edit("ada", cells.change, "c1", {"source": "ADA and BOB one!"})
    assert (await people.undo("ada", 2))["undo"] == 0
    assert (await people.texts())[0] == "and BOB one"
    await people.redo("ada", 2)
    assert (await people.texts())[0] == "ADA and BOB one!"
    await people.undo("bob")
    assert (await people.texts())[0] == "ADA one!"


async def test_each_kind_of_edit_is_taken_back_and_done_again(people):
    await people.edit("ada", cells.insert, {"id": "new", "source": "x", "after": "c1"})
    await people.edit("ada", cells.move, "c2", {"index": 0})
    await people.edit("ada", cells.change, "c1", {"metadata": {"tags": ["a"]}})
    await people.edit("ada", cells.change, "c1", {"outputs": []})
    await people.edit("ada", cells.change, "c1", {"type": "markdown"})
    await people.edit("ada", cells.change, "c1", {"splices": [{"offset": 1, "delete": 1}]})
    await people.edit("ada", cells.delete, "c1")
    states = [await people.notebook()]
    for _ in range(7):
        people.restart()
        assert (await people.undo("ada"))["done"] == 1
        states.append(await people.notebook())
        await check_invariant(people.database, people.store, people.document)
    assert [cell["id"] for cell in states[0]["cells"]] == ["c2", "new"]
    first = states[-1]["cells"]
    assert [(cell["id"], cell["source"]) for cell in first] == [("c1", "one"), ("c2", "two")]
    assert first[0]["outputs"][0]["text"] == "said"
    assert first[0]["metadata"] == {}
    assert await people.undo("ada") | {"version": 0} == {
        "done": 0,
        "version": 0,
        "undo": 0,
        "redo": 7,
    }
    for state in reversed(states[:-1]):
        people.restart()
        await people.redo("ada")
        assert await people.notebook() == state


async def test_a_move_taken_back_keeps_what_was_typed_meanwhile(people):
    await people.edit("ada", cells.move, "c2", {"index": 0})
    await people.edit("bob", cells.change, "c2", {"source": "two typed"})
    await people.undo("ada")
    assert await people.ids_of_cells() == ["c1", "c2"]
    assert (await people.texts())[1] == "two typed"


async def test_a_cell_in_which_others_typed_stays(people):
    await people.edit("ada", cells.insert, {"id": "new", "source": "ada's "})
    await people.edit("bob", cells.change, "new", {"source": "ada's bob's"})
    await people.undo("ada")
    assert await people.texts() == ["one", "two", "bob's"]


async def test_what_was_undone_twice_comes_back_once(people):
    await people.edit("ada", cells.change, "c1", {"source": "oneab"})
    await people.edit("ada", cells.change, "c1", {"source": "onea"})
    await people.undo("ada")
    people.restart()
    assert (await people.texts())[0] == "oneab"
    await people.undo("ada")
    assert (await people.texts())[0] == "one"
    people.restart()
    await people.redo("ada")
    assert (await people.texts())[0] == "oneab"
    await people.edit("ada", cells.change, "c1", {"source": "oneabc"})
    assert await people.undoing.counts(people.document, people.ids["ada"]) == {"undo": 2, "redo": 0}


async def test_what_was_done_in_a_cell_that_has_gone_holds_up_nothing(people):
    await people.edit("ada", cells.change, "c1", {"source": "one!"})
    await people.edit("ada", cells.change, "c2", {"source": "two!"})
    await people.edit("bob", cells.delete, "c2")
    assert await people.undo("ada") | {"version": 0} == {
        "done": 0,
        "version": 0,
        "undo": 1,
        "redo": 1,
    }
    people.restart()
    await people.undo("ada")
    assert await people.texts() == ["one"]
    await people.undo("bob")
    assert await people.texts() == ["one", "two"]
    await check_invariant(people.database, people.store, people.document)
    assert (await people.redo("ada", 2))["redo"] == 0
    assert await people.texts() == ["one!", "two!"]


WORDS = st.text(alphabet="abcd", min_size=1, max_size=3)
CELL = st.sampled_from(["c1", "c2", "n1", "n2"])
WHO = st.sampled_from(["ada", "bob"])
STEP = st.one_of(
    st.tuples(st.just("type"), WHO, CELL, st.integers(0, 9), WORDS),
    st.tuples(st.just("type"), WHO, CELL, st.integers(0, 9), WORDS),
    st.tuples(st.just("cut"), WHO, CELL, st.integers(0, 9)),
    st.tuples(st.just("insert"), WHO, st.sampled_from(["n1", "n2"]), st.integers(0, 3)),
    st.tuples(st.just("delete"), WHO, CELL),
    st.tuples(st.just("move"), WHO, CELL, st.integers(0, 3)),
    st.tuples(st.just("tag"), WHO, CELL, WORDS),
    st.tuples(st.just("restart"), WHO),
)


async def do(people, step):
    kind, who, *rest = step
    if kind == "restart":
        people.restart()
        return
    known = {cell["id"]: cell for cell in (await people.notebook())["cells"]}
    if kind == "insert":
        if rest[0] not in known:
            place = min(rest[1], len(known))
            await people.edit(who, cells.insert, {"id": rest[0], "index": place, "source": "-"})
        return
    if rest[0] not in known:
        return
    source = known[rest[0]]["source"]
    if kind == "type":
        splice = {
            "offset": min(rest[1], len(source)),
            "insert": rest[2].upper() if who == "ada" else rest[2],
        }
        await people.edit(who, cells.change, rest[0], {"splices": [splice]})
    elif kind == "cut":
        place = min(rest[1], len(source))
        splice = {"offset": place, "delete": len(source[place : place + 2])}
        await people.edit(who, cells.change, rest[0], {"splices": [splice]})
    elif kind == "delete":
        await people.edit(who, cells.delete, rest[0])
    elif kind == "move":
        await people.edit(who, cells.move, rest[0], {"index": min(rest[1], len(known) - 1)})
    else:
        await people.edit(who, cells.change, rest[0], {"metadata": {who: rest[1]}})


async def scenario(people, steps):
    await people.begin()
    before = await people.notebook()
    alone = {step[1] for step in steps} <= {"ada"}
    for step in steps:
        await do(people, step)
    after = await people.notebook()
    counts = await people.undoing.counts(people.document, people.ids["ada"])
    others = others_text(after)
    undone = await people.undo("ada", 1000)
    assert undone["undo"] == 0
    now = await people.notebook()
    await check_invariant(people.database, people.store, people.document)
    ids = [cell["id"] for cell in now["cells"]]
    assert len(ids) == len(set(ids))
    if alone:
        assert now == before
    # What bob had typed, and nobody cut since, is there in every cell that is still there.
    for cell in now["cells"]:
        assert not any(letter in cell["source"] for letter in "ABCD")
        if cell["id"] in others:
            assert sorted(others[cell["id"]]) == sorted(
                letter for letter in cell["source"] if letter in "abcd"
            ) or not alone_cut(steps, cell["id"])
    people.restart()
    redone = await people.redo("ada", 1000)
    assert redone["redo"] == 0
    assert redone["undo"] <= counts["undo"]
    if alone:
        assert await people.notebook() == after
    await check_invariant(people.database, people.store, people.document)


def others_text(notebook):
    return {
        cell["id"]: [letter for letter in cell["source"] if letter in "abcd"]
        for cell in notebook["cells"]
    }


def alone_cut(steps, cell_id):
    """Whether ada cut nothing in a cell: else undoing brings back what bob had typed."""
    return not any(step[0] in ("cut", "delete") and step[1] == "ada" for step in steps)


@settings(
    max_examples=int(os.environ.get("DATASTORE_TEST_EXAMPLES", "8")),
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
@given(steps=st.lists(STEP, max_size=12))
def test_undo_returns_only_that_users(database_url, tmp_path_factory, steps):
    async def run():
        database = Database(database_url)
        try:
            async with database.transaction() as tx:
                await tx.execute(text("TRUNCATE contents, documents, kernels, users CASCADE"))
            root = tmp_path_factory.mktemp("files")
            write(root / "a.ipynb", code("one", id="c1"), code("two", id="c2"))
            await scenario(People(database, root), steps)
        finally:
            await database.close()

    asyncio.run(run())
