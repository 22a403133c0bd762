"""The change log partitioned by days

Why: what is too old went row by row, which leaves a hot table full of dead rows; whole partitions are dropped
now. The log begins anew, so every cursor is void (`must_refetch`, reason `epoch`) and nothing is copied.
Retention that drops partitions of executions and outputs tells those who follow them.

Revision ID: 0070
Revises: 0060
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import UserDefinedType

revision = "0070"
down_revision = "0060"
branch_labels = None
depends_on = None


class Xid8(UserDefinedType):
    cache_ok = True

    def get_col_spec(self, **_):
        return "xid8"


# The SQL files under models/sql as they are at this revision.
PARTITIONS = r"""
-- Tables that grow are partitioned by time; their partitions are in the schema `partitions`, named
-- for their table and their first day, and made ahead. Executions and outputs have no default partition:
-- with one, none could be detached without locking the table. The change log has one, since nobody
-- reads it for long.
CREATE SCHEMA IF NOT EXISTS partitions;

-- The partitions of all tables with their bounds as times; a null bound is open, or no time.
CREATE OR REPLACE FUNCTION datastore_partitions()
RETURNS TABLE (parent name, name name, low timestamptz, high timestamptz, low_bound text,
               high_bound text, detaching boolean)
LANGUAGE sql STABLE
SET datestyle = 'ISO'
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
    key text;
    strays regclass;
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
    SELECT a.attname, nullif(p.partdefid, 0)::regclass INTO key, strays
    FROM pg_partitioned_table p
    JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
    WHERE p.partrelid = format('public.%I', parent)::regclass;
    IF strays IS NOT NULL THEN
        -- ATTACH locks the default partition, and refuses while it has rows of the new one.
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', strays);
        EXECUTE format('WITH moved AS (DELETE FROM %s WHERE %2$I >= %3$L AND %2$I < %4$L RETURNING *)'
                       ' INSERT INTO partitions.%5$I SELECT * FROM moved',
                       strays, key, low, high, leaf);
    END IF;
    EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION partitions.%I FOR VALUES FROM (%s) TO (%s)',
                   parent, leaf, coalesce(quote_literal(low), 'MINVALUE'),
                   coalesce(quote_literal(high), 'MAXVALUE'));
    RETURN true;
END
$$;

-- Make the partition that follows the last one in time: of a month, week, day or hour (UTC). Returns its
-- end. The table's key is a UUIDv7 or a timestamptz. Outputs follow executions. A table with a default
-- partition needs none for the time until `at` in which there was none.
CREATE OR REPLACE FUNCTION datastore_make_next_partition(
    parent text, unit text, at timestamptz DEFAULT now()
) RETURNS timestamptz
LANGUAGE plpgsql AS $$
DECLARE
    begins timestamp;
    ends timestamp;
    label text;
    low text;
    high text;
    is_uuid boolean;
    has_default boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('datastore partitions'));
    SELECT max(p.high) AT TIME ZONE 'UTC' INTO begins
    FROM datastore_partitions() p WHERE p.parent = datastore_make_next_partition.parent;
    SELECT a.atttypid = 'uuid'::regtype, p.partdefid <> 0 INTO STRICT is_uuid, has_default
    FROM pg_partitioned_table p
    JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
    WHERE p.partrelid = format('public.%I', parent)::regclass;
    begins := coalesce(begins, date_trunc(unit, at AT TIME ZONE 'UTC'));
    IF has_default THEN
        begins := greatest(begins, date_trunc(unit, at AT TIME ZONE 'UTC'));
        IF begins AT TIME ZONE 'UTC' <= clock_timestamp() THEN
            -- Somebody may be writing to the default partition what is of the new one.
            EXECUTE format('LOCK TABLE ONLY public.%I IN SHARE ROW EXCLUSIVE MODE', parent);
        END IF;
    END IF;
    ends := date_trunc(unit, begins) + ('1 ' || unit)::interval;
    label := to_char(begins, CASE unit WHEN 'hour' THEN 'YYYY_MM_DD_HH24' ELSE 'YYYY_MM_DD' END);
    IF is_uuid THEN
        low := datastore_id_at(begins AT TIME ZONE 'UTC');
        high := datastore_id_at(ends AT TIME ZONE 'UTC');
    ELSE
        low := begins AT TIME ZONE 'UTC';
        high := ends AT TIME ZONE 'UTC';
    END IF;
    PERFORM datastore_make_partition(parent, label, low, high);
    IF parent = 'executions' THEN
        PERFORM datastore_make_partition('outputs', label, low, high);
    END IF;
    RETURN ends AT TIME ZONE 'UTC';
