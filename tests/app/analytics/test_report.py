"""`jupyter-datastore report`: what it says agrees with the database, and the page stands alone.

And `examples/history.ipynb` runs from its first cell to its last, on much history and on little.
"""

import json
import os
import re
import subprocess
import sys
from datetime import date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from app.analytics.day import bounds, read_day
from app.analytics.page import page
from app.analytics.tables import seconds, size
from app.cli import main

NOTEBOOK = Path(__file__).parents[3] / "examples" / "history.ipynb"
TODAY = datetime.now().date()  # noqa: DTZ005 (a day of this machine)
DAY = max(day for day in (TODAY - timedelta(days=back) for back in (1, 2, 3)) if day.weekday() < 5)


def test_the_tables_agree_with_the_executions(history_url, history):
    day = read_day(history_url, DAY)
    begins, ends = bounds(DAY)
    counts = history.execute(
        "SELECT count(*), count(*) FILTER (WHERE status = 'error'), count(DISTINCT path)"
        " FROM executions WHERE queued_at >= %s AND queued_at < %s",
        [begins, ends],
    ).fetchone()
    totals = day.totals
    assert (totals["executions"], totals["failed"], totals["notebooks"]) == counts
    assert totals["executions"] > 100
    assert sum(row["executions"] for row in day.hours) == totals["executions"]
    assert len(day.hours) == round((ends - begins) / timedelta(hours=1))
    assert sum(row["errors"] for row in day.errors) == totals["failed"]
    assert len(day.cells) == 10
    result = CliRunner().invoke(
        main, ["report", "--day", f"{DAY}", "--database-url", history_url], env={"COLUMNS": "120"}
    )
    assert result.exit_code == 0, result.output
    assert f"{totals['executions']:,} executions" in result.output
    for row in day.people:
        assert re.search(rf"{row['person']}\s+{row['executions']:,}\s", result.output)


class Parsed(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.addresses, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href", "action")]

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_stands_alone(history_url, tmp_path):
    file = tmp_path / "day.html"
    arguments = ["report", "--day", f"{DAY}", "--html", str(file), "--database-url", history_url]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    text = file.read_text("utf-8")
    parsed = Parsed()
    parsed.feed(text)
    assert parsed.tags.count("svg") == 4
    assert parsed.tags.count("table") == 4
    assert {"script", "link", "img", "iframe"}.isdisjoint(parsed.tags)
    assert all(address.startswith("#") for address in parsed.addresses)
    assert not re.search(r"url\((?!#)|@import", text)


def test_a_cells_text_is_text(database_url, tmp_path):
    """What a person typed is neither markup, nor rich's, nor a formula."""
    code = "<script>alert(1)</script> [bold]$x_1$[/bold] \\frac"
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO users (id, name) VALUES (gen_random_uuid(), '<b>ada</b>')")
        connection.execute(
            "INSERT INTO kernels (id, name, owner_id) SELECT 'k', 'python3', id FROM users"
        )
        connection.execute(
            "INSERT INTO executions (id, kernel_id, incarnation, actor_id, run_as_id, client, path,"
            " cell_id, msg_id, code, source_hash, status, started_at, finished_at, ename)"
            " SELECT datastore_id_at(now()), 'k', 1, id, id, 'api', 'a.ipynb', 'c', 'm', %s, '',"
            " 'error', now(), now(), '<i>E</i>' FROM users",
            [code],
        )
    day = read_day(database_url, TODAY)
    text = page(day)
    parsed = Parsed()
    parsed.feed(text)
    assert {"script", "b", "i"}.isdisjoint(parsed.tags)
    assert code in "".join(parsed.text)
    result = CliRunner().invoke(
        main, ["report", "--database-url", database_url], env={"COLUMNS": "200"}
    )
    assert code in result.output
    assert "<i>E</i>" in result.output


def test_an_empty_day_is_said(database_url, tmp_path):
    result = CliRunner().invoke(main, ["report", "--database-url", database_url])
    assert result.exit_code == 0
    assert "0 executions" in result.output
    assert page(read_day(database_url, TODAY)).count("<svg") == 2


def test_no_database_is_an_error(tmp_path):
    url = f"postgresql://nobody@/none?host={tmp_path}"
    result = CliRunner().invoke(main, ["report", "--database-url", url])
    assert result.exit_code == 1
    assert "The database cannot be read" in result.output


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.4, "0.40 s"), (12.34, "12.3 s"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (None, "")],
)
def test_times_as_people_say_them(value, said):
    assert seconds(value) == said


def test_sizes_as_people_say_them():
    assert [size(value) for value in (999, 1500, 2_500_000)] == ["999 B", "1.5 kB", "2.5 MB"]


def test_a_day_has_the_hours_that_it_has():
    begins, ends = bounds(date(2026, 3, 1))
    assert begins <= datetime(2026, 3, 1, 12).astimezone() < ends


def run_notebook(url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the notebook's code as a program, for a display that shows nothing."""
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return subprocess.run(
        [sys.executable, "-W", "ignore:FigureCanvasAgg", "-c", "\n".join(code)],
        env={**os.environ, "MPLBACKEND": "agg", "DATASTORE_DATABASE_URL": url, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_notebook_runs_on_months(history_url: str):
    done = run_notebook(history_url)
    assert done.returncode == 0, done.stderr


def test_the_notebook_runs_on_a_first_execution(database_url: str):
    done = run_notebook(database_url)
    assert done.returncode == 1
    assert "Nothing is added up yet" in done.stderr
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "WITH u AS (INSERT INTO users (id, name) SELECT gen_random_uuid(), 'ada' RETURNING id),"
            " k AS (INSERT INTO kernels (id, name, owner_id) SELECT 'k', 'p', id FROM u)"
            " INSERT INTO executions (id, kernel_id, incarnation, run_as_id, client, msg_id, code,"
            " source_hash, status, queued_at, started_at, finished_at)"
            " SELECT datastore_id_at(now()), 'k', 1, id, 'api', 'm', '', '', 'ok', now(), now(),"
            " now() + interval '1 second' FROM u"
        )
        connection.execute("SELECT analytics.roll_up(10)")
    done = run_notebook(database_url)
    assert done.returncode == 0, done.stderr
    assert "Nothing failed." in done.stdout


def test_the_notebook_without_a_database_says_what_to_do(tmp_path: Path):
    """Also where the environment of its kernel is not on the PATH."""
    done = run_notebook("", DATASTORE_DATA_DIR=str(tmp_path), PATH="/usr/bin:/bin")
    assert done.returncode == 1
    assert "No database: set DATASTORE_DATABASE_URL" in done.stderr
