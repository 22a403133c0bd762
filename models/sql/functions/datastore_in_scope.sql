-- Whether a path is in a scope: the first entry that is a beginning of it says so ('+') or denies
-- it ('-'); the longest come first.
CREATE OR REPLACE FUNCTION datastore_in_scope(path text, scope text[]) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    entry text;
    place text := path || '/';
BEGIN
    IF scope IS NOT NULL THEN
        FOREACH entry IN ARRAY scope LOOP
            IF starts_with(place, substr(entry, 2)) THEN
                RETURN starts_with(entry, '+');
            END IF;
        END LOOP;
    END IF;
    RETURN false;
END
$$;
