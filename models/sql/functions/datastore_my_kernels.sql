-- `datastore_shared_kernels` of the person that the connection acts for; for policies.
CREATE OR REPLACE FUNCTION datastore_my_kernels(wanted_action text) RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
SET search_path = public, pg_temp AS $$
BEGIN
    RETURN datastore_shared_kernels(datastore_current_user_id(), wanted_action);
END
$$;
