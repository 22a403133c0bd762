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
