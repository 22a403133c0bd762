"""Migrations while replicating: additions on replicas first, removals on the publisher first."""

import shutil
import textwrap
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.db import migrations
from app.replication import replicas
from app.replication.addresses import ReplicationError
from app.replication.upgrade import upgrade_with_replicas
from models.publication import PUBLISHED
from tests.app.replication.clusters import (
    add_replica,
    eventually,
    execute,
    make_history,
    new_database,
    one,
    status_of,
)
from tests.app.replication.conftest import Clusters

ADDING = """
def upgrade():
    op.execute("ALTER TABLE executions ADD COLUMN note text")
    op.execute("ALTER PUBLICATION datastore DROP TABLE executions")
    op.execute("ALTER PUBLICATION datastore ADD TABLE executions ({columns}, note)")
    # After it is published: rows that the replica has not received yet are filled by this.
    op.execute("UPDATE executions SET note = 'old'")
    op.execute("CREATE TABLE notes (id int PRIMARY KEY, text text)")
    op.execute("INSERT INTO notes VALUES (1, 'made by the migration')")
    op.execute("ALTER PUBLICATION datastore ADD TABLE notes")
"""
REMOVING = """
replicas = "last"

def upgrade():
    op.execute("ALTER PUBLICATION datastore DROP TABLE outputs")
    op.execute("ALTER TABLE outputs DROP COLUMN extra")
    op.execute("ALTER TABLE outputs ADD COLUMN needed text NOT NULL DEFAULT 'yes'")
    op.execute("ALTER PUBLICATION datastore ADD TABLE outputs ({columns}, needed)")
"""


@pytest.fixture
def revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two migrations to come; returns the present one."""
    present = migrations.head()
    folder = tmp_path / "alembic"
    shutil.copytree(migrations.script_location(), folder)
    scripts = {
        "9001": (present, ADDING.replace("{columns}", ", ".join(PUBLISHED["executions"].columns))),
        "9002": (
            "9001",
            REMOVING.replace(
                "{columns}", ", ".join(c for c in PUBLISHED["outputs"].columns if c != "extra")
            ),
        ),
    }
    for revision, (before, body) in scripts.items():
        head = f"""
            from alembic import op

            revision = "{revision}"
            down_revision = "{before}"
            """
        (folder / "versions" / f"{revision}_to_come.py").write_text(textwrap.dedent(head) + body)
    monkeypatch.setattr(migrations, "script_location", lambda: folder)
    return present


@contextmanager
def inserting(url: str) -> Iterator[list[int]]:
    """Executions and outputs are written meanwhile, by code that knows either schema."""
    ended, made = threading.Event(), []

    def work() -> None:
        while not ended.is_set():
            make_history(url, 1)
            made.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        eventually(lambda: len(made) > 2)
        yield made
        wanted = len(made) + 3
        eventually(lambda: len(made) > wanted)
    finally:
        ended.set()
        thread.join(60)


def test_both_directions_while_rows_arrive(clusters: Clusters, revisions: str):
    url = new_database(clusters.publisher, f"p_{uuid.uuid4().hex[:8]}")
    migrations.upgrade(url, revisions)
    make_history(url, 5)
    targets = [
        new_database(cluster, f"r_{uuid.uuid4().hex[:8]}")
        for cluster in (clusters.first, clusters.second)
    ]
    with pytest.raises(ReplicationError, match="db upgrade"):
        replicas.add(url, targets[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrations, "head", lambda: revisions)
        patch.setattr(
            migrations, "upgrade", lambda url, _="head", up=migrations.upgrade: up(url, revisions)
        )
        for target in targets:
            add_replica(url, target)
    with inserting(url):
        done = list(upgrade_with_replicas(url))
    assert done == [
        "The replica replica_1 is at 9001.",
        "The replica replica_2 is at 9001.",
        "The publisher is at 9001.",
        "The publisher is at 9002.",
        "The replica replica_1 is at 9002.",
        "The replica replica_2 is at 9002.",
    ]
    execute(url, "INSERT INTO notes VALUES (2, 'later')")
    execute(url, "UPDATE executions SET note = 'new' WHERE note IS NULL")
    whole = (
        "SELECT (SELECT md5(string_agg(concat(id, note), ',' ORDER BY id)) FROM executions),"
        " (SELECT md5(string_agg(concat(id, text, needed), ',' ORDER BY id)) FROM outputs),"
        " (SELECT array_agg(text ORDER BY id) FROM notes)"
    )
    for name, target in zip(("replica_1", "replica_2"), targets, strict=True):
        eventually(lambda name=name: status_of(url, name, 5).word == "following")
        eventually(lambda target=target: execute(target, whole) == execute(url, whole), 20)
    assert list(upgrade_with_replicas(url)) == []
    for name in ("replica_1", "replica_2"):
        replicas.remove(url, name)


def test_nothing_is_migrated_when_a_replica_cannot_be_reached(clusters: Clusters, revisions: str):
    url = new_database(clusters.publisher, f"p_{uuid.uuid4().hex[:8]}")
    migrations.upgrade(url, revisions)
    execute(url, "INSERT INTO replicas VALUES ('gone', 'postgresql://nobody@127.0.0.1:1/none')")
    with pytest.raises(ReplicationError, match="Cannot connect"):
        list(upgrade_with_replicas(url))
    assert migrations.current(url) == revisions
    replicas.remove(url, "gone", force=True)
    # Without replicas it is an ordinary upgrade.
    assert list(upgrade_with_replicas(url)) == [
        "The publisher is at 9001.",
        "The publisher is at 9002.",
    ]
    assert one(url, "SELECT count(*) FROM notes") == 1


def test_a_replica_that_was_left_behind_is_brought_along(clusters: Clusters, revisions: str):
    url = new_database(clusters.publisher, f"p_{uuid.uuid4().hex[:8]}")
    migrations.upgrade(url, revisions)
    target = new_database(clusters.first, f"r_{uuid.uuid4().hex[:8]}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrations, "head", lambda: revisions)
        patch.setattr(
            migrations, "upgrade", lambda url, _="head", up=migrations.upgrade: up(url, revisions)
        )
        add_replica(url, target)
    migrations.upgrade(url, "9001")
    make_history(url, 2)  # the replica stops at these
    done = list(upgrade_with_replicas(url))
    assert done == [
        "The replica replica_1 is at 9001.",
        "The publisher is at 9002.",
        "The replica replica_1 is at 9002.",
    ]
    eventually(lambda: one(target, "SELECT count(*) FROM executions") == 2)
    replicas.remove(url, "replica_1")
