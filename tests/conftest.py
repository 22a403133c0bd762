"""Where the tests' PostgreSQL comes from, a fresh database a test, and the application on it.

`DATASTORE_TEST_DATABASE_URL` names a server on which databases may be created; without it
testcontainers starts one where a Docker engine answers, else the embedded binaries do.
"""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
from sqlalchemy import make_url

from app.db import asker, migrations
from app.db.embedded import EmbeddedPostgres
from app.db.engine import Database
from app.main import create_app
from app.settings import Settings

TOKEN = "a-token-for-tests"

# Python's containers often say not to keep what was compiled: then each of the hundred servers that
# the tests start would compile the application again, which takes as long as to import it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def _docker_answers() -> bool:
    try:
        import docker

        docker.from_env(timeout=3).ping()
    except Exception:
        return False
    return True


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A job in the background ignores SIGINT, and so would the processes that tests interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def acts_for_the_server() -> None:
    """What tests do to the database by themselves is not bound by anybody's permissions."""
    asker.act_for(asker.Server.ITSELF)


def quickest_folder() -> str:
    """Memory where it is roomy and may hold programs (Docker's is neither), else /tmp.

    A database a test is some hundred files made and deleted, which costs a disk's file system ten
    times as much.
    """
    with contextlib.suppress(OSError):
        memory = os.statvfs("/dev/shm")
        roomy = memory.f_bavail * memory.f_frsize > 3 * 2**30
        if roomy and not memory.f_flag & os.ST_NOEXEC and os.access("/dev/shm", os.W_OK):
            return "/dev/shm"
    return "/tmp"


@pytest.fixture(scope="session")
def short_tmp() -> Iterator[Path]:
    """A folder that the unprivileged account of an embedded PostgreSQL can reach."""
    folder = Path(tempfile.mkdtemp(prefix="jds-", dir=quickest_folder()))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_url(short_tmp: Path) -> Iterator[str]:
    """The URL of a PostgreSQL server on which databases may be created."""
    # Without fsync and whole pages: the tests kill processes, not the machine.
    settings = {"fsync": "off", "full_page_writes": "off", "max_connections": "300"}
    settings |= {"max_wal_size": "256MB"}  # it may be in memory
    if url := os.environ.get("DATASTORE_TEST_DATABASE_URL"):
        yield url
    elif _docker_answers():
        from testcontainers.postgres import PostgresContainer

        command = " ".join(
            f"-c {name}={value}" for name, value in (settings | {"wal_level": "logical"}).items()
        )
        container = PostgresContainer("postgres:18", driver=None).with_command(command)
        with container:
            yield container.get_connection_url()
    else:
        with EmbeddedPostgres(short_tmp / "postgres", settings=settings) as embedded:
            yield embedded.url


def database_named(url: str, name: str) -> str:
    """Return the URL of another database on the same server."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def template(postgres_url: str) -> Iterator[str]:
    """The name of a migrated, empty database; each test's is a copy of it."""
    name = f"template_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        migrations.upgrade(database_named(postgres_url, name))
        yield name
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def copied(postgres_url: str, template: str) -> Iterator[str]:
    """The URL of a fresh database with the schema of `alembic upgrade head`; dropped at the end."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        # By copying its files: not all pages by way of the log.
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
        yield database_named(postgres_url, name)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def database_url(postgres_url: str, template: str) -> Iterator[str]:
    """The URL of a fresh database, a test's own."""
    with copied(postgres_url, template) as url:
        yield url


@pytest.fixture(scope="module")
def module_database_url(postgres_url: str, template: str) -> Iterator[str]:
    """The URL of a fresh database that a module's tests share."""
    with copied(postgres_url, template) as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The application's pools on a fresh database."""
    made = Database(database_url)
    yield made
    await made.close()


@pytest.fixture
def root_dir(tmp_path: Path) -> Path:
    """The folder that the server under test serves."""
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def settings(root_dir: Path) -> Settings:
    """Settings of the server under test; saves come soon."""
    return Settings(
        root_dir=root_dir, owner="ada", save_delay_seconds=0.05, kernel_poll_seconds=0.2
    )


@asynccontextmanager
async def serving(
    settings: Settings, database_url: str, data_dir: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """Run the application in this process and yield a client of it."""
    app = create_app(settings, database_url=database_url, token=TOKEN, data_dir=data_dir)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport,
            base_url="http://localhost:8888",
            headers={"Authorization": f"token {TOKEN}"},
            timeout=120,
        ) as client:
            client.app = app  # type: ignore[attr-defined]
            yield client


@pytest.fixture
async def client(
    settings: Settings, database_url: str, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, with the owner's token."""
    async with serving(settings, database_url, tmp_path / "data") as made:
        yield made
