"""Whether a replica's tables equal the publisher's, while both are at work.

Two databases cannot be read at one moment. A row differs when the publisher's is the same before
and after the replica's was read, the replica had by then confirmed everything that was committed
when the publisher's was first read, and the replica's is another. Rows that change meanwhile are
looked at again, a few times. Partitions that the publisher has dropped and the replica still has
are left out.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from app.replication import partitions, publisher, subscriber
from app.replication.addresses import Connection, ReplicationError, connect, table_name
from app.replication.publisher import Replica
from app.replication.replicas import wait_for
from models.publication import PUBLISHED, Published

BUCKETS = 1024
ROUNDS = 5
CATCH_UP_SECONDS = 30.0

Sums = dict[int, tuple[int, int]]


@dataclass(frozen=True)
class TableCheck:
    """One table: rows on the publisher, the checksum of equal tables, rows that differ.

    `moving` rows changed at every look, so nothing can be said of them.
    """

    table: str
    rows: int
    checksum: str
    different: int
    moving: int

    @property
    def is_equal(self) -> bool:
        """Whether no row differs."""
        return self.different == 0


def check(url: str, name: str, *, target: str | None = None) -> Iterator[TableCheck]:
    """Yield the comparison of each published table, by name.

    Raises ReplicationError when the replica does not catch up: then nothing can be compared.
    """
    with closing(connect(url)) as ours:
        replica = publisher.find_replica(ours, name)
        with closing(connect(target or replica.target)) as theirs:
            if replica.slot not in subscriber.subscriptions(theirs):
                raise ReplicationError(
                    f"The replica has no subscription {replica.slot}: it must be copied again."
                )
            theirs_alone = partitions.left_over(ours, theirs)
            for table in sorted(PUBLISHED):
                yield _check_table(ours, theirs, replica, table, theirs_alone)


def _check_table(
    ours: Connection, theirs: Connection, replica: Replica, table: str, theirs_alone: list[str]
) -> TableCheck:
    published = PUBLISHED[table]
    sums = _sums(ours, table, published)
    _catch_up(ours, replica)
    suspects = _unequal(sums, _sums(theirs, table, published, theirs_alone))
    different: set[str] = set()
    moving: set[str] = set()
    for _ in range(ROUNDS if suspects else 0):
        before = _rows(ours, table, published, suspects)
        _catch_up(ours, replica)
        theirs_now = _rows(theirs, table, published, suspects, theirs_alone)
        after = _rows(ours, table, published, suspects)
        keys = before.keys() | theirs_now.keys() | after.keys()
        different = {
            key for key in keys if before.get(key) == after.get(key) != theirs_now.get(key)
        }
        moving = {key for key in keys if before.get(key) != after.get(key)}
        if not moving:
            break
    total = sum(count for count, _ in sums.values())
    checksum = sum(value for _, value in sums.values()) % 2**64
    return TableCheck(table, total, f"{checksum:016x}", len(different), len(moving - different))


def _catch_up(ours: Connection, replica: Replica) -> None:
    if publisher.read_slot(ours, replica.slot) is None:
        raise ReplicationError("The replica's slot is gone: it must be copied again.")
    if not wait_for(ours, replica, publisher.current_lsn(ours), CATCH_UP_SECONDS):
        raise ReplicationError(
            f"The replica did not catch up within {CATCH_UP_SECONDS:.0f} s, so it cannot be "
            "compared: see `jupyter-datastore replica status`."
        )


def _unequal(ours: Sums, theirs: Sums) -> list[int]:
    return sorted(
        bucket for bucket in ours.keys() | theirs.keys() if ours.get(bucket) != theirs.get(bucket)
    )


def _parts(table: str, published: Published) -> dict[str, sql.Composable]:
    """Return the pieces that the queries share; a row's hash is of its published columns' text."""
    columns = [sql.Identifier(name) for name in published.columns]
    names = [sql.Identifier(name) for name in published.key]
    key = sql.SQL("ROW({})::text").format(sql.SQL(", ").join(names))
    return {
        "key": key,
        "table": table_name(table),
        "row": sql.SQL("hashtextextended(ROW({})::text, 0)").format(sql.SQL(", ").join(columns)),
        "bucket": sql.SQL("mod(abs(hashtext({})::bigint), {})").format(key, BUCKETS),
        # The filter is ours, from models.publication.
        "where": sql.SQL(published.where or "true"),
        "here": sql.SQL(
            "tableoid NOT IN (SELECT oid FROM pg_class WHERE relname = ANY (%s)"
            " AND relnamespace = 'partitions'::regnamespace)"
        ),
    }


def _sums(
    connection: Connection, table: str, published: Published, without: Sequence[str] = ()
) -> Sums:
    query = sql.SQL(
        "SELECT {bucket}::int AS bucket, count(*) AS rows,"
        " mod(sum({row}::numeric) + 18446744073709551616 * count(*), 18446744073709551616) AS sum"
        " FROM {table} WHERE {where} AND {here} GROUP BY 1"
    ).format(**_parts(table, published))
    rows = connection.execute(query, [list(without)])
    return {row["bucket"]: (row["rows"], int(row["sum"])) for row in rows}


def _rows(
    connection: Connection,
    table: str,
    published: Published,
    buckets: list[int],
    without: Sequence[str] = (),
) -> dict[str, Any]:
    query = sql.SQL(
        "SELECT {key} AS key, {row} AS hash FROM {table}"
        " WHERE {where} AND {here} AND {bucket} = ANY (%s)"
    ).format(**_parts(table, published))
    rows = connection.execute(query, [list(without), buckets])
    return {row["key"]: row["hash"] for row in rows}
