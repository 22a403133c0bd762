"""Telling events of what requests did to contents and kernels, as jupyter_server tells them.

This looks at requests and answers from outside, so that no route has to remember it: a request
that succeeded is an event, and so is a kernel's that failed.
"""

from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.events.events import CONTENTS, KERNELS, Events
from app.web import route_template

_KERNEL_ACTIONS = {
    ("POST", "/api/kernels"): "start",
    ("DELETE", "/api/kernels/{kernel_id}"): "shutdown",
    ("POST", "/api/kernels/{kernel_id}/interrupt"): "interrupt",
    ("POST", "/api/kernels/{kernel_id}/restart"): "restart",
}
_KERNEL_MESSAGES = {
    "start": "Kernel {} was started.",
    "shutdown": "Kernel {} was shutdown.",
    "interrupt": "Kernel {} was interrupted.",
    "restart": "Kernel {} was restarted.",
}
_CONTENTS_ACTIONS = {"GET": "get", "PUT": "save", "POST": "create", "PATCH": "rename"}
_CONTENTS_ACTIONS["DELETE"] = "delete"
_CONTENTS_ROUTES = ("/api/contents", "/api/contents/{path}")


class TellActions:
    """ASGI middleware that tells `events` of requests that acted on contents and kernels."""

    def __init__(self, app: ASGIApp, events: Events, base_url: str) -> None:
        self._app = app
        self._events = events
        self._base_url = base_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; tell once its answer has begun."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._tell(scope, message)
            await send(message)

        await self._app(scope, receive, telling)

    def _tell(self, scope: Scope, message: Message) -> None:
        template = route_template(scope)
        status: int = message["status"]
        location = next(
            (value.decode("latin-1") for key, value in message["headers"] if key == b"location"), ""
        )
        if template in _CONTENTS_ROUTES and status < 300:
            self._events.tell(CONTENTS, self._contents(scope, location))
        elif action := _KERNEL_ACTIONS.get((scope["method"], template)):
            kernel_id = scope["path_params"].get("kernel_id") or location.rpartition("/")[2]
            if kernel_id or action == "start":
                self._events.tell(KERNELS, _kernel(action, unquote(kernel_id), status))

    def _contents(self, scope: Scope, location: str) -> dict[str, Any]:
        action = _CONTENTS_ACTIONS[scope["method"]] if scope["method"] != "HEAD" else "get"
        path = scope["path_params"].get("path", "").strip("/")
        prefix = f"{self._base_url}api/contents/"
        created = unquote(location.removeprefix(prefix)) if location.startswith(prefix) else path
        if action == "rename":
            return {"action": action, "path": created, "source_path": path}
        return {"action": action, "path": created if action == "create" else path}


def _kernel(action: str, kernel_id: str, status: int) -> dict[str, Any]:
    succeeded = status < 400
    event: dict[str, Any] = {
        "action": action,
        "status": "success" if succeeded else "error",
        "status_code": status,
        "msg": _KERNEL_MESSAGES[action].format(kernel_id)
        if succeeded
        else f"The {action} of the kernel failed with status {status}.",
    }
    if kernel_id:
        event["kernel_id"] = kernel_id
    return event
