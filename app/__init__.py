"""The service: one folder per slice, each with only the files it needs."""

from app.deferred import defer

__version__ = "0.1.0"

defer()
