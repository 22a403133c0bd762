-- To run code on another's kernel is to act as its owner: both are put on record.
CREATE OR REPLACE FUNCTION datastore_audit_executions() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO audit (event, actor_id, actor, detail) VALUES (
        'execute_as', NEW.actor_id, (SELECT u.name FROM users u WHERE u.id = NEW.actor_id),
        jsonb_build_object(
            'execution_id', NEW.id, 'kernel_id', NEW.kernel_id,
            'run_as', (SELECT u.name FROM users u WHERE u.id = NEW.run_as_id)));
    RETURN NULL;
END
$$;
