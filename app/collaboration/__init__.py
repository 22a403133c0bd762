"""Rooms: documents edited by many peers at once, over websockets, as jupyter-collaboration's."""
