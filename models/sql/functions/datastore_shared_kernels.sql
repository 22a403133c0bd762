-- The kernels of others on which a user may do something: those granted to them, and (to read and
-- to execute) those of living sessions of a document on which they may do it. The action `granted`
-- is to read what was itself granted.
CREATE OR REPLACE FUNCTION datastore_shared_kernels(wanted_user uuid, wanted_action text)
RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
SET search_path = public, pg_temp AS $$
DECLARE
    scope text[];
BEGIN
    IF wanted_action IN ('read', 'execute') THEN
        scope := datastore_scope(wanted_user, wanted_action);
    END IF;
    RETURN array(
        SELECT p.kernel_id FROM datastore_grants(wanted_user) p
        WHERE p.kernel_id IS NOT NULL AND CASE wanted_action WHEN 'granted' THEN 'read' ELSE wanted_action END = ANY (p.actions)
        UNION
        SELECT s.kernel_id
        FROM sessions s
        JOIN documents d ON d.id = s.document_id
        JOIN contents c ON c.id = d.content_id
        WHERE s.ended_at IS NULL AND scope <> '{}' AND datastore_in_scope(c.path, scope)
    );
END
$$;
