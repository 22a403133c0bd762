"""What is published is what models/publication.py declares, and every column is declared."""

import psycopg
import pytest

from models import Base
from models.publication import NAME, PUBLISHED, WITHHELD


def actual(url: str) -> dict[str, tuple[set[str], str | None]]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT tablename, attnames, rowfilter FROM pg_publication_tables WHERE pubname = %s",
            [NAME],
        ).fetchall()
    return {table: (set(columns), where) for table, columns, where in rows}


def test_every_table_is_declared_once():
    assert not set(PUBLISHED) & set(WITHHELD)
    assert set(PUBLISHED) | set(WITHHELD) == set(Base.metadata.tables)
    assert all(WITHHELD.values()), "each is withheld for a reason"


@pytest.mark.parametrize("table", sorted(PUBLISHED))
def test_every_column_is_declared_once(table: str):
    declared = PUBLISHED[table]
    columns = {column.name for column in Base.metadata.tables[table].columns}
    assert set(declared.columns) | set(declared.withheld) == columns
    assert not set(declared.columns) & set(declared.withheld)
    assert all(declared.withheld.values())
    # A row that arrives without them must fit.
    for name in declared.withheld:
        column = Base.metadata.tables[table].columns[name]
        assert column.nullable or column.server_default is not None, name


def test_what_is_published_is_what_is_declared(database_url: str):
    found = actual(database_url)
    assert set(found) == set(PUBLISHED)
    for table, (columns, where) in found.items():
        assert columns == set(PUBLISHED[table].columns), table
        assert (where or "").strip("()") == (PUBLISHED[table].where or "")


def test_every_table_of_the_database_is_known(database_url: str):
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> 'alembic_version'"
        ).fetchall()
    assert {row[0] for row in rows} == set(PUBLISHED) | set(WITHHELD)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("kernels", "connection_info"),
        ("kernelspecs", "spec"),
        ("input_requests", "value"),
        ("executions", "idempotency_key"),
    ],
)
def test_what_may_never_leave_is_withheld(table: str, column: str):
    assert column in PUBLISHED[table].withheld


def test_no_secret_is_called_by_its_name():
    suspicious = ("hash", "secret", "token", "password", "key", "connection_info")
    allowed = {
        ("contents", "file_key"),  # device and inode
        ("contents", "hash"),  # of a file's content
        ("contents", "hash_algorithm"),
        ("documents", "disk_hash"),
        ("executions", "source_hash"),
        ("input_requests", "password"),  # whether it was one; such rows are filtered out
    }
    found = {
        (table, column)
        for table, published in PUBLISHED.items()
        for column in published.columns
        if any(word in column for word in suspicious)
    }
    assert found == allowed
