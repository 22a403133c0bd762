"""How long to wait before trying again."""

import random


class Backoff:
    """Pauses that grow from 0.2 to 10 seconds, each with some chance in it."""

    def __init__(self, first: float = 0.2, most: float = 10.0) -> None:
        self._first = first
        self._most = most
        self._next = first

    def pause(self) -> float:
        """Return how many seconds to wait now."""
        pause, self._next = self._next, min(self._most, self._next * 2)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 (spreads clients, hides nothing)

    def reset(self) -> None:
        """Begin with short pauses again."""
        self._next = self._first
