"""What the server says to a client, as text (docs/feed.md)."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from app.changes.log import Pieces
from app.changes.router import Subscription

# About so long is one message; a longer instant is told in several.
_MESSAGE_CHARACTERS = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: `cursor` is the client's position once it has it, if it changes that.

    `completes` are the subscriptions that are whole with it.
    """

    type: str
    text: str
    cursor: str | None = None
    completes: tuple[Subscription, ...] = ()

    @property
    def size(self) -> int:
        """About how much memory waits with it, in bytes."""
        return 200 + len(self.text)


def frame(kind: str, *, cursor: str | None = None, **fields: Any) -> Frame:
    """Return a message of some type; a cursor is among its fields when it has one."""
    if cursor is not None:
        fields["cursor"] = cursor
    text = json.dumps({"type": kind, **fields}, separators=(",", ":"))
    return Frame(kind, text, cursor)


def snapshot_frame(
    subscription: Subscription, records: list[str], *, first: bool, cursor: str | None
) -> Frame:
    """Return a page of a snapshot; the last one has a cursor."""
    head = json.dumps(
        {
            "type": "snapshot",
            "id": subscription.name,
            "table": subscription.table.name,
            "first": first,
            "more": cursor is None,
            "cursor": cursor,
        },
        separators=(",", ":"),
    )
    text = f'{head[:-1]},"records":[{",".join(records)}]}}'
    return Frame("snapshot", text, cursor, () if cursor is None else (subscription,))


def changes_frames(
    pieces: Pieces, before: str, after: str, cache: dict[Any, list[Frame]] | None = None
) -> list[Frame]:
    """Return the messages that tell what one reading found.

    What many clients are told in the same words is put together once, by way of `cache`.
    """
    names = [tuple(s.name for s in subscriptions) for _, subscriptions in pieces]
    key = tuple((piece.number, named) for (piece, _), named in zip(pieces, names, strict=True))
    if cache is not None and key in cache:
        return cache[key]
    parts = list(_parts(pieces, names))
    frames = []
    for number, part in enumerate(parts):
        more = number < len(parts) - 1
        cursor = before if more else after
        text = (
            f'{{"type":"changes","cursor":{json.dumps(cursor)},"more":{json.dumps(more)},'
            f'"transactions":[{part}]}}'
        )
        frames.append(Frame("changes", text, None if more else cursor))
    if cache is not None:
        cache[key] = frames
    return frames


def _parts(pieces: Pieces, names: list[tuple[str, ...]]) -> Iterator[str]:
    """Yield the transactions of each message as text."""
    texts = [
        (piece.xid, f"{piece.head}{json.dumps(named, separators=(',', ':'))}{piece.tail}")
        for (piece, _), named in zip(pieces, names, strict=True)
    ]
    start = 0
    while start < len(texts) or not start:
        size, end = 0, start
        while end < len(texts) and (end == start or size < _MESSAGE_CHARACTERS):
            size += len(texts[end][1])
            end += 1
        yield ",".join(
            f'{{"xid":"{xid}","changes":[{",".join(text for _, text in group)}]}}'
            for xid, group in groupby(texts[start:end], key=lambda item: item[0])
        )
        start = end
        if not texts:
            return
