-- Whether a folder is on the way to something in a scope: then it is seen, with nothing in it but
-- the way.
CREATE OR REPLACE FUNCTION datastore_leads_to(path text, scope text[]) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    entry text;
    place text := '+' || CASE path WHEN '' THEN '' ELSE path || '/' END;
BEGIN
    IF scope IS NOT NULL THEN
        FOREACH entry IN ARRAY scope LOOP
            IF starts_with(entry, place) THEN
                RETURN true;
            END IF;
        END LOOP;
    END IF;
    RETURN path = '' AND scope IS NOT NULL;
END
$$;
