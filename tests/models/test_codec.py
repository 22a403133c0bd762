import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, text

from models import Cell, Kernel, Output, User, codec

# Any code point at all: NUL, lone surrogates and the escape character included.
texts = st.text(
    st.characters(codec="utf-16", exclude_categories=()) | st.sampled_from("\0\ufdd0\ud800\udfff")
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats() | texts,
    lambda children: st.lists(children) | st.dictionaries(texts, children),
    max_leaves=10,
)


def same(left: object, right: object) -> bool:
    """Equality in which NaN equals itself."""
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    return left == right


@given(texts)
def test_text_comes_back_as_it_was(value):
    stored = codec.encode_text(value)
    stored.encode("utf-8")
    assert "\0" not in stored
    assert codec.decode_text(stored) == value


@given(values)
def test_json_comes_back_as_it_was(value):
    stored = codec.dumps(value)
    assert "\\u0000" not in stored
    json.loads(stored.encode("utf-8"), parse_constant=pytest.fail)
    assert same(codec.loads(stored), value)
    assert same(codec.loads(stored.encode()), value)


def test_ordinary_values_are_stored_as_they_are():
    assert codec.encode_text("naïve \N{SNOWMAN}") == "naïve \N{SNOWMAN}"
    assert codec.dumps({"a": ["b", 1.5, None]}) == '{"a":["b",1.5,null]}'


async def test_postgresql_takes_and_returns_everything(database):
    odd = {"a\0b": ["\ud800x", "\ufdd0", math.inf, -math.inf, "\0" * 3], "plain": 1}
    async with database.transaction() as tx:
        tx.add(Output(output_type="unknown", text="a\0\udc80b", data=odd, traceback=["\0"]))
    async with database.read() as tx:
        row = (await tx.execute(select(Output))).scalar_one()
        assert (row.text, row.data, row.traceback) == ("a\0\udc80b", odd, ["\0"])
        # Operators work on the stored form: one odd row does not break a query over all.
        assert (await tx.execute(text("SELECT data->>'plain' FROM outputs"))).scalar_one() == "1"


def test_every_foreign_text_column_is_exact():
    for column in (Cell.source, Output.text, Output.ename, Output.evalue):
        assert isinstance(column.type, codec.ExactText)
    assert not isinstance(User.name.type, codec.ExactText)
    assert not isinstance(Kernel.name.type, codec.ExactText)
