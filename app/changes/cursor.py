"""Positions in the change log, and cursors: positions as clients hold them.

A position is a snapshot, never a number: transactions become visible in another order than the
one in which they were numbered.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_START = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CURSOR = re.compile(
    r"(?P<epoch>[0-9a-f-]{1,80})~(?P<snapshot>[0-9]{1,20}:[0-9]{1,20}:[0-9,]{0,100000})"
    r"~(?P<xid>[0-9]{1,20})~(?P<id>[0-9]{1,19})~(?P<at>[0-9]{0,18})"
)


@dataclass(frozen=True, slots=True)
class Position:
    """What was visible at an instant, and the newest change of the log in it (xid 0: none)."""

    snapshot: str
    last_xid: int
    last_id: int
    last_at: datetime | None

    @property
    def order(self) -> tuple[int, int]:
        """What sorts snapshots of one server by their age.

        The next transaction id never falls while a server runs, and between two of its steps the
        set of those that run only shrinks.
        """
        _, xmax, running = self.snapshot.split(":")
        return int(xmax), -(running.count(",") + 1 if running else 0)


def encode(epoch: str, position: Position) -> str:
    """Return a position as the cursor that a client is given."""
    at = "" if position.last_at is None else str((position.last_at - _START) // _MICROSECOND)
    return f"{epoch}~{position.snapshot}~{position.last_xid}~{position.last_id}~{at}"


def decode(cursor: str) -> tuple[str, Position] | None:
    """Return the epoch and position of a cursor, None for what is none."""
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        return None
    xmin, xmax, running = found["snapshot"].split(":")
    xids = [int(xid) for xid in running.split(",") if xid]
    in_order = xids == sorted(set(xids)) and all(int(xmin) <= xid < int(xmax) for xid in xids)
    limits = 0 < int(xmin) <= int(xmax) < 2**63 and int(found["xid"]) < 2**63
    if not (in_order and limits and int(found["id"]) < 2**63):
        return None
    try:
        at = _START + int(found["at"]) * _MICROSECOND if found["at"] else None
    except OverflowError:  # after the year 9999
        return None
    return found["epoch"], Position(found["snapshot"], int(found["xid"]), int(found["id"]), at)
