"""Kernel messages as the recorder takes them: parsed once, with the time they were received.

https://jupyter-client.readthedocs.io/en/stable/messaging.html
"""

import json
from base64 import b64encode
from dataclasses import dataclass, field
from datetime import datetime
from hmac import compare_digest
from typing import Any

from jupyter_client.session import DELIM, Session

from models.codec import encode_text


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
class Unreadable:
    """Frames that are not a valid signed message; kept, so that nothing vanishes unseen."""

    channel: str
    reason: str
    frames: list[str] = field(repr=False)
    received_at: datetime


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
    channel: str, frames: list[bytes], error: Exception, received_at: datetime
) -> Unreadable:
    """Return what is kept of frames that are not a valid message."""
    kept = [b64encode(frame).decode("ascii") for frame in frames]
    return Unreadable(channel, f"{type(error).__name__}: {error}", kept, received_at)


def read(channel: str, parts: list[bytes], received_at: datetime) -> Message | Unreadable:
    """Return the message with these verified parts.

    Text is decoded with `surrogateescape`: kernels put bytes that are not UTF-8 on the wire
    (ipykernel does for U+DC80..U+DCFF), and replacing them would lose what was printed.
    """
    try:
        header, parent, metadata, content = (
            json.loads(part.decode("utf-8", "surrogateescape")) for part in parts[:4]
        )
        if not isinstance(content, dict):
            raise TypeError("content is not an object")
        message_type = str(header["msg_type"])
        str(header["msg_id"])
    except Exception as error:  # noqa: BLE001 (whatever a kernel sends must not end the reader)
        return unreadable(channel, parts, error, received_at)
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
        received_at=received_at,
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    """Return an identifier as the columns of identifiers hold it; None for what is no text."""
    return encode_text(value) if isinstance(value, str) else None
