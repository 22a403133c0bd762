"""Kernel messages as the recorder takes them: parsed once, with the time they were received.

https://jupyter-client.readthedocs.io/en/stable/messaging.html
"""

import json
import uuid
from base64 import b64encode
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from jupyter_client.session import Session

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
    """One message from a kernel; `size_bytes` counts its content and buffers as received."""

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


def parse(session: Session, channel: str, frames: list[bytes]) -> Message | Unreadable:
    """Parse the frames of one message of `session`'s kernel.

    Content is decoded with `surrogateescape`: kernels put bytes that are not UTF-8 on the wire
    (ipykernel does for U+DC80..U+DCFF), and replacing them would lose what was printed.
    """
    received_at = datetime.now(UTC)
    parent: dict[str, Any] = {}
    try:
        _, parts = session.feed_identities(frames)
        envelope = session.deserialize(parts, content=False)
        parent = envelope["parent_header"] or {}
        raw = bytes(envelope["content"])
        content = json.loads(raw.decode("utf-8", "surrogateescape"))
        if not isinstance(content, dict):
            raise TypeError("content is not an object")
    except Exception as error:  # noqa: BLE001 (whatever a kernel sends must not end the reader)
        reason = f"{type(error).__name__}: {error}"
        kept = [b64encode(frame).decode("ascii") for frame in frames]
        return Unreadable(channel, reason, kept, received_at, parent.get("msg_id"))
    buffers = [bytes(buffer) for buffer in envelope["buffers"]]
    return Message(
        channel=channel,
        type=envelope["msg_type"],
        parent_id=parent.get("msg_id"),
        parent_type=parent.get("msg_type"),
        parent_session=parent.get("session"),
        parent_username=parent.get("username"),
        header=envelope["header"],
        metadata=envelope["metadata"] or {},
        content=content,
        buffers=buffers,
        size_bytes=len(raw) + sum(map(len, buffers)),
        received_at=received_at,
    )
