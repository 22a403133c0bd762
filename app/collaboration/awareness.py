"""Who is in a room and where: the awareness states of its peers.

A peer speaks for itself alone: its connection is bound to the first client id that it announces.
Browsers repeat what they hear of others, so what is not newer than what is known is dropped.
"""

import json
from typing import Any

from app.collaboration.protocol import PeerState

_STATE_LIMIT_BYTES = 64 * 1024


class Awareness:
    """The states of a room's peers; `owner` in methods is any hashable that stands for a peer."""

    def __init__(self) -> None:
        self._known: dict[int, PeerState] = {}
        self._owners: dict[int, Any] = {}
        self._ids: dict[Any, int] = {}

    def take(self, owner: Any, states: list[PeerState]) -> tuple[list[PeerState], list[PeerState]]:
        """Take what a peer says; return what is news to all, and what to answer the peer.

        One that comes back under its client id with a clock that others have seen go is answered
        its own end: it raises the clock and says again that it is there.
        """
        news, answers = [], []
        for new in states:
            bound = self._ids.get(owner)
            if bound is None and new.state != "null" and self._owners.get(new.client_id) is None:
                self._ids[owner] = bound = new.client_id
                self._owners[new.client_id] = owner
            if bound != new.client_id or len(new.state) > _STATE_LIMIT_BYTES:
                continue
            known = self._known.get(new.client_id)
            if known is not None and new.state != "null" and new.clock <= known.clock:
                if known.state == "null":
                    answers.append(PeerState(new.client_id, known.clock, "null"))
                continue
            if known is not None and new.clock < known.clock:
                continue
            self._known[new.client_id] = new
            news.append(new)
        return news, answers

    def take_over(self, owner: Any, former: Any) -> None:
        """Give a peer the client id of its own former connection, which is not known to be gone."""
        client_id = self._ids.pop(former, None)
        if client_id is not None:
            self._owners[client_id] = owner
            self._ids[owner] = client_id

    def owner_of(self, client_id: int) -> Any:
        """Return who speaks for a client id, if anybody does."""
        return self._owners.get(client_id)

    def relay(self, states: list[PeerState]) -> list[PeerState]:
        """Take what another process says of its peers; return what is news."""
        news = []
        for new in states:
            known = self._known.get(new.client_id)
            is_newer = known is None or new.clock > known.clock
            is_end = known is not None and new.clock == known.clock and new.state == "null"
            if new.client_id not in self._owners and (
                is_newer or (is_end and known is not None and known.state != "null")
            ):
                self._known[new.client_id] = new
                news.append(new)
        return news

    def leave(self, owner: Any) -> list[PeerState]:
        """Forget a peer; return what says so to others."""
        client_id = self._ids.pop(owner, None)
        if client_id is None:
            return []
        del self._owners[client_id]
        known = self._known.get(client_id)
        if known is None or known.state == "null":
            return []
        # The same clock: so the peer itself can come back with the next one.
        self._known[client_id] = PeerState(client_id, known.clock, "null")
        return [self._known[client_id]]

    def present(self) -> list[PeerState]:
        """Return the states of all who are here."""
        return [state for state in self._known.values() if state.state != "null"]

    def values(self) -> list[dict[str, Any]]:
        """Return what the states of all who are here say."""
        return [json.loads(state.state) for state in self.present()]
