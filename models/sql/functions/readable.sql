-- Which of these resources (`models.published.Scope`) a user may read, by the one rule for access.
CREATE OR REPLACE FUNCTION datastore_readable(asker uuid, resources text[], ids text[])
RETURNS TABLE (resource text, id text)
LANGUAGE sql STABLE AS $$
    SELECT s.resource, s.id
    FROM unnest(resources, ids) AS s (resource, id)
    WHERE CASE s.resource
        WHEN 'server' THEN true
        WHEN 'user' THEN s.id = asker::text
        WHEN 'content' THEN EXISTS (
            SELECT FROM contents c
            WHERE c.id = s.id::uuid AND datastore_may(asker, 'read', 'contents', c.path))
        ELSE datastore_may(asker, 'read', s.resource, s.id)
    END
$$;
