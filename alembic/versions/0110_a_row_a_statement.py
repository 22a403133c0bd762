"""A row of the change log is a statement

Why: a row for each record cost up to a third of what was written. The log begins anew, so every cursor is
void (`must_refetch`, reason `epoch`) and nothing is copied.

Revision ID: 0110
Revises: 0105
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import UserDefinedType

revision = "0110"
down_revision = "0105"
branch_labels = None
depends_on = None


class Xid8(UserDefinedType):
    cache_ok = True

    def get_col_spec(self, **_):
        return "xid8"


# The SQL files under models/sql as they are at this revision.
WATCH = r"""
-- Has the changes of a table logged in `changes`: for each statement one narrow row that names the
-- records it inserted, updated or deleted (more where they are many, or were not all changed alike),
-- for a TRUNCATE one that names none. `keys` are the columns whose former values are kept when a
-- record is deleted or leaves a filter, `withheld` those whose changes are nobody's business, `id` those
-- that make up a record's id. To be called again when the table gets or loses columns: what the
-- triggers run is written out here for the columns of this moment, which is several times faster than
-- comparing rows as JSON.
--
-- A setting of a function is set and taken back at each call, so those for INSERT and DELETE have none:
-- they run with the owner's rights and the caller's search_path, hence every table, function and
-- operator in them is named with its schema. IS DISTINCT FROM cannot be, so that for UPDATE sets the path.
CREATE OR REPLACE FUNCTION datastore_watch(
    watched regclass, keys text[], withheld text[] DEFAULT '{}', id text[] DEFAULT '{id}'
) RETURNS void
LANGUAGE plpgsql AS $watch$
DECLARE
    name text := (SELECT relname FROM pg_class WHERE oid = watched);
    -- So many records at most in one row of `changes`.
    most CONSTANT integer := 100;
    glue CONSTANT text := ' OPERATOR(pg_catalog.||) ''/'' OPERATOR(pg_catalog.||) ';
    old_id text := (SELECT string_agg(format('o.%I::pg_catalog.text', c), glue ORDER BY n)
                    FROM unnest(id) WITH ORDINALITY AS i (c, n));
    new_id text := (SELECT string_agg(format('n.%I::pg_catalog.text', c), glue ORDER BY n)
                    FROM unnest(id) WITH ORDINALITY AS i (c, n));
    same text := (SELECT string_agg(format('n.%1$I = o.%1$I', c), ' AND ' ORDER BY n)
                  FROM unnest(id) WITH ORDINALITY AS i (c, n));
    old_keys text := (
        SELECT format('pg_catalog.jsonb_build_object(%s)',
                      string_agg(format('%1$L, o.%1$I', c), ', ' ORDER BY c COLLATE "C"))
        FROM unnest(keys) AS k (c));
    key_columns text := (SELECT string_agg(format('o.%I AS %I', c, 'former_' || c), ', ' ORDER BY c COLLATE "C")
                         FROM unnest(keys) AS k (c));
    kept_keys text := (
        SELECT format('jsonb_build_object(%s)',
                      string_agg(format('%L, r.%I', c, 'former_' || c), ', ' ORDER BY c COLLATE "C"))
        FROM unnest(keys) AS k (c));
    differing text := (
        SELECT string_agg(
            format('CASE WHEN n.%1$I IS DISTINCT FROM o.%1$I THEN %1$L END', attname),
            E',\n            ' ORDER BY attname COLLATE "C")
        FROM pg_attribute
        WHERE attrelid = watched AND attnum > 0 AND NOT attisdropped AND attname <> ALL (withheld));
    -- A server rings after its commit, once for many: a NOTIFY here makes commits queue up.
    bell CONSTANT text := $bell$
    IF FOUND AND coalesce(pg_catalog.current_setting('datastore.doorbell', true), '')
                 OPERATOR(pg_catalog.<>) 'server' THEN
        PERFORM pg_catalog.pg_notify('datastore_changes', '');
    END IF;
    RETURN NULL;
