"""What feeds show: cells' outputs by their document, the server by its permission; more is told

Why: outputs were shown to whoever saw the kernel, also those of documents they may not see; a
server's row was shown to everyone. A session makes its kernel visible and the end of a document
hides what ran in it, which servers were not told of. Changes functions and triggers, no row.

Revision ID: 0060
Revises: 0055
"""

from alembic import op

revision = "0060"
down_revision = "0055"
branch_labels = None
depends_on = None

READABLE = """
CREATE OR REPLACE FUNCTION datastore_readable(asker uuid, resources text[], ids text[])
RETURNS TABLE (resource text, id text)
LANGUAGE sql STABLE AS $$
    SELECT s.resource, s.id
    FROM unnest(resources, ids) AS s (resource, id)
    WHERE CASE s.resource
        WHEN 'everyone' THEN datastore_may(asker, 'read', 'api')
        WHEN 'server' THEN datastore_may(asker, 'read', 'server')
        WHEN 'user' THEN s.id = asker::text AND datastore_may(asker, 'read', 'api')
        WHEN 'content' THEN EXISTS (
            SELECT FROM contents c
            WHERE c.id = s.id::uuid AND datastore_may(asker, 'read', 'contents', c.path))
        WHEN 'cells' THEN EXISTS (
            SELECT FROM cells x
            WHERE x.id = s.id::uuid
            AND datastore_may(asker, 'read', 'documents', x.notebook_id::text))
        ELSE datastore_may(asker, 'read', s.resource, s.id)
    END
$$;
"""
READABLE_BEFORE = """
CREATE OR REPLACE FUNCTION datastore_readable(asker uuid, resources text[], ids text[])
RETURNS TABLE (resource text, id text)
LANGUAGE sql STABLE AS $$
    SELECT s.resource, s.id
    FROM unnest(resources, ids) AS s (resource, id)
    WHERE CASE s.resource
        WHEN 'server' THEN true
        WHEN 'user' THEN s.id = asker::text
        WHEN 'content' THEN EXISTS (
            SELECT FROM contents c
            WHERE c.id = s.id::uuid AND datastore_may(asker, 'read', 'contents', c.path))
        ELSE datastore_may(asker, 'read', s.resource, s.id)
    END
$$;
"""
SESSIONS_TELL = """
CREATE OR REPLACE TRIGGER sessions_tell
AFTER INSERT OR UPDATE OF ended_at, kernel_id, document_id ON sessions
FOR EACH STATEMENT EXECUTE FUNCTION datastore_tell_access();
"""
SESSIONS_TELL_BEFORE = """
CREATE OR REPLACE TRIGGER sessions_tell AFTER UPDATE OF ended_at, kernel_id, document_id ON sessions
FOR EACH STATEMENT EXECUTE FUNCTION datastore_tell_access();
"""
DOCUMENTS_TELL = """
CREATE OR REPLACE TRIGGER documents_tell AFTER DELETE ON documents
FOR EACH ROW EXECUTE FUNCTION datastore_tell_access();
"""


def set_timeouts():
    # A migration waits rather for the next attempt than with the whole service behind it.
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute("SET LOCAL statement_timeout = '5min'")


def upgrade():
    set_timeouts()
    op.execute(READABLE)
    op.execute(SESSIONS_TELL)
    op.execute(DOCUMENTS_TELL)


def downgrade():
    set_timeouts()
    op.execute("DROP TRIGGER documents_tell ON documents")
    op.execute(SESSIONS_TELL_BEFORE)
    op.execute(READABLE_BEFORE)