END
$$;

-- Drop a partition that was detached, and tell who follows its table to fetch anew: its rows went
-- without a trigger.
CREATE OR REPLACE FUNCTION datastore_drop_detached(parent text, leaf text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    had_rows boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM partitions.%I)', leaf) INTO had_rows;
    EXECUTE format('DROP TABLE partitions.%I', leaf);
    IF had_rows AND EXISTS (SELECT FROM pg_trigger
                            WHERE tgrelid = to_regclass(format('public.%I', parent))
                              AND tgname = 'datastore_changes_truncate') THEN
        INSERT INTO changes (table_name, op, record_id) VALUES (parent, 'T', '');
        PERFORM pg_notify('datastore_changes', '');
    END IF;
END
$$;
"""
PRUNE_CHANGES = r"""
-- Drops a partition of the change log in which every change was visible in a snapshot; false when
-- that has to wait. The lock waits for all who are writing and has nobody wait longer than its timeout;
-- while it is held, no change is written that is not committed, so that none can be lost.
CREATE OR REPLACE FUNCTION datastore_drop_changes(leaf text, upto pg_snapshot) RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '100ms'
AS $$
DECLARE
    needed text := format(
        'SELECT EXISTS (SELECT FROM partitions.%I'
        ' WHERE xid >= pg_snapshot_xmin($1) AND NOT pg_visible_in_snapshot(xid, $1))', leaf);
    is_needed boolean;
BEGIN
    EXECUTE needed INTO is_needed USING upto;
    IF is_needed THEN
        RETURN false;
    END IF;
    LOCK TABLE ONLY changes IN ACCESS EXCLUSIVE MODE;
    EXECUTE needed INTO is_needed USING upto;
    IF NOT is_needed THEN
        EXECUTE format('DROP TABLE partitions.%I', leaf);
    END IF;
    RETURN NOT is_needed;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
    RETURN false;
END
$$;

-- Voids cursors from before changes that became visible more than `retention` ago; notes the present
-- snapshot for later; drops the partitions of which an earlier call has voided everything, and returns
-- their names. To be called every now and then by each server; one at a time works.
CREATE OR REPLACE FUNCTION datastore_prune_changes(retention interval) RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
    mark feed_marks;
    -- Committed before this transaction: whoever reads by an older one has the table locked by now.
    before pg_snapshot := (SELECT pruned FROM feed_epoch);
    leaf text;
    dropped text[] := '{}';
BEGIN
    IF NOT pg_try_advisory_xact_lock(7366470213) THEN
        RETURN dropped;
    END IF;
    SELECT * INTO mark FROM feed_marks
    WHERE at <= clock_timestamp() - retention ORDER BY at DESC LIMIT 1;
    IF FOUND THEN
        UPDATE feed_epoch SET pruned = mark.snapshot;
        DELETE FROM feed_marks WHERE at <= mark.at;
    END IF;
    IF NOT EXISTS (SELECT FROM feed_marks WHERE at > clock_timestamp() - retention / 20) THEN
        INSERT INTO feed_marks DEFAULT VALUES;
    END IF;
    IF before IS NULL THEN
        RETURN dropped;
    END IF;
    DELETE FROM partitions.changes_default
    WHERE xid < pg_snapshot_xmax(before) AND pg_visible_in_snapshot(xid, before);
    -- Last, since it may lock the table until the commit.
    FOR leaf IN
        SELECT p.name FROM datastore_partitions() p
        WHERE p.parent = 'changes' AND p.high <= clock_timestamp() - retention ORDER BY p.high
    LOOP
        EXIT WHEN NOT datastore_drop_changes(leaf, before);
        dropped := dropped || leaf;
    END LOOP;
    RETURN dropped;
