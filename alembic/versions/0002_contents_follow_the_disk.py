"""Contents follow the disk

Why: rows of contents know their folder, the file they were (to tell a rename that another program
made), and that they vanished; checkpoints are rows. All new columns are nullable, so nothing is
rewritten; rows from before get their folder when it is next listed.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade():
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.add_column("contents", sa.Column("parent_id", sa.Uuid(), nullable=True))
    op.add_column("contents", sa.Column("file_key", sa.Text(), nullable=True))
    op.add_column("contents", sa.Column("missing_since", sa.DateTime(timezone=True), nullable=True))
    op.create_foreign_key(
        op.f("contents_parent_id_fkey"),
        "contents",
        "contents",
        ["parent_id"],
        ["id"],
        ondelete="SET NULL",
    )
    op.create_check_constraint(
        op.f("contents_root_has_no_parent_check"), "contents", "parent_id IS NULL OR path <> ''"
    )
    op.create_index(op.f("contents_parent_id_idx"), "contents", ["parent_id"])
    op.create_index(
        "contents_file_key_idx",
        "contents",
        ["file_key"],
        postgresql_where=sa.text("file_key IS NOT NULL"),
    )
    op.create_index(
        "contents_missing_idx",
        "contents",
        ["missing_since"],
        postgresql_where=sa.text("missing_since IS NOT NULL"),
    )
    op.create_table(
        "checkpoints",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("content_id", sa.Uuid(), nullable=False),
        sa.Column("checkpoint_id", sa.Text(), nullable=False),
        sa.Column("last_modified", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["content_id"],
            ["contents.id"],
            name=op.f("checkpoints_content_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("checkpoints_pkey")),
        sa.UniqueConstraint(
            "content_id", "checkpoint_id", name=op.f("checkpoints_content_id_checkpoint_id_key")
        ),
    )


def downgrade():
    op.drop_table("checkpoints")
    op.drop_index("contents_missing_idx", table_name="contents")
    op.drop_index("contents_file_key_idx", table_name="contents")
    op.drop_index(op.f("contents_parent_id_idx"), table_name="contents")
    op.drop_constraint(op.f("contents_root_has_no_parent_check"), "contents", type_="check")
    op.drop_constraint(op.f("contents_parent_id_fkey"), "contents", type_="foreignkey")
    op.drop_column("contents", "missing_since")
    op.drop_column("contents", "file_key")
    op.drop_column("contents", "parent_id")