END
$body$ $bell$;
BEGIN
    EXECUTE format($function$
CREATE OR REPLACE FUNCTION %1$I() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $body$
BEGIN
    INSERT INTO public.changes (table_name, op, record_ids)
    SELECT %2$L, 'I', r.ids
    FROM (SELECT ARRAY(SELECT %3$s FROM new_rows n LIMIT %4$s + 1) AS ids OFFSET 0) r
    WHERE pg_catalog.cardinality(r.ids) OPERATOR(pg_catalog.>) 0
      AND pg_catalog.cardinality(r.ids) OPERATOR(pg_catalog.<=) %4$s;
    IF NOT FOUND THEN
        -- There was nothing, or too much for one row.
        INSERT INTO public.changes (table_name, op, record_ids)
        SELECT %2$L, 'I', pg_catalog.array_agg(r.id ORDER BY r.place)
        FROM (SELECT %3$s, pg_catalog.row_number() OVER () OPERATOR(pg_catalog.-) 1
              FROM new_rows n) r (id, place)
        GROUP BY r.place OPERATOR(pg_catalog./) %4$s
        ORDER BY r.place OPERATOR(pg_catalog./) %4$s;
    END IF;%5$s$function$,
        'datastore_inserted_' || name, name, new_id, most, bell);
    EXECUTE format($function$
CREATE OR REPLACE FUNCTION %1$I() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $body$
BEGIN
    INSERT INTO public.changes (table_name, op, record_ids, keys)
    SELECT %2$L, 'D', pg_catalog.array_agg(r.id ORDER BY r.place),
           pg_catalog.array_agg(r.keys ORDER BY r.place)
    FROM (SELECT %3$s, %4$s, pg_catalog.row_number() OVER () OPERATOR(pg_catalog.-) 1
          FROM old_rows o) r (id, keys, place)
    GROUP BY r.place OPERATOR(pg_catalog./) %5$s;%6$s$function$,
        'datastore_deleted_' || name, name, old_id, old_keys, most, bell);
    EXECUTE format($function$
CREATE OR REPLACE FUNCTION %1$I() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $body$
DECLARE
    records bigint;
    one_id text;
    one_columns text[];
BEGIN
    SELECT count(*) INTO records FROM (SELECT FROM new_rows LIMIT 2) r;
    IF records = 0 THEN
        RETURN NULL;
    ELSIF records = 1 THEN
        SELECT %4$s, array_remove(ARRAY[
            %5$s], NULL)
        INTO one_id, one_columns FROM old_rows o, new_rows n WHERE %3$s;
    END IF;
    IF one_columns = '{}' THEN
        RETURN NULL;
    ELSIF one_columns && %6$L THEN
        INSERT INTO changes (table_name, op, record_ids, columns, keys)
        SELECT %2$L, 'U', ARRAY[one_id], one_columns, ARRAY[%13$s] FROM old_rows o;
    ELSIF one_columns IS NOT NULL THEN
        INSERT INTO changes (table_name, op, record_ids, columns)
        VALUES (%2$L, 'U', ARRAY[one_id], one_columns);
    ELSE
        -- Many, or one whose id was changed.
        INSERT INTO changes (table_name, op, record_ids, columns, keys)
        SELECT %2$L, r.op, array_agg(r.id), r.columns,
               CASE WHEN r.moved THEN array_agg(CASE WHEN r.moved THEN %8$s END) END
        FROM (
            SELECT c.*, c.op = 'D' OR c.op = 'U' AND c.columns && %6$L AS moved,
                   row_number() OVER () AS place
            FROM (
                SELECT CASE WHEN o.%12$I IS NULL THEN 'I' WHEN n.%12$I IS NULL THEN 'D' ELSE 'U' END AS op,
                       coalesce(%4$s, %9$s) AS id,
                       CASE WHEN %3$s THEN array_remove(ARRAY[
            %5$s], NULL) END AS columns,
                       %7$s
                FROM old_rows o FULL JOIN new_rows n ON %3$s OFFSET 0
            ) c
            WHERE c.op <> 'U' OR c.columns <> '{}'
        ) r
        GROUP BY r.op, r.columns, r.moved, r.place / %10$s;
    END IF;%11$s$function$,
        'datastore_updated_' || name, name, same, new_id, differing, keys, key_columns, kept_keys,
        old_id, most, bell, id[1], old_keys);
    EXECUTE format(
        'CREATE OR REPLACE TRIGGER datastore_changes_insert AFTER INSERT ON %1$s'
        ' REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION %2$I();'
        'CREATE OR REPLACE TRIGGER datastore_changes_update AFTER UPDATE ON %1$s'
        ' REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'
        ' FOR EACH STATEMENT EXECUTE FUNCTION %3$I();'
        'CREATE OR REPLACE TRIGGER datastore_changes_delete AFTER DELETE ON %1$s'
        ' REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION %4$I();'
        'CREATE OR REPLACE TRIGGER datastore_changes_truncate AFTER TRUNCATE ON %1$s'
        ' FOR EACH STATEMENT EXECUTE FUNCTION datastore_truncated()',
        watched, 'datastore_inserted_' || name, 'datastore_updated_' || name,
        'datastore_deleted_' || name);
END
$watch$;

-- Tells that a watched table was emptied.
CREATE OR REPLACE FUNCTION datastore_truncated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO changes (table_name, op) VALUES (TG_TABLE_NAME, 'T');
    -- As the others do.
    IF current_setting('datastore.doorbell', true) IS DISTINCT FROM 'server' THEN
        PERFORM pg_notify('datastore_changes', '');
    END IF;
    RETURN NULL;
