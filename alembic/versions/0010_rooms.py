"""Text documents, named versions, forks, the rooms' session, compaction

Why: people edit notebooks and text files together, look at and restore what was, and browsers
that come back after a restart find the session that they left. Fast on any database: the new
columns have constant defaults.

Revision ID: 0010
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op


revision = "0010"
down_revision = "0005"
branch_labels = None
depends_on = None

_OLD = "origin IN ('load', 'api', 'execution', 'disk', 'room')"
_NEW = "origin IN ('load', 'api', 'execution', 'disk', 'room', 'undo', 'redo', 'restore', 'save')"


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


def downgrade():
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
    op.drop_column("document_updates", "edits")
    op.drop_constraint(op.f("documents_compacted_not_ahead_check"), "documents")
    op.drop_column("documents", "compacted_version")
