"""The commands of docs/operations.md, run as they stand there on real clusters."""

import os
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.db import migrations
from app.db.embedded import EmbeddedPostgres
from app.replication import replicas
from tests.app.replication.clusters import (
    add_replica,
    cluster,
    execute,
    make_history,
    new_database,
    one,
    status_of,
)
from tests.test_docs import blocks

PAGE = (Path(__file__).parents[1] / "docs" / "operations.md").read_text("utf-8")


def commands(section: str) -> str:
    (found,) = re.findall(rf"^## {section}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    (block,) = blocks(found, "sh")
    return block


def run(commands: str, folder: Path, **environment: str) -> str:
    """Run a block of the page in bash, stopping at the first command that fails."""
    path = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    (programs,) = [block for block in blocks(PAGE, "sh") if block.startswith("export PATH")]
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", programs + commands],
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def contents(url: str) -> dict[str, object]:
    """A checksum of each table, partitions among them."""
    tables = execute(
        url,
        "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND"
        " relnamespace::regnamespace::text IN ('public', 'partitions')",
    )
    query = "SELECT count(*), md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM {} t"
    return {table: execute(url, query.format(table)) for (table,) in tables}


@pytest.fixture(scope="module")
def place(short_tmp: Path) -> Path:
    folder = short_tmp / "operations"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def clusters(place: Path) -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres]]:
    """The one that people work on, with a replica, and an external one."""
    with ExitStack() as stack:
        ours = stack.enter_context(cluster(place / "ours"))
        other = stack.enter_context(cluster(place / "other"))
        migrations.upgrade(ours.url)
        make_history(ours.url, 20)
        add_replica(ours.url, new_database(other, "copy"))
        yield ours, other


def test_backup_and_restore(clusters: tuple[EmbeddedPostgres, EmbeddedPostgres], tmp_path: Path):
    ours, _ = clusters
    run(commands("Backup"), tmp_path, DATASTORE_DATABASE_URL=ours.url)
    restored = ours.url.replace("/datastore?", "/restored?")
    said = run(
        commands("Restore"),
        tmp_path,
        MAINTENANCE_URL=ours.url.replace("/datastore?", "/postgres?"),
        RESTORED_URL=restored,
    )
    assert migrations.head() in said
    feed = {"feed_epoch", "changes", "feed_marks"}
    before, after = contents(ours.url), contents(restored)
    assert before.keys() == after.keys()
    for table in before.keys() - feed:
        assert after[table] == before[table], table
    make_history(restored, 1)
    # Replicas do not follow the restored one, and it says so; those of the first go on.
    assert status_of(ours.url, "replica_1").word == "following"
    execute(restored, "UPDATE replicas SET name = 'replica_of_before'")
    state = status_of(restored, "replica_of_before", 0)
    assert state.word == "must be copied again"


def test_moving_to_an_external_one(
    clusters: tuple[EmbeddedPostgres, EmbeddedPostgres], tmp_path: Path
):
    ours, other = clusters
    external = new_database(other, "external")
    before = contents(ours.url)
    replicas.remove(ours.url, "replica_1")
    before["replicas"] = contents(ours.url)["replicas"]
    ours.stop()
    said = run(
        commands("From the embedded PostgreSQL to an external one"),
        tmp_path,
        DATASTORE_DATA_DIR=str(ours.data_dir),
        EXTERNAL_URL=external,
    )
    assert f"{migrations.head()} (this version needs {migrations.head()})" in said
    assert contents(external) == before
    migrations.require_current(external)
    make_history(external, 1)
    assert one(external, "SELECT count(*) FROM executions") == 21


@pytest.mark.parametrize("query", blocks(PAGE, "sql"))
def test_a_query_of_the_page_answers(query: str, database_url: str):
    assert len(execute(database_url, query)) == 10


def test_the_storage_table_is_what_migrations_set(database_url: str):
    found = dict(
        execute(
            database_url,
            "SELECT relname, reloptions FROM pg_class WHERE reloptions IS NOT NULL"
            " AND relkind = 'r' AND relnamespace = 'public'::regnamespace",
        )
    )
    (section,) = re.findall(r"^## Vacuum$(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    for row in re.findall(r"^\| (`.*?)\|(.*?)\|(.*?)\|$", section, re.MULTILINE):
        names = re.findall(r"`(\w+)`", row[0])
        threshold, percent = re.findall(r"[\d,]+", row[2])
        for name in names:
            options = dict(option.split("=") for option in found.pop(name))
            assert options.get("fillfactor", "") == row[1].strip()
            assert options["autovacuum_vacuum_threshold"] == threshold.replace(",", "")
            assert float(options["autovacuum_vacuum_scale_factor"]) * 100 == float(percent)
    assert found == {}
