-- `datastore_request`: what requests run as, bound by the policies. `datastore_analyst`: what
-- people's own SQL logins are members of. Roles belong to the whole cluster, so another database,
-- or another migration at this moment, may have made them. A database user that may not create
-- roles needs them to be there, and to be allowed to assume the first.
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['datastore_request', 'datastore_analyst'] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = wanted);
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'the role % is missing, and % may not create it', wanted, current_user
                    USING ERRCODE = 'insufficient_privilege', HINT = format(
                        'Have an administrator of PostgreSQL run, but for what is there: '
                        'CREATE ROLE datastore_request NOLOGIN; CREATE ROLE datastore_analyst NOLOGIN; '
                        'GRANT datastore_request TO %I;', current_user);
        END;
    END LOOP;
    IF NOT pg_has_role(current_user, 'datastore_request', 'SET') THEN
        BEGIN
            EXECUTE format('GRANT datastore_request TO %I WITH INHERIT FALSE, SET TRUE', current_user);
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE EXCEPTION '% may not assume the role datastore_request', current_user
                USING ERRCODE = 'insufficient_privilege', HINT = format(
                    'Have an administrator of PostgreSQL run: GRANT datastore_request TO %I;',
                    current_user);
        END;
    END IF;
END
$$;
CREATE SCHEMA IF NOT EXISTS analytics;
