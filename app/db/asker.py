"""For whom work is done now: a person, nobody, or the server itself.

A request begins as nobody's; the declaration of its route says who asks. What `Database` then does
for it is bound by the policies of that person, and whoever is nobody sees nothing. The server's
own work (starting, recording, saving, settling) says so where it asks for its transaction, or
for all it starts: tasks inherit from what starts them.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum


class Server(Enum):
    """The server itself, which the policies do not bind."""

    ITSELF = "server"


Asker = uuid.UUID | Server | None

_asker: ContextVar[Asker] = ContextVar("asker", default=None)


def current() -> Asker:
    """Return for whom work is done in this context."""
    return _asker.get()


def act_for(asker: Asker) -> None:
    """From now on, in this context, work for a person, the server, or nobody."""
    _asker.set(asker)


@contextmanager
def acting_for(asker: Asker) -> Iterator[None]:
    """Work for somebody within the block."""
    before = _asker.set(asker)
    try:
        yield
    finally:
        _asker.reset(before)
