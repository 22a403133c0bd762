-- Removes an SQL login of a person, after its connections are ended.
CREATE OR REPLACE FUNCTION datastore_drop_login(role_name text) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    EXECUTE format('ALTER ROLE %I NOLOGIN', role_name);
    PERFORM pg_terminate_backend(a.pid) FROM pg_stat_activity a WHERE a.usename = role_name;
    EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM %I', current_database(), role_name);
    EXECUTE format('DROP ROLE %I', role_name);
END
$$;
