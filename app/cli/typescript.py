"""`jupyter-datastore typescript`: the types that the clients are built with, without a server."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from app.cli.types import in_python, in_typescript
from app.cli.types.api import api_shapes
from app.cli.types.records import published_tables

_OF = {"records": "the models' published columns", "api": "the API's OpenAPI document"}


def document() -> dict[str, Any]:
    """Return the API's OpenAPI document."""
    from app.main import create_app  # noqa: PLC0415 (records need no server's imports)
    from app.settings import Settings  # noqa: PLC0415
    from app.spec.document import openapi_document  # noqa: PLC0415

    settings = Settings(base_url="/")
    app = create_app(settings, database_url="postgresql://", token="", data_dir=Path())
    return openapi_document(app)


def written_types(what: str, language: str) -> str:
    """Return the types of `records` or of the `api` as a module in `typescript` or `python`."""
    option = "" if language == "typescript" else f" --language {language}"
    made = f"Made by `jupyter-datastore typescript --of {what}{option}` from {_OF[what]}."
    write: Callable[[Iterable[Any], str], str]
    if language == "typescript":
        header, write = f"// {made}", getattr(in_typescript, what)
    else:
        header, write = f'"""{made}"""', getattr(in_python, what)
    return write(published_tables() if what == "records" else api_shapes(document()), header)


@click.command()
@click.option(
    "--of",
    "what",
    type=click.Choice(list(_OF)),
    default="records",
    show_default=True,
    help="The feed's records, or the bodies and answers of the API.",
)
@click.option(
    "--language",
    type=click.Choice(["typescript", "python"]),
    default="typescript",
    show_default=True,
    help="TypeScript for browsers, or Python for the Python client.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file to write.  [default: print]",
)
def typescript(what: str, language: str, output: Path | None) -> None:
    """Write the types of the feed's records, as clients are built with them."""
    text = written_types(what, language)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise click.ClickException(f"{output}: {error.strerror}") from error
