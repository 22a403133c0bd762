"""Keeping the database in shape: partitions made ahead and dropped, roll-ups brought up to date."""
