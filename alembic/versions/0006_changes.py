"""The change log behind the feed: changes, their triggers, epochs, presence

Why: clients follow tables. Each change of a watched table is logged by triggers in its own transaction,
so that whoever changes a row, nobody who follows misses it.

Revision ID: 0006
Revises: 0020
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from sqlalchemy.types import UserDefinedType


revision = "0006"
down_revision = "0020"
branch_labels = None
depends_on = None


class Xid8(UserDefinedType):
    cache_ok = True

    def get_col_spec(self, **_):
        return "xid8"


class PgSnapshot(UserDefinedType):
    cache_ok = True

    def get_col_spec(self, **_):
        return "pg_snapshot"


BASE64 = r"""
-- Bytes as the feed's JSON has them: base64 in one line; a list of bytes as a list of such strings.
CREATE OR REPLACE FUNCTION datastore_base64(bytes bytea) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN translate(encode(bytes, 'base64'), E'\n', '');

CREATE OR REPLACE FUNCTION datastore_base64(list bytea[]) RETURNS json
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (
    SELECT coalesce(json_agg(datastore_base64(item) ORDER BY number), '[]'::json)
    FROM unnest(list) WITH ORDINALITY AS items (item, number)
);
"""

WATCH = r"""
-- Has the changes of a table logged in `changes`: for each inserted, updated or deleted record one
-- narrow row, for a TRUNCATE one in all. `keys` are the columns whose former values are kept when a
-- record is deleted or leaves a filter, `withheld` those whose changes are nobody's business, `id` those
-- that make up a record's id. To be called again when the table gets or loses columns: what the
-- triggers run is written out here for the columns of this moment, which is several times faster than
-- comparing rows as JSON.
--
-- The join of old and new rows must not become a nested loop: the plan is kept, and the first update
-- of a session may have been of one row.
CREATE OR REPLACE FUNCTION datastore_watch(
    watched regclass, keys text[], withheld text[] DEFAULT '{}', id text[] DEFAULT '{id}'
) RETURNS void
LANGUAGE plpgsql AS $watch$
DECLARE
    name text := (SELECT relname FROM pg_class WHERE oid = watched);
    function_name text := 'datastore_changes_' || name;
    old_id text := (SELECT string_agg(format('o.%I::text', c), ' || ''/'' || ' ORDER BY n)
                    FROM unnest(id) WITH ORDINALITY AS i (c, n));
    new_id text := (SELECT string_agg(format('n.%I::text', c), ' || ''/'' || ' ORDER BY n)
                    FROM unnest(id) WITH ORDINALITY AS i (c, n));
    same text := (SELECT string_agg(format('n.%1$I = o.%1$I', c), ' AND ' ORDER BY n)
                  FROM unnest(id) WITH ORDINALITY AS i (c, n));
    old_keys text := (SELECT string_agg(format('%1$L, o.%1$I', c), ', ' ORDER BY c COLLATE "C")
                      FROM unnest(keys) AS k (c));
    moved text := (SELECT string_agg(format('n.%1$I IS DISTINCT FROM o.%1$I', c), ' OR '
                                     ORDER BY c COLLATE "C")
                   FROM unnest(keys) AS k (c));
    differing text := (
        SELECT string_agg(
            format('CASE WHEN n.%1$I IS DISTINCT FROM o.%1$I THEN %1$L END', attname),
            E',\n                   ' ORDER BY attname COLLATE "C")
        FROM pg_attribute
        WHERE attrelid = watched AND attnum > 0 AND NOT attisdropped AND attname <> ALL (withheld));
    event text;
    transition text;
