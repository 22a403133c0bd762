-- Makes, or gives a new password, an SQL login of a person; who calls it must be allowed to create
-- roles. Its name and password are quoted here, since DDL takes no parameters.
CREATE OR REPLACE FUNCTION datastore_create_login(role_name text, password text) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
        IF NOT EXISTS (SELECT FROM sql_roles r WHERE r.role_name = datastore_create_login.role_name) THEN
            RAISE EXCEPTION 'the role % is not one that was made for a person', role_name
                USING ERRCODE = 'duplicate_object';
        END IF;
        EXECUTE format('ALTER ROLE %I PASSWORD %L', role_name, password);
    ELSE
        EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION '
            'NOBYPASSRLS IN ROLE datastore_analyst PASSWORD %L', role_name, password);
        EXECUTE format('ALTER ROLE %I SET default_transaction_read_only = on', role_name);
        EXECUTE format('ALTER ROLE %I SET statement_timeout = %L', role_name, '5min');
        EXECUTE format('ALTER ROLE %I SET search_path = analytics', role_name);
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role_name);
END
$$;
