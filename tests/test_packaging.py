"""A wheel works away from the checkout, and the container files say what exists."""

import os
import subprocess
import sys
import sysconfig
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import yaml

from tests.conftest import database_named

ROOT = Path(__file__).parents[1]
SKIPPED = {"__pycache__"}


def sources(folder: str, pattern: str) -> list[str]:
    found = (path.relative_to(ROOT) for path in (ROOT / folder).rglob(pattern))
    return sorted(path.as_posix() for path in found if not SKIPPED & set(path.parts))


def run(*command: str, cwd: Path, **environment: str) -> str:
    """Run a command and return its output, which is shown when it fails."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DATASTORE_", "COV_", "COVERAGE_"))
    }
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**inherited, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    name = f"wheel_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield database_named(postgres_url, name)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_the_wheel_holds_code_migrations_and_sql(unpacked: Path):
    held = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    migrations = {f"app/db/{name}" for name in sources("alembic", "*.py")}
    assert {"app/db/alembic/env.py", "app/db/alembic/alembic.ini"} <= held
    assert any(name.startswith("app/db/alembic/versions/") for name in migrations)
    assert migrations <= held
    assert set(sources("app", "*.py")) <= held
    assert set(sources("models", "*.py")) <= held
    queries = set(sources("models/sql", "*.sql"))
    assert queries
    assert queries <= held
    assert set(sources("app", "py.typed")) | set(sources("models", "py.typed")) <= held
    (licence,) = unpacked.glob("*.dist-info/licenses/LICENSE")
    assert licence.read_text("utf-8") == (ROOT / "LICENSE").read_text("utf-8")
    # Tests and the top-level name `alembic`, which is the library's, stay out.
    assert {name.split("/")[0] for name in held if ".dist-info/" not in name} == {"app", "models"}


def test_the_wheel_migrates_a_database(unpacked: Path, tmp_path: Path, empty_database_url: str):
    # -P and PYTHONPATH: neither the working directory nor an editable checkout comes first.
    python = (sys.executable, "-P")
    environment = {"PYTHONPATH": str(unpacked), "PYTHONDONTWRITEBYTECODE": "1"}
    where = run(
        *python,
        "-c",
        "import app, models; from app.db import migrations;"
        "print(app.__file__, models.__file__, migrations.script_location(), sep='\\n')",
        cwd=tmp_path,
        **environment,
    )
    for place in where.split():
        assert Path(place).is_relative_to(unpacked)
    upgrade = (*python, "-m", "app", "db", "upgrade", "--database-url", empty_database_url)
    said = run(*upgrade, cwd=tmp_path, **environment)
    assert said.startswith("The schema is at ")
    current = (*python, "-m", "app", "db", "current", "--database-url", empty_database_url)
    said = run(*current, cwd=tmp_path, **environment)
    found, _, needed = said.partition(" ")
    assert f"needs {found})" in needed
    with psycopg.connect(empty_database_url) as connection:
        tables = {
            row[0]
            for row in connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            )
        }
        assert {
            "kernels",
            "executions",
            "outputs",
            "documents",
            "cells",
            "input_requests",
        } <= tables
        history = connection.execute("SELECT count(*) FROM execution_history").fetchone()
        assert history == (0,)
        triggers = connection.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal")
        assert triggers.fetchone() != (0,)


def test_the_console_script_starts(tmp_path: Path):
    script = Path(sysconfig.get_path("scripts")) / "jupyter-datastore"
    assert "--no-browser" in run(str(script), "serve", "--help", cwd=tmp_path)


# --- docker/: no engine is needed for these ------------------------------------------------------


def instructions(dockerfile: Path = ROOT / "docker" / "Dockerfile") -> list[list[str]]:
    """A Dockerfile's instructions as words, continued lines joined."""
    content = dockerfile.read_text("utf-8")
    lines = [line for line in content.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [line.split() for line in joined.splitlines() if line.strip()]


def test_the_dockerfile_copies_what_exists():
    copied = [
        word
        for name, *words in instructions()
        if name == "COPY" and not any(word.startswith("--from") for word in words)
        for word in words[:-1]
        if not word.startswith("--")
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source


def test_the_image_runs_the_server_as_an_ordinary_user_and_looks_after_it():
    found = {name: words for name, *words in instructions()}
    assert found["USER"] != ["root"]
    assert "HEALTHCHECK" in found
    entry = yaml.safe_load(" ".join(found["ENTRYPOINT"]))
    command = yaml.safe_load(" ".join(found["CMD"]))
    assert [Path(entry[0]).name, *command[:1]] == ["jupyter-datastore", "serve"]
    volumes = yaml.safe_load(" ".join(found["VOLUME"]))
    environment = dict(word.split("=", 1) for word in found["ENV"])
    assert {environment["DATASTORE_DATA_DIR"], environment["DATASTORE_ROOT_DIR"]} <= set(volumes)


def test_the_images_command_is_one_that_serve_understands(tmp_path: Path):
    found = {name: words for name, *words in instructions()}
    command = yaml.safe_load(" ".join(found["CMD"]))
    script = Path(sysconfig.get_path("scripts")) / "jupyter-datastore"
    assert "Usage:" in run(str(script), *command, "--help", cwd=tmp_path)
