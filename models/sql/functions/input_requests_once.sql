-- An answer is given once: whoever comes second finds the request closed.
CREATE OR REPLACE FUNCTION input_requests_once() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'input request % is already %', OLD.id, OLD.status
        USING ERRCODE = 'check_violation', CONSTRAINT = 'input_requests_once';
END
$$;
