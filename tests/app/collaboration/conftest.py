"""A server with rooms, and files to open in them."""

import pytest

from app.settings import Settings
from tests.app.documents.conftest import code, write
from tests.live import live


@pytest.fixture
def settings(root_dir):
    return Settings(root_dir=root_dir, owner="ada", save_delay_seconds=0.05)


@pytest.fixture
async def server(settings, database_url, tmp_path):
    async with live(settings, database_url, tmp_path / "data") as made:
        yield made


@pytest.fixture
def notebook(root_dir):
    write(root_dir / "a.ipynb", code("one", id="c1"), code("two", id="c2"))
    return root_dir / "a.ipynb"
