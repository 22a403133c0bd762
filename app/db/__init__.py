"""PostgreSQL: the engine, the one place that commits, migrations and the embedded server."""
