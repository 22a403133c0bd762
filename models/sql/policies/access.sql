-- Default deny: whoever is not the server's own role sees and changes of each table what the person
-- that the connection acts for may, whatever a query forgets to filter. Functions stand in
-- `(SELECT ...)`, so that they are called once for a statement and not for each row.
ALTER TABLE users ENABLE ROW LEVEL SECURITY;
ALTER TABLE passwords ENABLE ROW LEVEL SECURITY;
ALTER TABLE groups ENABLE ROW LEVEL SECURITY;
ALTER TABLE group_members ENABLE ROW LEVEL SECURITY;
ALTER TABLE tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE permissions ENABLE ROW LEVEL SECURITY;
ALTER TABLE share_links ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit ENABLE ROW LEVEL SECURITY;
ALTER TABLE sql_roles ENABLE ROW LEVEL SECURITY;
ALTER TABLE server_status ENABLE ROW LEVEL SECURITY;
ALTER TABLE kernelspecs ENABLE ROW LEVEL SECURITY;
ALTER TABLE kernels ENABLE ROW LEVEL SECURITY;
ALTER TABLE sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE contents ENABLE ROW LEVEL SECURITY;
ALTER TABLE checkpoints ENABLE ROW LEVEL SECURITY;
ALTER TABLE documents ENABLE ROW LEVEL SECURITY;
ALTER TABLE document_updates ENABLE ROW LEVEL SECURITY;
ALTER TABLE document_snapshots ENABLE ROW LEVEL SECURITY;
ALTER TABLE notebooks ENABLE ROW LEVEL SECURITY;
ALTER TABLE cells ENABLE ROW LEVEL SECURITY;
ALTER TABLE executions ENABLE ROW LEVEL SECURITY;
ALTER TABLE outputs ENABLE ROW LEVEL SECURITY;
ALTER TABLE input_requests ENABLE ROW LEVEL SECURITY;
ALTER TABLE comms ENABLE ROW LEVEL SECURITY;
ALTER TABLE comm_messages ENABLE ROW LEVEL SECURITY;
ALTER TABLE terminals ENABLE ROW LEVEL SECURITY;
ALTER TABLE config_sections ENABLE ROW LEVEL SECURITY;
ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY;

DROP POLICY IF EXISTS users_self ON users;
DROP POLICY IF EXISTS tokens_own ON tokens;
DROP POLICY IF EXISTS kernels_own ON kernels;
DROP POLICY IF EXISTS executions_own ON executions;
DROP POLICY IF EXISTS outputs_own ON outputs;
DROP POLICY IF EXISTS input_requests_own ON input_requests;
DROP POLICY IF EXISTS idempotency_keys_own ON idempotency_keys;

-- People. Names are seen by everyone who has logged in. `passwords` and `sql_roles` have no policy.
CREATE POLICY users_read ON users FOR SELECT
    USING ((SELECT datastore_current_user_id()) IS NOT NULL);
CREATE POLICY users_write ON users FOR UPDATE USING (id = (SELECT datastore_current_user_id()));
CREATE POLICY groups_read ON groups FOR SELECT
    USING ((SELECT datastore_current_user_id()) IS NOT NULL);
CREATE POLICY group_members_read ON group_members FOR SELECT
    USING (user_id = (SELECT datastore_current_user_id()) OR (SELECT datastore_am_admin()));
CREATE POLICY tokens_read ON tokens FOR SELECT
    USING (user_id = (SELECT datastore_current_user_id()) OR (SELECT datastore_am_admin()));
CREATE POLICY permissions_read ON permissions FOR SELECT
    USING (subject = 'everyone' AND (SELECT datastore_current_user_id()) IS NOT NULL
        AND resource = 'server'
        OR user_id = (SELECT datastore_current_user_id())
        OR granted_by_id = (SELECT datastore_current_user_id())
        OR EXISTS (SELECT FROM group_members m
            WHERE m.group_id = permissions.group_id
            AND m.user_id = (SELECT datastore_current_user_id()))
        OR (SELECT datastore_am_admin())
        OR EXISTS (SELECT FROM contents c WHERE c.id = permissions.content_id
            AND (permissions.subject = 'everyone'
                OR datastore_in_scope(c.path, (SELECT datastore_my_scope('share')))))
        OR EXISTS (SELECT FROM kernels k WHERE k.id = permissions.kernel_id
            AND (permissions.subject = 'everyone'
                OR k.owner_id = (SELECT datastore_current_user_id())
                OR k.id = ANY ((SELECT datastore_my_kernels('share'))::text[]))));
