-- Whether the person that the connection acts for is an admin; for policies, once a statement.
CREATE OR REPLACE FUNCTION datastore_am_admin() RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
SET search_path = public, pg_temp AS $$
BEGIN
    RETURN coalesce(
        (SELECT u.admin FROM users u WHERE u.id = datastore_current_user_id()), false);
END
$$;
