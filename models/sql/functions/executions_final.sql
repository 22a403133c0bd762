-- A finished execution stays what it was: a late message, a second server or a script must not turn
-- "interrupted" into "ok" or run it again.
CREATE OR REPLACE FUNCTION executions_final() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'execution % has finished as %', OLD.id, OLD.status
        USING ERRCODE = 'check_violation', CONSTRAINT = 'executions_final';
END
$$;
