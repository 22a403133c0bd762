"""Tables of terminals and frontend settings; identity columns of users

Why: `/api/terminals`, `/api/config` and `/api/me` answer from rows.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql


revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "config_sections",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "data", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "jsonb_typeof(data) = 'object'", name=op.f("config_sections_data_is_object_check")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("config_sections_user_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "name", name=op.f("config_sections_pkey")),
    )
    op.create_table(
        "terminals",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("server_id", sa.Uuid(), nullable=True),
        sa.Column("cwd", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "last_activity",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("name <> ''", name=op.f("terminals_name_not_empty_check")),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name=op.f("terminals_owner_id_fkey")),
        sa.ForeignKeyConstraint(
            ["server_id"],
            ["server_status.id"],
            name=op.f("terminals_server_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("terminals_pkey")),
    )
    op.create_index(
        "terminals_living_name_key",
        "terminals",
        ["name"],
        unique=True,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.add_column("users", sa.Column("full_name", sa.Text(), nullable=True))
    op.add_column("users", sa.Column("initials", sa.Text(), nullable=True))
    op.add_column("users", sa.Column("avatar_url", sa.Text(), nullable=True))
    op.add_column("users", sa.Column("color", sa.Text(), nullable=True))


def downgrade():
    op.drop_column("users", "color")
    op.drop_column("users", "avatar_url")
    op.drop_column("users", "initials")
    op.drop_column("users", "full_name")
    op.drop_index(
        "terminals_living_name_key",
        table_name="terminals",
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.drop_table("terminals")
    op.drop_table("config_sections")
