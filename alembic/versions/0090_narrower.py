"""Requests' role: to run is not to write, and rows of the server's own are its own

Why: whoever might execute a document could change its cells where a route forgot to ask, and the
role of requests could write columns and tables that no request writes. Analysts saw what was
typed. Changes policies, privileges and a function, no row.

Revision ID: 0090
Revises: 0060
"""

from alembic import op

revision = "0090"
down_revision = "0060"
branch_labels = None
depends_on = None

UP = """
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

REVOKE SELECT (id, execution_id, kernel_id, msg_id, prompt, password, status, answered_by_id,
    created_at, answered_at) ON input_requests FROM datastore_analyst;
REVOKE UPDATE (status, value, answered_by_id, answered_at) ON input_requests FROM datastore_request;
REVOKE UPDATE (path, name, type, kernel_id, document_id) ON sessions FROM datastore_request;
REVOKE UPDATE (version) ON documents FROM datastore_request;
GRANT SELECT ON input_requests TO datastore_analyst;
GRANT INSERT, UPDATE, DELETE ON contents, document_updates, document_snapshots, notebooks, cells,
    outputs TO datastore_request;
GRANT UPDATE ON documents, input_requests, kernels, sessions TO datastore_request;
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