BEGIN
    EXECUTE format($function$
CREATE OR REPLACE FUNCTION %1$I() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET enable_nestloop = off
AS $body$
DECLARE
    logged bigint;
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO changes (table_name, op, record_id)
        SELECT %2$L, 'I', %3$s FROM new_rows n;
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO changes (table_name, op, record_id, columns, keys)
        SELECT %2$L, c.op, c.record_id, CASE c.op WHEN 'U' THEN c.columns END,
               CASE WHEN c.op = 'D' OR c.op = 'U' AND c.moved THEN c.keys END
        FROM (
            SELECT CASE WHEN o.%9$I IS NULL THEN 'I' WHEN n.%9$I IS NULL THEN 'D' ELSE 'U' END AS op,
                   coalesce(%3$s, %4$s) AS record_id,
                   array_remove(ARRAY[
                   %5$s
                   ], NULL) AS columns,
                   %6$s AS moved,
                   jsonb_build_object(%7$s) AS keys
            FROM old_rows o FULL JOIN new_rows n ON %8$s
        ) c
        WHERE c.op <> 'U' OR c.columns <> '{}';
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO changes (table_name, op, record_id, keys)
        SELECT %2$L, 'D', %4$s, jsonb_build_object(%7$s) FROM old_rows o;
    ELSE
        INSERT INTO changes (table_name, op, record_id) VALUES (%2$L, 'T', '');
    END IF;
    GET DIAGNOSTICS logged = ROW_COUNT;
    -- A server rings after its commit, once for many: a NOTIFY here makes commits queue up.
    IF logged > 0 AND current_setting('datastore.doorbell', true) IS DISTINCT FROM 'server' THEN
        PERFORM pg_notify('datastore_changes', '');
    END IF;
    RETURN NULL;
END
$body$
$function$, function_name, name, new_id, old_id, differing, moved, old_keys, same, id[1]);
    FOR event, transition IN VALUES
        ('insert', 'REFERENCING NEW TABLE AS new_rows'),
        ('update', 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'),
        ('delete', 'REFERENCING OLD TABLE AS old_rows'),
        ('truncate', '')
    LOOP
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER %I AFTER %s ON %s %s FOR EACH STATEMENT EXECUTE FUNCTION %I()',
            'datastore_changes_' || event, event, watched, transition, function_name);
    END LOOP;
END
$watch$;
"""

UNWATCH = r"""
-- Undoes `datastore_watch`; also to be called before a watched table is dropped.
CREATE OR REPLACE FUNCTION datastore_unwatch(watched regclass) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    name text := (SELECT relname FROM pg_class WHERE oid = watched);
BEGIN
    EXECUTE format('DROP FUNCTION IF EXISTS %I() CASCADE', 'datastore_changes_' || name);
END
$$;
"""

RENEW_FEED_EPOCH = r"""
-- Makes every cursor void: for a database whose files were put back from a copy. Running servers are
-- told too, and have their clients fetch anew.
CREATE OR REPLACE FUNCTION datastore_renew_feed_epoch() RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    renewed uuid := gen_random_uuid();
BEGIN
    INSERT INTO feed_epoch AS e (id, system_identifier, database_oid, table_oid)
    SELECT renewed, c.system_identifier, d.oid, 'changes'::regclass
    FROM pg_control_system() c, pg_database d
    WHERE d.datname = current_database()
    ON CONFLICT (single) DO UPDATE
    SET id = excluded.id, system_identifier = excluded.system_identifier,
        database_oid = excluded.database_oid, table_oid = excluded.table_oid, pruned = NULL;
    DELETE FROM changes;
    DELETE FROM feed_marks;
    INSERT INTO changes (table_name, op, record_id) VALUES ('', 'T', '');
    PERFORM pg_notify('datastore_changes', '');
    RETURN renewed;
END
$$;
"""

FEED_EPOCH = r"""
-- Which past the change log tells. A copy of a database (restored, cloned) has another system
-- identifier, oid, or oid of the table: its first reader renews the id and drops the log, whose
-- transaction ids mean nothing here. The timeline tells a promoted or rewound server. What none of these
-- tell, such as files put back from a backup, `datastore_renew_feed_epoch` must be told.
CREATE OR REPLACE FUNCTION datastore_feed_epoch() RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    here bigint := (SELECT system_identifier FROM pg_control_system());
    database oid := (SELECT oid FROM pg_database WHERE datname = current_database());
    known uuid;
BEGIN
    FOR attempt IN 1..2 LOOP
        SELECT e.id INTO known FROM feed_epoch e
        WHERE e.system_identifier = here AND e.database_oid = database
          AND e.table_oid = 'changes'::regclass::oid;
        EXIT WHEN known IS NOT NULL;
        LOCK TABLE feed_epoch IN EXCLUSIVE MODE;
        IF attempt = 2 THEN
            known := datastore_renew_feed_epoch();
        END IF;
    END LOOP;
    RETURN known || '-' || CASE WHEN pg_is_in_recovery() THEN
        (SELECT timeline_id::text FROM pg_control_checkpoint())
    ELSE
        ltrim(left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), '0')
    END;
END
$$;
"""

FEED_POSITION = r"""
-- The present end of the change log: the snapshot of this statement, and the newest change in it. Its
-- transaction id is 0 when the log is empty.
CREATE OR REPLACE FUNCTION datastore_feed_position(
    OUT snapshot text, OUT last_xid text, OUT last_id bigint, OUT last_at timestamptz
)
LANGUAGE sql STABLE AS $$
    SELECT pg_current_snapshot()::text, coalesce(c.xid::text, '0'), coalesce(c.id, 0), c.at
    FROM (SELECT) AS always
    LEFT JOIN (SELECT * FROM changes ORDER BY xid DESC, id DESC LIMIT 1) AS c ON true
