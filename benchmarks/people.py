"""The price of the policies: the same statements by the server's own role and by people's.

    python -m benchmarks.people [--users 1000] [--groups 100] [--documents 100000] [--repeat 300]

It starts a PostgreSQL of its own in a temporary folder, fills it with SQL, and prints medians in
milliseconds, as the application has them: through SQLAlchemy, one connection, nothing else running.
Then two servers run on the same database, one without policies and one with, and are asked over
HTTP in turn, by an admin, as the owner of a server for one is, and by a member of groups.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import websockets
from sqlalchemy import Select, func, select, text

from app.contents import rows
from app.db import asker, migrations
from app.db.embedded import EmbeddedPostgres
from app.db.engine import Database
from app.executions.queries import Wanted, newest_executions, read_execution
from benchmarks.http import Connection
from benchmarks.server import Server
from models import Cell, Content, Document, Execution

# Each user has a home; a group of ten has a shared folder of a hundredth of the documents each.
FILL = """
INSERT INTO contents (id, path, name, type) VALUES (gen_random_uuid(), '', '', 'directory');
INSERT INTO contents (id, path, name, type, parent_id)
    SELECT gen_random_uuid(), p, p, 'directory', c.id
    FROM contents c, unnest(ARRAY['home', 'shared']) p WHERE c.path = '';
INSERT INTO contents (id, path, name, type, parent_id)
    SELECT gen_random_uuid(), 'home/u' || n, 'u' || n, 'directory', c.id
    FROM contents c, generate_series(1, :users) n WHERE c.path = 'home';
INSERT INTO contents (id, path, name, type, parent_id)
    SELECT gen_random_uuid(), 'shared/g' || n, 'g' || n, 'directory', c.id
    FROM contents c, generate_series(1, :groups) n WHERE c.path = 'shared';
INSERT INTO users (id, name, admin, home_id)
    SELECT gen_random_uuid(), c.name, c.name = 'u1', c.id FROM contents c
    WHERE c.path LIKE 'home/%';
INSERT INTO groups (id, name)
    SELECT gen_random_uuid(), c.name FROM contents c WHERE c.path LIKE 'shared/%';
INSERT INTO group_members (group_id, user_id)
    SELECT g.id, u.id FROM groups g JOIN users u ON substr(u.name, 2)::int % :groups + 1
        IN (substr(g.name, 2)::int, substr(g.name, 2)::int % :groups + 1);
INSERT INTO permissions (id, subject, group_id, resource, content_id, actions)
    SELECT gen_random_uuid(), 'group', g.id, 'contents', c.id, '{read,execute}'
    FROM groups g JOIN contents c ON c.path = 'shared/' || g.name;
INSERT INTO contents (id, path, name, type, parent_id)
    SELECT gen_random_uuid(), c.path || '/' || n || '.ipynb', n || '.ipynb', 'notebook', c.id
    FROM contents c, generate_series(1, :documents / :groups / 2) n WHERE c.path LIKE 'shared/g%';
INSERT INTO contents (id, path, name, type, parent_id)
    SELECT gen_random_uuid(), c.path || '/' || n || '.ipynb', n || '.ipynb', 'notebook', c.id
    FROM contents c, generate_series(1, :documents / :users / 2) n WHERE c.path LIKE 'home/u%';
INSERT INTO documents (id, content_id, type, format)
    SELECT gen_random_uuid(), id, 'notebook', 'json' FROM contents WHERE type = 'notebook';
INSERT INTO notebooks (id, nbformat, nbformat_minor, metadata) SELECT id, 4, 5, '{}' FROM documents;
INSERT INTO cells (id, notebook_id, cell_id, position, cell_type, source, metadata)
    SELECT gen_random_uuid(), d.id, 'c' || n, n, 'code', '1', '{}'
    FROM documents d JOIN contents c ON c.id = d.content_id, generate_series(1, 50) n
    WHERE c.path LIKE '%/1.ipynb';
INSERT INTO kernels (id, name, owner_id) SELECT 'k' || name, 'python3', id FROM users;
INSERT INTO executions (id, kernel_id, incarnation, document_id, actor_id, run_as_id, client,
        msg_id, code, source_hash)
    SELECT (left(datastore_id_at(now())::text, 14) || substr(d.id::text, 15))::uuid,
        'k' || u.name, 1, d.id, u.id, u.id, 'api', d.id::text, '1', ''
    FROM documents d JOIN contents c ON c.id = d.content_id JOIN users u ON c.path LIKE 'home/%'
        AND u.name = split_part(c.path, '/', 2);
