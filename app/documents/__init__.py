"""Documents: how notebooks are edited together, kept, projected onto rows and saved."""
