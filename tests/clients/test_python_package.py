"""The Python client as a package: it is alone, typed, and its README's example works."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.clients.conftest import Restartable
from tests.servers import TOKEN

PACKAGE = Path(__file__).parents[2] / "clients" / "python"


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", *command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_wheel_needs_nothing_of_the_server(tmp_path: Path):
    run("-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path), cwd=PACKAGE)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    assert (tmp_path / "site" / "jupyter_datastore_client" / "py.typed").is_file()
    (metadata,) = (tmp_path / "site").glob("*.dist-info/METADATA")
    needed = re.findall(r"^Requires-Dist: ([\w-]+)", metadata.read_text("utf-8"), re.MULTILINE)
    assert sorted(needed) == ["httpx", "websockets"]
    said = run(
        "-c",
        "import sys, jupyter_datastore_client as client;"
        "print(client.__file__);"
        "print(*{name.split('.')[0] for name in sys.modules} & {'app', 'models', 'sqlalchemy'})",
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path / "site"),
    )
    where, loaded = said.split("\n", 1)
    assert Path(where).is_relative_to(tmp_path)
    assert loaded.strip() == ""


def test_the_types_say_what_they_hold(tmp_path: Path):
    """A user's program is checked strictly: records are typed by their table's name."""
    (tmp_path / "program.py").write_text(
        "from typing import Any, assert_type\n"
        "from jupyter_datastore_client import Change, Datastore\n"
        "from jupyter_datastore_client.records import KernelRecord\n"
        "async def main(store: Datastore) -> None:\n"
        "    async with store.table('kernels').where(name='python3').live() as kernels:\n"
        "        assert_type(kernels['x'], KernelRecord)\n"
        "        assert_type(kernels['x']['reason'], str | None)\n"
        "        async for change in kernels.changes():\n"
        "            assert_type(change, Change[KernelRecord])\n"
        "    assert_type(await store.table('of-the-future').read(), list[Any])\n"
        "    assert_type((await store.kernels.start(name='x'))['id'], str)\n"
        "    kernels['x']['nothing']  # type: ignore[typeddict-item]\n"
        "    await store.kernels.start(nothing=1)  # type: ignore[call-arg]\n",
        "utf-8",
    )
    run(
        *("-m", "mypy", "--strict", "--config-file=", "program.py"),
        cwd=tmp_path,
        MYPYPATH=str(PACKAGE / "src"),
    )


def test_the_readmes_example(server: Restartable, tmp_path: Path):
    readme = (PACKAGE / "README.md").read_text("utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    (tmp_path / "example.py").write_text(example, "utf-8")
    said = run(
        "example.py",
        cwd=tmp_path,
        PYTHONPATH=str(PACKAGE / "src"),
        DATASTORE_URL=server.url,
        DATASTORE_TOKEN=TOKEN,
    )
    assert said == "hello\n\n42\nok 2\n"
