"""What subscribers of `/api/events/subscribe` are told of rooms, as jupyter-collaboration names it.

The schemas say what these events have; front ends know them by their ids.
"""

from typing import Any

from app.events.events import Events

_BASE = "https://schema.jupyter.org/jupyter_collaboration"
AWARENESS = f"{_BASE}/awareness/v1"
SESSION = f"{_BASE}/session/v1"
FORK = f"{_BASE}/fork/v1"


def _schema(
    schema_id: str, title: str, required: dict[str, Any], optional: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "$id": schema_id,
        "version": "1",
        "title": title,
        "personal-data": True,
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
    }


_TEXT = {"type": "string"}
_SCHEMAS = (
    _schema(
        AWARENESS,
        "Who joins and leaves rooms",
        {"roomid": _TEXT, "username": _TEXT, "action": {"enum": ["join", "leave"]}},
        {"msg": _TEXT},
    ),
    _schema(
        SESSION,
        "What happens to the documents of rooms",
        {"level": _TEXT, "room": _TEXT, "path": _TEXT},
        {
            "action": {"enum": ["initialize", "load", "save", "overwrite", "clean"]},
            "msg": _TEXT,
            "store": _TEXT,
        },
    ),
    _schema(
        FORK,
        "Forks made and deleted",
        {
            "fork_roomid": _TEXT,
            "fork_info": {"type": "object"},
            "username": _TEXT,
            "action": {"enum": ["create", "delete"]},
        },
    ),
)


def register(events: Events) -> None:
    """Let events of rooms be published."""
    for schema in _SCHEMAS:
        events.logger.register_event_schema(schema)


def tell_presence(events: Events, room: str, username: str, action: str) -> None:
    """Tell that somebody joined or left a room."""
    events.tell(AWARENESS, {"roomid": room, "username": username, "action": action})


def tell_session(events: Events, room: str, path: str, action: str, message: str) -> None:
    """Tell what happened to a room's document."""
    data = {"level": "INFO", "room": room, "path": path, "action": action, "msg": message}
    events.tell(SESSION, data)


def tell_fork(events: Events, name: str, info: dict[str, Any], username: str, action: str) -> None:
    """Tell that a fork was made or deleted."""
    data = {"fork_roomid": name, "fork_info": info, "username": username, "action": action}
    events.tell(FORK, data)
