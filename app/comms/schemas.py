"""Comms and their messages as they go over the wire, and as they come (docs/api.md)."""

import binascii
import itertools
import json
import struct
import uuid
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from typing import Any

from app.errors import BadRequestError
from app.recorder.followers import CommRecord
from app.recorder.messages import CommRequest
from app.web import isoformat, object_field
from models import Comm, CommMessage

_COLUMNS = (
    "kernel_id",
    "comm_id",
    "target_name",
    "target_module",
    "state",
    "reason",
    "incarnation",
    "data",
    "last_message_id",
    "dropped_through",
)


def comm_model(row: Comm) -> dict[str, Any]:
    """Return a comm's record; `data`, `metadata`, `buffers` are what a new comm_open would have."""
    model: dict[str, Any] = {name: getattr(row, name) for name in _COLUMNS}
    return {
        "id": str(row.id),
        **model,
        "metadata": row.metadata_,
        "buffers": _encoded(row.buffers),
        "execution_id": str(row.execution_id) if row.execution_id else None,
        "opened_at": isoformat(row.opened_at),
        "closed_at": isoformat(row.closed_at) if row.closed_at else None,
    }


def message_model(row: CommMessage) -> dict[str, Any]:
    """Return a recorded message with its buffers in base64."""
    return {
        "id": row.id,
        "msg_id": row.msg_id,
        "msg_type": row.msg_type,
        "direction": row.direction,
        "data": row.data,
        "metadata": row.metadata_,
        "buffers": _encoded(row.buffers),
        "created_at": isoformat(row.created_at),
    }


def record_of(row: CommMessage) -> CommRecord:
    """Return a recorded message as followers get it."""
    return CommRecord(
        row.comm_id,
        row.id,
        row.msg_type,
        row.direction,
        row.msg_id,
        row.data,
        row.metadata_,
        row.buffers,
        row.size_bytes,
    )


def _encoded(buffers: list[bytes]) -> list[str]:
    return [b64encode(buffer).decode("ascii") for buffer in buffers]


# websocket frames


def frame_of(record: CommRecord, **more: Any) -> str | bytes:
    """Return the websocket frame of a record: text, or binary when it has buffers."""
    head = {
        "id": record.id,
        "msg_id": record.msg_id,
        "msg_type": record.msg_type,
        "direction": record.direction,
        "data": record.data,
        "metadata": record.metadata,
        **more,
    }
    text = json.dumps(head, separators=(",", ":"))
    return _pack(text, record.buffers) if record.buffers else text


def _pack(text: str, buffers: list[bytes]) -> bytes:
    """Return a binary frame: u32be number of parts, u32be offset of each, the parts.

    The first part is the JSON text; offsets count from the frame's start. This is the framing of
    Jupyter's default websocket protocol.
    """
    parts = [text.encode("ascii"), *buffers]
    offsets = [4 * (len(parts) + 1)]
    for part in parts[:-1]:
        offsets.append(offsets[-1] + len(part))
    return struct.pack(f"!{len(parts) + 1}I", len(parts), *offsets) + b"".join(parts)


def _unpack(frame: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Return the JSON object and the buffers of a binary frame; BadRequestError for another."""
    try:
        (count,) = struct.unpack_from("!I", frame)
        if not 0 < count <= len(frame) // 4:
            raise BadRequestError("The frame's number of parts cannot be")
        offsets = list(struct.unpack_from(f"!{count}I", frame, 4))
    except struct.error as error:
        raise BadRequestError("The frame is too short") from error
    bounds = [*offsets, len(frame)]
    if bounds[0] != 4 * (count + 1) or bounds != sorted(bounds):
        raise BadRequestError("The frame's offsets cannot be")
    parts = [frame[start:end] for start, end in itertools.pairwise(bounds)]
    try:
        text = parts[0].decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequestError("The frame's JSON is not UTF-8") from error
    return _parse_object(text), parts[1:]


def _parse_object(text: str) -> dict[str, Any]:
    """Return the JSON object of a text frame; BadRequestError for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequestError("Invalid JSON in frame") from error
    if not isinstance(found, dict):
        raise BadRequestError("A frame must be a JSON object")
    return found


# what clients send


def buffers_of(body: dict[str, Any]) -> list[bytes]:
    """Return the base64 `buffers` of a request's body; BadRequestError when they are not."""
    found = body.get("buffers")
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise BadRequestError("buffers must be a list of base64 strings")
    try:
        return [b64decode(item, validate=True) for item in found]
    except (binascii.Error, ValueError) as error:
        raise BadRequestError("buffers must be a list of base64 strings") from error


def comm_request(
    msg_type: str,
    comm_id: str,
    body: dict[str, Any],
    buffers: list[bytes],
    actor_id: uuid.UUID,
    **more: Any,
) -> CommRequest:
    """Return the message to send, with the `data` and `metadata` of a body or frame."""
    content = {"comm_id": comm_id, **more, "data": object_field(body, "data")}
    metadata = object_field(body, "metadata")
    try:
        size = len(json.dumps(content)) + len(json.dumps(metadata)) + sum(map(len, buffers))
    except RecursionError as error:
        raise BadRequestError("data and metadata are nested too deeply") from error
    return CommRequest(
        msg_id=uuid.uuid4().hex,
        msg_type=msg_type,
        content=content,
        metadata=metadata,
        buffers=buffers,
        actor_id=actor_id,
        size_bytes=size,
        sent_at=datetime.now(UTC),
    )


def request_of(
    text: str | None, data: bytes | None, comm_id: str, actor_id: uuid.UUID
) -> CommRequest:
    """Return the message that a websocket's text or binary frame asks to send."""
    body, buffers = (_parse_object(text), []) if text is not None else _unpack(data or b"")
    msg_type = body.get("msg_type", "comm_msg")
    if msg_type not in ("comm_msg", "comm_close"):
        raise BadRequestError("msg_type must be comm_msg or comm_close")
    return comm_request(msg_type, comm_id, body, buffers, actor_id)
