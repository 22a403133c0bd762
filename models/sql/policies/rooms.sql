-- What belongs to documents' rooms and histories: seen with their document, changed as it is.
-- `collaboration_session` has no policy: it is the server's own.
ALTER TABLE text_contents ENABLE ROW LEVEL SECURITY;
ALTER TABLE document_versions ENABLE ROW LEVEL SECURITY;
ALTER TABLE document_forks ENABLE ROW LEVEL SECURITY;
ALTER TABLE collaboration_session ENABLE ROW LEVEL SECURITY;

CREATE POLICY text_contents_read ON text_contents FOR SELECT
    USING (EXISTS (SELECT FROM documents d WHERE d.id = text_contents.id));
CREATE POLICY text_contents_write ON text_contents
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = text_contents.id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('write')))));
CREATE POLICY document_versions_read ON document_versions FOR SELECT
    USING (EXISTS (SELECT FROM documents d WHERE d.id = document_versions.document_id));
CREATE POLICY document_versions_insert ON document_versions FOR INSERT
    WITH CHECK (actor_id = (SELECT datastore_current_user_id())
        AND EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
            WHERE d.id = document_versions.document_id
            AND datastore_in_scope(c.path, (SELECT datastore_my_scope('write')))));
CREATE POLICY document_versions_delete ON document_versions FOR DELETE
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = document_versions.document_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('write')))));
CREATE POLICY document_forks_read ON document_forks FOR SELECT
    USING (EXISTS (SELECT FROM documents d WHERE d.id = document_forks.document_id));
