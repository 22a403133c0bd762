"""The current state of a Jupyter widget, merged from its comm's messages.

A comm's data and buffers are kept as a comm_open sent now would carry them:
`{"state": {...}, "buffer_paths": [...]}`, the buffer at position i belonging at path i.
https://github.com/jupyter-widgets/ipywidgets/blob/main/packages/schema/messages.md
"""

from typing import Any

TARGET = "jupyter.widget"

Path = list[Any]
Data = dict[str, Any]


def merge_update(
    data: Data,
    buffers: list[bytes],
    message: Data,
    message_buffers: list[bytes],
    *,
    by_client: bool,
) -> tuple[Data, list[bytes]] | None:
    """Return data and buffers after a message, None when it does not change the state.

    An update replaces whole attributes, with the buffers in them. Of a client's update only
    attributes that the widget has are taken, as kernels do. What is not as the protocol has it
    changes nothing: it comes from code that anyone may write.
    """
    update = message.get("state")
    if message.get("method") not in ("update", "echo_update") or not isinstance(update, dict):
        return None
    before = data.get("state")
    before = before if isinstance(before, dict) else {}
    kept = _located(data, buffers)
    new = _located(message, message_buffers)
    touched = set(update) | {path[0] for path, _ in new}
    if by_client:
        touched &= set(before) | {path[0] for path, _ in kept}
    if not touched:
        return None
    state = {name: value for name, value in before.items() if name not in touched}
    state |= {name: value for name, value in update.items() if name in touched}
    located = [entry for entry in kept if entry[0][0] not in touched]
    located += [entry for entry in new if entry[0][0] in touched]
    merged = {**data, "state": state, "buffer_paths": [path for path, _ in located]}
    return merged, [buffer for _, buffer in located]


def _located(data: Data, buffers: list[bytes]) -> list[tuple[Path, bytes]]:
    """Return the buffers with their paths; what has no path, or none that can be, is left out."""
    paths = data.get("buffer_paths")
    if not isinstance(paths, list):
        return []
    return [
        (path, buffer)
        for path, buffer in zip(paths, buffers, strict=False)
        if isinstance(path, list) and path and isinstance(path[0], str)
    ]
