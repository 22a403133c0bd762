"""`python -m benchmarks.history`: the documented queries on a large generated history.

A PostgreSQL of its own (without fsync: the data can be made again) is filled with executions and
outputs of a year; then each query of docs/analytics.md is run, with its plan looked at.
"""

import re
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import psycopg
from rich.console import Console
from rich.table import Table

from app.db import migrations
from app.db.embedded import EmbeddedPostgres

_STATEMENTS = (Path(__file__).parent / "history.sql").read_text("utf-8")
PAGE = Path(__file__).parents[1] / "docs" / "analytics.md"
_QUESTION = re.compile(
    r"^## (.+?)\n(?:.*?)^```sql\n(.*?)^```\n\n^```\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
_HISTORY = re.compile(r"^(executions|outputs)_")
# As many as upkeep takes in one transaction.
_ROLLED_UP_AT_ONCE = 5_000
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "8GB",
    "shared_buffers": "2GB",
    "work_mem": "64MB",
    "maintenance_work_mem": "512MB",
    "effective_cache_size": "12GB",
    "random_page_cost": "1.1",
    "max_connections": "50",
}


def questions(page: Path = PAGE) -> list[tuple[str, str]]:
    """Return (heading, query) of every documented question."""
    return [(found[1], found[2]) for found in _QUESTION.finditer(page.read_text("utf-8"))]


def asked_at(query: str, at: datetime | None) -> str:
    """Return a query as if it were asked at a time; None for now."""
    if at is None:
        return query
    query = query.replace("now()", f"timestamptz '{at.isoformat()}'")
    return query.replace("current_date", f"date '{at:%Y-%m-%d}'")


def _part(name: str, **values: Any) -> str:
    """Return a named part of history.sql with its values in place."""
    text = _STATEMENTS.split(f"-- name: {name}\n")[1].split("\n-- name: ")[0]
    for key, value in values.items():
        text = re.sub(rf"(?<!:):{key}\b", str(value), text)
    return text


def _months(first: datetime, last: datetime) -> Iterator[tuple[datetime, datetime]]:
    while first < last:
        following = (first + timedelta(days=32)).replace(day=1)
        yield first, following
        first = following


