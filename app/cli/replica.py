"""`jupyter-datastore replica`: copies of the database that follow it, for those who ask it much."""

import sys
from collections.abc import Iterable
from pathlib import Path

import click
import psycopg
from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from app.cli.db import database_options, require_url
from app.db.embedded import EmbeddedPostgresError
from app.replication import check as checking
from app.replication import replicas
from app.replication import status as states
from app.replication.addresses import ReplicationError, libpq_url, one_line, without_password
from app.replication.publisher import Replica
from app.replication.status import Status

_targets = click.option(
    "--target",
    "targets",
    multiple=True,
    help="A replica's URL with its password, where it is not in ~/.pgpass; may be repeated.",
)


class _Group(click.Group):
    """Says what went wrong with replication in one sentence."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (ReplicationError, EmbeddedPostgresError) as error:
            raise click.ClickException(str(error)) from error
        except psycopg.Error as error:
            raise click.ClickException(f"The database refused: {one_line(error)}.") from error


def passwords(targets: Iterable[str]) -> dict[str, str]:
    """Return addresses with passwords by those without."""
    return {without_password(target): libpq_url(target) for target in targets}


@click.group(cls=_Group)
def replica() -> None:
    """Copies of the database that follow it (docs/replication.md)."""


@replica.command()
@database_options
@click.option("--target", required=True, help="The URL of the replica's database, which is empty.")
@click.option("--name", help="The replica's name.  [default: replica_1, replica_2, ...]")
@click.option(
    "--publisher-url",
    help="How the target's server reaches this database.  [default: the URL used here]",
)
@click.option("--copy-again", is_flag=True, help="Empty the target's published tables first.")
def add(
    *,
    database_url: str | None,
    data_dir: Path | None,
    target: str,
    name: str | None,
    publisher_url: str | None,
    copy_again: bool,
) -> None:
    """Make a database follow this one, and show the first copy.

    The copy goes on when this command is ended; run it again to see how far it is.
    """
    url = require_url(database_url, data_dir)
    made = replicas.add(url, target, name=name, publisher_url=publisher_url, copy_again=copy_again)
    click.echo(f"{made.name} follows from now on; its first copy runs.", err=True)
    _show_copy(url, libpq_url(target), made)
    click.echo(f"{made.name} holds a copy of every published table.")


def _show_copy(url: str, target: str, made: Replica) -> None:
    expected = replicas.estimated_rows(url)
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars = {}
        for copies in replicas.follow_copy(target, made):
            for copy in copies:
                total = max(expected.get(copy.table, 0), copy.rows or 0, 1)
                if copy.table not in bars:
                    bars[copy.table] = progress.add_task(copy.table, total=total, said="")
                said = "copied" if copy.is_done else "waiting"
                if copy.rows is not None:
                    said = f"{copy.rows:,} rows, {decimal(copy.bytes or 0)}"
                done = total if copy.is_done else copy.rows or 0
                progress.update(bars[copy.table], total=total, completed=done, said=said)


@replica.command()
@database_options
@click.argument("name", required=False)
@_targets
@click.option(
    "--wait", default=2.0, show_default=True, help="Seconds a replica is given to catch up."
)
def status(
    *,
    database_url: str | None,
    data_dir: Path | None,
    name: str | None,
    targets: tuple[str, ...],
    wait: float,
) -> None:
    """Show how far replicas are (or the one named), and what to do; exits with 1 when there is."""
    url = require_url(database_url, data_dir)
    found = states.read(url, targets=passwords(targets), wait_seconds=wait, name=name)
    if not found:
        click.echo("There are no replicas.")
        return
    console = Console(soft_wrap=not sys.stdout.isatty())
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("Replica", "State", "Lag", "", "WAL kept", "Cap", "Server"):
        table.add_column(heading)
    for state in found:
        table.add_row(*_row(state))
    console.print(table)
    for state in found:
        for said in state.advice:
            click.echo(f"{state.replica.name}: {said}")
    if any(state.advice for state in found):
        raise SystemExit(1)


def _row(state: Status) -> tuple[str, ...]:
    slot = state.slot
    seconds = "" if state.seconds is None else f"{state.seconds:.2f} s"
    word = state.word
    if word == "copying":
        done = sum(copy.is_done for copy in state.copies)
        word = f"copying, {done} of {len(state.copies)} tables"
    elif slot is not None and slot.inactive is not None and state.seconds is None:
        word = f"{word} for {slot.inactive.total_seconds():.0f} s"
    return (
        state.replica.name,
        word,
        "" if slot is None or slot.lag_bytes is None else decimal(slot.lag_bytes),
        seconds,
        "" if slot is None or slot.retained_bytes is None else decimal(slot.retained_bytes),
        "none" if state.cap_bytes is None else decimal(state.cap_bytes),
        state.server or "",
    )


@replica.command()
@database_options
@click.argument("name")
@_targets
def check(
    database_url: str | None, data_dir: Path | None, name: str, targets: tuple[str, ...]
) -> None:
    """Compare a replica's tables with this database's; exits with 1 when they differ."""
    url = require_url(database_url, data_dir)
    console = Console(soft_wrap=not sys.stdout.isatty())
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("Table", "Rows", "Checksum", "Result"):
        table.add_column(heading, justify="right" if heading == "Rows" else "left")
    is_equal = True
    address = next(iter(targets), None)
    for found in checking.check(url, name, target=address):
        is_equal = is_equal and found.is_equal
        said = "equal" if found.is_equal else f"{found.different} rows differ"
        if found.moving:
            said += f", {found.moving} kept changing"
        table.add_row(found.table, f"{found.rows:,}", found.checksum, said)
    console.print(table)
    if not is_equal:
        click.echo(
            "The replica is not equal. Copy it again with `jupyter-datastore replica add --target "
            "URL --copy-again`."
        )
        raise SystemExit(1)


@replica.command()
@database_options
@click.argument("name")
@_targets
@click.option("--force", is_flag=True, help="Also when the replica cannot be reached.")
def remove(
    *,
    database_url: str | None,
    data_dir: Path | None,
    name: str,
    targets: tuple[str, ...],
    force: bool,
) -> None:
    """End a replica: nothing is kept for it any more; the rows it has stay there."""
    url = require_url(database_url, data_dir)
    for said in replicas.remove(url, name, target=next(iter(targets), None), force=force):
        click.echo(said)
    click.echo(f"{name} is no replica any more.")


@replica.command()
@database_options
@_targets
@click.option("--keep", is_flag=True, help="Keep on the replicas what was dropped here.")
def maintain(
    database_url: str | None, data_dir: Path | None, targets: tuple[str, ...], keep: bool
) -> None:
    """Make and drop the replicas' partitions as they are here; for a scheduler, once a day."""
    url = require_url(database_url, data_dir)
    for name, done in replicas.maintain(url, targets=passwords(targets), drop=not keep):
        made, dropped = ", ".join(done.made), ", ".join(done.dropped)
        click.echo(f"{name}: made {made or 'nothing'}, dropped {dropped or 'nothing'}.")
