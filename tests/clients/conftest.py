"""A real server in its own process for the clients' tests; its port stays when it is restarted."""

import contextlib
import json
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import nbformat
import psycopg
import pytest

from tests.conftest import database_named
from tests.servers import ServerProcess

# After which the server below ends a connection that takes nothing.
LAG_SECONDS = 4


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Restartable:
    """`jupyter-datastore serve` that can be killed and started again at the same address."""

    def __init__(self, folder: Path, database_url: str, **environment: str) -> None:
        self.database_url = database_url
        self._environment = {"DATASTORE_FEED_HEARTBEAT_SECONDS": "1", **environment}
        self.root_dir = folder / "root"
        self.root_dir.mkdir()
        self._data_dir = folder / "data"
        self.port = free_port()
        self.site_port = free_port()  # of another site, whose pages may use the API
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = ServerProcess(
            self.root_dir,
            self._data_dir,
            "--database-url",
            self.database_url,
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--allow-origin",
            f"http://127.0.0.1:{self.site_port}",
            **self._environment,
        )
        self.http = self.process.wait_until_up()
        assert str(self.http.base_url).rstrip("/") == self.url

    def close(self) -> None:
        with contextlib.suppress(AttributeError):
            self.http.close()
            self.process.close()

    def notebook(self, path: str, *sources: str) -> None:
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        notebook = nbformat.v4.new_notebook(cells=cells)
        (self.root_dir / path).write_text(json.dumps(notebook), "utf-8")


@pytest.fixture(scope="package")
def server(
    postgres_url: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Restartable]:
    name = f"clients_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        made = Restartable(tmp_path_factory.mktemp("clients"), database_named(postgres_url, name))
        try:
            made.start()
            yield made
        finally:
            made.close()
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def impatient(server: Restartable, tmp_path: Path) -> Iterator[Restartable]:
    """Another server on the same database, which keeps little for who does not read."""
    made = Restartable(
        tmp_path,
        server.database_url,
        DATASTORE_FEED_QUEUE_BYTES="100000",
        DATASTORE_FEED_LAG_SECONDS=str(LAG_SECONDS),
        DATASTORE_FEED_HEARTBEAT_SECONDS="30",
    )
    try:
        made.start()
        yield made
    finally:
        made.close()
