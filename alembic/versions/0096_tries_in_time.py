"""The run that succeeded after a failed one is not looked for before it

Why: `analytics.failed_tries` looked into each partition of the history for every failed run, most of
them places of the disk that nothing else had read: seconds, where ten million executions are kept.
Replaces the view, which locks no table; nothing is copied and no index is made.

Revision ID: 0096
Revises: 0110
"""

from alembic import op

revision = "0096"
down_revision = "0110"
branch_labels = None
depends_on = None

LOWEST_ID = """
-- The lowest id of an execution that was asked for after another one, so that partitions of earlier times
-- need not be looked into. A day is left for clocks that differ and for what waits to be written.
-- Executions that had ids before those told the time are older than `periods_from`: it is zero for them.
CREATE OR REPLACE FUNCTION datastore_lowest_id_after(id uuid, queued_at timestamptz, periods_from timestamptz)
RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN queued_at >= periods_from
            THEN datastore_id_at(greatest(least(queued_at, datastore_time_of(id)) - interval '1 day',
                                          to_timestamp(0)))
            ELSE '00000000-0000-0000-0000-000000000000'::uuid END;
"""
TRIES = """
CREATE OR REPLACE VIEW analytics.failed_tries WITH (security_invoker = true) AS
SELECT
    e.id AS execution_id, e.queued_at, actor.name AS actor, e.path AS notebook_path,
    e.cell_id AS cell, e.ename AS error_name, later.id AS success_id,
    later.finished_at AS succeeded_at,
    extract(epoch FROM later.finished_at - e.finished_at)::double precision AS seconds_to_success,
    later.source_hash <> e.source_hash AS changed
FROM executions e
LEFT JOIN users actor ON actor.id = e.actor_id
LEFT JOIN LATERAL (
    SELECT s.id, s.finished_at, s.source_hash FROM executions s
    WHERE s.cell_id = e.cell_id AND s.seq > e.seq AND s.path = e.path AND s.status = 'ok'
      -- What `seq` implies already, said of the key: each partition of before would be another place
      -- of the disk to look at, for every failed run.
      AND s.id >= datastore_lowest_id_after(e.id, e.queued_at, (
          -- By the end of the first period, ids had begun to tell the time.
          SELECT min(p.high) FROM datastore_partitions() p
          WHERE p.parent = 'executions' AND p.low IS NOT NULL))
    ORDER BY s.seq LIMIT 1
) later ON true
WHERE e.status = 'error' AND e.cell_id IS NOT NULL;
"""
TRIES_BEFORE = """
CREATE OR REPLACE VIEW analytics.failed_tries WITH (security_invoker = true) AS
SELECT
    e.id AS execution_id, e.queued_at, actor.name AS actor, e.path AS notebook_path,
    e.cell_id AS cell, e.ename AS error_name, later.id AS success_id,
    later.finished_at AS succeeded_at,
    extract(epoch FROM later.finished_at - e.finished_at)::double precision AS seconds_to_success,
    later.source_hash <> e.source_hash AS changed
FROM executions e
LEFT JOIN users actor ON actor.id = e.actor_id
LEFT JOIN LATERAL (
    SELECT s.id, s.finished_at, s.source_hash FROM executions s
    WHERE s.cell_id = e.cell_id AND s.seq > e.seq AND s.path = e.path AND s.status = 'ok'
    ORDER BY s.seq LIMIT 1
) later ON true
WHERE e.status = 'error' AND e.cell_id IS NOT NULL;
"""


def upgrade() -> None:
    """Replace the view."""
    # A migration waits rather for the next attempt than with the whole service behind it.
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(LOWEST_ID)
    op.execute(TRIES)


def downgrade() -> None:
    """Put the former one back."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(TRIES_BEFORE)
    op.execute("DROP FUNCTION datastore_lowest_id_after(uuid, timestamptz, timestamptz)")