$$;
"""

CHANGES_SINCE = r"""
-- The changes that have become visible since a position, with the snapshot of this statement; at
-- least one row, with nulls when there is none. At most `max_rows` + 1, of which the last is too many.
--
-- `last_xid` is the largest transaction id in the log at that position. What is above it is new whatever
-- the snapshot says: after a crash PostgreSQL may give out again ids of transactions that had
-- written nothing, which the old snapshot takes for ended. Ids below the snapshot's xmax are new if they
-- were running then; these are looked up one by one, so that one that runs for hours costs nothing.
CREATE OR REPLACE FUNCTION datastore_changes_since(
    previous pg_snapshot, previous_xid xid8, max_rows integer
) RETURNS TABLE (
    snapshot text, xid text, id bigint, at timestamptz, table_name text, op text, record_id text,
    columns text[], keys text
)
LANGUAGE sql STABLE AS $$
    SELECT pg_current_snapshot()::text, c.xid::text, c.id, c.at, c.table_name, c.op, c.record_id,
           c.columns, c.keys::text
    FROM (SELECT) AS always
    LEFT JOIN (
        SELECT * FROM (
            SELECT n.* FROM changes n
            WHERE n.xid >= least(pg_snapshot_xmax(previous), previous_xid)
              AND (n.xid > previous_xid OR NOT pg_visible_in_snapshot(n.xid, previous))
            UNION ALL
            SELECT r.* FROM changes r
            WHERE r.xid = ANY (ARRAY(SELECT pg_snapshot_xip(previous)))
              AND r.xid < least(pg_snapshot_xmax(previous), previous_xid)
        ) AS found
        ORDER BY found.xid, found.id
        LIMIT max_rows + 1
    ) AS c ON true
    ORDER BY c.xid, c.id
$$;
"""

CURSOR_STATE = r"""
-- Whether what happened since a position can be told: 'ok', 'expired' when part of it was pruned, 'epoch'
-- when this database never was there: the newest change of the position is not in the log and was not
-- pruned (a crash with synchronous_commit off, files put back from a backup).
CREATE OR REPLACE FUNCTION datastore_cursor_state(
    previous pg_snapshot, previous_xid xid8, previous_id bigint, previous_at timestamptz
) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN e.pruned IS NOT NULL AND (
            pg_snapshot_xmax(e.pruned) > pg_snapshot_xmax(previous)
            OR EXISTS (SELECT FROM pg_snapshot_xip(previous) AS x (id)
                       WHERE pg_visible_in_snapshot(x.id, e.pruned))
        ) THEN 'expired'
        WHEN previous_xid = '0'::xid8
          OR e.pruned IS NOT NULL AND pg_visible_in_snapshot(previous_xid, e.pruned)
          OR EXISTS (SELECT FROM changes c
                     WHERE c.xid = previous_xid AND c.id = previous_id AND c.at = previous_at)
        THEN 'ok'
        ELSE 'epoch'
    END
    FROM feed_epoch e
$$;
"""

PRUNE_CHANGES = r"""
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

READABLE = r"""
-- Which of these resources (`models.published.Scope`) a user may read, by the one rule for access.
CREATE OR REPLACE FUNCTION datastore_readable(asker uuid, resources text[], ids text[])
RETURNS TABLE (resource text, id text)
LANGUAGE sql STABLE AS $$
    SELECT s.resource, s.id
    FROM unnest(resources, ids) AS s (resource, id)
    WHERE CASE s.resource
        WHEN 'server' THEN true
        WHEN 'user' THEN s.id = asker::text
        WHEN 'content' THEN EXISTS (
            SELECT FROM contents c
            WHERE c.id = s.id::uuid AND datastore_may(asker, 'read', 'contents', c.path))
        ELSE datastore_may(asker, 'read', s.resource, s.id)
    END
$$;
"""

