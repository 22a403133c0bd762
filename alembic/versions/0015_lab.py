"""Tables of JupyterLab's settings and workspaces

Why: `/lab/api/settings` and `/lab/api/workspaces` answer from rows of each person.

Revision ID: 0015
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql


revision = "0015"
down_revision = "0010"
branch_labels = None
depends_on = None


_POLICIES = """
ALTER TABLE lab_settings ENABLE ROW LEVEL SECURITY;
ALTER TABLE lab_workspaces ENABLE ROW LEVEL SECURITY;
CREATE POLICY lab_settings_own ON lab_settings
    USING (user_id = (SELECT datastore_current_user_id()));
CREATE POLICY lab_workspaces_own ON lab_workspaces
    USING (user_id = (SELECT datastore_current_user_id()));
GRANT SELECT, INSERT, UPDATE, DELETE ON lab_settings, lab_workspaces TO datastore_request;
"""
# Of models/sql/triggers/watched.sql.
_WATCHED = """
SELECT datastore_watch('lab_settings', '{schema_id, user_id}', id => '{user_id, schema_id}');
SELECT datastore_watch('lab_workspaces', '{name, user_id}', id => '{user_id, name}');
"""


def _json(name):
    return sa.Column(
        name, postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False
    )


def _time(name):
    return sa.Column(
        name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
    )


def upgrade():
    op.create_table(
        "lab_settings",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("schema_id", sa.Text(), nullable=False),
        sa.Column("raw", sa.Text(), nullable=False),
        _json("settings"),
        _time("created_at"),
        _time("last_modified"),
        sa.CheckConstraint(
            "jsonb_typeof(settings) = 'object'", name=op.f("lab_settings_settings_is_object_check")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("lab_settings_user_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "schema_id", name=op.f("lab_settings_pkey")),
    )
    op.create_table(
        "lab_workspaces",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        _json("data"),
        _json("metadata"),
        _time("created_at"),
        _time("last_modified"),
        sa.CheckConstraint("name <> ''", name=op.f("lab_workspaces_name_not_empty_check")),
        sa.CheckConstraint(
            "jsonb_typeof(data) = 'object'", name=op.f("lab_workspaces_data_is_object_check")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("lab_workspaces_user_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "name", name=op.f("lab_workspaces_pkey")),
    )
    op.execute(_POLICIES)
    op.execute(_WATCHED)


def downgrade():
    op.execute("SELECT datastore_unwatch('lab_workspaces')")
    op.execute("SELECT datastore_unwatch('lab_settings')")
    op.drop_table("lab_workspaces")
    op.drop_table("lab_settings")
