"""The command line `jupyter-datastore` (also `jupyter datastore`)."""

import gc
from importlib import import_module
from typing import ClassVar

import click

from app import __version__


class _LazyGroup(click.Group):
    """Imports a command when it is asked for: `run` need not wait for the server's imports."""

    commands_in: ClassVar[dict[str, str]] = {
        "serve": "serve",
        "run": "run",
        "report": "report",
        "user": "people",
        "group": "people",
        "token": "people",
        "grant": "people",
        "db": "db",
        "replica": "replica",
        "stream": "stream",
        "openapi": "openapi",
        "typescript": "typescript",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Return the commands in the order of their use."""
        return list(self.commands_in)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return a command, imported now."""
        if cmd_name not in self.commands_in:
            return None
        # What is imported stays: collections that walk it find nothing, in a fifth of the time.
        gc.disable()
        try:
            module = import_module(f"app.cli.{self.commands_in[cmd_name]}")
        finally:
            gc.enable()
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """A Jupyter server whose state lives in PostgreSQL."""