END
$$;
"""
UNWATCH = r"""
-- Undoes `datastore_watch`; also to be called before a watched table is dropped.
CREATE OR REPLACE FUNCTION datastore_unwatch(watched regclass) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    name text := (SELECT relname FROM pg_class WHERE oid = watched);
BEGIN
    EXECUTE format('DROP TRIGGER IF EXISTS datastore_changes_truncate ON %s', watched);
    EXECUTE format('DROP FUNCTION IF EXISTS %I(), %I(), %I() CASCADE', 'datastore_inserted_' || name,
                   'datastore_updated_' || name, 'datastore_deleted_' || name);
END
$$;
"""
CHANGES_SINCE = r"""
-- The changes of these tables that have become visible since a position, with the snapshot of this
-- statement and the newest change in it, of any table (xid 0: there is none); at least one row, with
-- nulls when there is no change. What empties a table is always among them. At most `max_records`
-- records, and the rest of the row that has the last one and one row more, which are too many.
--
-- `last_xid` is the largest transaction id in the log at that position. What is above it is new whatever
-- the snapshot says: after a crash PostgreSQL may give out again ids of transactions that had
-- written nothing, which the old snapshot takes for ended. Ids below the snapshot's xmax are new if they
-- were running then; these are looked up one by one, so that one that runs for hours costs nothing.
--
-- By the index always: a day's partition is new and has no statistics, without which it would be read
-- whole, again and again, until it is analyzed.
CREATE OR REPLACE FUNCTION datastore_changes_since(
    previous pg_snapshot, previous_xid xid8, max_records integer, tables text[]
) RETURNS TABLE (
    snapshot text, last_xid text, last_id bigint, last_at timestamptz, xid text, id bigint,
    table_name text, op text, record_ids text[], columns text[], keys text[]
)
LANGUAGE sql STABLE
SET enable_seqscan = off
AS $$
    SELECT pg_current_snapshot()::text, coalesce(l.xid::text, '0'), coalesce(l.id, 0), l.at,
           c.xid::text, c.id, c.table_name, c.op, c.record_ids, c.columns, c.keys::text[]
    FROM (SELECT) AS always
    LEFT JOIN (SELECT * FROM changes ORDER BY xid DESC, id DESC LIMIT 1) AS l ON true
    LEFT JOIN (
        SELECT limited.*, sum(cardinality(limited.record_ids)) OVER (ORDER BY limited.xid, limited.id)
                          - cardinality(limited.record_ids) AS before
        FROM (
            SELECT * FROM (
                SELECT n.* FROM changes n
                WHERE n.xid >= least(pg_snapshot_xmax(previous), previous_xid)
                  AND (n.xid > previous_xid OR NOT pg_visible_in_snapshot(n.xid, previous))
                  AND (n.table_name = ANY (tables) OR n.op = 'T')
                UNION ALL
                SELECT r.* FROM changes r
                WHERE r.xid = ANY (ARRAY(SELECT pg_snapshot_xip(previous)))
                  AND r.xid < least(pg_snapshot_xmax(previous), previous_xid)
                  AND (r.table_name = ANY (tables) OR r.op = 'T')
            ) AS found
            ORDER BY found.xid, found.id
            LIMIT max_records + 1
        ) AS limited
    ) AS c ON c.before <= max_records
    ORDER BY c.xid, c.id
$$;
"""
DROP_DETACHED = r"""
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
        INSERT INTO changes (table_name, op) VALUES (parent, 'T');
        PERFORM pg_notify('datastore_changes', '');
    END IF;
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
    INSERT INTO changes (table_name, op) VALUES ('', 'T');
    PERFORM pg_notify('datastore_changes', '');
    RETURN renewed;
END
$$;
"""
TELL_ACCESS = r"""
-- Wakes the servers that hold connections open: what somebody may do has changed. Where a deletion goes on
-- by a foreign key it runs with the owner's rights and the deleter's search_path, hence the schema's name.
CREATE OR REPLACE FUNCTION datastore_tell_access() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('datastore_access', '');
    RETURN NULL;
