"""The command line `jupyter-datastore` (also `jupyter datastore`)."""

import click

from app import __version__
from app.cli.db import db
from app.cli.run import run
from app.cli.serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """A Jupyter server whose state lives in PostgreSQL."""


main.add_command(serve)
main.add_command(run)
main.add_command(db)
