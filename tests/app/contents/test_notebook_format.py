"""Notebooks that are read are what reading their JSON again would give, whatever text they have."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.contents.notebook_format import as_v4

# Halves of characters too, alone and in pairs: JSON has escapes for each.
_TEXT = st.text(st.characters(categories=None) | st.sampled_from("\ud83d\ude00\x00a\n"), max_size=8)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=10,
)


def _notebook(text: Any, value: Any) -> dict[str, Any]:
    output = {"output_type": "display_data", "data": {"application/json": value}, "metadata": {}}
    cell = {"id": "a", "cell_type": "code", "metadata": {"x": value}, "source": text}
    cell |= {"outputs": [output], "execution_count": None}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}


@given(text=_TEXT, value=_JSON)
def test_a_notebook_that_is_read_is_as_json_has_it(text: str, value: Any) -> None:
    """Strings, numbers and nested values come out as they would of JSON written and read."""
    given_ = _notebook(text, value)
    before = json.dumps(given_)
    notebook, _ = as_v4(given_)

    assert json.dumps(notebook) == json.dumps(json.loads(before))
    assert json.dumps(given_) == before


def test_halves_of_a_character_in_two_lines_are_joined() -> None:
    """Lines that end and begin with the halves of one character are one text with it."""
    notebook, _ = as_v4(_notebook(["'\ud83d", "\ude00'"], 1))

    assert notebook["cells"][0]["source"] == "'\U0001f600'"


def test_what_is_read_does_not_share_what_can_be_changed() -> None:
    """Changing the notebook leaves what it was made of as it is."""
    value = {"deep": [1]}
    given_ = _notebook("1", value)
    notebook, _ = as_v4(given_)
    notebook["cells"][0]["metadata"]["x"]["deep"].append(2)
    notebook["cells"][0]["outputs"].clear()

    assert value == {"deep": [1]}
    assert len(given_["cells"][0]["outputs"]) == 1
