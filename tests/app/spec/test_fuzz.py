"""Requests made from the API document, as odd as hypothesis can think of: never a 5xx."""
