"""`jupyter-datastore db`: the database's address and schema."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import click

from app.db import migrations
from app.db.engine import Database
from app.db.locate import find_url
from app.settings import Settings
from app.upkeep.partitions import Done
from app.upkeep.upkeep import Upkeep

database_url_option = click.option(
    "--database-url",
    envvar="DATASTORE_DATABASE_URL",
    help="An external PostgreSQL.  [default: the embedded one of a server running here]",
)
data_dir_option = click.option(
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
@database_url_option
@data_dir_option
def url(database_url: str | None, data_dir: Path | None) -> None:
    """Print the address for psql: psql "$(jupyter-datastore db url)"."""
    click.echo(require_url(database_url, data_dir))


@db.command()
@database_url_option
@data_dir_option
def current(database_url: str | None, data_dir: Path | None) -> None:
    """Print the schema's revision, and the one that this version needs."""
    found = migrations.current(require_url(database_url, data_dir))
    click.echo(f"{found or 'none'} (this version needs {migrations.head()})")


@db.command()
@database_url_option
@data_dir_option
def maintain(database_url: str | None, data_dir: Path | None) -> None:
    """Make partitions ahead and drop what need not be kept, as servers do by themselves.

    The settings are the server's (DATASTORE_PARTITION_UNIT, DATASTORE_KEEP_EXECUTIONS_DAYS, ...).
    """
    done = asyncio.run(_maintain(require_url(database_url, data_dir)))
    if done is None:
        click.echo("A server is at it.")
        return
    click.echo(f"Made: {', '.join(done.made) or 'nothing'}.")
    click.echo(f"Dropped: {', '.join(done.dropped) or 'nothing'}.")
    click.echo(f"Executions added to the roll-ups: {done.rolled_up}.")
    click.echo(f"Rows deleted: {done.rows_deleted}; shown outputs kept: {done.outputs_kept}.")
    for name, reason in done.postponed.items():
        click.echo(f"Postponed: {name}: {reason}", err=True)
    if done.postponed:
        raise SystemExit(1)


async def _maintain(url: str) -> Done | None:
    database = Database(url)
    try:
        return await Upkeep(database, Settings()).maintain(datetime.now(UTC))
    finally:
        await database.close()


@db.command()
@database_url_option
@data_dir_option
@click.option("--revision", default="head", show_default=True)
def upgrade(database_url: str | None, data_dir: Path | None, revision: str) -> None:
    """Bring the schema up to date, as `alembic upgrade head` does."""
    target = require_url(database_url, data_dir)
    migrations.upgrade(target, revision)
    click.echo(f"The schema is at {migrations.current(target)}.")
