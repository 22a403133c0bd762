"""Kernel messages on a websocket: the two framings that Jupyter's clients speak.

`v1.kernel.websocket.jupyter.org`: one binary frame, a little-endian u64 count of offsets, the
offsets, then channel, header, parent header, metadata, content and buffers as the kernel's socket
has them. The default: a JSON text frame with a `channel`; with buffers a binary frame of a
big-endian u32 count, offsets, that JSON and the buffers.
https://jupyter-server.readthedocs.io/en/latest/developers/websocket-protocols.html
"""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from jupyter_client.session import Session

from models.codec import encode_text

V1 = "v1.kernel.websocket.jupyter.org"
CHANNELS = ("shell", "control", "stdin", "iopub")
# Longer ids do not fit the index that finds an execution by its message.
_ID_LENGTH = 255

Frame = str | bytes


class MalformedError(Exception):
    """A frame that is not a message: the websocket is closed with `code`."""

    def __init__(self, message: str, code: int = 1007) -> None:
        super().__init__(message)
        self.code = code


class IgnoredError(Exception):
    """A message that no kernel can be sent; the message says why, for the log."""


@dataclass(eq=False, slots=True)
class Outgoing:
    """A message for clients: its frames from the header on, encoded at most once a framing.

    `parts` are header, parent header, metadata, content and buffers; `size_bytes` is their sum.
    """

    channel: str
    parts: list[bytes]
    size_bytes: int = 0
    _v1: bytes | None = field(default=None, repr=False)
    _default: Frame | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.size_bytes = sum(map(len, self.parts))

    def v1(self) -> bytes:
        """Return the message in the v1 framing."""
        if self._v1 is None:
            pieces = [self.channel.encode("ascii"), *self.parts]
            offset = 8 * (len(pieces) + 2)
            offsets = [offset]
            for piece in pieces:
                offset += len(piece)
                offsets.append(offset)
            head = struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets)
            self._v1 = b"".join((head, *pieces))
        return self._v1

    def default(self) -> Frame:
        """Return the message in the default framing: text, or bytes when it has buffers.

        The parts are JSON already and are put together as they are.
        """
        if self._default is None:
            header, parent, metadata, content, *buffers = self.parts
            read = json.loads(header.decode("utf-8", "surrogateescape"))
            ids = [json.dumps(read.get(key)).encode() for key in ("msg_id", "msg_type")]
            text = b"".join(
                (
                    b'{"header":', header, b',"msg_id":', ids[0], b',"msg_type":', ids[1],
                    b',"parent_header":', parent, b',"metadata":', metadata,
                    b',"content":', content,
                    b"" if buffers else b',"buffers":[]',
                    b',"channel":"', self.channel.encode("ascii"), b'"}',
                )
            )  # fmt: skip
            # A text frame is UTF-8; a kernel's content need not be.
            self._default = (
                _with_buffers(text, buffers) if buffers else text.decode(errors="replace")
            )
        return self._default


def _with_buffers(text: bytes, buffers: list[bytes]) -> bytes:
    pieces = [text, *buffers]
    offset = 4 * (len(pieces) + 1)
    offsets = []
    for piece in pieces:
        offsets.append(offset)
        offset += len(piece)
    return b"".join((struct.pack(f"!{len(pieces) + 1}I", len(pieces), *offsets), *pieces))


def encoder(subprotocol: str | None) -> Callable[[Outgoing], Frame]:
    """Return what encodes messages for a websocket's subprotocol."""
    return Outgoing.v1 if subprotocol == V1 else Outgoing.default


def made(
    session: Session, msg_type: str, content: dict[str, Any], *, channel: str, parent: bytes = b"{}"
) -> Outgoing:
    """Return a message of the server's own; `parent` is the parent header as JSON."""
    header = session.pack(session.msg_header(msg_type))
    return Outgoing(channel, [header, parent, b"{}", session.pack(content)])