END
$$;
"""
WATCHED = r"""
-- The tables whose changes are logged, as the models' __feed__ says (tests/models/test_feed.py).
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
SELECT datastore_watch('document_forks', '{document_id, id}', withheld => '{state}');
SELECT datastore_watch('document_versions', '{document_id, id}', withheld => '{state}');
SELECT datastore_watch(
    'documents',
    '{content_id, id}',
    withheld => '{compacted_version, disk_base, disk_hash}'
);
SELECT datastore_watch(
    'executions',
    '{actor_id, cell_id, document_id, id, kernel_id, path, session_id, status}',
    withheld => '{idempotency_key}'
);
SELECT datastore_watch('group_members', '{group_id, user_id}', id => '{group_id, user_id}');
SELECT datastore_watch('groups', '{id, name}', withheld => '{hub_name}');
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
SELECT datastore_watch('lab_settings', '{schema_id, user_id}', id => '{user_id, schema_id}');
SELECT datastore_watch('lab_workspaces', '{name, user_id}', id => '{user_id, name}');
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
SELECT datastore_watch('text_contents', '{id}');
SELECT datastore_watch('users', '{id, name}', withheld => '{home_id, home_path, hub_name}');
"""
FIRST_PARTITIONS = r"""
CREATE TABLE partitions.changes_default PARTITION OF changes DEFAULT;
ALTER TABLE partitions.changes_default ENABLE ROW LEVEL SECURITY;
SELECT datastore_make_next_partition('changes', 'day') FROM generate_series(1, 3);
"""

# What was there before.
WATCH_BEFORE = r"""
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
UNWATCH_BEFORE = r"""
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
CHANGES_SINCE_BEFORE = r"""
-- The changes that have become visible since a position, with the snapshot of this statement; at
-- least one row, with nulls when there is none. At most `max_rows` + 1, of which the last is too many.
--
-- `last_xid` is the largest transaction id in the log at that position. What is above it is new whatever
-- the snapshot says: after a crash PostgreSQL may give out again ids of transactions that had
-- written nothing, which the old snapshot takes for ended. Ids below the snapshot's xmax are new if they
-- were running then; these are looked up one by one, so that one that runs for hours costs nothing.
--
-- By the index always: a day's partition is new and has no statistics, without which it would be read
-- whole, again and again, until it is analyzed.
CREATE OR REPLACE FUNCTION datastore_changes_since(
    previous pg_snapshot, previous_xid xid8, max_rows integer
) RETURNS TABLE (
    snapshot text, xid text, id bigint, at timestamptz, table_name text, op text, record_id text,
    columns text[], keys text
)
LANGUAGE sql STABLE
SET enable_seqscan = off
AS $$
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
DROP_DETACHED_BEFORE = r"""
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
RENEW_FEED_EPOCH_BEFORE = r"""
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

TELL_ACCESS_BEFORE = r"""
-- Wakes the servers that hold connections open: what somebody may do has changed.
CREATE OR REPLACE FUNCTION datastore_tell_access() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('datastore_access', '');
    RETURN NULL;
END
$$;
"""

UNWATCH_ALL = """
    SELECT datastore_unwatch(tgrelid::regclass) FROM pg_trigger
    WHERE tgname = 'datastore_changes_truncate'
"""


def set_timeouts():
    # A migration waits rather for the next attempt than with the whole service behind it.
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute("SET LOCAL statement_timeout = '5min'")


def run(*files):
    for statements in files:
        op.execute(sa.text(statements.replace(":", "\\:")))


def make_changes(*columns):
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
        *columns,
        sa.PrimaryKeyConstraint("xid", "id", "at", name=op.f("changes_pkey")),
        postgresql_partition_by="RANGE (at)",
    )
    op.execute("ALTER TABLE changes ENABLE ROW LEVEL SECURITY")
    # Whatever oid the new table got: the next reader makes a new epoch.
    op.execute("UPDATE feed_epoch SET table_oid = 0")
    op.execute(FIRST_PARTITIONS)


def upgrade():
    """Make the log and all triggers anew."""
    set_timeouts()
    op.execute(UNWATCH_ALL)
    op.execute("DROP FUNCTION datastore_changes_since(pg_snapshot, xid8, integer)")
    op.drop_table("changes")
    make_changes(
        sa.Column(
            "record_ids",
            postgresql.ARRAY(sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("columns", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("keys", postgresql.ARRAY(postgresql.JSONB(astext_type=sa.Text())), nullable=True),
    )
    run(WATCH, UNWATCH, CHANGES_SINCE, DROP_DETACHED, RENEW_FEED_EPOCH, TELL_ACCESS, WATCHED)


def downgrade():
    """Go back to a row for each record."""
    set_timeouts()
    op.execute(UNWATCH_ALL)
    op.execute("DROP FUNCTION datastore_changes_since(pg_snapshot, xid8, integer, text[])")
    op.execute("DROP FUNCTION datastore_truncated()")
    op.drop_table("changes")
    make_changes(
        sa.Column("record_id", sa.Text(), nullable=False),
        sa.Column("columns", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column(
            "keys", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.CheckConstraint("op IN ('I', 'U', 'D', 'T')", name=op.f("changes_op_check")),
    )
    run(
        WATCH_BEFORE,
        UNWATCH_BEFORE,
        CHANGES_SINCE_BEFORE,
        DROP_DETACHED_BEFORE,
        RENEW_FEED_EPOCH_BEFORE,
        TELL_ACCESS_BEFORE,
        WATCHED,
    )
