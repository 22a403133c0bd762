-- Adds an entry to the audit, for triggers. Where nobody is named and the connection acts for no
-- person, it says which login of the database it was, and what that called itself: a command, psql.
CREATE OR REPLACE FUNCTION datastore_audit(event text, detail jsonb, by_whom uuid DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    -- Also who has just been disabled; who may write here at all may be believed.
    who uuid := coalesce(by_whom, nullif(current_setting('datastore.user_id', true), '')::uuid);
    named text := (SELECT u.name FROM users u WHERE u.id = who);
BEGIN
    IF who IS NULL THEN
        detail := detail || jsonb_build_object('by', jsonb_build_object(
            'database_user', session_user, 'application', current_setting('application_name')));
    END IF;
    INSERT INTO audit (event, actor_id, actor, detail) VALUES (event, who, named, detail);
END
$$;
