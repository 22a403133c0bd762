"""What goes wrong, as the client's user sees it."""

from typing import Any


class DatastoreError(Exception):
    """The base of this package's errors."""


class ApiError(DatastoreError):
    """The server refused a request: its HTTP status, message and reason."""

    def __init__(self, status: int, message: str, reason: Any = None) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.reason = reason


class FeedError(DatastoreError):
    """The feed refused a subscription (`reason` as docs/feed.md has it), or cannot be reached."""

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class NotAllowedError(FeedError):
    """The feed does not take this token (any more)."""


class ClosedError(DatastoreError):
    """The store or the live table was closed."""