WATCHED = r"""
SELECT datastore_watch('cells', '{cell_id, execution_id, id, notebook_id}');
SELECT datastore_watch('checkpoints', '{content_id, id}');
SELECT datastore_watch('comm_messages', '{comm_id, execution_id, id}');
SELECT datastore_watch(
    'comms',
    '{comm_id, execution_id, id, kernel_id, state, target_name}',
    withheld => '{bytes_kept, messages_kept}'
);
SELECT datastore_watch('config_sections', '{name, user_id}', id => '{user_id, name}');
SELECT datastore_watch('contents', '{id, parent_id, path, type}', withheld => '{file_key}');
SELECT datastore_watch('documents', '{content_id, id}', withheld => '{disk_base, disk_hash}');
SELECT datastore_watch(
    'executions',
    '{actor_id, cell_id, document_id, id, kernel_id, path, session_id, status}',
    withheld => '{idempotency_key}'
);
SELECT datastore_watch('group_members', '{group_id, user_id}', id => '{group_id, user_id}');
SELECT datastore_watch('groups', '{id, name}');
SELECT datastore_watch(
    'input_requests',
    '{execution_id, id, kernel_id, status}',
    withheld => '{value}'
);
SELECT datastore_watch(
    'kernels',
    '{id, name, owner_id, path, server_id}',
    withheld => '{connection_info, pid, pid_started_at, recorded_batch}'
);
SELECT datastore_watch('kernelspecs', '{id, name}', withheld => '{refreshed_at}');
SELECT datastore_watch('notebooks', '{id}');
SELECT datastore_watch(
    'outputs',
    '{cell_id, comm_id, execution_id, id, kernel_id}',
    withheld => '{partition_id}'
);
SELECT datastore_watch('presence', '{id, server_id, user_id}');
SELECT datastore_watch(
    'server_status',
    '{id}',
    withheld => '{heartbeat_at, pid, process_started_at}'
);
SELECT datastore_watch('sessions', '{document_id, id, kernel_id, owner_id, path, type}');
SELECT datastore_watch('terminals', '{id, name, owner_id, server_id}', withheld => '{cwd}');
SELECT datastore_watch('users', '{id, name}', withheld => '{home_id, home_path}');
"""

WATCHED_TABLES = [
    "cells",
    "checkpoints",
    "comm_messages",
    "comms",
    "config_sections",
    "contents",
    "documents",
    "executions",
    "group_members",
    "groups",
    "input_requests",
    "kernels",
    "kernelspecs",
    "notebooks",
    "outputs",
    "presence",
    "server_status",
    "sessions",
    "terminals",
    "users",
]

FUNCTIONS = [
    BASE64,
    WATCH,
    UNWATCH,
    RENEW_FEED_EPOCH,
    FEED_EPOCH,
    FEED_POSITION,
    CHANGES_SINCE,
    CURSOR_STATE,
    PRUNE_CHANGES,
    READABLE,
]


def upgrade():
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
        sa.PrimaryKeyConstraint("xid", "id", name=op.f("changes_pkey")),
    )
    op.create_table(
        "feed_epoch",
        sa.Column("single", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("system_identifier", sa.BigInteger(), nullable=False),
        sa.Column("database_oid", postgresql.OID(), nullable=False),
        sa.Column("table_oid", postgresql.OID(), nullable=False),
        sa.Column("pruned", PgSnapshot(), nullable=True),
        sa.CheckConstraint("single", name=op.f("feed_epoch_single_check")),
        sa.PrimaryKeyConstraint("single", name=op.f("feed_epoch_pkey")),
    )
    op.create_table(
        "feed_marks",
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "snapshot",
            PgSnapshot(),
            server_default=sa.text("pg_current_snapshot()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("at", name=op.f("feed_marks_pkey")),
    )
    op.create_table(
        "presence",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("server_id", sa.Uuid(), nullable=False),
        sa.Column("client", sa.Text(), nullable=True),
        sa.Column(
            "data", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column(
            "connected_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("presence_user_id_fkey"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["server_id"],
            ["server_status.id"],
            name=op.f("presence_server_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("presence_pkey")),
        prefixes=["UNLOGGED"],
    )
    op.create_index("presence_server_id_idx", "presence", ["server_id"])
    op.execute("ALTER TABLE changes ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE presence ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE feed_epoch ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE feed_marks ENABLE ROW LEVEL SECURITY")
    for function in FUNCTIONS:
        op.execute(function)
    op.execute(WATCHED)


def downgrade():
    for table in WATCHED_TABLES:
        op.execute(f"SELECT datastore_unwatch('{table}')")
    op.execute(
        """
        DROP FUNCTION datastore_readable, datastore_prune_changes, datastore_cursor_state, datastore_changes_since,
            datastore_feed_position, datastore_feed_epoch, datastore_renew_feed_epoch,
            datastore_unwatch, datastore_watch, datastore_base64(bytea[]),
            datastore_base64(bytea)
        """
    )
    op.drop_table("presence")
    op.drop_table("feed_marks")
    op.drop_table("feed_epoch")
    op.drop_table("changes")
