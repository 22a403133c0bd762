"""`jupyter-datastore db`: the database's address and schema."""

from pathlib import Path

import click

from app.db import migrations
from app.db.locate import find_url

_database_url = click.option(
    "--database-url",
    envvar="DATASTORE_DATABASE_URL",
    help="An external PostgreSQL.  [default: the embedded one of a server running here]",
)
_data_dir = click.option(
    "--data-dir",
    envvar="DATASTORE_DATA_DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the embedded PostgreSQL keeps its data.",
)


def require_url(database_url: str | None, data_dir: Path | None) -> str:
    """Return the database's address; a ClickException says where to find one."""
    url = database_url or find_url(data_dir)
    if url is None:
        raise click.ClickException(
            "No database: set DATASTORE_DATABASE_URL, or start `jupyter-datastore serve`, whose "
            "embedded PostgreSQL runs for as long as it does."
        )
    return url


@click.group()
def db() -> None:
    """The database's address and schema."""


@db.command()
@_database_url
@_data_dir
def url(database_url: str | None, data_dir: Path | None) -> None:
    """Print the address for psql: psql "$(jupyter-datastore db url)"."""
    click.echo(require_url(database_url, data_dir))


@db.command()
@_database_url
@_data_dir
def current(database_url: str | None, data_dir: Path | None) -> None:
    """Print the schema's revision, and the one that this version needs."""
    found = migrations.current(require_url(database_url, data_dir))
    click.echo(f"{found or 'none'} (this version needs {migrations.head()})")


@db.command()
@_database_url
@_data_dir
@click.option("--revision", default="head", show_default=True)
def upgrade(database_url: str | None, data_dir: Path | None, revision: str) -> None:
    """Bring the schema up to date, as `alembic upgrade head` does."""
    target = require_url(database_url, data_dir)
    migrations.upgrade(target, revision)
    click.echo(f"The schema is at {migrations.current(target)}.")