CREATE POLICY share_links_read ON share_links FOR SELECT
    USING (created_by_id = (SELECT datastore_current_user_id()) OR (SELECT datastore_am_admin()));
CREATE POLICY audit_read ON audit FOR SELECT USING ((SELECT datastore_am_admin()));

-- What everyone who has logged in sees.
CREATE POLICY kernelspecs_read ON kernelspecs FOR SELECT
    USING ((SELECT datastore_current_user_id()) IS NOT NULL);
CREATE POLICY server_status_read ON server_status FOR SELECT
    USING ((SELECT datastore_may(datastore_current_user_id(), 'read', 'server')));

-- What is one person's.
CREATE POLICY config_sections_own ON config_sections
    USING (user_id = (SELECT datastore_current_user_id()));
CREATE POLICY idempotency_keys_own ON idempotency_keys
    USING (actor_id = (SELECT datastore_current_user_id()));
CREATE POLICY terminals_read ON terminals FOR SELECT
    USING (owner_id = (SELECT datastore_current_user_id()) OR (SELECT datastore_am_admin()));
CREATE POLICY terminals_write ON terminals FOR INSERT
    WITH CHECK (owner_id = (SELECT datastore_current_user_id())
        AND (SELECT datastore_may(datastore_current_user_id(), 'write', 'terminals')));

-- Contents, by path; a folder on the way to something that may be seen is seen. Their rows are
-- written by the server alone, as the disk is.
CREATE POLICY contents_read ON contents FOR SELECT
    USING (datastore_in_scope(path, (SELECT datastore_my_scope('read')))
        OR (type = 'directory' AND datastore_leads_to(path, (SELECT datastore_my_scope('read')))));
CREATE POLICY checkpoints_read ON checkpoints FOR SELECT
    USING (EXISTS (SELECT FROM contents c WHERE c.id = checkpoints.content_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('read')))));

-- Documents: what is seen with their file, and changed by who may write to it. Whoever may execute
-- locks one too, so that what they run is what the cell is: `change` is to write or to execute. That
-- the cell runs is then the server's own to write (`Transaction.go_on_as_server`).
CREATE POLICY documents_read ON documents FOR SELECT
    USING (EXISTS (SELECT FROM contents c WHERE c.id = documents.content_id));
CREATE POLICY documents_change ON documents FOR UPDATE
    USING (EXISTS (SELECT FROM contents c WHERE c.id = documents.content_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))))
    WITH CHECK (EXISTS (SELECT FROM contents c WHERE c.id = documents.content_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('write')))));
CREATE POLICY document_updates_read ON document_updates FOR SELECT
    USING (EXISTS (SELECT FROM documents d WHERE d.id = document_updates.document_id));
CREATE POLICY document_updates_insert ON document_updates FOR INSERT
    WITH CHECK (actor_id = (SELECT datastore_current_user_id())
        AND EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
            WHERE d.id = document_updates.document_id
            AND datastore_in_scope(c.path, (SELECT datastore_my_scope('write')))));
CREATE POLICY document_snapshots_read ON document_snapshots FOR SELECT
    USING (EXISTS (SELECT FROM documents d WHERE d.id = document_snapshots.document_id));
CREATE POLICY document_snapshots_write ON document_snapshots
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = document_snapshots.document_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('write')))));
CREATE POLICY notebooks_read ON notebooks FOR SELECT
    USING (EXISTS (SELECT FROM documents d WHERE d.id = notebooks.id));
CREATE POLICY notebooks_write ON notebooks
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = notebooks.id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('write')))));
CREATE POLICY cells_read ON cells FOR SELECT
    USING (EXISTS (SELECT FROM documents d WHERE d.id = cells.notebook_id));
