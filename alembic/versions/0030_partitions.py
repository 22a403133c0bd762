"""Executions and outputs partitioned by time

Why: at the size of a campus, history is dropped by whole partitions, not by deleting rows one by one.
Executions get UUIDv7 ids, by which they are partitioned; outputs are where their execution's id says.
What was unique over all rows and does not contain the id moves: idempotency keys to a table, message ids to
each partition. Foreign keys to executions go, except between the partitions of one period.

Rows keep their ids, in partitions of their own, except for the few (about 1 in 75) whose random id
looks like one of a time to come: they get one of the time at which they were asked for. All rows are
copied: the server must not run meanwhile.

Revision ID: 0030
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0030"
down_revision = "0005"
branch_labels = None
depends_on = None

# The SQL files under models/sql as they were at this revision.
IDS_IN_TIME = r"""
-- Ids of executions are UUIDv7 (RFC 9562, section 5.7): their first 48 bits are milliseconds since
-- 1970. The smallest id of a time, for bounds of partitions and for conditions that prune them.
CREATE OR REPLACE FUNCTION datastore_id_at(at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
RETURN (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;

-- The time of an id, at its millisecond; meaningless for an id of another version.
CREATE OR REPLACE FUNCTION datastore_time_of(id uuid) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
RETURN to_timestamp(('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 1000.0);
"""
PARTITIONS = r"""
-- Tables that grow are partitioned by time; their partitions are in the schema `partitions`, named
-- for their table and their first day, and made ahead. There is no default partition: with one,
-- none could be detached without locking the table.
CREATE SCHEMA IF NOT EXISTS partitions;

-- The partitions of all tables with their bounds as times; a null bound is open, or no time.
CREATE OR REPLACE FUNCTION datastore_partitions()
RETURNS TABLE (parent name, name name, low timestamptz, high timestamptz, low_bound text,
               high_bound text, detaching boolean)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT parent.relname, leaf.relname, bounds.low, bounds.high, texts.low, texts.high,
           i.inhdetachpending
    FROM pg_inherits i
    JOIN pg_class parent ON parent.oid = i.inhparent AND parent.relkind = 'p'
    JOIN pg_class leaf ON leaf.oid = i.inhrelid
    JOIN pg_namespace n ON n.oid = leaf.relnamespace AND n.nspname = 'partitions'
    CROSS JOIN LATERAL (SELECT pg_get_expr(leaf.relpartbound, leaf.oid) AS bound) b
    CROSS JOIN LATERAL (
        SELECT substring(b.bound FROM 'FROM \(''([^'']+)''\)') AS low,
               substring(b.bound FROM 'TO \(''([^'']+)''\)') AS high
    ) texts
    CROSS JOIN LATERAL (
        SELECT CASE WHEN texts.low ~ '^0[0-4].{6}-.{4}-0' AND texts.low > '0000001'
                    THEN datastore_time_of(texts.low::uuid)
                    WHEN texts.low ~ '^\d{4}-\d\d-\d\d ' THEN texts.low::timestamptz END AS low,
               CASE WHEN texts.high ~ '^0[0-4].{6}-.{4}-0' AND texts.high > '0000001'
                    THEN datastore_time_of(texts.high::uuid)
                    WHEN texts.high ~ '^\d{4}-\d\d-\d\d ' THEN texts.high::timestamptz END AS high
    ) bounds;
END;

-- Make one partition and attach it; false when there is one of that name. The table itself is not
-- locked against readers and writers (ATTACH takes SHARE UPDATE EXCLUSIVE); tables that its foreign
-- keys refer to are locked against writers for a moment, so call it with a short lock_timeout.
CREATE OR REPLACE FUNCTION datastore_make_partition(parent text, label text, low text, high text)
RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    leaf text := parent || '_' || label;
    made record;
BEGIN
    IF to_regclass(format('partitions.%I', leaf)) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE partitions.%I (LIKE public.%I INCLUDING ALL EXCLUDING IDENTITY'
                   ' EXCLUDING INDEXES EXCLUDING STATISTICS EXCLUDING COMMENTS)', leaf, parent);
    -- What ATTACH would make as well, with names that say which of the table's they are.
    FOR made IN
        SELECT regexp_replace(c.relname, '^' || parent, leaf) AS name,
               regexp_replace(pg_get_indexdef(i.indexrelid), '^CREATE (UNIQUE )?INDEX .* USING ',
                              'USING ') AS definition,
               CASE WHEN i.indisunique THEN 'UNIQUE' ELSE '' END AS kind,
               pg_get_constraintdef(k.oid) AS key
        FROM pg_index i
        JOIN pg_class c ON c.oid = i.indexrelid
        LEFT JOIN pg_constraint k ON k.conindid = c.oid AND k.contype IN ('p', 'u')
        WHERE i.indrelid = format('public.%I', parent)::regclass
    LOOP
        IF made.key IS NULL THEN
            EXECUTE format('CREATE %s INDEX %I ON partitions.%I %s',
                           made.kind, made.name, leaf, made.definition);
        ELSE
            EXECUTE format('ALTER TABLE partitions.%I ADD CONSTRAINT %I %s',
                           leaf, made.name, made.key);
        END IF;
    END LOOP;
    -- Policies are the table's: nobody but the owner reads a partition past them.
    EXECUTE format('ALTER TABLE partitions.%I ENABLE ROW LEVEL SECURITY', leaf);
    IF parent = 'executions' THEN
        -- A unique constraint of the whole table would have to contain the id.
        EXECUTE format('CREATE UNIQUE INDEX %I ON partitions.%I (kernel_id, msg_id)',
                       leaf || '_kernel_id_msg_id_key', leaf);
    ELSIF parent = 'outputs' AND label <> 'kept' THEN
        -- Between partitions of one period: a foreign key between the tables would have every
        -- detached partition compared with all outputs.
        EXECUTE format('ALTER TABLE partitions.%I ADD CONSTRAINT %I FOREIGN KEY (execution_id)'
                       ' REFERENCES partitions.%I (id) ON DELETE CASCADE',
                       leaf, leaf || '_execution_id_fkey', 'executions_' || label);
    END IF;
    EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION partitions.%I FOR VALUES FROM (%s) TO (%s)',
                   parent, leaf, coalesce(quote_literal(low), 'MINVALUE'),
                   coalesce(quote_literal(high), 'MAXVALUE'));
    RETURN true;
END
$$;

-- Make the partition that follows the last one in time: of a month, week or day (UTC). Returns its
-- end. The table's key is a UUIDv7 or a timestamptz. Outputs follow executions.
CREATE OR REPLACE FUNCTION datastore_make_next_partition(parent text, unit text)
RETURNS timestamptz
LANGUAGE plpgsql AS $$
DECLARE
    begins timestamp;
    ends timestamp;
    low text;
    high text;
    is_uuid boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('datastore partitions'));
    SELECT max(p.high) AT TIME ZONE 'UTC' INTO begins
    FROM datastore_partitions() p WHERE p.parent = datastore_make_next_partition.parent;
    begins := coalesce(begins, date_trunc(unit, now() AT TIME ZONE 'UTC'));
    ends := date_trunc(unit, begins) + ('1 ' || unit)::interval;
    SELECT a.atttypid = 'uuid'::regtype INTO STRICT is_uuid
    FROM pg_partitioned_table p
    JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
    WHERE p.partrelid = format('public.%I', parent)::regclass;
    IF is_uuid THEN
        low := datastore_id_at(begins AT TIME ZONE 'UTC');
        high := datastore_id_at(ends AT TIME ZONE 'UTC');
    ELSE
        low := begins AT TIME ZONE 'UTC';
        high := ends AT TIME ZONE 'UTC';
    END IF;
    PERFORM datastore_make_partition(parent, to_char(begins, 'YYYY_MM_DD'), low, high);
    IF parent = 'executions' THEN
        PERFORM datastore_make_partition('outputs', to_char(begins, 'YYYY_MM_DD'), low, high);
    END IF;
    RETURN ends AT TIME ZONE 'UTC';
END
$$;
"""
FIRST_PARTITIONS = r"""
-- The partitions that a new database begins with. Ids of other versions than 7 (executions that were
-- recorded before the tables were partitioned) have partitions of their own; so have outputs that
-- no period's end removes, because a file brought them or a cell still shows them.
SELECT datastore_make_partition(
    'executions', 'before', NULL, datastore_id_at(date_trunc('month', now(), 'UTC'))::text);
SELECT datastore_make_partition(
    'executions', 'unordered', '05000000-0000-0000-0000-000000000000', NULL);
SELECT datastore_make_partition(
    'outputs', 'kept', NULL, '00000000-0000-0000-0000-000000000001');
SELECT datastore_make_partition(
    'outputs', 'before', '00000000-0000-0000-0000-000000000001',
    datastore_id_at(date_trunc('month', now(), 'UTC'))::text);
SELECT datastore_make_partition(
    'outputs', 'unordered', '05000000-0000-0000-0000-000000000000', NULL);
SELECT datastore_make_next_partition('executions', 'month') FROM generate_series(1, 3);
"""
EXECUTIONS_FINAL = """
CREATE OR REPLACE TRIGGER executions_final
BEFORE UPDATE ON executions FOR EACH ROW
WHEN (OLD.finished_at IS NOT NULL AND NEW.status IS DISTINCT FROM OLD.status)
EXECUTE FUNCTION executions_final();
"""
OUTPUTS_APPEND_ONLY = """
CREATE OR REPLACE TRIGGER outputs_append_only
BEFORE UPDATE ON outputs FOR EACH ROW
WHEN (ROW(NEW.execution_id, NEW.seq, NEW.output_type, NEW.name, NEW.text)
      IS DISTINCT FROM ROW(OLD.execution_id, OLD.seq, OLD.output_type, OLD.name, OLD.text))
EXECUTE FUNCTION outputs_append_only();
"""
POLICIES = """
ALTER TABLE executions ENABLE ROW LEVEL SECURITY;
ALTER TABLE outputs ENABLE ROW LEVEL SECURITY;
CREATE POLICY executions_own ON executions
    USING (datastore_current_user_id() IN (actor_id, run_as_id));
CREATE POLICY outputs_own ON outputs
    USING (EXISTS (SELECT FROM executions e WHERE e.id = outputs.execution_id));
CREATE POLICY input_requests_own ON input_requests
    USING (EXISTS (SELECT FROM executions e WHERE e.id = input_requests.execution_id));
"""
KEYS_POLICY = """
ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY idempotency_keys_own ON idempotency_keys
    USING (actor_id = datastore_current_user_id());
"""
EXECUTION_HISTORY = """
CREATE OR REPLACE VIEW execution_history WITH (security_invoker = true) AS
SELECT
    e.id AS execution_id,
    e.queued_at,
    actor.name AS actor,
    run_as.name AS run_as,
    e.path AS notebook_path,
    e.cell_id AS cell,
    k.name AS kernel_name,
    e.kernel_id,
    e.client,
    e.code,
    e.status,
    e.reason,
    e.execution_count,
    e.started_at,
    e.finished_at,
    extract(epoch FROM coalesce(e.started_at, e.finished_at) - e.queued_at)::double precision
        AS queue_seconds,
    extract(epoch FROM e.finished_at - e.started_at)::double precision AS run_seconds,
    e.ename AS error_name,
    e.evalue AS error_value,
    e.output_bytes
FROM executions e
JOIN kernels k ON k.id = e.kernel_id
LEFT JOIN users actor ON actor.id = e.actor_id
JOIN users run_as ON run_as.id = e.run_as_id
ORDER BY e.queued_at, e.seq;
"""
# Random ids that fall among those of times to come get the id of the time they are of.
NEW_IDS = """
CREATE TEMPORARY TABLE new_ids ON COMMIT DROP AS
SELECT e.id AS old,
       (left(replace(datastore_id_at(least(e.queued_at, now()))::text, '-', ''), 12)
        || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid AS new
FROM replaced.executions e
WHERE e.id >= datastore_id_at(date_trunc('month', now(), 'UTC'))
  AND e.id < '05000000-0000-0000-0000-000000000000';
CREATE UNIQUE INDEX ON new_ids (old);
"""
EXECUTION_COLUMNS = (
    "seq, kernel_id, incarnation, session_id, document_id, path, cell_id, cell_version, actor_id, "
    "run_as_id, client, msg_id, idempotency_key, code, source_hash, silent, store_history, "
    "stop_on_error, allow_stdin, user_expressions, status, reason, execution_count, queued_at, "
    "started_at, finished_at, ename, evalue, traceback, reply, output_bytes"
)
OUTPUT_COLUMNS = (
    "seq, kernel_id, cell_id, output_type, name, text, data, metadata, execution_count, ename, "
    "evalue, traceback, extra, display_id, comm_id, size_bytes, created_at, updated_at, cleared_at"
)
COPY = f"""
INSERT INTO executions (id, {EXECUTION_COLUMNS}) OVERRIDING SYSTEM VALUE
SELECT coalesce(n.new, e.id), {EXECUTION_COLUMNS}
FROM replaced.executions e LEFT JOIN new_ids n ON n.old = e.id;
INSERT INTO outputs (id, partition_id, execution_id, {OUTPUT_COLUMNS}) OVERRIDING SYSTEM VALUE
SELECT o.id, coalesce(n.new, o.execution_id, '00000000-0000-0000-0000-000000000000'),
       coalesce(n.new, o.execution_id), {OUTPUT_COLUMNS}
FROM replaced.outputs o LEFT JOIN new_ids n ON n.old = o.execution_id
ORDER BY o.id;
INSERT INTO idempotency_keys (actor_id, key, execution_id, created_at)
SELECT actor_id, idempotency_key, id, queued_at FROM executions
WHERE idempotency_key IS NOT NULL AND actor_id IS NOT NULL;
"""
COUNTERS = """
SELECT setval(pg_get_serial_sequence('public.executions', 'seq'), max(seq)) FROM public.executions
HAVING max(seq) IS NOT NULL;
SELECT setval(pg_get_serial_sequence('public.outputs', 'id'), max(id)) FROM public.outputs
HAVING max(id) IS NOT NULL;
"""
REFERRING = {
    "cells": "SET NULL",
    "comms": "SET NULL",
    "comm_messages": "SET NULL",
    "input_requests": "CASCADE",
}


def run(statements):
    op.execute(sa.text(statements.replace(":", "\\:")))


def upgrade():
    set_aside()
    for table in REFERRING:
        op.drop_constraint(f"{table}_execution_id_fkey", table, type_="foreignkey")
    run(IDS_IN_TIME)
    run(PARTITIONS)
    make_tables(partitioned=True)
    run(FIRST_PARTITIONS)
    run(NEW_IDS)
    run(COPY)
    for table in REFERRING:
        run(
            f"UPDATE {table} t SET execution_id = n.new FROM new_ids n WHERE n.old = t.execution_id"
        )
    finish()
    run(KEYS_POLICY)


def downgrade():
    set_aside()
    make_tables(partitioned=False)
    run(
        f"""
INSERT INTO executions (id, {EXECUTION_COLUMNS}) OVERRIDING SYSTEM VALUE
SELECT id, {EXECUTION_COLUMNS} FROM replaced.executions;
INSERT INTO outputs (id, execution_id, {OUTPUT_COLUMNS}) OVERRIDING SYSTEM VALUE
SELECT o.id, e.id, {OUTPUT_COLUMNS.replace("seq", "CASE WHEN e.id IS NULL THEN 0 ELSE o.seq END", 1)}
FROM (SELECT id AS output_id, execution_id AS of_execution, * FROM replaced.outputs) o
LEFT JOIN (SELECT id FROM executions) e ON e.id = o.of_execution
ORDER BY o.output_id;
"""
    )
    for table, action in REFERRING.items():
        gone = f"NOT EXISTS (SELECT FROM executions e WHERE e.id = {table}.execution_id)"
        if action == "CASCADE":
            run(f"DELETE FROM {table} WHERE {gone}")
        else:
            run(f"UPDATE {table} SET execution_id = NULL WHERE execution_id IS NOT NULL AND {gone}")
        op.create_foreign_key(
            f"{table}_execution_id_fkey",
            table,
            "executions",
            ["execution_id"],
            ["id"],
            ondelete=action,
        )
    finish()
    op.drop_table("idempotency_keys")
    for function in (
        "datastore_make_next_partition(text, text)",
        "datastore_make_partition(text, text, text, text)",
        "datastore_partitions()",
        "datastore_time_of(uuid)",
        "datastore_id_at(timestamptz)",
    ):
        op.execute(f"DROP FUNCTION {function}")
    op.execute("DROP SCHEMA partitions")


def set_aside():
    """Move the tables, with their indexes and sequences, to a schema of their own."""
    op.execute("LOCK TABLE executions, outputs IN ACCESS EXCLUSIVE MODE")
    op.execute("DROP VIEW execution_history")
    op.execute("DROP POLICY input_requests_own ON input_requests")
    op.execute("CREATE SCHEMA replaced")
    op.execute("ALTER TABLE outputs SET SCHEMA replaced")
    op.execute("ALTER TABLE executions SET SCHEMA replaced")


def finish():
    """Drop what was replaced, with its rows, and put back what hung on it."""
    op.execute("DROP TABLE replaced.outputs")
    op.execute("DROP TABLE replaced.executions")
    op.execute("DROP SCHEMA replaced")
    for statements in (
        COUNTERS,
        EXECUTIONS_FINAL,
        OUTPUTS_APPEND_ONLY,
        POLICIES,
        EXECUTION_HISTORY,
    ):
        run(statements)


def make_tables(*, partitioned):
    """Make both tables, with their indexes, as they are after or before this revision."""
    op.create_table(
        "executions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kernel_id", sa.Text(), nullable=False),
        sa.Column("incarnation", sa.Integer(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("document_id", sa.Uuid(), nullable=True),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("cell_id", sa.Text(), nullable=True),
        sa.Column("cell_version", sa.Integer(), nullable=True),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("run_as_id", sa.Uuid(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("msg_id", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("source_hash", sa.Text(), nullable=False),
        sa.Column("silent", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("store_history", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("stop_on_error", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("allow_stdin", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column(
            "user_expressions",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("status", sa.Text(), server_default=sa.text("'queued'"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("execution_count", sa.BigInteger(), nullable=True),
        sa.Column(
            "queued_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ename", sa.Text(), nullable=True),
        sa.Column("evalue", sa.Text(), nullable=True),
        sa.Column(
            "traceback", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column(
            "reply", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("output_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint(
            "(finished_at IS NULL) = (status IN ('queued', 'running'))",
            name=op.f("executions_finished_is_final_check"),
        ),
        sa.CheckConstraint(
            "status <> 'running' OR started_at IS NOT NULL",
            name=op.f("executions_running_has_started_check"),
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'ok', 'error', 'aborted', 'cancelled', 'interrupted')",
            name=op.f("executions_status_check"),
        ),
        sa.ForeignKeyConstraint(["actor_id"], ["users.id"], name=op.f("executions_actor_id_fkey")),
        sa.ForeignKeyConstraint(
            ["document_id"],
            ["documents.id"],
            name=op.f("executions_document_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["kernel_id"], ["kernels.id"], name=op.f("executions_kernel_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["run_as_id"], ["users.id"], name=op.f("executions_run_as_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["sessions.id"],
            name=op.f("executions_session_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("executions_pkey")),
        *unique_executions(partitioned),
        postgresql_partition_by="RANGE (id)" if partitioned else None,
    )
    op.create_index("executions_actor_id_seq_idx", "executions", ["actor_id", "seq"], unique=False)
    op.create_index("executions_cell_id_seq_idx", "executions", ["cell_id", "seq"], unique=False)
    op.create_index(op.f("executions_document_id_idx"), "executions", ["document_id"], unique=False)
    op.create_index(
        "executions_kernel_id_seq_idx", "executions", ["kernel_id", "seq"], unique=False
    )
    op.create_index("executions_path_seq_idx", "executions", ["path", "seq"], unique=False)
    op.create_index("executions_queued_at_idx", "executions", ["queued_at"], unique=False)
    op.create_index(
        "executions_unfinished_idx",
        "executions",
        ["kernel_id", "seq"],
        unique=False,
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    if partitioned:
        op.create_index("executions_seq_idx", "executions", ["seq"], unique=False)
        op.create_table(
            "idempotency_keys",
            sa.Column("actor_id", sa.Uuid(), nullable=False),
            sa.Column("key", sa.Text(), nullable=False),
            sa.Column("execution_id", sa.Uuid(), nullable=False),
            sa.Column(
                "created_at",
                sa.DateTime(timezone=True),
                server_default=sa.text("now()"),
                nullable=False,
            ),
            sa.ForeignKeyConstraint(
                ["actor_id"], ["users.id"], name=op.f("idempotency_keys_actor_id_fkey")
            ),
            sa.PrimaryKeyConstraint("actor_id", "key", name=op.f("idempotency_keys_pkey")),
        )
    else:
        op.create_index(
            "executions_idempotency_key_key",
            "executions",
            ["actor_id", "idempotency_key"],
            unique=True,
            postgresql_where=sa.text("idempotency_key IS NOT NULL"),
        )
    op.create_table(
        "outputs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("execution_id", sa.Uuid(), nullable=True),
        sa.Column("seq", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("kernel_id", sa.Text(), nullable=True),
        sa.Column("cell_id", sa.Uuid(), nullable=True),
        sa.Column("output_type", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column(
            "data", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column(
            "metadata", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("execution_count", sa.BigInteger(), nullable=True),
        sa.Column("ename", sa.Text(), nullable=True),
        sa.Column("evalue", sa.Text(), nullable=True),
        sa.Column(
            "traceback", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column(
            "extra", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("display_id", sa.Text(), nullable=True),
        sa.Column("comm_id", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cleared_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "output_type IN ('stream', 'display_data', 'execute_result', 'error', 'unknown')",
            name=op.f("outputs_output_type_check"),
        ),
        sa.CheckConstraint(
            "execution_id IS NOT NULL OR seq = 0", name=op.f("outputs_seq_is_of_execution_check")
        ),
        sa.ForeignKeyConstraint(
            ["cell_id"], ["cells.id"], name=op.f("outputs_cell_id_fkey"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["kernel_id"], ["kernels.id"], name=op.f("outputs_kernel_id_fkey")),
        *output_keys(partitioned),
        postgresql_partition_by="RANGE (partition_id)" if partitioned else None,
    )
    op.create_index(
        "outputs_cell_id_idx",
        "outputs",
        ["cell_id", "id"],
        unique=False,
        postgresql_where=sa.text("cell_id IS NOT NULL"),
    )
    op.create_index(
        "outputs_display_id_idx",
        "outputs",
        ["kernel_id", "display_id"],
        unique=False,
        postgresql_where=sa.text("display_id IS NOT NULL"),
    )
    op.create_index(
        "outputs_comm_id_idx",
        "outputs",
        ["kernel_id", "comm_id"],
        unique=False,
        postgresql_where=sa.text("comm_id IS NOT NULL"),
    )
    op.create_index(
        "outputs_execution_id_seq_key",
        "outputs",
        ["execution_id", "seq", *(["partition_id"] if partitioned else [])],
        unique=True,
        postgresql_where=sa.text("execution_id IS NOT NULL"),
    )


def unique_executions(partitioned):
    if partitioned:
        return ()
    return (
        sa.UniqueConstraint("kernel_id", "msg_id", name=op.f("executions_kernel_id_msg_id_key")),
        sa.UniqueConstraint("seq", name=op.f("executions_seq_key")),
    )


def output_keys(partitioned):
    if not partitioned:
        return (
            sa.ForeignKeyConstraint(
                ["execution_id"],
                ["executions.id"],
                name=op.f("outputs_execution_id_fkey"),
                ondelete="CASCADE",
            ),
            sa.PrimaryKeyConstraint("id", name=op.f("outputs_pkey")),
        )
    kept = "'00000000-0000-0000-0000-000000000000'"
    return (
        sa.Column(
            "partition_id", sa.Uuid(), server_default=sa.text(f"{kept}::uuid"), nullable=False
        ),
        sa.CheckConstraint(
            f"partition_id = {kept} OR (execution_id IS NOT NULL AND partition_id = execution_id)",
            name=op.f("outputs_partition_is_of_execution_check"),
        ),
        sa.PrimaryKeyConstraint("id", "partition_id", name=op.f("outputs_pkey")),
    )
