"""The service: one folder per slice, each with only the files it needs."""

__version__ = "0.1.0"
