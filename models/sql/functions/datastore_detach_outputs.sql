-- Takes outputs out of their cells; they stay with their execution. Whoever may write to the document
-- may do it, also where they would not see the row any more: an output that a file had brought
-- belongs to nothing then.
CREATE OR REPLACE FUNCTION datastore_detach_outputs(ids bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    scope text[] := CASE current_setting('role')
        WHEN 'datastore_request' THEN datastore_my_scope('write') ELSE ARRAY['+'] END;
BEGIN
    UPDATE outputs o SET cell_id = NULL
    FROM cells x
    JOIN documents d ON d.id = x.notebook_id
    JOIN contents c ON c.id = d.content_id
    WHERE o.id = ANY (ids) AND x.id = o.cell_id AND datastore_in_scope(c.path, scope);
END
$$;
