"""`jupyter-datastore db`: the database's address and schema."""

import asyncio
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from sqlalchemy.exc import DBAPIError

from app.db import migrations
from app.db.embedded import EmbeddedPostgres, EmbeddedPostgresError, default_data_dir
from app.db.engine import Database
from app.db.locate import find_url
from app.settings import Settings
from app.upkeep.partitions import Done
from app.upkeep.upkeep import Upkeep

Function = TypeVar("Function", bound=Callable[..., Any])

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


def database_options(command: Function) -> Function:
    """Give a command the options that say which database it means."""
    return database_url_option(data_dir_option(command))


def require_url(database_url: str | None, data_dir: Path | None) -> str:
    """Return the database's URL, or end the command saying that there is none."""
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
@database_options
def url(database_url: str | None, data_dir: Path | None) -> None:
    """Print the address for psql: psql "$(jupyter-datastore db url)"."""
    click.echo(require_url(database_url, data_dir))


@db.command()
@data_dir_option
def host(data_dir: Path | None) -> None:
    """Run the embedded PostgreSQL alone, until Ctrl-C; prints its address.

    For maintenance while no server runs, or, in a folder of its own, for a replica.
    """
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        with EmbeddedPostgres(data_dir or default_data_dir()) as postgres:
            click.echo(postgres.url)
            while not ended.wait(0.5):
                if not postgres.is_running():
                    click.echo("PostgreSQL has ended; starting it again.", err=True)
                    postgres.start()
    except EmbeddedPostgresError as error:
        raise click.ClickException(str(error)) from error


@db.command()
@database_options
def current(database_url: str | None, data_dir: Path | None) -> None:
    """Print the schema's revision, and the one that this version needs."""
    found = migrations.current(require_url(database_url, data_dir))
    click.echo(f"{found or 'none'} (this version needs {migrations.head()})")


@db.command()
@database_options
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
@database_options
@click.option("--revision", default="head", show_default=True)
@click.option("--with-replicas", is_flag=True, help="Migrate the replicas too, in order.")
@click.option(
    "--target",
    "targets",
    multiple=True,
    help="With --with-replicas: a replica's URL with its password; may be repeated.",
)
def upgrade(
    *,
    database_url: str | None,
    data_dir: Path | None,
    revision: str,
    with_replicas: bool,
    targets: tuple[str, ...],
) -> None:
    """Bring the schema up to date, as `alembic upgrade head` does."""
    target = require_url(database_url, data_dir)
    try:
        if with_replicas:
            _upgrade_with_replicas(target, revision, targets)
        else:
            migrations.upgrade(target, revision)
        click.echo(f"The schema is at {migrations.current(target)}.")
    except DBAPIError as error:
        raise click.ClickException(_what_postgresql_says(error)) from error


def _what_postgresql_says(error: DBAPIError) -> str:
    """Return an error's message and hint, without the statement, which may be long."""
    diag = getattr(error.orig, "diag", None)
    message = getattr(diag, "message_primary", None)
    hint = getattr(diag, "message_hint", None)
    return "\n".join(said for said in (message or str(error.orig).strip(), hint) if said)


def _upgrade_with_replicas(url: str, revision: str, targets: tuple[str, ...]) -> None:
    # Imported here: the other commands need nothing of it.
    from app.cli.replica import passwords  # noqa: PLC0415
    from app.replication.addresses import ReplicationError  # noqa: PLC0415
    from app.replication.upgrade import upgrade_with_replicas  # noqa: PLC0415

    try:
        for said in upgrade_with_replicas(url, targets=passwords(targets), revision=revision):
            click.echo(said)
    except ReplicationError as error:
        raise click.ClickException(str(error)) from error