@dataclass(eq=False, slots=True)
class Incoming:
    """A message from a client: what the server reads of it, and the frames for the kernel."""

    channel: str
    msg_id: str
    type: str
    session: str
    parts: list[bytes]

    @property
    def key(self) -> tuple[str, str]:
        """What tells its reply from those to other clients' messages."""
        return self.session, self.msg_id

    def read(self, part: int) -> dict[str, Any]:
        """Return a part (1 parent header, 2 metadata, 3 content); IgnoredError if no object."""
        return _object(self.parts[part], ("header", "parent header", "metadata", "content")[part])


def decode(subprotocol: str | None, frame: Frame) -> Incoming:
    """Return the message in a client's frame.

    Raises MalformedError for what is not in the subprotocol's framing and IgnoredError for a
    message without what a kernel needs.
    """
    if subprotocol == V1:
        if isinstance(frame, str):
            raise MalformedError("this subprotocol has binary frames only", 1003)
        channel, parts = _decode_v1(frame)
    else:
        channel, parts = _decode_default(frame)
    if channel not in CHANNELS or channel == "iopub":
        raise IgnoredError(f"no channel {channel!r} for clients' messages")
    header = _object(parts[0], "header")
    msg_id, msg_type, session = header.get("msg_id"), header.get("msg_type"), header.get("session")
    if not isinstance(msg_id, str) or not 0 < len(msg_id) <= _ID_LENGTH:
        raise IgnoredError(f"the header has no msg_id of up to {_ID_LENGTH} characters")
    if not isinstance(msg_type, str) or not msg_type:
        raise IgnoredError("the header has no msg_type")
    return Incoming(channel, encode_text(msg_id), msg_type, _text(session), parts)


def key_of(parent: bytes) -> tuple[str, str] | None:
    """Return the key of the message that this JSON is the header of; None if it has no id."""
    try:
        header = json.loads(parent.decode("utf-8", "surrogateescape"))
        msg_id = header.get("msg_id")
    except (ValueError, AttributeError, RecursionError):
        return None
    if not isinstance(msg_id, str):
        return None
    return _text(header.get("session")), encode_text(msg_id)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _object(raw: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise IgnoredError(f"the {name} is not JSON") from error
    if not isinstance(value, dict):
        raise IgnoredError(f"the {name} is not an object")
    return value


def _decode_v1(frame: bytes) -> tuple[str, list[bytes]]:
    count = int.from_bytes(frame[:8], "little")
    # Channel and four parts have six offsets, and each takes eight bytes.
    if len(frame) < 8 or not 6 <= count <= (len(frame) - 8) // 8:
        raise MalformedError("the frame's number of offsets is not possible")
    offsets = struct.unpack_from(f"<{count}Q", frame, 8)
    if offsets[0] < 8 * (count + 1) or offsets[-1] > len(frame):
        raise MalformedError("the frame's offsets are outside of it")
    if any(start > end for start, end in pairwise(offsets)):
        raise MalformedError("the frame's offsets are not in order")
    pieces = [frame[start:end] for start, end in pairwise(offsets)]
    return pieces[0].decode("utf-8", "replace"), pieces[1:]


def _decode_default(frame: Frame) -> tuple[str, list[bytes]]:
    buffers: list[bytes] = []
    text: Frame = frame
    if isinstance(frame, bytes):
        text, *buffers = _split_default(frame)
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedError("the message is not JSON") from error
    if not isinstance(message, dict):
        raise MalformedError("the message is not an object")
    channel = message.get("channel")
    parts = [
        json.dumps(message.get(name) or {}).encode("ascii")
        for name in ("header", "parent_header", "metadata", "content")
    ]
    # As in Jupyter Server, a message without a channel is for the shell.
    return "shell" if channel is None else str(channel), parts + buffers


def _split_default(frame: bytes) -> list[bytes]:
    count = int.from_bytes(frame[:4], "big")
    if len(frame) < 4 or not 1 <= count <= (len(frame) - 4) // 4:
        raise MalformedError("the frame's number of parts is not possible")
    offsets = (*struct.unpack_from(f"!{count}I", frame, 4), len(frame))
    if offsets[0] < 4 * (count + 1):
        raise MalformedError("the frame's offsets are outside of it")
    if any(start > end for start, end in pairwise(offsets)):
        raise MalformedError("the frame's offsets are not in order")
    return [frame[start:end] for start, end in pairwise(offsets)]