def generate(
    connection: psycopg.Connection[Any], executions: int, *, days: int = 365, say: Any = print
) -> None:
    """Fill a migrated, empty database with a history that ends now; rolls it up and analyzes."""
    now = datetime.now(UTC)
    start = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days - 1)
    common = {
        "users": max(20, executions // 20_000),
        "days": days,
        "start": f"'{start.isoformat()}'",
        "per_day": executions / days,
    }
    run = connection.execute
    # Foreign keys and triggers are for rows that somebody else may have got wrong.
    run("SET session_replication_role = replica")
    run(_part("people", **common))
    run(_part("kernels", **common))
    for name in ("outputs_before", "executions_before"):
        run(f"DROP TABLE partitions.{name}")
    connection.commit()
    seq = output_id = 0
    months = list(_months(start.replace(day=1), now))
    # The newest first, so that a run that was ended early leaves what is asked about most.
    for number, (begins, ends) in reversed(list(enumerate(months))):
        label = f"{begins:%Y_%m_%d}"
        run(f"DROP TABLE IF EXISTS partitions.outputs_{label}, partitions.executions_{label}")
        for parent in ("executions", "outputs"):
            run(f"CREATE TABLE partitions.{parent}_{label} (LIKE {parent} INCLUDING DEFAULTS)")
        first = max((begins - start).days, 0)
        made = run(
            _part(
                "executions",
                leaf=f"executions_{label}",
                first_seq=number * executions,
                from_day=first,
                to_day=min((ends - start).days, days) - 1,
                **common,
            )
        ).rowcount
        seq += made
        output_id += run(
            _part(
                "outputs",
                leaf=f"outputs_{label}",
                executions=f"executions_{label}",
                first_id=number * executions * 3,
            )
        ).rowcount
        _attach(connection, label, begins, ends)
        connection.commit()
        _roll_up(connection, f"executions_{label}")
        say(f"{label}: {seq:,} executions, {output_id:,} outputs, {_elapsed(now):.0f} s")
    run(_part("cells", **common))
    run(f"ALTER TABLE executions ALTER seq RESTART WITH {len(months) * executions}")
    run(f"ALTER TABLE outputs ALTER id RESTART WITH {len(months) * executions * 3}")
    run("SET session_replication_role = origin")
    connection.commit()
    connection.autocommit = True
    connection.execute("VACUUM ANALYZE")
    connection.autocommit = False
    say(f"generated in {_elapsed(now):.0f} s")


def _roll_up(connection: psycopg.Connection[Any], leaf: str) -> None:
    """Add a filled partition to the roll-ups as upkeep does: some at a time, as they finished.

    So the sums lie on the disk where a year of upkeep puts them, and not by their hashes.
    """
    connection.execute(
        "INSERT INTO analytics.rollup_pending"
        f" SELECT id, true, output_bytes FROM partitions.{leaf} ORDER BY finished_at"
    )
    taken = 1
    while taken:
        row = connection.execute("SELECT analytics.roll_up(%s)", [_ROLLED_UP_AT_ONCE]).fetchone()
        connection.commit()
        taken = row[0] if row else 0
    connection.execute("TRUNCATE analytics.rollup_pending")
    connection.commit()


def _elapsed(since: datetime) -> float:
    return (datetime.now(UTC) - since).total_seconds()


def _attach(
    connection: psycopg.Connection[Any], label: str, begins: datetime, ends: datetime
) -> None:
    """Give filled tables the indexes of partitions, and attach them."""
    run = connection.execute
    executions, outputs = f"executions_{label}", f"outputs_{label}"
    bounds = f"FROM (datastore_id_at('{begins}')) TO (datastore_id_at('{ends}'))"
    run(
        f"CREATE UNIQUE INDEX {executions}_kernel_id_msg_id_key"
        f" ON partitions.{executions} (kernel_id, msg_id)"
    )
    for parent, leaf in (("executions", executions), ("outputs", outputs)):
        run(f"ALTER TABLE partitions.{leaf} ENABLE ROW LEVEL SECURITY")
        for (check,) in run(
            "SELECT format('ADD CONSTRAINT %%I %%s', conname, pg_get_constraintdef(oid))"
            " FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'c'",
            [parent],
        ).fetchall():
            run(f"ALTER TABLE partitions.{leaf} {check}")
        run(f"ALTER TABLE {parent} ATTACH PARTITION partitions.{leaf} FOR VALUES {bounds}")
    run(
        f"ALTER TABLE partitions.{outputs} ADD CONSTRAINT {outputs}_execution_id_fkey"
        f" FOREIGN KEY (execution_id) REFERENCES partitions.{executions} ON DELETE CASCADE"
    )


def sequential_scans(connection: psycopg.Connection[Any], query: str) -> list[str]:
    """Return the partitions of the history with rows in them that the query's plan reads whole."""
    plan = connection.execute(f"EXPLAIN (FORMAT JSON) {query}").fetchone()
    assert plan is not None
    found = []

    def walk(node: dict[str, Any]) -> None:
        name = node.get("Relation Name", "")
        if node["Node Type"].endswith("Seq Scan") and _HISTORY.match(name):
            row = connection.execute(
                "SELECT reltuples FROM pg_class WHERE oid = %s::regclass", [f"partitions.{name}"]
            ).fetchone()
            if row and row[0] > 0:
                found.append(name)
        for child in node.get("Plans", []):
            walk(child)

    walk(plan[0][0]["Plan"])
    return found


def measure(connection: psycopg.Connection[Any], query: str, rounds: int) -> list[float]:
    """Return the times of a query in seconds, in order; the first one is on cold caches."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        connection.execute(query).fetchall()
        times.append(time.perf_counter() - begun)
    return times


def sizes(connection: psycopg.Connection[Any]) -> list[tuple[str, int, int, int]]:
    """Return (table, rows, bytes of the table with TOAST, bytes of its indexes)."""
    return connection.execute(
        """
SELECT what, sum(rows)::bigint, sum(pg_table_size(oid))::bigint, sum(pg_indexes_size(oid))::bigint
FROM (SELECT c.oid, greatest(c.reltuples, 0) AS rows,
             CASE WHEN n.nspname = 'analytics' THEN 'roll-ups'
                  WHEN n.nspname = 'partitions' THEN split_part(c.relname, '_', 1)
                  ELSE 'all others' END AS what
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind = 'r' AND n.nspname IN ('public', 'partitions', 'analytics')) t
GROUP BY what ORDER BY 3 DESC
"""
    ).fetchall()


def as_psql(connection: psycopg.Connection[Any], query: str, limit: int = 12) -> str:
    """Return the answer of a query as a table of text."""
    cursor = connection.execute(query)
    names = [column.name for column in cursor.description or []]
    rows = [["" if value is None else str(value) for value in row] for row in cursor.fetchall()]
    count = len(rows)
    rows = rows[:limit]
    widths = [max(len(row[i]) for row in [names, *rows]) for i in range(len(names))]
    lines = [" | ".join(name.ljust(width) for name, width in zip(names, widths, strict=True))]
    lines.append("-+-".join("-" * width for width in widths))
    lines += [" | ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)) for row in rows]
    lines.append(f"({count} rows)" if count != 1 else "(1 row)")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def fill_page(
    connection: psycopg.Connection[Any], page: Path = PAGE, *, at: datetime | None = None
) -> None:
    """Put the answers of this database, at a time, into the page."""

    def answer(found: re.Match[str]) -> str:
        start, end = found.span(3)
        begin = found.start()
        whole = found[0]
        said = as_psql(connection, asked_at(found[2], at))
        return whole[: start - begin] + said + whole[end - begin :]

    page.write_text(_QUESTION.sub(answer, page.read_text("utf-8")), "utf-8")


def fill_columns(connection: psycopg.Connection[Any], page: Path = PAGE) -> None:
    """Put the database's comments on views and columns at the end of the page."""
    heading = "# The views, column by column\n"
    rows = connection.execute(
        """
SELECT c.relname, obj_description(c.oid), a.attname, format_type(a.atttypid, NULL),
       col_description(c.oid, a.attnum)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace = 'analytics'::regnamespace AND c.relkind = 'v'
ORDER BY c.relname, a.attnum
"""
    ).fetchall()
    lines, last = [heading], ""
    for view, comment, column, kind, text in rows:
        if view != last:
            lines.append(f"\n### `analytics.{view}`\n\n{comment}.\n")
            lines.append("\n| column | what it is | type |\n|---|---|---|\n")
            last = view
        lines.append(f"| `{column}` | {text} | {kind} |\n")
    text = page.read_text("utf-8")
    page.write_text(text[: text.index(heading)] + "".join(lines), "utf-8")


@click.command()
@click.option("--executions", default=1_000_000, show_default=True)
@click.option("--days", default=365, show_default=True, help="Over which they are spread.")
@click.option("--rounds", default=20, show_default=True, help="How often each query is run.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Where PostgreSQL keeps its data; kept, and used again when it is there.",
)
@click.option(
    "--at",
    type=click.DateTime(),
    help="When the questions are asked (UTC), if not now: people rest at weekends.",
)
@click.option("--fill-page", "fill", is_flag=True, help="Write the answers to docs/analytics.md.")
def main(
    *, executions: int, days: int, rounds: int, folder: Path, at: datetime | None, fill: bool
) -> None:
    """Generate a history, run the documented queries on it, print times and sizes."""
    console = Console()
    at = at and at.replace(tzinfo=UTC)
    exists = (folder / "postgres-18").exists() or any(folder.glob("postgres*"))
    with EmbeddedPostgres(folder, settings=SETTINGS) as server:
        if not exists:
            migrations.upgrade(server.url)
        with psycopg.connect(server.url) as connection:
            if not exists:
                generate(connection, executions, days=days, say=console.print)
            _report(console, connection, rounds, at)
            if fill:
                fill_page(connection, at=at)
                fill_columns(connection)


def _report(
    console: Console, connection: psycopg.Connection[Any], rounds: int, at: datetime | None
) -> None:
    table = Table("question", "first", "p50", "p95", "whole partitions read")
    for heading, documented in questions():
        query = asked_at(documented, at)
        scans = sequential_scans(connection, query)
        times = measure(connection, query, rounds)
        p95 = statistics.quantiles(times, n=20)[-1] if len(times) > 1 else times[0]
        cells = (f"{1000 * value:.0f} ms" for value in (times[0], statistics.median(times), p95))
        table.add_row(heading, *cells, ", ".join(scans) or "none")
        connection.rollback()
    console.print(table)
    size = Table("what", "rows", "MB", "MB of indexes", "MB per million executions")
    found = sizes(connection)
    millions = next(rows for what, rows, _, _ in found if what == "executions") / 1e6
    for what, rows, heap, indexes in found:
        megabytes = (heap + indexes) / 1e6
        size.add_row(
            what,
            f"{rows:,}",
            f"{heap / 1e6:,.0f}",
            f"{indexes / 1e6:,.0f}",
            f"{megabytes / millions:,.0f}",
        )
    console.print(size)


if __name__ == "__main__":
    main()
