-- Which of these resources (`models.published.Scope`) a user may read, by the one rule for access.
CREATE OR REPLACE FUNCTION datastore_readable(asker uuid, resources text[], ids text[])
RETURNS TABLE (resource text, id text)
LANGUAGE sql STABLE AS $$
    SELECT s.resource, s.id
    FROM unnest(resources, ids) AS s (resource, id)
    WHERE CASE s.resource
        WHEN 'everyone' THEN datastore_may(asker, 'read', 'api')
        WHEN 'server' THEN datastore_may(asker, 'read', 'server')
        WHEN 'user' THEN s.id = asker::text AND datastore_may(asker, 'read', 'api')
        WHEN 'content' THEN EXISTS (
            SELECT FROM contents c
            WHERE c.id = s.id::uuid AND datastore_may(asker, 'read', 'contents', c.path))
        WHEN 'cells' THEN EXISTS (
            SELECT FROM cells x
            WHERE x.id = s.id::uuid
            AND datastore_may(asker, 'read', 'documents', x.notebook_id::text))
        ELSE datastore_may(asker, 'read', s.resource, s.id)
    END
$$;
