"""Each table says what of it goes out, and the triggers are those of what it says."""

import psycopg
import pytest
from sqlalchemy import Text

from app.changes.tables import TABLES
from models import Base
from models.published import Published, Unpublished

MODELS = sorted((m.class_ for m in Base.registry.mappers), key=lambda model: model.__tablename__)
PUBLISHED = [model for model in MODELS if isinstance(model.__feed__, Published)]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__tablename__)
def test_every_column_is_declared_once(model):
    feed = model.__feed__
    if isinstance(feed, Unpublished):
        assert feed.reason
        return
    declared = [*feed.sent, *feed.announced, *feed.withheld]
    assert sorted(declared) == sorted(column.name for column in model.__table__.columns)


@pytest.mark.parametrize("model", PUBLISHED, ids=lambda model: model.__tablename__)
def test_filters_and_ids_are_columns_that_go_out(model):
    feed = model.__feed__
    out = {*feed.sent, *feed.announced}
    assert set(feed.id) <= set(feed.sent)
    assert set(feed.filters) <= out
    assert set(feed.id) <= set(feed.filters)
    for scope in feed.scopes:
        assert scope.column is None or scope.column in out
    assert feed.scopes
    if "path" in feed.filters:
        assert isinstance(model.__table__.c.path.type, Text)


def test_what_must_never_go_out_does_not():
    assert "tokens" not in TABLES
    for table, column in [
        ("kernels", "connection_info"),
        ("input_requests", "value"),
        ("executions", "idempotency_key"),
    ]:
        assert column in TABLES[table].published.withheld
    for table in TABLES.values():
        out = {*table.published.sent, *table.published.announced}
        assert not {name for name in out if "hash" in name and table.name == "tokens"}


def array(names: tuple[str, ...]) -> list[str]:
    return list(names)


def test_the_triggers_are_those_of_the_declarations(database_url: str):
    """Also that they know all columns: who adds one calls `datastore_watch` again."""
    functions = (
        "SELECT p.proname, pg_get_functiondef(p.oid) FROM pg_proc p"
        " JOIN pg_trigger t ON t.tgfoid = p.oid WHERE t.tgname LIKE 'datastore\\_changes\\_%'"
    )
    with psycopg.connect(database_url) as connection:
        installed = dict(connection.execute(functions).fetchall())
        assert set(installed) == {"datastore_truncated"} | {
            f"datastore_{done}_{model.__tablename__}"
            for done in ("inserted", "updated", "deleted")
            for model in PUBLISHED
        }
        for model in PUBLISHED:
            feed = model.__feed__
            connection.execute(
                "SELECT datastore_watch(%s::regclass, %s, withheld => %s, id => %s)",
                [model.__tablename__, array(feed.keys), array(feed.withheld), array(feed.id)],
            )
        made = dict(connection.execute(functions).fetchall())
        connection.rollback()
    for name, text in made.items():
        assert installed[name] == text, name
