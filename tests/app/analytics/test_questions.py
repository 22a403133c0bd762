"""The documented questions: they run, have answers, and do not read the history whole."""

import re

import pytest

from benchmarks.history import PAGE, questions, sequential_scans

QUESTIONS = questions()


def test_every_question_has_a_query_and_its_output():
    page = PAGE.read_text("utf-8")
    asked = page.split("# Times and sizes")[0]
    assert [heading for heading, _ in QUESTIONS] == re.findall(r"^## (.+)$", asked, re.MULTILINE)
    assert len(QUESTIONS) >= 15
    outputs = re.findall(r"^\(\d+ rows?\)$", asked, re.MULTILINE)
    assert len(outputs) == len(QUESTIONS)


@pytest.mark.parametrize("query", [query for _, query in QUESTIONS], ids=[q for q, _ in QUESTIONS])
def test_a_question_is_answered_without_reading_the_history_whole(history, query):
    assert sequential_scans(history, query) == []
    assert history.execute(query).fetchall() != [] or "now()" in query or "current_date" in query


def test_a_plan_that_reads_the_history_whole_is_noticed(history):
    assert sequential_scans(history, "SELECT count(code) FROM analytics.execution_history")


def test_a_document_is_deleted_without_reading_the_history_whole(history):
    """Its executions are found by `(document_id, seq)`, as the foreign key's own query asks."""
    history.execute("SET plan_cache_mode = force_generic_plan")
    history.execute(
        "PREPARE detach (uuid) AS"
        " UPDATE executions SET document_id = NULL WHERE $1 OPERATOR(pg_catalog.=) document_id"
    )
    assert sequential_scans(history, "EXECUTE detach('00000000-0000-0000-0000-000000000001')") == []


def test_the_page_describes_every_column_as_the_database_does(history):
    page = PAGE.read_text("utf-8")
    described = dict(
        re.findall(r"^### `(analytics\.\w+)`\n(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)
    )
    views = history.execute(
        "SELECT 'analytics.' || c.relname, obj_description(c.oid), array_agg(a.attname ORDER BY"
        " a.attnum), array_agg(col_description(c.oid, a.attnum) ORDER BY a.attnum)"
        " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0"
        " WHERE c.relnamespace = 'analytics'::regnamespace AND c.relkind = 'v' GROUP BY c.oid"
    ).fetchall()
    assert {name for name, _, _, _ in views} == set(described)
    for name, comment, columns, comments in views:
        assert comment, name
        assert comment in described[name]
        for column, text in zip(columns, comments, strict=True):
            assert text, (name, column)
            assert f"| `{column}` | {text} |" in described[name]


def test_every_view_asks_with_the_rights_of_who_asks(history):
    options = history.execute(
        "SELECT relname, reloptions FROM pg_class WHERE relkind = 'v'"
        " AND relnamespace = 'analytics'::regnamespace"
    ).fetchall()
    assert len(options) >= 11
    assert {tuple(value) for _, value in options} == {("security_invoker=true",)}
