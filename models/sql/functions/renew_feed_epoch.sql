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
