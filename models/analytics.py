"""What keeps the schema `analytics` up to date; its tables, views and functions are SQL files."""

from datetime import UTC, date, datetime, time

from sqlalchemy import Delete, column, delete, select, table, text

ROLL_UPS = ("rollup_cells", "rollup_days", "rollup_errors", "rollup_hours", "rollup_kernels")

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


def delete_roll_ups(name: str, before: date, at_most: int) -> Delete:
    """Delete up to so many sums of days (UTC) before one.

    What is added up later of such a day makes a row again.
    """
    when: datetime | date = before
    bucket = "day"
    if name == "rollup_hours":
        when, bucket = datetime.combine(before, time(), UTC), "hour"
    sums = table(name, column("ctid"), column(bucket), schema="analytics")
    old = select(sums.c.ctid).where(sums.c[bucket] < when).limit(at_most)
    return delete(sums).where(sums.c.ctid.in_(old))
