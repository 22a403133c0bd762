"""Bringing a database's schema up to date, and telling whether it is.

In a checkout the migrations are the folder `alembic/`; in an installed package the same folder
lies beside this module, since `alembic` is the library's name in site-packages.
"""

from pathlib import Path

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, func, select, text
from sqlalchemy.pool import NullPool

from alembic import command
from app.db.engine import REQUEST_ROLE, sync_url


class SchemaBehindError(Exception):
    """The database is not one that this version can work on; says what to do."""


def script_location() -> Path:
    """Return the folder with `env.py` and `versions/`."""
    installed = Path(__file__).parent / "alembic"
    if installed.is_dir():
        return installed
    return Path(__file__).parents[2] / "alembic"


def config(url: str) -> Config:
    """Return alembic's configuration for a database."""
    location = script_location()
    made = Config()
    made.set_main_option("script_location", str(location).replace("%", "%%"))
    made.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return made


def upgrade(url: str, revision: str = "head") -> None:
    """Run `alembic upgrade`; concurrent calls wait for each other."""
    command.upgrade(config(url), revision)


def head() -> str | None:
    """Return the revision that this version of the package needs."""
    return ScriptDirectory(str(script_location())).get_current_head()


def current(url: str) -> str | None:
    """Return the database's revision, None for an empty one."""
    engine = create_engine(sync_url(url), poolclass=NullPool)
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def require_current(url: str) -> None:
    """Raise SchemaBehindError unless the schema is the one that this version needs.

    So it does when the database's user may not do what requests need.
    """
    found = current(url)
    if found != head():
        raise SchemaBehindError(
            f"The database has schema {found or 'none'}, this version needs {head()}. "
            "Run `jupyter-datastore db upgrade` (or `alembic upgrade head`) with "
            "DATASTORE_DATABASE_URL set, then start again."
        )
    engine = create_engine(sync_url(url), poolclass=NullPool)
    with engine.connect() as connection:
        may_assume = connection.execute(select(func.pg_has_role(REQUEST_ROLE, "SET"))).scalar_one()
    if not may_assume:
        raise SchemaBehindError(
            f"The database's user may not assume the role {REQUEST_ROLE}, which requests run as. "
            f"Have an administrator of PostgreSQL run: GRANT {REQUEST_ROLE} TO that user;"
        )


def require_no_replica(url: str) -> None:
    """Raise SchemaBehindError when the database follows another one.

    A server that wrote there would meet the rows that arrive, and the replica would stand still.
    """
    engine = create_engine(sync_url(url), poolclass=NullPool)
    query = text(
        "SELECT subname FROM pg_subscription WHERE 'datastore' = ANY (subpublications)"
        " AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with engine.connect() as connection:
        found = connection.execute(query).scalar()
    if found is not None:
        raise SchemaBehindError(
            f"This database is a replica (subscription {found}), so no server can work on it. Give "
            "the server the database that it follows."
        )
