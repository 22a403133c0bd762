"""Requests made from the API document, as odd as schemathesis can think of: never a 5xx.

`DATASTORE_FUZZ_EXAMPLES` asks for more of them an operation.
"""

import asyncio
import json
import os
import sys

import psutil
import pytest

from app.spec.document import openapi_document
from tests.conftest import TOKEN
from tests.kernels import start_kernel, write_notebook
from tests.live import live

# Each of these starts a process, or ends the server.
_EXCLUDED = r"^/api/(shutdown|kernels|sessions|terminals)$"


@pytest.fixture
def settings(settings):
    settings.terminal_command = "/bin/sh"
    return settings


async def test_no_request_is_a_server_error(settings, database_url, tmp_path, root_dir):
    write_notebook(root_dir / "a.ipynb", "1")
    async with live(settings, database_url, tmp_path / "data") as server:
        (tmp_path / "api.json").write_text(json.dumps(openapi_document(server.app)))
        await start_kernel(server.http)
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", str(tmp_path / "api.json")),
            *("--url", f"http://{server.address}", "--header", f"Authorization: token {TOKEN}"),
            *("--checks", "not_a_server_error", "--phases", "examples,fuzzing"),
            *("--max-examples", os.environ.get("DATASTORE_FUZZ_EXAMPLES", "2"), "--seed", "1"),
            *("--exclude-path-regex", _EXCLUDED, "--no-color", "--workers", "1"),
            *("--request-timeout", "20", "--suppress-health-check", "all"),
        ]
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), 300)
        finally:
            if process.returncode is None:
                psutil.Process(process.pid).kill()
        assert process.returncode == 0, output.decode()[-6000:]
        assert (await server.http.get("/api")).status_code == 200
