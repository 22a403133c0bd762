"""Rows and document stay equal, whatever is done, by whom, and through restarts."""

import asyncio
import copy

import nbformat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from app.contents.disk import Disk
from app.db.engine import Database
from app.documents.store import DocumentStore
from app.settings import Settings
from tests.app.documents.conftest import (
    Recorder,
    as_in_file,
    check_invariant,
    code,
    plain,
    read,
    stream,
    write,
)

TRUNCATE = text("TRUNCATE contents, documents, kernels, users CASCADE")
TEXTS = st.text(alphabet="ab\n\r\bé😀\x00\udc80", max_size=8)
CELLS = ("c0", "c1", "c2", "n0", "n1")
CELL = st.sampled_from(CELLS)
STEP = st.one_of(
    st.tuples(st.just("begin"), CELL),
    st.tuples(st.just("queue"), CELL),
    st.tuples(st.just("stream"), CELL, TEXTS, st.sampled_from(["stdout", "stderr"])),
    st.tuples(st.just("stream"), CELL, TEXTS, st.just("stdout")),
    st.tuples(st.just("display"), CELL, st.sampled_from([None, "d1", "d2"])),
    st.tuples(st.just("update"), st.sampled_from(["d1", "d2"]), st.integers(0, 9)),
    st.tuples(st.just("clear"), CELL),
    st.tuples(st.just("end"), CELL),
    st.tuples(st.just("put"), st.permutations(CELLS), st.integers(0, 5), TEXTS),
    st.tuples(st.just("disk"), st.permutations(CELLS), st.integers(0, 5), TEXTS),
    st.tuples(st.just("save")),
    st.tuples(st.just("commit")),
    st.tuples(st.just("rollback")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("other")),
)


def changed(notebook, order, size, text):
    """Some cells of the notebook in another order, one with another text, new ones for missing."""
    cells = {cell["id"]: cell for cell in copy.deepcopy(notebook["cells"])}
    wanted = [cells.get(cell_id) or plain(code("new", id=cell_id)) for cell_id in order[:size]]
    wanted += [cell for key, cell in cells.items() if key not in CELLS]
    if wanted:
        wanted[0]["source"] += text.encode("ascii", "replace").decode()
        wanted[-1]["metadata"]["touched"] = text.encode("ascii", "replace").decode()
    return {**notebook, "cells": wanted}


class Scenario:
    def __init__(self, database, root):
        self.database, self.root = database, root
        self.stores = [self.make(), self.make()]
        self.recorder = Recorder(database, "kernel-1")
        self.latest = {}

    def make(self):
        return DocumentStore(self.database, Disk(self.root), Settings(save_delay_seconds=60))

    async def run(self, steps):
        await self.recorder.begin()
        path = self.root / "a.ipynb"
        write(
            path,
            code("1", [stream("a\rb"), stream("c")], id="c0"),
            code("2", id="c1"),
            code("3", id="c2"),
        )
        document = await self.stores[0].open_notebook("a.ipynb", actor_id=None)
        self.id = document.id
        batches, batch = [], []
        for step in steps:
            if step[0] in ("put", "disk", "save", "commit", "rollback", "restart", "other"):
                batches.append((batch, step))
                batch = []
            else:
                batch.append(step)
        batches.append((batch, ("commit",)))
        for batch, last in batches:
            await self.batch(batch, rollback=last[0] == "rollback")
            await self.between(last)
            await check_invariant(self.database, self.stores[0], self.id)
        await check_invariant(self.database, self.stores[1], self.id)
        for store in self.stores:
            await store.close()
        last = self.make()
        await last.start()
        assert read(path) == as_in_file(await last.notebook(self.id))

    async def batch(self, batch, *, rollback):
        before = dict(self.latest)
        try:
            async with self.database.transaction() as tx:
                editor = await self.stores[0].edit(tx, self.id, origin="execution")
                for step in batch:
                    await self.step(tx, editor, *step)
                if rollback:
                    raise KeyError
        except KeyError:
            self.latest = before

    async def step(self, tx, editor, kind, cell, *rest):
        if kind in ("begin", "queue"):
            if editor.row(cell) is None:
                return
            execution = await self.recorder.execution(tx, self.id, cell)
            do = editor.begin_execution if kind == "begin" else editor.queue_execution
            await do(cell, execution)
            self.latest[cell] = execution
        elif kind == "update":
            await self.recorder.update_display(tx, editor, cell, {"text/plain": str(rest[0])})
        elif cell not in self.latest:
            return
        elif kind == "stream":
            output = {"output_type": "stream", "name": rest[1], "text": rest[0]}
            await self.recorder.output(tx, editor, cell, self.latest[cell], output)
        elif kind == "display":
            output = {"output_type": "display_data", "data": {"text/plain": "x"}, "metadata": {}}
            await self.recorder.output(tx, editor, cell, self.latest[cell], output, rest[0])
        elif kind == "clear":
            await editor.clear_outputs(cell, self.latest[cell])
        else:
            await editor.end_execution(cell, self.latest[cell], 3)

    async def between(self, step):
        store = self.stores[0]
        if step[0] == "put":
            notebook = await store.notebook(self.id)
            await store.put_notebook("a.ipynb", changed(notebook, *step[1:]), actor_id=None)
        elif step[0] == "disk":
            path = self.root / "a.ipynb"
            found = changed(read(path), *step[1:])
            write(path, *[nbformat.from_dict(cell) for cell in found["cells"]])
            await store.open_notebook("a.ipynb", actor_id=None)
        elif step[0] == "save":
            await store.save_now(self.id)
        elif step[0] == "restart":
            self.stores[0] = self.make()
        elif step[0] == "other":
            self.stores.reverse()


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
@given(steps=st.lists(STEP, max_size=30))
def test_rows_are_what_the_document_says(database_url, tmp_path_factory, steps):
    async def run():
        database = Database(database_url)
        try:
            async with database.transaction() as tx:
                await tx.execute(TRUNCATE)
            await Scenario(database, tmp_path_factory.mktemp("files")).run(steps)
        finally:
            await database.close()

    asyncio.run(run())
