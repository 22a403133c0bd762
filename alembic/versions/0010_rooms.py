"""Text documents, named versions, forks, the rooms' session, compaction

Why: people edit notebooks and text files together, look at and restore what was, and browsers
that come back after a restart find the session that they left. Fast on any database: the new
columns have constant defaults.

Revision ID: 0010
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op


revision = "0010"
down_revision = "0006"
branch_labels = None
depends_on = None

_OLD = "origin IN ('load', 'api', 'execution', 'disk', 'room')"
_NEW = "origin IN ('load', 'api', 'execution', 'disk', 'room', 'undo', 'redo', 'restore', 'save')"


# models/sql/policies/rooms.sql and models/sql/grants/rooms.sql as they were at this revision.
_POLICIES = """
-- What belongs to documents' rooms and histories: seen with their document, changed as it is.
-- `collaboration_session` has no policy: it is the server's own.
ALTER TABLE text_contents ENABLE ROW LEVEL SECURITY;
ALTER TABLE document_versions ENABLE ROW LEVEL SECURITY;
ALTER TABLE document_forks ENABLE ROW LEVEL SECURITY;
ALTER TABLE collaboration_session ENABLE ROW LEVEL SECURITY;

CREATE POLICY text_contents_read ON text_contents FOR SELECT
    USING (EXISTS (SELECT FROM documents d WHERE d.id = text_contents.id));
CREATE POLICY text_contents_change ON text_contents
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = text_contents.id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))));
CREATE POLICY document_versions_read ON document_versions FOR SELECT
    USING (EXISTS (SELECT FROM documents d WHERE d.id = document_versions.document_id));
CREATE POLICY document_versions_write ON document_versions
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = document_versions.document_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('write')))));
CREATE POLICY document_forks_read ON document_forks FOR SELECT
    USING (EXISTS (SELECT FROM documents d WHERE d.id = document_forks.document_id));
-- Forks are written by the server itself, for whom it has asked.
GRANT SELECT ON text_contents, document_versions, document_forks
    TO datastore_request, datastore_analyst;
GRANT INSERT, UPDATE ON text_contents TO datastore_request;
GRANT INSERT, DELETE ON document_versions TO datastore_request;
"""
# Of models/sql/triggers/watched.sql.
_WATCHED = """
SELECT datastore_watch('document_forks', '{document_id, id}', withheld => '{state}');
SELECT datastore_watch('document_versions', '{document_id, id}', withheld => '{state}');
SELECT datastore_watch(
    'documents',
    '{content_id, id}',
    withheld => '{compacted_version, disk_base, disk_hash}'
);
SELECT datastore_watch('text_contents', '{id}');
"""
_WATCHED_BEFORE = """
SELECT datastore_watch('documents', '{content_id, id}', withheld => '{disk_base, disk_hash}');
"""


def upgrade():
    op.execute("SET LOCAL lock_timeout = '30s'")
    op.add_column(
        "documents",
        sa.Column(
            "compacted_version", sa.BigInteger(), server_default=sa.text("0"), nullable=False
        ),
    )
    op.create_check_constraint(
        op.f("documents_compacted_not_ahead_check"), "documents", "compacted_version <= version"
    )
    op.add_column(
        "document_updates",
        sa.Column("edits", sa.Integer(), server_default=sa.text("1"), nullable=False),
    )
    op.add_column("document_updates", sa.Column("undoes", sa.ARRAY(sa.BigInteger()), nullable=True))
    op.create_check_constraint(
        op.f("document_updates_edits_check"), "document_updates", "edits >= 1"
    )
    op.drop_constraint(op.f("document_updates_origin_check"), "document_updates")
    op.create_check_constraint(op.f("document_updates_origin_check"), "document_updates", _NEW)
    op.create_table(
        "document_versions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("name <> ''", name=op.f("document_versions_name_not_empty_check")),
        sa.ForeignKeyConstraint(
            ["document_id"],
            ["documents.id"],
            name=op.f("document_versions_document_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["actor_id"], ["users.id"], name=op.f("document_versions_actor_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("document_versions_pkey")),
        sa.UniqueConstraint(
            "document_id", "name", name=op.f("document_versions_document_id_name_key")
        ),
    )
    op.create_table(
        "document_forks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("synchronize", sa.Boolean(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["document_id"],
            ["documents.id"],
            name=op.f("document_forks_document_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["actor_id"], ["users.id"], name=op.f("document_forks_actor_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("document_forks_pkey")),
    )
    op.create_index(op.f("document_forks_document_id_idx"), "document_forks", ["document_id"])
    op.create_table(
        "collaboration_session",
        sa.Column("single", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.CheckConstraint("single", name=op.f("collaboration_session_single_check")),
        sa.PrimaryKeyConstraint("single", name=op.f("collaboration_session_pkey")),
    )
    op.create_table(
        "text_contents",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["id"], ["documents.id"], name=op.f("text_contents_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("text_contents_pkey")),
    )
    op.execute(_POLICIES)
    op.execute(_WATCHED)


def downgrade():
    for table in ("text_contents", "document_versions", "document_forks"):
        op.execute(f"SELECT datastore_unwatch('{table}')")
    op.drop_table("text_contents")
    op.drop_table("collaboration_session")
    op.drop_table("document_forks")
    op.drop_table("document_versions")
    # Text files have no documents in the former schema; their files are on disk.
    op.execute("DELETE FROM documents WHERE type = 'file'")
    op.execute(
        "UPDATE document_updates SET origin = 'api'"
        " WHERE origin IN ('undo', 'redo', 'restore', 'save')"
    )
    op.drop_constraint(op.f("document_updates_origin_check"), "document_updates")
    op.create_check_constraint(op.f("document_updates_origin_check"), "document_updates", _OLD)
    op.drop_constraint(op.f("document_updates_edits_check"), "document_updates")
    op.drop_column("document_updates", "undoes")
    op.drop_column("document_updates", "edits")
    op.drop_constraint(op.f("documents_compacted_not_ahead_check"), "documents")
    op.drop_column("documents", "compacted_version")
    op.execute(_WATCHED_BEFORE)
