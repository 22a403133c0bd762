"""What is published is what models/publication.py declares, and every column is declared."""

import psycopg
import pytest

from models.publication import NAME, PUBLISHED, WITHHELD

TABLES = """
    SELECT CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END || c.relname, a.attname,
           a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> 'alembic_version'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
"""
PUBLICATION = """
    SELECT CASE schemaname WHEN 'public' THEN '' ELSE schemaname || '.' END || tablename, attnames,
           rowfilter
    FROM pg_publication_tables WHERE pubname = %s
"""


def columns_of_all_tables(url: str) -> dict[str, dict[str, bool]]:
    """By table and column: whether a row cannot be without it."""
    found: dict[str, dict[str, bool]] = {}
    with psycopg.connect(url) as connection:
        for table, column, needed in connection.execute(TABLES):
            found.setdefault(table, {})[column] = needed
    return found


def test_every_table_and_column_is_declared_once(database_url: str):
    found = columns_of_all_tables(database_url)
    assert not set(PUBLISHED) & set(WITHHELD)
    assert set(PUBLISHED) | set(WITHHELD) == set(found)
    assert all(WITHHELD.values()), "each is withheld for a reason"
    for table, declared in PUBLISHED.items():
        assert set(declared.columns) | set(declared.withheld) == set(found[table]), table
        assert not set(declared.columns) & set(declared.withheld), table
        assert set(declared.key) <= set(declared.columns), table
        assert all(declared.withheld.values()), table
        for column in declared.withheld:
            assert not found[table][column], f"a row arrives without {table}.{column}"


def test_what_is_published_is_what_is_declared(database_url: str):
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(PUBLICATION, [NAME]).fetchall()
    assert {table for table, _, _ in rows} == set(PUBLISHED)
    for table, columns, where in rows:
        assert set(columns) == set(PUBLISHED[table].columns), table
        assert (where or "").strip("()") == (PUBLISHED[table].where or "")


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
