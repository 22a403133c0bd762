"""Steps that many tests take: start a kernel, run code, wait for its end."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook


async def start_kernel(client: httpx.AsyncClient, **body: Any) -> str:
    response = await client.post("/api/kernels", json=body)
    assert response.status_code == 201, response.text
    return response.json()["id"]


async def execute(client: httpx.AsyncClient, kernel_id: str, code: str = "", **body: Any) -> dict:
    """Ask for an execution and return its record."""
    if code:
        body["code"] = code
    response = await client.post(f"/api/kernels/{kernel_id}/execute", json=body)
    assert response.status_code == 202, response.text
    return response.json()


async def finished(client: httpx.AsyncClient, execution: dict | str, wait: float = 60) -> dict:
    """Wait for an execution's end and return its record with outputs."""
    execution_id = execution if isinstance(execution, str) else execution["id"]
    response = await client.get(f"/api/executions/{execution_id}", params={"wait": wait})
    assert response.status_code == 200, response.text
    record = response.json()
    assert record["finished_at"], record
    return record


async def run(client: httpx.AsyncClient, kernel_id: str, code: str, **body: Any) -> dict:
    return await finished(client, await execute(client, kernel_id, code, **body))


async def until(check: Callable[[], Any], seconds: float = 20) -> Any:
    """Return what `check` (plain or async) returns once it is true."""
    async with asyncio.timeout(seconds):
        while True:
            found = check()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.02)


async def input_request(client: httpx.AsyncClient, execution: dict) -> dict:
    """Wait until an execution asks for input and return the question."""

    async def asks() -> dict | None:
        response = await client.get(f"/api/executions/{execution['id']}")
        return response.json()["input_request"]

    return await until(asks)


async def status_is(client: httpx.AsyncClient, execution: dict, status: str) -> None:
    async def reached() -> bool:
        response = await client.get(f"/api/executions/{execution['id']}")
        return response.json()["status"] == status

    await until(reached)


def write_notebook(path: Path, *cells: str) -> list[str]:
    """Write a notebook with these code cells (markdown where it starts with #) and return ids."""
    notebook = new_notebook()
    for source in cells:
        make = new_markdown_cell if source.startswith("# ") else new_code_cell
        notebook.cells.append(make(source))
    nbformat.write(notebook, path)
    return [cell.id for cell in notebook.cells]


def read_notebook(path: Path) -> dict:
    """Return the notebook on disk; it must be valid."""
    notebook = json.loads(path.read_text("utf-8"))
    nbformat.validate(notebook)
    return notebook


def text_of(record: dict) -> str:
    """Return all stream text of a record's or cell's outputs."""

    def joined(text: str | list[str]) -> str:
        return text if isinstance(text, str) else "".join(text)

    return "".join(joined(o["text"]) for o in record["outputs"] if o["output_type"] == "stream")
