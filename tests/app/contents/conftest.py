"""Steps that tests of contents share: rows as they are, notebooks on disk."""

import json

import pytest
from nbformat import v4
from sqlalchemy import select

from models import Content, Document


@pytest.fixture
def settings(settings):
    """Nothing goes to anybody's trash; the watcher only where it is tested."""
    return settings.model_copy(update={"delete_to_trash": False, "watch_files": False})


@pytest.fixture
def rows(client):
    """A function that returns the rows of contents by path."""

    async def read(**also):
        async with client.app.state.database.read() as tx:
            query = select(Content)
            if not also.get("missing"):
                query = query.where(Content.missing_since.is_(None))
            return {row.path: row for row in (await tx.execute(query)).scalars()}

    return read


@pytest.fixture
def documents(client):
    """A function that returns the documents' ids by path."""

    async def read():
        async with client.app.state.database.read() as tx:
            query = select(Content.path, Document.id).join(
                Document, Document.content_id == Content.id
            )
            return dict((await tx.execute(query)).all())

    return read


def notebook(*sources):
    cells = [v4.new_code_cell(source, id=f"c{n}") for n, source in enumerate(sources)]
    return json.loads(json.dumps(v4.new_notebook(cells=cells)))


def write(path, *sources):
    path.write_text(json.dumps(notebook(*sources)))


def sources(content):
    return ["".join(cell["source"]) for cell in content["cells"]]
