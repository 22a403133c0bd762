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
