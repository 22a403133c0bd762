-- Wakes the servers that hold connections open: what somebody may do has changed.
CREATE OR REPLACE FUNCTION datastore_tell_access() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('datastore_access', '');
    RETURN NULL;
END
$$;