ANALYZE;
"""


async def fill(database: Database, sizes: dict[str, int]) -> None:
    """Make the people, their files and what ran."""
    for statement in FILL.split(";\n"):
        if statement.strip():
            for name, size in sizes.items():
                statement = statement.replace(f":{name}", str(size))  # noqa: PLW2901
            async with database.transaction(as_server=True) as tx:
                await tx.execute(text(statement))


async def median_ms(repeat: int, work) -> float:
    """Return the median of many runs, after some that are not counted."""
    times = []
    warm = min(repeat, 20)
    for _ in range(repeat + warm):
        began = time.perf_counter()
        await work()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times[warm:])


async def measure(database: Database, repeat: int) -> list[tuple[str, list[float]]]:
    """Return what was measured: as the server, as an admin, as a member of a group."""
    async with database.read(as_server=True) as tx:
        ids = dict((await tx.execute(text("SELECT name, id FROM users WHERE name < 'u3'"))).all())
        document = (
            await tx.execute(
                select(Document.id)
                .join(Content, Content.id == Document.content_id)
                .where(Content.path == "home/u2/1.ipynb")
            )
        ).scalar_one()
        execution_id = (
            await tx.execute(select(Execution.id).where(Execution.document_id == document))
        ).scalar_one()
    member = ids["u2"]
    own, shared = "home/u2/1.ipynb", "shared/g3/1.ipynb"

    def reading(query: Select):
        async def work() -> None:
            async with database.read() as tx:
                (await tx.execute(query)).all()

        return work

    async def execution() -> None:
        async with database.read() as tx:
            await read_execution(tx, execution_id)

    async def executions() -> None:
        everything = asker.current() != member
        await newest_executions(
            database, Wanted(), everything=everything, before_seq=None, limit=101
        )

    found = []
    cases = {
        "list a folder of 500": reading(rows.children(["shared/g3"])),
        "a file by its path": reading(select(Content).where(Content.path == own)),
        "the 50 cells of a notebook": reading(select(Cell).where(Cell.notebook_id == document)),
        "an execution by its id": execution,
        "the last 100 executions": executions,
        "all documents that are visible": reading(select(func.count()).select_from(Document)),
    }
    for name, work in cases.items():
        row = []
        times = 2 if name.startswith("all") else repeat
        for who in (asker.Server.ITSELF, ids["u1"], member):
            with asker.acting_for(who):
                row.append(await median_ms(times, work))
        found.append((name, row))
    for name, resource, target in (
        ("may: one's own file", "contents", own),
        ("may: a file of a group", "contents", shared),
        ("may: another's kernel", "kernels", "ku3"),
        ("may: one's own execution", "executions", str(execution_id)),
    ):
        asked = select(func.datastore_may(member, "read", resource, target))
        with asker.acting_for(asker.Server.ITSELF):
            found.append((name, [await median_ms(repeat, reading(asked))]))
    return found


# What runs the server: requests' connections keep its own role, which no policy binds.
_WITHOUT = (
    "from app.cli import main; import app.main, app.db.migrations, app.db.engine as e; "
    "e.REQUEST_ROLE = None; main()"
)


Timed = Callable[[], Awaitable[float]]


async def requests_of(server: Server, user: str) -> dict[str, Timed]:
    """Return what a user asks of a server, by name: each returns how many milliseconds it took."""
    admin = await Connection.open("127.0.0.1", server.port, server.token)
    token = (await admin.request("POST", "/api/tokens", {"user": user, "name": "bench"}))["token"]
    http = await Connection.open("127.0.0.1", server.port, token)
    cells = [
        {"cell_type": "code", "id": f"c{n}", "metadata": {}, "source": "1", "outputs": []}
        | {"execution_count": None}
        for n in range(50)
    ]
    folder = f"home/{user}/of-{server.port}"
    path = f"{folder}/bench.ipynb"
    await http.request("PUT", f"/api/contents/{folder}", {"type": "directory"})
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}
    await http.request("PUT", f"/api/contents/{path}", {"type": "notebook", "content": notebook})
    for n in range(100):
        model = {"type": "file", "format": "text", "content": "x"}
        await http.request("PUT", f"/api/contents/{folder}/f{n}.txt", model)
    body = {"path": path, "type": "notebook", "kernel": {"name": "python3"}}
    kernel = (await http.request("POST", "/api/sessions", body))["kernel"]["id"]
    cell = {"cell_id": "c0", "path": path}
    made = await http.request("POST", f"/api/kernels/{kernel}/execute", cell)
    document = made["document_id"]

    def get(url: str) -> Timed:
        async def work() -> float:
            began = time.perf_counter()
            await http.request("GET", url)
            return (time.perf_counter() - began) * 1000

        return work

    def execute(body: dict[str, str]) -> Timed:
        async def work() -> float:
            began = time.perf_counter()
            made = await http.request("POST", f"/api/kernels/{kernel}/execute", body)
            spent = (time.perf_counter() - began) * 1000
            await http.request("GET", f"/api/executions/{made['id']}?wait=60")
            return spent

        return work

    async def open_feed() -> float:
        address = f"ws://127.0.0.1:{server.port}/api/datastore/feed?token={token}"
        where = {"notebook_id": document}
        began = time.perf_counter()
        async with websockets.connect(address) as websocket:
            subscribe = {"type": "subscribe", "id": "s", "table": "cells", "where": where}
            await websocket.send(json.dumps(subscribe))
            while json.loads(await websocket.recv())["type"] != "snapshot":
                pass
            return (time.perf_counter() - began) * 1000

    return {
        "GET a notebook of 50 cells": get(f"/api/contents/{path}"),
        "GET a folder of 100 files": get(f"/api/contents/{folder}"),
        "GET an execution": get(f"/api/executions/{made['id']}"),
        "GET the last 100 executions": get("/api/executions"),
        "POST execute, code": execute({"code": "1"}),
        "POST execute, a cell": execute(cell),
        "open a feed on 50 cells": open_feed,
    }


async def ask_in_turn(servers: list[Server], repeat: int) -> None:
    """Time requests of both people to both servers in turn, and print a table of medians."""
    columns = [await requests_of(server, who) for server in servers for who in ("u1", "u2")]
    print(f"{'':34}{'no policies':>22}{'policies':>22}")
    print(f"{'median, ms':34}" + f"{'admin':>11}{'member':>11}" * 2)
    for name in columns[0]:
        rows = [[await column[name]() for column in columns] for _ in range(repeat + 5)][5:]
        medians = [statistics.median(times) for times in zip(*rows, strict=True)]
        print(f"{name:34}" + "".join(f"{value:11.2f}" for value in medians), flush=True)


def measure_http(url: str, repeat: int) -> None:
    """Measure servers without policies and with, side by side."""
    env = {**os.environ, "DATASTORE_DATABASE_URL": url}
    source = Path(__file__).resolve().parent.parent
    with (
        Server(source, env, program=("-c", _WITHOUT)) as without,
        Server(source, env) as with_policies,
    ):
        asyncio.run(ask_in_turn([without, with_policies], repeat))


async def run(url: str, sizes: dict[str, int], repeat: int) -> None:
    """Fill a database, measure, and print a table."""
    database = Database(url, pool_size=2)
    try:
        began = time.perf_counter()
        await fill(database, sizes)
        print(f"filled in {time.perf_counter() - began:.0f} s: {sizes}")
        print(f"{'median, ms':34}{'server':>10}{'admin':>10}{'member':>10}")
        for name, row in await measure(database, repeat):
            print(f"{name:34}" + "".join(f"{value:10.2f}" for value in row))
    finally:
        await database.close()


def main() -> None:
    """Measure on a PostgreSQL of one's own."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, size in (("users", 1000), ("groups", 100), ("documents", 100_000), ("repeat", 300)):
        parser.add_argument(f"--{name}", type=int, default=size)
    options = vars(parser.parse_args())
    repeat = options.pop("repeat")
    with tempfile.TemporaryDirectory(prefix="jds-people-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL's own account must get through
        with EmbeddedPostgres(folder / "postgres", settings={"fsync": "off"}) as embedded:
            migrations.upgrade(embedded.url)
            asyncio.run(run(embedded.url, options, repeat))
            measure_http(embedded.url, repeat)


if __name__ == "__main__":
    main()