END
$$;
"""
FIRST_PARTITIONS = r"""
-- The change log's first days. What is of no period (nobody made one in time, or the clock is wrong)
-- is in the default partition, so that no writer is ever refused.
CREATE TABLE partitions.changes_default PARTITION OF changes DEFAULT;
ALTER TABLE partitions.changes_default ENABLE ROW LEVEL SECURITY;
SELECT datastore_make_next_partition('changes', 'day') FROM generate_series(1, 3);
"""

CHANGES_SINCE = "datastore_changes_since(pg_snapshot, xid8, integer)"

# What was there before.
PARTITIONS_BEFORE = r"""
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
PRUNE_CHANGES_BEFORE = r"""
-- Removes changes that became visible more than `retention` ago and returns how many; notes the present
-- snapshot for later. To be called every now and then by each server; one at a time works.
CREATE OR REPLACE FUNCTION datastore_prune_changes(retention interval) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    mark feed_marks;
    removed bigint := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(7366470211) THEN
        RETURN 0;
    END IF;
    SELECT * INTO mark FROM feed_marks
    WHERE at <= clock_timestamp() - retention ORDER BY at DESC LIMIT 1;
    IF FOUND THEN
        UPDATE feed_epoch SET pruned = mark.snapshot;
        DELETE FROM changes
        WHERE xid < pg_snapshot_xmax(mark.snapshot) AND pg_visible_in_snapshot(xid, mark.snapshot);
        GET DIAGNOSTICS removed = ROW_COUNT;
        DELETE FROM feed_marks WHERE at <= mark.at;
    END IF;
    IF NOT EXISTS (SELECT FROM feed_marks WHERE at > clock_timestamp() - retention / 20) THEN
        INSERT INTO feed_marks DEFAULT VALUES;
    END IF;
    RETURN removed;
END
$$;
"""


def set_timeouts():
    # A migration waits rather for the next attempt than with the whole service behind it.
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute("SET LOCAL statement_timeout = '5min'")


def make_changes(key, partitioned):
    op.create_table(
        "changes",
        sa.Column("xid", Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("op", sa.Text(), nullable=False),
        sa.Column("record_id", sa.Text(), nullable=False),
        sa.Column("columns", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column(
            "keys", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.CheckConstraint("op IN ('I', 'U', 'D', 'T')", name=op.f("changes_op_check")),
        sa.PrimaryKeyConstraint(*key, name=op.f("changes_pkey")),
        **partitioned,
    )
    op.execute("ALTER TABLE changes ENABLE ROW LEVEL SECURITY")
    # Whatever oid the new table got: the next reader makes a new epoch.
    op.execute("UPDATE feed_epoch SET table_oid = 0")


def upgrade():
    set_timeouts()
    op.drop_table("changes")
    op.execute("DROP FUNCTION datastore_make_next_partition(text, text)")
    op.execute("DROP FUNCTION datastore_prune_changes(interval)")
    for statements in (PARTITIONS, PRUNE_CHANGES):
        op.execute(sa.text(statements.replace(":", "\\:")))
    make_changes(("xid", "id", "at"), {"postgresql_partition_by": "RANGE (at)"})
    # A new partition has no statistics, without which it would be read whole.
    op.execute(f"ALTER FUNCTION {CHANGES_SINCE} SET enable_seqscan = off")
    op.execute(FIRST_PARTITIONS)


def downgrade():
    set_timeouts()
    op.drop_table("changes")
    op.execute(
        """
        DROP FUNCTION datastore_make_next_partition(text, text, timestamptz),
            datastore_drop_detached(text, text), datastore_prune_changes(interval),
            datastore_drop_changes(text, pg_snapshot)
        """
    )
    for statements in (PARTITIONS_BEFORE, PRUNE_CHANGES_BEFORE):
        op.execute(sa.text(statements.replace(":", "\\:")))
    make_changes(("xid", "id"), {})
    op.execute(f"ALTER FUNCTION {CHANGES_SINCE} RESET enable_seqscan")
