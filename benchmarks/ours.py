"""This server as a client sees it, and as the database has it.

Code is asked for over HTTP. What was committed is read with SQL on a connection of the benchmark's
own: of a large output its end is waited for there, and its count and text are compared there.
"""

import asyncio
import json
import time
import uuid
from pathlib import Path
from typing import Any

import asyncpg
import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from benchmarks import workloads
from benchmarks.http import Connection
from benchmarks.workloads import IncompleteError

_WAIT_SECONDS = 300
_POLL_SECONDS = 0.002
_LOOK_SECONDS = 0.00025

_FINISHED = "SELECT status FROM executions WHERE id = $1 AND finished_at IS NOT NULL"
_TEXT = """
SELECT string_agg(text, '' ORDER BY seq) FROM outputs
WHERE execution_id = $1 AND output_type = 'stream' AND cleared_at IS NULL
"""
_HTML = """
SELECT array_agg(data ->> 'text/html' ORDER BY seq) FROM outputs
WHERE execution_id = $1 AND output_type = 'display_data' AND cleared_at IS NULL
"""
_SHOWN = """
SELECT count(*) = count(o.id) FILTER (WHERE c.execution_id = o.execution_id)
FROM outputs o LEFT JOIN cells c ON c.id = o.cell_id WHERE o.execution_id = $1
"""
_DOCUMENT = """
SELECT d.id, d.version, d.saved_version FROM documents d
JOIN contents c ON c.id = d.content_id WHERE c.path = $1
"""


class Notebook:
    """A notebook with one code cell, on disk below the server's root."""

    def __init__(self, root_dir: Path, name: str, code: str) -> None:
        self.path = f"{name}.ipynb"
        self.file = root_dir / self.path
        notebook = new_notebook(cells=[new_code_cell(code)])
        self.cell_id: str = notebook.cells[0].id
        nbformat.write(notebook, self.file)

    def outputs(self) -> list[dict[str, Any]]:
        """Return the outputs of its cell as the file has them."""
        found: list[dict[str, Any]] = json.loads(self.file.read_bytes())["cells"][0]["outputs"]
        return found


class OurKernel:
    """A kernel of the server, asked over one HTTP connection."""

    def __init__(self, http: Connection, sql: "asyncpg.Connection[Any]", kernel_id: str) -> None:
        self._http = http
        self._sql = sql
        self._kernel_id = kernel_id
        self._quickest_seconds = 0.0

    @classmethod
    async def start(cls, http: Connection, sql: "asyncpg.Connection[Any]") -> "OurKernel":
        """Start a kernel that belongs to no notebook."""
        return cls(http, sql, (await http.request("POST", "/api/kernels", {}))["id"])

    @classmethod
    async def start_for(
        cls, http: Connection, sql: "asyncpg.Connection[Any]", notebook: Notebook
    ) -> "OurKernel":
        """Start the kernel of a notebook's session."""
        body = {"path": notebook.path, "name": notebook.path, "type": "notebook"}
        session = await http.request("POST", "/api/sessions", body)
        return cls(http, sql, session["kernel"]["id"])

    async def run(self, what: str | Notebook) -> str:
        """Queue code or a notebook's cell; return the execution's id."""
        if isinstance(what, Notebook):
            body = {"cell_id": what.cell_id, "path": what.path}
        else:
            body = {"code": what}
        record = await self._http.request("POST", f"/api/kernels/{self._kernel_id}/execute", body)
        return str(record["id"])

    async def round_trip(self, what: str | Notebook = workloads.ROUND_TRIP) -> None:
        """Run `1+1` until `GET /api/executions/{id}?wait` answers that it has finished."""
        execution_id = await self.run(what)
        record = await self._http.request(
            "GET", f"/api/executions/{execution_id}?wait={_WAIT_SECONDS}"
        )
        if record["status"] != "ok" or record["outputs"][0]["data"]["text/plain"] != "2":
            raise IncompleteError(f"1+1: {record}")

    async def round_trip_by_sql(self) -> None:
        """Run `1+1` until another connection of the database sees that it has finished.

        Looking takes processor time from the server: it begins when most of the quickest run's time
        is over, and is done every quarter of a millisecond. The loop, whose timers are of whole
        ones, has nothing else to do meanwhile.
        """
        start = time.perf_counter()
        execution_id = uuid.UUID(await self.run(workloads.ROUND_TRIP))
        pause = 0.8 * self._quickest_seconds - (time.perf_counter() - start)
        while pause > 0 or not await self._sql.fetchval(_FINISHED, execution_id):
            time.sleep(max(pause, _LOOK_SECONDS))
            pause = 0
        seconds = time.perf_counter() - start
        self._quickest_seconds = min(self._quickest_seconds or seconds, seconds)

    async def committed(self, what: str | Notebook) -> str:
        """Run until the database has the finished execution; return its id."""
        execution_id = await self.run(what)
        key = uuid.UUID(execution_id)
        async with asyncio.timeout(_WAIT_SECONDS):
            while (status := await self._sql.fetchval(_FINISHED, key)) is None:
                await asyncio.sleep(_POLL_SECONDS)
        if status != "ok":
            raise IncompleteError(f"it ended with {status}")
        return execution_id

    async def saved(self, notebook: Notebook) -> None:
        """Wait until the notebook's file has all that its document has."""
        async with asyncio.timeout(_WAIT_SECONDS):
            while True:
                row = await self._sql.fetchrow(_DOCUMENT, notebook.path)
                if row and row["saved_version"] >= row["version"]:
                    return
                await asyncio.sleep(_POLL_SECONDS)

    async def answer_seconds(self, execution_id: str) -> float:
        """Return how long the server takes to answer a finished execution with its outputs."""
        start = time.perf_counter()
        await self._http.request("GET", f"/api/executions/{execution_id}")
        return time.perf_counter() - start

    async def require_lines(self, execution_id: str, count: int) -> None:
        """Raise IncompleteError unless the rows have every line."""
        text = await self._sql.fetchval(_TEXT, uuid.UUID(execution_id))
        workloads.require_lines(text or "", count, "rows")

    async def require_displays(self, execution_id: str, count: int) -> None:
        """Raise IncompleteError unless the rows have every display, in order."""
        html = await self._sql.fetchval(_HTML, uuid.UUID(execution_id))
        workloads.require_displays(html or [], count, "rows")

    async def require_shown(self, execution_id: str) -> None:
        """Raise IncompleteError unless the cell shows all rows of the execution."""
        if not await self._sql.fetchval(_SHOWN, uuid.UUID(execution_id)):
            raise IncompleteError("the cell does not show all that its execution said")


def require_lines_in_file(notebook: Notebook, count: int) -> None:
    """Raise IncompleteError unless the notebook's file has every line, as one output."""
    outputs = notebook.outputs()
    text = "".join("".join(output["text"]) for output in outputs)
    workloads.require_lines(text, count, "file")
    if len(outputs) != 1:
        raise IncompleteError(f"file: {len(outputs)} outputs for one stream")


def require_displays_in_file(notebook: Notebook, count: int) -> None:
    """Raise IncompleteError unless the notebook's file has every display, in order."""
    html = ["".join(output["data"]["text/html"]) for output in notebook.outputs()]
    workloads.require_displays(html, count, "file")
