"""What keeps the schema `analytics` up to date; its tables, views and functions are SQL files."""

from sqlalchemy import text

# Takes up to so many finished executions into the roll-ups; returns how many it was.
ROLL_UP = text("SELECT analytics.roll_up(:at_most)")

# PostgreSQL's autovacuum leaves partitioned tables themselves without statistics.
UNANALYZED = text(
    "SELECT relname FROM pg_stat_user_tables"
    " WHERE schemaname = 'public' AND relname IN ('executions', 'outputs')"
    " AND coalesce(last_analyze < now() - interval '1 day', true)"
    " ORDER BY relname"
)
ANALYZE = {table: text(f"ANALYZE (SKIP_LOCKED) {table}") for table in ("executions", "outputs")}
