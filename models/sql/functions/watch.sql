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
