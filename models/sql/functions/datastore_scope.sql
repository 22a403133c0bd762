-- Where in the contents a user may do something: beginnings of paths, '+' allowed or '-' not, the
-- longest first; null for who is nobody. Admins: everywhere. Others: their home, and what they were
-- granted. A home within a granted folder is left out, unless it, or something in it, was itself
-- granted. The action `change` is what may write to a document: `write` or `execute`.
CREATE OR REPLACE FUNCTION datastore_scope(wanted_user uuid, wanted_action text) RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
SET search_path = public, pg_temp AS $$
DECLARE
    person record;
    wanted text[] := CASE wanted_action
        WHEN 'change' THEN ARRAY['write', 'execute'] ELSE ARRAY[wanted_action] END;
    granted text[];
    homes text[];
BEGIN
    SELECT u.admin, u.home_path || '/' AS home INTO person FROM users u
    WHERE u.id = wanted_user AND u.disabled_at IS NULL;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF person.admin THEN
        RETURN ARRAY['+'];
    END IF;
    SELECT array_agg(DISTINCT CASE c.path WHEN '' THEN '' ELSE c.path || '/' END) INTO granted
    FROM datastore_grants(wanted_user) p JOIN contents c ON c.id = p.content_id
    WHERE p.actions && wanted;
    IF granted IS NOT NULL THEN
        -- By the index: what begins with a text lies between it and it with the last character.
        SELECT array_agg(DISTINCT u.home_path || '/') INTO homes
        FROM unnest(granted) g
        JOIN users u ON u.home_path COLLATE "C" >= rtrim(g, '/')
            AND u.home_path COLLATE "C" <= g || chr(1114111)
        WHERE u.id <> wanted_user AND starts_with(u.home_path || '/', g);
    END IF;
    RETURN (
        SELECT coalesce(array_agg(e ORDER BY length(e) DESC, e COLLATE "C"), '{}')
        FROM (
            SELECT '+' || g AS e FROM unnest(granted || person.home) g WHERE g IS NOT NULL
            UNION ALL
            SELECT '-' || h FROM unnest(homes) h
        ) entries
    );
END
$$;
