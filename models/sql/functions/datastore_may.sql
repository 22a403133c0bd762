-- Whether a user may do an action (read, write, execute, share) to a thing of a resource, or, with
-- no id, to things of that kind at all. This is the one rule for access: requests, websockets,
-- feeds and policies ask it, or the functions it is made of. What does not exist may nobody; admins
-- may everything but see and type into others' terminals.
CREATE OR REPLACE FUNCTION datastore_may(user_id uuid, action text, resource text, id text DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    asker ALIAS FOR $1;
    wanted ALIAS FOR $2;
    kind ALIAS FOR $3;
    target ALIAS FOR $4;
    is_admin boolean;
    scope text[];
    place text;
    row_id uuid;
    found_row record;
BEGIN
    SELECT u.admin INTO is_admin FROM users u WHERE u.id = asker AND u.disabled_at IS NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF kind IN ('users', 'groups', 'audit') THEN
        -- Names may be seen by all; the audit by admins.
        RETURN is_admin OR (wanted = 'read' AND kind <> 'audit');
    END IF;
    IF kind = 'server' OR (kind = 'kernelspecs' AND wanted <> 'read')
        OR (kind = 'terminals' AND target IS NULL AND wanted = 'write') THEN
        -- A terminal is the account of the server: who may open one is said of the server.
        RETURN is_admin OR EXISTS (
            SELECT FROM datastore_grants(asker) p
            WHERE p.resource = 'server'
            AND CASE kind WHEN 'terminals' THEN 'execute' ELSE wanted END = ANY (p.actions));
    END IF;
    IF target IS NULL THEN
        RETURN wanted IN ('read', 'write', 'execute', 'share') AND kind IN (
            'api', 'comms', 'config', 'contents', 'csp', 'documents', 'events', 'executions',
            'kernels', 'kernelspecs', 'nbconvert', 'permissions', 'sessions', 'terminals', 'tokens');
    END IF;
    IF kind IN ('contents', 'subtree') THEN
        IF is_admin THEN
            RETURN true;
        END IF;
        place := trim(BOTH '/' FROM target);
        scope := datastore_scope(asker, wanted);
        IF kind = 'subtree' THEN
            -- All that is below, to be moved or deleted: not with what is another's, nor a home.
            RETURN datastore_in_scope(place, scope)
                AND NOT EXISTS (SELECT FROM unnest(scope) e
                    WHERE starts_with(e, '-' || CASE place WHEN '' THEN '' ELSE place || '/' END))
                AND NOT EXISTS (SELECT FROM users u WHERE u.home_path COLLATE "C" = place);
        END IF;
        RETURN datastore_in_scope(place, scope)
            OR (wanted = 'read' AND datastore_leads_to(place, scope));
    END IF;
    IF kind = 'kernels' THEN
        SELECT k.owner_id INTO found_row FROM kernels k WHERE k.id = target;
        RETURN FOUND AND (is_admin OR found_row.owner_id = asker
            OR target = ANY (datastore_shared_kernels(asker, wanted)));
    END IF;
    IF kind = 'sessions' THEN
        SELECT s.owner_id, s.kernel_id INTO found_row FROM sessions s WHERE s.id = target;
        RETURN FOUND AND (is_admin OR found_row.owner_id = asker
            OR datastore_may(asker, wanted, 'kernels', found_row.kernel_id));
    END IF;
    IF kind = 'terminals' THEN
        SELECT t.owner_id INTO found_row FROM terminals t
        WHERE t.name = target AND t.ended_at IS NULL;
        -- Into one's own type as long as one may open another.
        RETURN FOUND AND CASE WHEN found_row.owner_id = asker
            THEN wanted <> 'execute' OR datastore_may(asker, 'write', 'terminals')
            ELSE is_admin AND wanted = 'write' END;
    END IF;
    BEGIN
        row_id := target::uuid;
    EXCEPTION WHEN invalid_text_representation THEN
        RETURN false;
    END;
    IF kind = 'documents' THEN
        SELECT c.path INTO found_row
        FROM documents d JOIN contents c ON c.id = d.content_id WHERE d.id = row_id;
        RETURN FOUND AND (is_admin
            OR datastore_in_scope(found_row.path, datastore_scope(asker, wanted)));
    END IF;
    IF kind = 'executions' THEN
        SELECT e.actor_id, e.run_as_id, e.kernel_id, c.path INTO found_row
        FROM executions e
        LEFT JOIN documents d ON d.id = e.document_id
        LEFT JOIN contents c ON c.id = d.content_id
        WHERE e.id = row_id;
        IF NOT FOUND OR is_admin THEN
            RETURN FOUND;
        END IF;
        IF wanted <> 'read' THEN
            -- To answer or stop it is to act on its kernel, and one must know of it.
            RETURN datastore_may(asker, 'read', kind, target)
                AND datastore_may(asker, wanted, 'kernels', found_row.kernel_id);
        END IF;
        RETURN coalesce(found_row.actor_id = asker, false) OR found_row.run_as_id = asker
            OR coalesce(datastore_in_scope(found_row.path, datastore_scope(asker, 'read')), false)
            OR EXISTS (SELECT FROM datastore_grants(asker) p
                WHERE p.kernel_id = found_row.kernel_id AND 'read' = ANY (p.actions));
    END IF;
    IF kind = 'comms' THEN
        SELECT m.kernel_id, m.execution_id INTO found_row FROM comms m WHERE m.id = row_id;
        IF NOT FOUND OR is_admin THEN
            RETURN FOUND;
        END IF;
        RETURN datastore_may(asker, 'execute', 'kernels', found_row.kernel_id)
            OR (wanted = 'read' AND found_row.execution_id IS NOT NULL
                AND datastore_may(asker, 'read', 'executions', found_row.execution_id::text));
    END IF;
    RETURN false;
END
$$;
