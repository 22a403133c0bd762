-- Wakes the servers that hold connections open: what somebody may do has changed. Where a deletion goes on
-- by a foreign key it runs with the owner's rights and the deleter's search_path, hence the schema's name.
CREATE OR REPLACE FUNCTION datastore_tell_access() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('datastore_access', '');
    RETURN NULL;
END
$$;