CREATE POLICY cells_write ON cells
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = cells.notebook_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('write')))));

-- Kernels: their owner's, and as `datastore_shared_kernels` says. Only who may share a kernel may
-- give it a session: with that, whoever sees the session's document sees the kernel.
CREATE POLICY kernels_read ON kernels FOR SELECT
    USING (owner_id = (SELECT datastore_current_user_id()) OR (SELECT datastore_am_admin())
        OR id = ANY ((SELECT datastore_my_kernels('read'))::text[]));
CREATE POLICY kernels_insert ON kernels FOR INSERT
    WITH CHECK (owner_id = (SELECT datastore_current_user_id()));
CREATE POLICY sessions_read ON sessions FOR SELECT
    USING (owner_id = (SELECT datastore_current_user_id())
        OR EXISTS (SELECT FROM kernels k WHERE k.id = sessions.kernel_id));
CREATE POLICY sessions_insert ON sessions FOR INSERT
    WITH CHECK (owner_id = (SELECT datastore_current_user_id())
        AND (SELECT datastore_may(datastore_current_user_id(), 'share', 'kernels', kernel_id)));
CREATE POLICY sessions_update ON sessions FOR UPDATE
    USING (owner_id = (SELECT datastore_current_user_id()) OR (SELECT datastore_am_admin())
        OR (SELECT datastore_may(datastore_current_user_id(), 'write', 'kernels', kernel_id)))
    WITH CHECK (
        (SELECT datastore_may(datastore_current_user_id(), 'share', 'kernels', kernel_id)));

-- What ran: seen by who asked, by whose kernel ran it, with the document, and by who was granted
-- the kernel itself. Asking needs `execute` on the kernel, and on the document if there is one.
CREATE POLICY executions_read ON executions FOR SELECT
    USING (actor_id = (SELECT datastore_current_user_id())
        OR run_as_id = (SELECT datastore_current_user_id())
        OR (SELECT datastore_am_admin())
        OR EXISTS (SELECT FROM documents d WHERE d.id = executions.document_id)
        OR kernel_id = ANY ((SELECT datastore_my_kernels('granted'))::text[]));
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
CREATE POLICY outputs_read ON outputs FOR SELECT
    USING (EXISTS (SELECT FROM executions e WHERE e.id = outputs.execution_id)
        OR EXISTS (SELECT FROM cells c WHERE c.id = outputs.cell_id));
-- Those that a file brings; what a kernel said is the server's to write.
CREATE POLICY outputs_insert ON outputs FOR INSERT
    WITH CHECK (execution_id IS NULL AND EXISTS (
        SELECT FROM cells x JOIN documents d ON d.id = x.notebook_id
        JOIN contents c ON c.id = d.content_id
        WHERE x.id = outputs.cell_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('write')))));
CREATE POLICY input_requests_read ON input_requests FOR SELECT
    USING (EXISTS (SELECT FROM executions e WHERE e.id = input_requests.execution_id));
CREATE POLICY input_requests_answer ON input_requests FOR UPDATE
    USING (EXISTS (SELECT FROM kernels k WHERE k.id = input_requests.kernel_id
        AND (k.owner_id = (SELECT datastore_current_user_id()) OR (SELECT datastore_am_admin())
            OR k.id = ANY ((SELECT datastore_my_kernels('execute'))::text[]))))
    WITH CHECK (answered_by_id = (SELECT datastore_current_user_id()));
CREATE POLICY comms_read ON comms FOR SELECT
    USING (EXISTS (SELECT FROM kernels k WHERE k.id = comms.kernel_id
            AND (k.owner_id = (SELECT datastore_current_user_id()) OR (SELECT datastore_am_admin())
                OR k.id = ANY ((SELECT datastore_my_kernels('execute'))::text[])))
        OR EXISTS (SELECT FROM executions e WHERE e.id = comms.execution_id));
CREATE POLICY comm_messages_read ON comm_messages FOR SELECT
    USING (EXISTS (SELECT FROM comms m WHERE m.id = comm_messages.comm_id));
