"""The frames of a room's websocket: sync and awareness as y-websocket has them, and raw messages.

A frame begins with a variable-length integer that says its kind. Nothing is known of rooms here.
https://github.com/yjs/y-protocols/blob/master/PROTOCOL.md
"""

import json
from dataclasses import dataclass
from typing import Any

SYNC, AWARENESS, RAW, QUERY_AWARENESS = 0, 1, 2, 3
STEP1, STEP2, UPDATE = 0, 1, 2
# More states than this in one message are no browser's.
_STATES_LIMIT = 10_000


class BadFrameError(ValueError):
    """What was sent is no frame of this protocol."""


class Reader:
    """Reads a frame from its start; BadFrameError where it ends too early or makes no sense."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self) -> int:
        """Read an unsigned integer of up to 64 bits."""
        found = shift = 0
        while True:
            if self._at >= len(self._data) or shift > 63:
                raise BadFrameError("a number is cut off, or too long")
            byte = self._data[self._at]
            self._at += 1
            found |= (byte & 0x7F) << shift
            if byte < 0x80:
                return found
            shift += 7

    def bytes(self) -> bytes:
        """Read bytes with their length before them."""
        length = self.number()
        end = self._at + length
        if end > len(self._data):
            raise BadFrameError("bytes are cut off")
        found = self._data[self._at : end]
        self._at = end
        return found

    def text(self) -> str:
        """Read a text with its length before it."""
        try:
            return self.bytes().decode()
        except UnicodeDecodeError:
            raise BadFrameError("a text is not UTF-8") from None


def number(value: int) -> bytes:
    """Return an unsigned integer as frames have it."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def sync(kind: int, content: bytes) -> bytes:
    """Return a sync frame: step 1 with a state vector, step 2 or an update with an update."""
    return bytes((SYNC, kind)) + number(len(content)) + content


def raw(message: dict[str, Any]) -> bytes:
    """Return a raw frame: JSON that the server says beside the document."""
    text = json.dumps(message).encode()
    return bytes((RAW,)) + number(len(text)) + text


@dataclass(frozen=True, slots=True)
class PeerState:
    """One client's awareness: `state` is JSON, `null` once it has left; a later clock is newer."""

    client_id: int
    clock: int
    state: str


def awareness(states: list[PeerState]) -> bytes:
    """Return an awareness frame."""
    parts = [number(len(states))]
    for one in states:
        text = one.state.encode()
        parts += [number(one.client_id), number(one.clock), number(len(text)), text]
    content = b"".join(parts)
    return bytes((AWARENESS,)) + number(len(content)) + content


def read_awareness(content: bytes) -> list[PeerState]:
    """Return the states of an awareness frame's content."""
    reader = Reader(content)
    count = reader.number()
    if count > _STATES_LIMIT:
        raise BadFrameError("too many states")
    found = []
    for _ in range(count):
        client_id, clock, text = reader.number(), reader.number(), reader.text()
        try:
            state = json.loads(text)
        except (ValueError, RecursionError):
            raise BadFrameError("a state is not JSON") from None
        if state is not None and not isinstance(state, dict):
            raise BadFrameError("a state is not an object")
        found.append(PeerState(client_id, clock, text if state is not None else "null"))
    return found
