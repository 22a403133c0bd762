"""What is said to PostgreSQL about partitions: making, emptying, detaching and dropping them.

Each statement is one that may wait for a lock; the caller sets a short `lock_timeout`. Names of
tables come from the catalogue (`datastore_partitions`), never from a client.
"""

import re
from typing import Any

from sqlalchemy import DateTime, TextClause, Uuid, bindparam, text

PARTITIONS = text("SELECT * FROM datastore_partitions() ORDER BY parent, low NULLS FIRST, name")

# Detached and not dropped yet: an earlier attempt was interrupted in between.
DETACHED = text(
    "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = 'partitions' AND c.relkind = 'r' AND NOT c.relispartition"
    # Outputs first: they refer to executions.
    " ORDER BY c.relname LIKE 'executions%', c.relname"
)

MAKE_NEXT = text("SELECT datastore_make_next_partition(:parent, :unit, :at)").bindparams(
    bindparam("at", type_=DateTime(timezone=True))
)

# Tells those who follow its table, since triggers do not see it.
DROP = text("SELECT datastore_drop_detached(:parent, :name)")

ANY_UNFINISHED = text(
    "SELECT EXISTS (SELECT FROM executions WHERE id >= :low AND id < :high"
    " AND status IN ('queued', 'running'))"
).bindparams(bindparam("low", type_=Uuid), bindparam("high", type_=Uuid))

_BOUNDS = (bindparam("low", type_=Uuid), bindparam("high", type_=Uuid))

# Notebooks with cells that show outputs of a period, up to a time.
SHOWING = text(
    "SELECT DISTINCT c.notebook_id FROM outputs o JOIN cells c ON c.id = o.cell_id"
    " WHERE o.partition_id >= :low AND o.partition_id < :high AND o.created_at < :before"
    " ORDER BY c.notebook_id"
).bindparams(*_BOUNDS, bindparam("before", type_=DateTime(timezone=True)))

# The lock that every edit of a document takes: rows are not moved under an editor's feet.
LOCK_DOCUMENT = text(
    "SELECT id FROM documents WHERE id = :document_id FOR NO KEY UPDATE"
).bindparams(bindparam("document_id", type_=Uuid))
KEEP_SHOWN = text(
    "UPDATE outputs SET partition_id = '00000000-0000-0000-0000-000000000000'"
    " WHERE partition_id >= :low AND partition_id < :high AND created_at < :before"
    " AND cell_id IN (SELECT id FROM cells WHERE notebook_id = :document_id)"
).bindparams(
    *_BOUNDS,
    bindparam("before", type_=DateTime(timezone=True)),
    bindparam("document_id", type_=Uuid),
)

FORGET_QUESTIONS = text(
    "DELETE FROM input_requests WHERE execution_id >= :low AND execution_id < :high"
).bindparams(*_BOUNDS)
FORGET_KEYS = text(
    "DELETE FROM idempotency_keys WHERE execution_id >= :low AND execution_id < :high"
).bindparams(*_BOUNDS)

# Of partitions without a period rows are deleted, some at a time.
DELETE_OUTPUTS = text(
    "DELETE FROM outputs WHERE (id, partition_id) IN (SELECT id, partition_id FROM outputs"
    " WHERE partition_id >= :low AND partition_id < :high"
    " AND cell_id IS NULL AND created_at < :before LIMIT :rows)"
).bindparams(*_BOUNDS, bindparam("before", type_=DateTime(timezone=True)))
DELETE_EXECUTIONS = text(
    "WITH gone AS (DELETE FROM executions WHERE id IN (SELECT id FROM executions"
    " WHERE id >= :low AND id < :high AND finished_at IS NOT NULL AND queued_at < :before"
    " LIMIT :rows) RETURNING id),"
    " questions AS (DELETE FROM input_requests i USING gone WHERE i.execution_id = gone.id),"
    " keys AS (DELETE FROM idempotency_keys k USING gone WHERE k.execution_id = gone.id)"
    " SELECT count(*) FROM gone"
).bindparams(*_BOUNDS, bindparam("before", type_=DateTime(timezone=True)))


def detach(parent: str, name: str, *, finalize: bool = False) -> TextClause:
    """Detach a partition without locking its table; not in a transaction.

    What an attempt that was interrupted has begun is to be finalized.
    """
    how = "FINALIZE" if finalize else "CONCURRENTLY"
    return text(f"ALTER TABLE {_quoted(parent)} DETACH PARTITION partitions.{_quoted(name)} {how}")


def lock_timeout(milliseconds: int | None) -> TextClause:
    """Set how long statements of this connection wait for a lock; None for the default."""
    if milliseconds is None:
        return text("RESET lock_timeout")
    return text(f"SET lock_timeout = {int(milliseconds)}")


def _quoted(name: Any) -> str:
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise ValueError(f"not a name of a partition: {name!r}")
    return f'"{name}"'
