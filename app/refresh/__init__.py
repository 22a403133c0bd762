"""Bringing rows up to date with what is really there, on request."""
