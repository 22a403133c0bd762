"""Sessions: which kernel serves which path."""
