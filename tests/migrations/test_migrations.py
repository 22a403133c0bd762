"""The migrations make the schema that the models and the SQL files say, on each PostgreSQL."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from alembic import command
from app.db import migrations
from app.db.embedded import EmbeddedPostgres
from app.db.engine import sync_url
from models import Base
from tests.conftest import database_named

# What two equal schemas agree on, as PostgreSQL itself writes it.
CATALOGUE = {
    "columns": """
        SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity,
               identity_generation
        FROM information_schema.columns WHERE table_schema IN ('public', 'analytics')""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint
        WHERE connamespace::regnamespace::text IN ('public', 'analytics') AND contype <> 'n'""",
    "indexes": """
        SELECT indexname, indexdef FROM pg_indexes WHERE schemaname IN ('public', 'analytics')""",
    "functions": """
        SELECT proname, pg_get_functiondef(oid) FROM pg_proc
        WHERE pronamespace::regnamespace::text IN ('public', 'analytics')""",
    "triggers": """
        SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid)
        FROM pg_trigger WHERE NOT tgisinternal""",
    "views": """
        SELECT viewname, definition FROM pg_views WHERE schemaname IN ('public', 'analytics')""",
    "view options": """
        SELECT relname, reloptions::text FROM pg_class
        WHERE relkind = 'v' AND relnamespace::regnamespace::text IN ('public', 'analytics')""",
    "policies": """
        SELECT tablename, policyname, cmd, roles::text, qual, with_check
        FROM pg_policies WHERE schemaname IN ('public', 'analytics')""",
    "privileges": """
        SELECT relname, a.privilege_type, grantee.rolname
        FROM pg_class, aclexplode(relacl) a JOIN pg_roles grantee ON grantee.oid = a.grantee
        WHERE relnamespace IN ('public'::regnamespace, to_regnamespace('analytics'))
        AND relname <> 'alembic_version'""",
    "privileges on columns": """
        SELECT attrelid::regclass::text, attname, a.privilege_type, grantee.rolname
        FROM pg_attribute, aclexplode(attacl) a JOIN pg_roles grantee ON grantee.oid = a.grantee
        WHERE attrelid >= 16384""",
    "privileges on functions": """
        SELECT proname, coalesce(proacl::text, '') FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace""",
    "schemas": "SELECT nspname FROM pg_namespace WHERE nspname = 'analytics'",
    "row security": """
        SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class
        WHERE relkind IN ('r', 'p')
          AND relnamespace::regnamespace::text IN ('public', 'analytics')""",
    "comments": """
        SELECT classoid::regclass::text, objsubid, description FROM pg_description
        WHERE classoid = 'pg_class'::regclass AND objoid >= 16384""",
    "partitions": """
        SELECT relname, pg_get_expr(relpartbound, oid), relrowsecurity FROM pg_class
        WHERE relispartition AND relkind = 'r'""",
    # Those of an index that the table got later have names that PostgreSQL makes.
    "indexes of partitions": r"""
        SELECT regexp_replace(indexdef, ' INDEX \S+ ON ', ' INDEX ON ') FROM pg_indexes
        WHERE schemaname = 'partitions'""",
    "constraints of partitions": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(c.oid)
        FROM pg_constraint c JOIN pg_class t ON t.oid = conrelid
        WHERE t.relnamespace::regnamespace::text = 'partitions' AND contype <> 'n'""",
    "table storage": """
        SELECT relname, relreplident, reloptions::text FROM pg_class
        WHERE relkind IN ('r', 'p')
          AND relnamespace::regnamespace::text IN ('public', 'analytics')""",
    "publications": """
        SELECT pubname, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot
        FROM pg_publication""",
    "published": """
        SELECT pubname, tablename, rowfilter,
               (SELECT array_agg(name ORDER BY name) FROM unnest(attnames) name)::text
        FROM pg_publication_tables""",
}


def catalogue(url: str) -> dict[str, list[tuple[object, ...]]]:
    with psycopg.connect(url) as connection:
        found = {
            what: sorted(connection.execute(query).fetchall(), key=repr)
            for what, query in CATALOGUE.items()
        }
    for rows in found.values():
        rows[:] = [row for row in rows if "alembic_version" not in repr(row)]
    return found


@pytest.fixture(scope="module", params=[16, 18])
def server(request: pytest.FixtureRequest, short_tmp: Path) -> Iterator[str]:
    """Each supported end of PostgreSQL's versions."""
    folder = short_tmp / f"migrations-{request.param}"
    with EmbeddedPostgres(folder, major=request.param, settings={"fsync": "off"}) as embedded:
        yield embedded.url


@pytest.fixture
def empty(server: str) -> Iterator[str]:
    name = f"empty_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield database_named(server, name)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_migrated_schema_equals_the_models(empty: str, server: str) -> None:
    migrations.upgrade(empty)
    migrated = catalogue(empty)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute('CREATE DATABASE "from_models"')
    try:
        other = database_named(server, "from_models")
        engine = create_engine(sync_url(other))
        Base.metadata.create_all(engine)
        engine.dispose()
        made = catalogue(other)
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute('DROP DATABASE "from_models" WITH (FORCE)')
    assert {what: len(rows) for what, rows in made.items() if not rows} == {}
    assert migrated == made


def test_autogenerate_finds_nothing_to_do(empty: str) -> None:
    migrations.upgrade(empty)
    command.check(migrations.config(empty))


def test_up_down_up(empty: str) -> None:
    migrations.upgrade(empty)
    before = catalogue(empty)
    command.downgrade(migrations.config(empty), "base")
    assert {what: rows for what, rows in catalogue(empty).items() if rows} == {}
    migrations.upgrade(empty)
    assert catalogue(empty) == before


def test_there_is_one_head() -> None:
    script = ScriptDirectory(str(migrations.script_location()))
    assert len(script.get_heads()) == 1


def test_an_old_schema_is_refused_with_the_command(empty: str) -> None:
    with pytest.raises(migrations.SchemaBehindError, match="jupyter-datastore db upgrade"):
        migrations.require_current(empty)
    migrations.upgrade(empty)
    migrations.require_current(empty)
