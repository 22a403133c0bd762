"""JupyterLab's own client, `@jupyterlab/services`, against a live server, under node.

The steps are told in `services_client/client.js`. Settings and workspaces are JupyterLab's server
extension's, not the server's.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.servers import TOKEN, serving_process

_HERE = Path(__file__).parent / "services_client"
_STEPS = re.findall(r'^  async "?([a-z ]+)"?\(', (_HERE / "client.js").read_text(), re.MULTILINE)


def _missing() -> str | None:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout
    if int(version.lstrip("v").split(".")[0]) < 20:
        return f"node {version.strip()} is older than 20"
    return None


_reason = _missing()
pytestmark = pytest.mark.skipif(_reason is not None, reason=str(_reason))


@pytest.fixture(scope="module")
def told(module_database_url, short_tmp, tmp_path_factory):
    """What each step of the client said: None, or the error."""
    folder = tmp_path_factory.mktemp("services")
    for name in ("package.json", "package-lock.json", "client.js"):
        shutil.copy(_HERE / name, folder)
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True)
    root = folder / "root"
    root.mkdir()
    options = ("--database-url", module_database_url)
    with serving_process(root, short_tmp / "services", *options) as server:
        url = str(server.wait_until_up().base_url).rstrip("/") + "/"
        done = subprocess.run(
            ["node", "client.js"],
            cwd=folder,
            env={**os.environ, "SERVER_URL": url, "SERVER_TOKEN": TOKEN},
            capture_output=True,
            text=True,
            timeout=240,
        )
    lines = {}
    for line in done.stdout.splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError):  # what the library itself logs
            entry = json.loads(line)
            lines[entry["step"]] = entry["error"]
    assert done.returncode == 0, done.stderr
    return lines


@pytest.mark.parametrize("step", _STEPS)
def test_a_front_end(told, step):
    assert step in told
    assert told[step] is None, told[step]
