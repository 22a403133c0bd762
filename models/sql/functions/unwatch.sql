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
