"""Requests' role: to run is not to write, and rows of the server's own are its own

Why: whoever might execute a document could change its cells where a route forgot to ask, and the
role of requests could write columns and tables that no request writes. Analysts saw what was
typed. Changes policies, privileges and a function, no row.

Revision ID: 0090
Revises: 0070
"""

from alembic import op

revision = "0090"
down_revision = "0070"
branch_labels = None
depends_on = None

UP = """
DROP POLICY terminals_write ON terminals;
DROP POLICY contents_insert ON contents;
DROP POLICY contents_update ON contents;
DROP POLICY contents_delete ON contents;
DROP POLICY documents_change ON documents;
DROP POLICY document_updates_change ON document_updates;
DROP POLICY document_snapshots_change ON document_snapshots;
DROP POLICY notebooks_change ON notebooks;
DROP POLICY cells_change ON cells;
DROP POLICY kernels_update ON kernels;
DROP POLICY executions_insert ON executions;
DROP POLICY outputs_insert ON outputs;
DROP POLICY outputs_update ON outputs;
DROP POLICY outputs_delete ON outputs;
DROP POLICY input_requests_answer ON input_requests;
DROP POLICY text_contents_change ON text_contents;
DROP POLICY document_versions_write ON document_versions;
CREATE POLICY terminals_write ON terminals FOR INSERT
    WITH CHECK (owner_id = (SELECT datastore_current_user_id())
        AND (SELECT datastore_may(datastore_current_user_id(), 'write', 'terminals')));
CREATE POLICY documents_change ON documents FOR UPDATE
    USING (EXISTS (SELECT FROM contents c WHERE c.id = documents.content_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))))
    WITH CHECK (EXISTS (SELECT FROM contents c WHERE c.id = documents.content_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('write')))));
CREATE POLICY document_updates_insert ON document_updates FOR INSERT
    WITH CHECK (actor_id = (SELECT datastore_current_user_id())
        AND EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
            WHERE d.id = document_updates.document_id
            AND datastore_in_scope(c.path, (SELECT datastore_my_scope('write')))));
CREATE POLICY document_snapshots_write ON document_snapshots
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = document_snapshots.document_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('write')))));
CREATE POLICY notebooks_write ON notebooks
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = notebooks.id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('write')))));
CREATE POLICY cells_write ON cells
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = cells.notebook_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('write')))));
CREATE POLICY executions_insert ON executions FOR INSERT
    WITH CHECK (actor_id = (SELECT datastore_current_user_id()) AND status = 'queued'
        AND (EXISTS (SELECT FROM kernels k WHERE k.id = executions.kernel_id AND k.owner_id = executions.run_as_id
                AND (k.owner_id = (SELECT datastore_current_user_id())
                    OR (SELECT datastore_am_admin())
                    OR k.id = ANY ((SELECT datastore_my_kernels('execute'))::text[]))))
        AND (document_id IS NULL OR EXISTS (
            SELECT FROM documents d JOIN contents c ON c.id = d.content_id
            WHERE d.id = executions.document_id
            AND datastore_in_scope(c.path, (SELECT datastore_my_scope('execute'))))));
CREATE POLICY outputs_insert ON outputs FOR INSERT
    WITH CHECK (execution_id IS NULL AND EXISTS (
        SELECT FROM cells x JOIN documents d ON d.id = x.notebook_id
        JOIN contents c ON c.id = d.content_id
        WHERE x.id = outputs.cell_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('write')))));
CREATE POLICY input_requests_answer ON input_requests FOR UPDATE
    USING (EXISTS (SELECT FROM kernels k WHERE k.id = input_requests.kernel_id
        AND (k.owner_id = (SELECT datastore_current_user_id()) OR (SELECT datastore_am_admin())
            OR k.id = ANY ((SELECT datastore_my_kernels('execute'))::text[]))))
    WITH CHECK (answered_by_id = (SELECT datastore_current_user_id()));
CREATE POLICY text_contents_write ON text_contents
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = text_contents.id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('write')))));
CREATE POLICY document_versions_insert ON document_versions FOR INSERT
    WITH CHECK (actor_id = (SELECT datastore_current_user_id())
        AND EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
            WHERE d.id = document_versions.document_id
            AND datastore_in_scope(c.path, (SELECT datastore_my_scope('write')))));
CREATE POLICY document_versions_delete ON document_versions FOR DELETE
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = document_versions.document_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('write')))));
REVOKE INSERT, UPDATE, DELETE ON contents FROM datastore_request;
REVOKE UPDATE, DELETE ON document_updates, outputs FROM datastore_request;
REVOKE UPDATE ON document_snapshots, documents, kernels, sessions, input_requests
    FROM datastore_request;
REVOKE DELETE ON notebooks FROM datastore_request;
REVOKE SELECT ON input_requests FROM datastore_analyst;
GRANT UPDATE (version) ON documents TO datastore_request;
GRANT UPDATE (path, name, type, kernel_id, document_id) ON sessions TO datastore_request;
GRANT UPDATE (status, value, answered_by_id, answered_at) ON input_requests TO datastore_request;
GRANT SELECT (id, execution_id, kernel_id, msg_id, prompt, password, status, answered_by_id,
    created_at, answered_at) ON input_requests TO datastore_analyst;
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
"""
DOWN = """
-- Takes outputs out of their cells; they stay with their execution. Whoever may change the document
-- may do it, also where they would not see the row any more: an output that a file had brought
-- belongs to nothing then.
CREATE OR REPLACE FUNCTION datastore_detach_outputs(ids bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    scope text[] := CASE current_setting('role')
        WHEN 'datastore_request' THEN datastore_my_scope('change') ELSE ARRAY['+'] END;
BEGIN
    UPDATE outputs o SET cell_id = NULL
    FROM cells x
    JOIN documents d ON d.id = x.notebook_id
    JOIN contents c ON c.id = d.content_id
    WHERE o.id = ANY (ids) AND x.id = o.cell_id AND datastore_in_scope(c.path, scope);
END
$$;

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
        RETURN FOUND AND (found_row.owner_id = asker OR (is_admin AND wanted = 'write'));
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


REVOKE SELECT (id, execution_id, kernel_id, msg_id, prompt, password, status, answered_by_id,
    created_at, answered_at) ON input_requests FROM datastore_analyst;
REVOKE UPDATE (status, value, answered_by_id, answered_at) ON input_requests FROM datastore_request;
REVOKE UPDATE (path, name, type, kernel_id, document_id) ON sessions FROM datastore_request;
REVOKE UPDATE (version) ON documents FROM datastore_request;
GRANT SELECT ON input_requests TO datastore_analyst;
GRANT INSERT, UPDATE, DELETE ON contents, document_updates, document_snapshots, notebooks, cells,
    outputs TO datastore_request;
GRANT UPDATE ON documents, input_requests, kernels, sessions TO datastore_request;
DROP POLICY terminals_write ON terminals;
DROP POLICY documents_change ON documents;
DROP POLICY document_updates_insert ON document_updates;
DROP POLICY document_snapshots_write ON document_snapshots;
DROP POLICY notebooks_write ON notebooks;
DROP POLICY cells_write ON cells;
DROP POLICY executions_insert ON executions;
DROP POLICY outputs_insert ON outputs;
DROP POLICY input_requests_answer ON input_requests;
DROP POLICY text_contents_write ON text_contents;
DROP POLICY document_versions_insert ON document_versions;
DROP POLICY document_versions_delete ON document_versions;
CREATE POLICY terminals_write ON terminals FOR INSERT
    WITH CHECK (owner_id = (SELECT datastore_current_user_id()));
CREATE POLICY contents_insert ON contents FOR INSERT
    WITH CHECK (datastore_in_scope(path, (SELECT datastore_my_scope('write'))));
CREATE POLICY contents_update ON contents FOR UPDATE
    USING (datastore_in_scope(path, (SELECT datastore_my_scope('write'))));
CREATE POLICY contents_delete ON contents FOR DELETE
    USING (datastore_in_scope(path, (SELECT datastore_my_scope('write'))));
CREATE POLICY documents_change ON documents FOR UPDATE
    USING (EXISTS (SELECT FROM contents c WHERE c.id = documents.content_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))));
CREATE POLICY document_updates_change ON document_updates
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = document_updates.document_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))));
CREATE POLICY document_snapshots_change ON document_snapshots
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = document_snapshots.document_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))));
CREATE POLICY notebooks_change ON notebooks
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = notebooks.id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))));
CREATE POLICY cells_change ON cells
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = cells.notebook_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))));
CREATE POLICY kernels_update ON kernels FOR UPDATE
    USING (owner_id = (SELECT datastore_current_user_id()) OR (SELECT datastore_am_admin())
        OR id = ANY ((SELECT datastore_my_kernels('write'))::text[]));
CREATE POLICY executions_insert ON executions FOR INSERT
    WITH CHECK (actor_id = (SELECT datastore_current_user_id())
        AND (EXISTS (SELECT FROM kernels k WHERE k.id = executions.kernel_id AND k.owner_id = executions.run_as_id
                AND (k.owner_id = (SELECT datastore_current_user_id())
                    OR (SELECT datastore_am_admin())
                    OR k.id = ANY ((SELECT datastore_my_kernels('execute'))::text[]))))
        AND (document_id IS NULL OR EXISTS (
            SELECT FROM documents d JOIN contents c ON c.id = d.content_id
            WHERE d.id = executions.document_id
            AND datastore_in_scope(c.path, (SELECT datastore_my_scope('execute'))))));
CREATE POLICY outputs_insert ON outputs FOR INSERT
    WITH CHECK (execution_id IS NULL AND EXISTS (
        SELECT FROM cells x JOIN documents d ON d.id = x.notebook_id
        JOIN contents c ON c.id = d.content_id
        WHERE x.id = outputs.cell_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))));
CREATE POLICY outputs_update ON outputs FOR UPDATE
    USING (EXISTS (
        SELECT FROM cells x JOIN documents d ON d.id = x.notebook_id
        JOIN contents c ON c.id = d.content_id
        WHERE x.id = outputs.cell_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))))
    WITH CHECK (cell_id IS NULL OR EXISTS (
        SELECT FROM cells x JOIN documents d ON d.id = x.notebook_id
        JOIN contents c ON c.id = d.content_id
        WHERE x.id = outputs.cell_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))));
CREATE POLICY outputs_delete ON outputs FOR DELETE
    USING (execution_id IS NULL AND EXISTS (
        SELECT FROM cells x JOIN documents d ON d.id = x.notebook_id
        JOIN contents c ON c.id = d.content_id
        WHERE x.id = outputs.cell_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))));
CREATE POLICY input_requests_answer ON input_requests FOR UPDATE
    USING (EXISTS (SELECT FROM kernels k WHERE k.id = input_requests.kernel_id
        AND (k.owner_id = (SELECT datastore_current_user_id()) OR (SELECT datastore_am_admin())
            OR k.id = ANY ((SELECT datastore_my_kernels('execute'))::text[]))));
CREATE POLICY text_contents_change ON text_contents
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = text_contents.id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))));
CREATE POLICY document_versions_write ON document_versions
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = document_versions.document_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('write')))));
"""


def set_timeouts():
    # A migration waits rather for the next attempt than with the whole service behind it.
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute("SET LOCAL statement_timeout = '5min'")


def upgrade():
    set_timeouts()
    op.execute(UP)


def downgrade():
    set_timeouts()
    op.execute(DOWN)
