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
    own text;
    granted text[];
    homes text[];
BEGIN
    SELECT u.admin, u.home_id INTO person FROM users u
    WHERE u.id = wanted_user AND u.disabled_at IS NULL;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF person.admin THEN
        RETURN ARRAY['+'];
    END IF;
    SELECT c.path || '/' INTO own FROM contents c WHERE c.id = person.home_id;
    SELECT array_agg(DISTINCT CASE c.path WHEN '' THEN '' ELSE c.path || '/' END) INTO granted
    FROM datastore_grants(wanted_user) p JOIN contents c ON c.id = p.content_id
    WHERE p.actions && wanted;
    IF granted IS NOT NULL THEN
        SELECT array_agg(c.path || '/') INTO homes
        FROM users u JOIN contents c ON c.id = u.home_id
        WHERE u.id <> wanted_user AND (c.path || '/') ^@ ANY (granted);
    END IF;
    RETURN (
        SELECT coalesce(array_agg(e ORDER BY length(e) DESC, e COLLATE "C"), '{}')
        FROM (
            SELECT '+' || g AS e FROM unnest(granted || own) g WHERE g IS NOT NULL
            UNION ALL
            SELECT '-' || h FROM unnest(homes) h
        ) entries
    );
END
$$;
