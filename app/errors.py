"""Errors of the domain, each with the HTTP status it means.

The edge turns them into Jupyter's error body (`message`, `reason`); nothing else knows HTTP.
"""


class DomainError(Exception):
    """An error that a client caused or must be told of; `message` is a sentence for a person."""

    status = 500

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class BadRequestError(DomainError):
    """What was sent makes no sense."""

    status = 400


class ForbiddenError(DomainError):
    """No valid token, or not allowed."""

    status = 403


class LoginRequiredError(ForbiddenError):
    """A page that only people who have logged in see; `location` is where they can."""

    status = 302

    def __init__(self, location: str) -> None:
        super().__init__("Log in first")
        self.location = location


class NotFoundError(DomainError):
    """There is no such thing, or the asker may not know of it."""

    status = 404


class ConflictError(DomainError):
    """The thing is no longer in the state that the request needs."""

    status = 409


class TooLargeError(DomainError):
    """The request's body is over the limit."""

    status = 413


class UnprocessableError(DomainError):
    """Understood, but contradicts what was asked before."""

    status = 422


class TooManyRequestsError(DomainError):
    """Tried too often; the message says how long to wait."""

    status = 429


class StorageError(DomainError):
    """The disk refused (full, read-only, no permission); the old file is whole."""

    status = 500


class ClientGoneError(DomainError):
    """The client went away before its answer was there; nobody reads this."""

    status = 499


class BadReplyError(DomainError):
    """A kernel answered with something that cannot be read."""

    status = 502


class UnavailableError(DomainError):
    """The database or a kernel cannot be reached now; trying again may help."""

    status = 503


class NoAnswerError(DomainError):
    """A kernel did not answer in time: it is busy, starting, or does not know the request."""

    status = 504
