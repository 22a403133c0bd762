"""Terminals: shells on pseudo-terminals, and the clients that see them."""
