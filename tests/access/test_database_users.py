"""A database user without CREATEROLE: what it is told that an administrator has to run, works."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from sqlalchemy import make_url

from app.cli import main
from app.db.embedded import EmbeddedPostgres


@pytest.fixture
def cluster() -> Iterator[str]:
    """The URL of a PostgreSQL that no datastore was on."""
    with tempfile.TemporaryDirectory(prefix="jds-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL's own account must get through
        with EmbeddedPostgres(Path(folder) / "postgres", settings={"fsync": "off"}) as postgres:
            yield postgres.url


def test_what_an_administrator_has_to_run_is_said_and_works(cluster: str) -> None:
    admin = psycopg.connect(cluster, autocommit=True)
    admin.execute("CREATE ROLE app LOGIN")
    admin.execute("CREATE DATABASE appdb OWNER app")
    url = make_url(cluster).set(username="app", database="appdb").render_as_string(False)

    def run(*arguments: str, fails: bool = False) -> str:
        result = CliRunner().invoke(main, [*arguments, "--database-url", url])
        assert (result.exit_code != 0) == fails, result.output
        assert len(result.output.splitlines()) < 5  # not the statement that failed
        return result.output

    def do_as_told(said: str) -> None:
        for statement in re.findall(r"(?:CREATE ROLE|GRANT|ALTER ROLE) [^;]+;", said):
            admin.execute(statement.replace("the_database_user", "app"))

    do_as_told(run("db", "upgrade", fails=True))
    assert "schema is at" in run("db", "upgrade")
    run("user", "create", "ada")
    said = run("user", "sql-role", "ada", fails=True)
    assert "CREATEROLE" in said
    do_as_told(said)
    assert "appdb_ada" in run("user", "sql-role", "ada")
    run("user", "sql-role", "ada", "--drop")
    admin.close()
