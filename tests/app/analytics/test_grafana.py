"""The Grafana dashboard: each of its queries runs on the database, macros in place."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest

from benchmarks.history import sequential_scans

FILE = Path(__file__).parents[3] / "docker" / "grafana" / "dashboards" / "jupyter-datastore.json"
DASHBOARD = json.loads(FILE.read_text("utf-8"))
PANELS = DASHBOARD["panels"]
BEGINS, ENDS = "now() - interval '7 days'", "now()"


def expanded(query, people):
    """What Grafana sends for a panel's query, of the last seven days."""
    query = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 BETWEEN {BEGINS} AND {ENDS}", query)
    query = query.replace("$__timeFrom()", f"({BEGINS})").replace("$__timeTo()", f"({ENDS})")
    query = query.replace("$person", ",".join(f"'{name}'" for name in people))
    assert "$" not in query
    return query


def test_panels_have_places_of_their_own_and_use_the_chosen_database():
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for one, other in combinations([panel["gridPos"] for panel in PANELS], 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
    variables = DASHBOARD["templating"]["list"]
    (database,) = [v["name"] for v in variables if v["type"] == "datasource"]
    for panel in PANELS:
        assert panel["datasource"]["uid"] == f"${{{database}}}"
        assert all(t["datasource"] == panel["datasource"] for t in panel["targets"])


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_a_panels_query_runs(history, panel):
    (variable,) = [v for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
    people = [name for (name,) in history.execute(variable["query"]).fetchall()]
    assert len(people) == 20
    for target in panel["targets"]:
        query = expanded(target["rawSql"], people)
        assert sequential_scans(history, query) == []
        cursor = history.execute(query)
        columns = [column.name for column in cursor.description]
        rows = cursor.fetchall()
        if panel["title"] != "Running now":
            assert rows
        if target["format"] == "time_series":
            assert columns[0] == "time"
            assert [row[0] for row in rows] == sorted(row[0] for row in rows)
        for override in panel["fieldConfig"]["overrides"]:
            assert override["matcher"]["options"] in columns
        # One person's are not more than everybody's.
        fewer = history.execute(expanded(target["rawSql"], people[:1])).fetchall()
        assert len(fewer) <= len(rows)
