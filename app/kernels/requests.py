"""Kernel requests as plain HTTP: `POST /api/kernels/{id}/complete` and the like (docs/api.md).

Each sends one request of the messaging protocol and answers with the reply's content. What the
kernel says about it on iopub is recorded as always; the request itself leaves no row.
https://jupyter-client.readthedocs.io/en/stable/messaging.html
"""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from app.auth.access import allow
from app.auth.identity import Identity
from app.errors import BadReplyError, BadRequestError, ConflictError, NoAnswerError
from app.kernels.channels import Channels
from app.kernels.running import RunningKernel
from app.recorder.messages import Message, Unreadable
from app.web import ExactJSONResponse, json_body, object_field, while_connected

router = APIRouter()

MAX_TIMEOUT_SECONDS = 600.0

Body = dict[str, Any]


def _text(body: Body, name: str, default: str | None = None) -> str:
    value = body.get(name, default)
    if value is None:
        raise BadRequestError(f"Missing field in JSON data: {name}")
    if not isinstance(value, str):
        raise BadRequestError(f"{name} must be a string")
    return value


def _flag(body: Body, name: str, *, default: bool) -> bool:
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise BadRequestError(f"{name} must be true or false")
    return value


def _whole(body: Body, name: str, default: int | None, *, least: int | None = None) -> int | None:
    value = body.get(name, default)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRequestError(f"{name} must be a whole number")
    if (least is not None and value < least) or abs(value) >= 2**63:
        raise BadRequestError(f"{name} is out of range")
    return value


def _complete(body: Body) -> Body:
    code = _text(body, "code")
    return {"code": code, "cursor_pos": _whole(body, "cursor_pos", len(code), least=0)}


def _inspect(body: Body) -> Body:
    content = _complete(body)
    content["detail_level"] = _whole(body, "detail_level", 0)
    if content["detail_level"] not in (0, 1):
        raise BadRequestError("detail_level must be 0 or 1")
    if (sections := body.get("omit_sections")) is not None:
        if not isinstance(sections, list) or not all(isinstance(s, str) for s in sections):
            raise BadRequestError("omit_sections must be a list of strings")
        content["omit_sections"] = sections
    return content


def _is_complete(body: Body) -> Body:
    return {"code": _text(body, "code")}


def _history(body: Body) -> Body:
    """Return a history_request's content; kernels refuse fields that they do not know."""
    content: Body = {
        "output": _flag(body, "output", default=False),
        "raw": _flag(body, "raw", default=True),
        "hist_access_type": _text(body, "hist_access_type", "tail"),
    }
    match content["hist_access_type"]:
        case "range":
            content["session"] = _whole(body, "session", 0)
            content["start"] = _whole(body, "start", 0)
            content["stop"] = _whole(body, "stop", None)
        case "tail":
            content["n"] = _whole(body, "n", 10, least=0)
        case "search":
            content["pattern"] = _text(body, "pattern", "*")
            content["n"] = _whole(body, "n", None, least=0)
            content["unique"] = _flag(body, "unique", default=False)
        case _:
            raise BadRequestError("hist_access_type must be range, tail or search")
    return {name: value for name, value in content.items() if value is not None}


def _kernel_info(_: Body) -> Body:
    return {}


def _comm_info(body: Body) -> Body:
    return {} if body.get("target_name") is None else {"target_name": _text(body, "target_name")}


def _debug(body: Body) -> Body:
    """Return a request of the Debug Adapter Protocol; its `seq` is given when it is sent."""
    arguments = object_field(body, "arguments")
    content = {"type": _text(body, "type", "request"), "command": _text(body, "command")}
    if (seq := _whole(body, "seq", None)) is not None:
        return {**content, "seq": seq, "arguments": arguments}
    return {**content, "arguments": arguments}


_CONTENT: dict[str, Callable[[Body], Body]] = {
    "complete": _complete,
    "inspect": _inspect,
    "is_complete": _is_complete,
    "history": _history,
    "kernel_info": _kernel_info,
    "comm_info": _comm_info,
    "debug": _debug,
}


def _timeout(body: Body, from_query: float | None, default: float) -> float:
    value = from_query if from_query is not None else body.get("timeout", default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise BadRequestError("timeout must be a number of seconds")
    if not 0 < value <= MAX_TIMEOUT_SECONDS:
        raise BadRequestError(f"timeout must be over 0 and at most {MAX_TIMEOUT_SECONDS:g} seconds")
    return float(value)


async def ask_kernel(
    kernel: RunningKernel, name: str, content: Body, timeout_seconds: float
) -> Body:
    """Return the content of the kernel's reply; `name` is the request's without `_request`.

    Raises NoAnswerError when none came in time, ConflictError when the kernel is or becomes dead
    or is restarted meanwhile, BadReplyError for a reply that cannot be read.
    """
    channels: Channels | None = None
    reply: Message | Unreadable | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_seconds):
            channels = await kernel.connected()
            if name == "debug":
                content.setdefault("seq", next(channels.debug_numbers))
            channel = "control" if name == "debug" else "shell"
            reply = await channels.ask(
                channel, f"{name}_request", content, timeout_seconds=timeout_seconds
            )
    if isinstance(reply, Unreadable):
        raise BadReplyError("The kernel's reply cannot be read", reason=reply.reason)
    if reply is not None:
        return reply.content
    kernel.require_alive()
    if channels is not None and channels.closed:
        raise ConflictError("The kernel was restarted before it answered", reason=kernel.reason)
    raise NoAnswerError(
        f"The kernel did not answer within {timeout_seconds:g} seconds",
        reason=f"the kernel is {kernel.state}",
    )


def _endpoint(name: str) -> Callable[..., Awaitable[Response]]:
    """Return the route of one request."""

    async def endpoint(
        kernel_id: str,
        request: Request,
        _: Annotated[Identity, allow("execute", "kernels")],
        timeout: Annotated[float | None, Query()] = None,  # noqa: ASYNC109 (the client's word)
    ) -> Response:
        kernel: RunningKernel = request.app.state.kernels.get(kernel_id)
        body = await json_body(request)
        default = request.app.state.settings.kernel_request_timeout_seconds
        seconds = _timeout(body, timeout, default)
        content = _CONTENT[name](body)
        kernel.require_alive()
        work = ask_kernel(kernel, name, content, seconds)
        return ExactJSONResponse(await while_connected(request, work))

    endpoint.__doc__ = f"Send a `{name}_request` and answer with the reply's content."
    return endpoint


for _name in _CONTENT:
    router.add_api_route(
        f"/api/kernels/{{kernel_id}}/{_name}",
        _endpoint(_name),
        methods=["POST"],
        name=f"kernel_{_name}",
        response_class=ExactJSONResponse,
    )
