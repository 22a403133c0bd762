"""Merging widgets' updates: whole attributes, with the buffers in them."""

import pytest

from app.recorder.widget_state import merge_update

OPENED = {
    "state": {"value": 1, "array": {"shape": [2]}, "list": [None, 2]},
    "buffer_paths": [["image"], ["array", "data"], ["list", 0]],
    "other": "kept",
}
BUFFERS = [b"image", b"array", b"list"]


def merge(message, buffers=(), by_client=False, data=OPENED):
    return merge_update(data, BUFFERS, message, list(buffers), by_client=by_client)


def test_an_update_replaces_attributes_and_their_buffers():
    data, buffers = merge({"method": "update", "state": {"value": 2, "list": [3]}})
    assert data["state"] == {"value": 2, "array": {"shape": [2]}, "list": [3]}
    assert list(zip(data["buffer_paths"], buffers, strict=True)) == [
        (["image"], b"image"),
        (["array", "data"], b"array"),
    ]
    assert data["other"] == "kept"
    assert OPENED["state"]["value"] == 1, "what was given is not changed"


def test_an_attribute_becomes_a_buffer_and_back():
    message = {"method": "echo_update", "state": {}, "buffer_paths": [["value"]]}
    data, buffers = merge(message, [b"v"])
    assert "value" not in data["state"]
    assert (data["buffer_paths"][-1], buffers[-1]) == (["value"], b"v")
    again, buffers = merge_update(
        data, buffers, {"method": "update", "state": {"value": 5}}, [], by_client=False
    )
    assert again["state"]["value"] == 5
    assert ["value"] not in again["buffer_paths"]
    assert len(buffers) == len(again["buffer_paths"]) == 3


def test_a_client_changes_only_what_the_widget_has():
    message = {
        "method": "update",
        "state": {"new": 1, "value": 9},
        "buffer_paths": [["image"], ["x"]],
    }
    data, buffers = merge(message, [b"another image", b"x"], by_client=True)
    assert data["state"]["value"] == 9
    assert "new" not in data["state"]
    assert (
        dict(zip(map(str, data["buffer_paths"]), buffers, strict=True))["['image']"]
        == b"another image"
    )
    assert ["x"] not in data["buffer_paths"]
    assert merge({"method": "update", "state": {"new": 1}}, by_client=True) is None
    by_kernel, _ = merge({"method": "update", "state": {"new": 1}})
    assert by_kernel["state"]["new"] == 1


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"method": "custom", "content": {"state": {"value": 2}}},
        {"method": "request_state"},
        {"method": "update"},
        {"method": "update", "state": [1]},
        {"method": "update", "state": {}},
        {"method": "update", "state": {}, "buffer_paths": "value"},
        {"method": "update", "state": {}, "buffer_paths": [[], None, [1]]},
    ],
)
def test_what_changes_nothing(message):
    assert merge(message, [b"1", b"2", b"3"]) is None


def test_an_opening_that_is_not_as_the_protocol_has_it():
    for odd in ({}, {"state": 1, "buffer_paths": 2}, {"state": {}, "buffer_paths": [None]}):
        data, buffers = merge({"method": "update", "state": {"value": 2}}, data=odd)
        assert (data["state"], data["buffer_paths"], buffers) == ({"value": 2}, [], [])
