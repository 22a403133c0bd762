"""`jupyter-datastore openapi`: the API's OpenAPI document, without a server."""

import json
from pathlib import Path

import click

from app.main import create_app
from app.settings import Settings
from app.spec.document import as_yaml, openapi_document


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file to write, as JSON if it is named so.  [default: print as YAML]",
)
def openapi(output: Path | None) -> None:
    """Write the API's OpenAPI document."""
    settings = Settings(base_url="/")
    app = create_app(settings, database_url="postgresql://", token="", data_dir=Path())
    document = openapi_document(app)
    if output is None:
        click.echo(as_yaml(document))
        return
    is_json = output.suffix == ".json"
    text = json.dumps(document, indent=1) + "\n" if is_json else as_yaml(document)
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise click.ClickException(f"{output}: {error.strerror}") from error
