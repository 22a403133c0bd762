"""Clusters that these tests share: a publisher and two that may hold replicas."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.db.embedded import EmbeddedPostgres
from tests.app.replication.clusters import cluster
from tests.conftest import quickest_folder


@dataclass
class Clusters:
    publisher: EmbeddedPostgres
    first: EmbeddedPostgres
    second: EmbeddedPostgres


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A folder that the unprivileged account of PostgreSQL can reach."""
    folder = Path(tempfile.mkdtemp(prefix="jds-", dir=quickest_folder()))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def clusters(place: Path) -> Iterator[Clusters]:
    with ExitStack() as stack:
        yield Clusters(
            stack.enter_context(cluster(place / "publisher")),
            stack.enter_context(cluster(place / "first")),
            stack.enter_context(cluster(place / "second")),
        )
