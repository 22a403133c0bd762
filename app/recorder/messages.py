"""Kernel messages as the recorder takes them: parsed once, with the time they were received.

https://jupyter-client.readthedocs.io/en/stable/messaging.html
"""

import json
import re
import uuid
from base64 import b64encode
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hmac import compare_digest
from typing import Any

from jupyter_client.session import DELIM, Session

from models.codec import encode_text

# Requests that come over the control channel; the busy and idle they cause are not the shell's.
CONTROL_REQUESTS = frozenset(
    {
        "debug_request",
        "interrupt_request",
        "usage_request",
        "create_subshell_request",
        "delete_subshell_request",
        "list_subshell_request",
    }
)


@dataclass(frozen=True, slots=True)
class Message:
    """One message from a kernel; `size_bytes` counts its content and buffers as received.

    `received_at` is when the kernel sent it, by this machine's clock.
    """

    channel: str
    type: str
    parent_id: str | None
    parent_type: str | None
    parent_session: str | None
    parent_username: str | None
    header: dict[str, Any]
    metadata: dict[str, Any]
    content: dict[str, Any]
    buffers: list[bytes]
    size_bytes: int
    received_at: datetime


@dataclass(frozen=True, slots=True)
class CommRequest:
    """A comm_open, comm_msg or comm_close that a client sends; `content` has its `comm_id`."""

    msg_id: str
    msg_type: str
    content: dict[str, Any]
    metadata: dict[str, Any]
    buffers: list[bytes] = field(repr=False)
    actor_id: uuid.UUID | None
    size_bytes: int
    sent_at: datetime

    @property
    def comm_id(self) -> str:
        """The kernel's id of the comm."""
        return str(self.content["comm_id"])


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Frames that are not a valid signed message; kept, so that nothing vanishes unseen."""

    channel: str
    reason: str
    frames: list[str] = field(repr=False)
    received_at: datetime
    parent_id: str | None = None


# Deeper JSON would run into the recursion limits of Python and of the front ends that show it.
_MAX_DEPTH = 200
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


class KernelClock:
    """Turns the times in a kernel's headers into this machine's.

    A header says when a message was sent, by the kernel's clock; when it was read here says too
    much, since this process may have been busy. The smallest difference between the two is the
    clocks' skew (and the fastest way a message took).
    """

    def __init__(self) -> None:
        self._skew: timedelta | None = None

    def here(self, sent_at: object, read_at: datetime) -> datetime:
        """Return when a message was sent by this machine's clock, never after it was read.

        `sent_at` is a header's date, ISO 8601 with an offset; what is none counts as when read.
        """
        try:
            sent = datetime.fromisoformat(str(sent_at))
            delay = read_at - sent
        except (ValueError, TypeError, OverflowError):
            return read_at
        if self._skew is None or delay < self._skew:
            self._skew = delay
        return min(read_at, sent + self._skew)


def verified(session: Session, frames: list[bytes]) -> list[bytes]:
    """Return a message's parts (header, parent header, metadata, content, buffers).

    Raises ValueError unless they have the signature of `session`'s kernel.
    """
    place = frames.index(DELIM)
    signature, parts = frames[place + 1], frames[place + 2 :]
    if len(parts) < 4:
        raise ValueError("a message has at least four parts")
    if session.auth is not None and not compare_digest(session.sign(parts[:4]), signature):
        raise ValueError("the signature is not the kernel's")
    return parts


def unreadable(
    channel: str,
    frames: list[bytes],
    error: Exception,
    received_at: datetime,
    *,
    parent_id: str | None = None,
) -> Unreadable:
    """Return what is kept of frames that are not a valid message."""
    kept = [b64encode(frame).decode("ascii") for frame in frames]
    return Unreadable(channel, f"{type(error).__name__}: {error}", kept, received_at, parent_id)


def read(
    channel: str, parts: list[bytes], received_at: datetime, clock: KernelClock
) -> Message | Unreadable:
    """Return the message with these verified parts.

    Text is decoded with `surrogateescape`: kernels put bytes that are not UTF-8 on the wire
    (ipykernel does for U+DC80..U+DCFF), and replacing them would lose what was printed.
    """
    try:
        raw = parts[3]
        if raw.count(b"[") + raw.count(b"{") > _MAX_DEPTH and _depth(raw) > _MAX_DEPTH:
            raise ValueError(f"JSON is nested deeper than {_MAX_DEPTH}")
        header, parent, metadata, content = (
            json.loads(part.decode("utf-8", "surrogateescape")) for part in parts[:4]
        )
        if not isinstance(content, dict):
            raise TypeError("content is not an object")
        message_type = str(header["msg_type"])
        str(header["msg_id"])
    except Exception as error:  # noqa: BLE001 (whatever a kernel sends must not end the reader)
        return unreadable(channel, parts, error, received_at, parent_id=_id_of(parts[1]))
    parent = _object(parent)
    buffers = parts[4:]
    return Message(
        channel=channel,
        type=message_type,
        parent_id=_text(parent.get("msg_id")),
        parent_type=_text(parent.get("msg_type")),
        parent_session=_text(parent.get("session")),
        parent_username=_text(parent.get("username")),
        header=header,
        metadata=_object(metadata),
        content=content,
        buffers=buffers,
        size_bytes=len(parts[3]) + sum(map(len, buffers)),
        received_at=clock.here(header.get("date"), received_at),
    )


def _depth(raw: bytes) -> int:
    """Return how deep the objects and arrays of JSON text are nested."""
    depth = deepest = 0
    for found in _BRACKETS.finditer(raw):
        match found[0]:
            case b"[" | b"{":
                depth += 1
                deepest = max(deepest, depth)
            case b"]" | b"}":
                depth -= 1
    return deepest


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _id_of(raw: bytes) -> str | None:
    """Return the id in a header that may be anything: a reply's parent tells who waits for it."""
    try:
        return _text(_object(json.loads(raw.decode("utf-8", "surrogateescape"))).get("msg_id"))
    except (ValueError, RecursionError):
        return None


def _text(value: Any) -> str | None:
    """Return an identifier as the columns of identifiers hold it; None for what is no text."""
    return encode_text(value) if isinstance(value, str) else None
