"""Slowing down who guesses tokens and passwords in forms."""

import math
import time

_BURST = 10
_SECONDS_EACH = 3.0
_MAX_ADDRESSES = 10_000


class LoginLimit:
    """Bounds wrong logins per address: ten at once, after that one every three seconds.

    Wrong passwords of who changes their own are counted in the same way, by person.

    Kept in memory, per process, and bounded: who guesses from very many addresses at once makes the
    oldest be forgotten. Tokens in headers are not counted, since a forgotten tab that polls with an
    old token would lock its own person out; those that the server makes cannot be guessed.
    """

    def __init__(self) -> None:
        # When an address will have no wrong logins to its name any more.
        self._clear_at: dict[str, float] = {}

    def seconds_to_wait(self, address: str) -> int:
        """Return how long this address must wait before its next try; 0 if it need not."""
        excess = self._debt(address) - (_BURST - 1) * _SECONDS_EACH
        return max(0, math.ceil(excess))

    def add_wrong(self, address: str) -> None:
        """Count a wrong login."""
        debt = self._debt(address)
        self._clear_at.pop(address, None)
        while len(self._clear_at) >= _MAX_ADDRESSES:
            del self._clear_at[next(iter(self._clear_at))]
        self._clear_at[address] = time.monotonic() + debt + _SECONDS_EACH

    def _debt(self, address: str) -> float:
        return max(0.0, self._clear_at.get(address, 0.0) - time.monotonic())
