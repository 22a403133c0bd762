"""`jupyter-datastore report`: a day's history as tables, or as a page."""

from datetime import date, datetime
from pathlib import Path

import click
from rich.console import Console
from sqlalchemy.exc import OperationalError

from app.analytics.day import read_day
from app.analytics.page import page
from app.analytics.tables import print_day
from app.cli.db import data_dir_option, database_url_option, require_url


@click.command()
@click.option(
    "--day",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Which day, as 2026-01-31.  [default: today]",
)
@click.option("--rows", default=10, show_default=True, type=click.IntRange(1, 1000))
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a page with plots to this file instead; it needs no network.",
)
@database_url_option
@data_dir_option
def report(
    day: datetime | None,
    rows: int,
    html: Path | None,
    database_url: str | None,
    data_dir: Path | None,
) -> None:
    """Say who ran what on a day, what was slow and what failed."""
    wanted = day.date() if day else date.today()  # noqa: DTZ011 (a day of this machine's zone)
    url = require_url(database_url, data_dir)
    try:
        found = read_day(url, wanted, rows=rows)
    except OperationalError as error:
        raise click.ClickException(f"The database cannot be read: {error.orig}") from error
    if html is None:
        print_day(found, Console())
        return
    try:
        text = page(found)
    except ImportError as error:
        raise click.ClickException(
            "Plots need matplotlib: pip install 'jupyter-datastore[report]'"
        ) from error
    html.write_text(text, "utf-8")
    click.echo(f"Wrote {html}.")
