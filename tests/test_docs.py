"""What the README says is so: its commands are CI's, its queries run, what it points at exists."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from sqlalchemy import text

from app.db.engine import Database
from app.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def statements(sql: str) -> list[str]:
    lines = [line for line in sql.splitlines() if not line.startswith("--")]
    return [part.strip() for part in "\n".join(lines).split(";") if part.strip()]


def example_queries() -> list[str]:
    return statements((ROOT / "examples" / "queries.sql").read_text("utf-8"))


def readme_queries() -> list[str]:
    return [query for block in blocks(README, "sql") for query in statements(block)]


def test_ci_runs_the_readmes_test_command():
    (command,) = [
        line for line in README.splitlines() if "-m pytest" in line and "venv .venv" in line
    ]
    assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && ")
    ci = (ROOT / ".ci" / "run").read_text("utf-8").replace(" -q", "")
    assert command in ci


def test_the_readme_opens_with_both_commands():
    install, test = blocks(README, "sh")[:2]
    assert install == (
        "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/jupyter-datastore serve\n"
    )
    assert test.endswith(".venv/bin/python -m pytest -n 2 --dist loadfile\n")


def test_the_readmes_queries_are_the_examples():
    assert readme_queries() == example_queries()
    assert len(readme_queries()) == 3


@pytest.mark.parametrize("query", example_queries())
async def test_a_query_runs_on_an_empty_database(database: Database, query: str):
    async with database.read() as session:
        assert (await session.execute(text(query))).all() == []


async def test_the_readme_names_the_views_columns(database: Database):
    columns = text(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_name = 'execution_history' AND table_schema = 'public'"
        " ORDER BY ordinal_position"
    )
    async with database.read() as session:
        found = list(await session.scalars(columns))
    (paragraph,) = re.findall(
        r"^The view has one row for each execution.*?^$", README, re.MULTILINE | re.DOTALL
    )
    assert re.findall(r"`(\w+)`", paragraph)[: len(found)] == found


async def test_the_architecture_page_lists_every_table(database: Database):
    query = text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    async with database.read() as session:
        tables = set(await session.scalars(query)) - {"alembic_version"}
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    (section,) = re.findall(r"^## Tables$.*?(?=^## )", page, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == tables


def test_the_readme_lists_every_setting():
    named = set(re.findall(r"`DATASTORE_(\w+)`", README)) - {"TEST_DATABASE_URL"}
    assert named == {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_named_in_a_page_exist(page: Path):
    content = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", content):
        assert (page.parent / target).exists(), target
    for name in re.findall(
        r"`((?:app|models|alembic|docs|examples|tests|docker)/[\w./-]+)`", content
    ):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.ipynb")), ids=lambda p: p.name)
def test_an_example_notebook_is_valid_and_without_outputs(path: Path):
    raw = json.loads(path.read_text("utf-8"))
    nbformat.validate(raw)
    assert (raw["nbformat"], raw["nbformat_minor"]) == (4, 5)
    for cell in raw["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
