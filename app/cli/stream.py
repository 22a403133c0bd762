"""`jupyter-datastore stream`: what ran and what it said, as JSON lines for other systems."""

import logging
import signal
from pathlib import Path

import click
import psycopg

from app.cli.db import database_options, require_url
from app.db.locate import find_url
from app.replication import stream as streaming
from app.replication.addresses import ReplicationError, one_line
from app.replication.sinks import (
    AcknowledgedPlace,
    FilePlace,
    PipePlace,
    Place,
    ReaderGoneError,
    Writer,
)

TABLES = ("executions", "outputs")


@click.command()
@database_options
@click.option("--slot", default="datastore_stream", show_default=True, help="One for each reader.")
@click.option(
    "--table",
    "tables",
    type=click.Choice(TABLES),
    multiple=True,
    help="Only this.  [default: both]",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file to append to.  [default: standard output]",
)
@click.option(
    "--acknowledge",
    is_flag=True,
    help="The reader writes the `position` of lines it is done with to standard input.",
)
@click.option("--drop", is_flag=True, help="Forget the reader: drop its slot, and end.")
def stream(
    *,
    database_url: str | None,
    data_dir: Path | None,
    slot: str,
    tables: tuple[str, ...],
    output: Path | None,
    acknowledge: bool,
    drop: bool,
) -> None:
    """Write committed executions and outputs as JSON lines, at least once (docs/replication.md).

    The first run begins with what is committed from then on; each later one where the reader of
    the one before stopped. The server keeps what is not read yet: end with --drop when no reader
    will come back.
    """
    if output is not None and acknowledge:
        raise click.UsageError("A file needs no --acknowledge: lines are safe once on disk.")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    url = require_url(database_url, data_dir)
    try:
        if drop:
            streaming.drop_slot(url, slot)
            return
        if streaming.ensure_slot(url, slot):
            click.echo(f"The slot {slot} is new: the stream begins now.", err=True)
        _run(database_url, data_dir, slot, tables or TABLES, _place(output, acknowledge))
    except (ReplicationError, ReaderGoneError, OSError) as error:
        raise click.ClickException(f"{error}") from error
    except psycopg.Error as error:
        raise click.ClickException(f"The database refused: {one_line(error)}.") from error


def _place(output: Path | None, acknowledge: bool) -> Place:
    if output is not None:
        return FilePlace(output)
    return AcknowledgedPlace() if acknowledge else PipePlace()


def _run(
    database_url: str | None,
    data_dir: Path | None,
    slot: str,
    tables: tuple[str, ...],
    place: Place,
) -> None:
    reader = streaming.Stream(
        lambda: database_url or find_url(data_dir), slot, tables, Writer(place)
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: reader.stop())
    reader.run()
