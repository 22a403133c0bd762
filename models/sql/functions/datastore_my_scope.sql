-- `datastore_scope` of the person that the connection acts for; for policies, once a statement.
CREATE OR REPLACE FUNCTION datastore_my_scope(wanted_action text) RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
SET search_path = public, pg_temp AS $$
BEGIN
    RETURN datastore_scope(datastore_current_user_id(), wanted_action);
END
$$;
