"""A day's history for people: as tables in a terminal, and as a page with plots."""
