"""Files are byte for byte what nbformat writes; answers are the model, whatever is in it."""

import json
import math
from datetime import UTC, datetime

import nbformat
import pytest
from nbformat import v4

from app.contents.answers import _encoded
from app.contents.notebook_format import serialized

_EVERY_KIND = "".join(map(chr, range(0x250))) + "\u2028\u2029\ufeff\ufffe\uffff😀"


def notebook(value, text=_EVERY_KIND):
    code = v4.new_code_cell(
        f"a\n{text}\r\nb", id="a", metadata={"trusted": True, "z": 1, "a": value}
    )
    code.outputs = [
        v4.new_output("stream", text=text * 3),
        v4.new_output("display_data", data={"text/plain": text, "application/json": value}),
        v4.new_output("error", ename="E", evalue=text, traceback=[text, ""]),
    ]
    markdown = v4.new_markdown_cell(text, id="m", attachments={"a.png": {"image/png": "YQ=="}})
    raw = v4.new_raw_cell("", id="r")
    made = v4.new_notebook(cells=[code, markdown, raw], metadata={"ü": value, "signature": "x"})
    return json.loads(json.dumps(made))


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        [],
        [[], {}, "", {"": [None, True, False]}],
        {"b": 1, "a": -1, "B": 2**70, "é": 0},
        1.5,
        {"deep": [1e16, 1e-7, 0.1, 1.0, -0.0]},
        math.nan,
    ],
)
def test_a_file_is_what_nbformat_writes(value):
    made = notebook(value)
    before = json.dumps(made)
    text = v4.writes_json(nbformat.from_dict(made))
    assert serialized(made) == (text.rstrip("\n") + "\n").encode()
    assert json.dumps(made) == before


@pytest.mark.parametrize("value", [None, 2**70, 1e16, math.inf, {"x": [1.0, -0.0]}])
@pytest.mark.parametrize("text", [_EVERY_KIND, "\ud800 alone", ""])
def test_an_answer_is_the_model(value, text):
    made = notebook(value, text)
    model = {"path": text, "created": datetime(2026, 1, 1, tzinfo=UTC), "content": made}
    found = json.loads(_encoded(model))
    assert found == {"path": text, "created": "2026-01-01T00:00:00Z", "content": made}
    assert json.dumps(found) == json.dumps({**model, "created": "2026-01-01T00:00:00Z"})
