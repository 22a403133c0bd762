-- What was done stays on record, whoever asks: the server's own role too.
CREATE OR REPLACE FUNCTION audit_append_only() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit can only be added to' USING ERRCODE = 'insufficient_privilege';
END
$$;
