-- What a kernel said is not rewritten; only a display may be updated, and an output shown or cleared.
CREATE OR REPLACE FUNCTION outputs_append_only() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'output % can only be appended', OLD.id
        USING ERRCODE = 'check_violation', CONSTRAINT = 'outputs_append_only';
END
$$;
