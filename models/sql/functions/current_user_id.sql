-- The living person that a connection acts for, or null. The person of an SQL login is read from
-- `sql_roles` by `session_user`, which the login cannot change. The setting `datastore.user_id` is
-- believed only of who may assume the role of requests anyway; one that was set in an earlier
-- transaction reads back as '', which is nobody.
CREATE OR REPLACE FUNCTION datastore_current_user_id() RETURNS uuid
LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
SET search_path = public, pg_temp AS $$
DECLARE
    wanted uuid;
BEGIN
    SELECT r.user_id INTO wanted FROM sql_roles r WHERE r.role_name = session_user;
    IF NOT FOUND AND pg_has_role(session_user, 'datastore_request', 'SET') THEN
        wanted := nullif(current_setting('datastore.user_id', true), '')::uuid;
    END IF;
    IF wanted IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT u.id FROM users u WHERE u.id = wanted AND u.disabled_at IS NULL);
END
$$;
