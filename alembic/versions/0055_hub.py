"""JupyterHub: who a user and a group are there, and when a token was last confirmed by the hub

Why: the hub's users and groups keep their rows when they are renamed on either side, groups that
were made here are told from the hub's, and a confirmation by the hub is good for all processes for
as long as the setting says. Adds columns that are null in every row that there is.

Revision ID: 0055
Revises: 0040
"""

import sqlalchemy as sa
from alembic import op

revision = "0055"
down_revision = "0040"
branch_labels = None
depends_on = None


def set_timeouts():
    # A migration waits rather for the next attempt than with the whole service behind it.
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute("SET LOCAL statement_timeout = '5min'")


def upgrade():
    set_timeouts()
    op.add_column("users", sa.Column("hub_name", sa.Text(), nullable=True))
    op.create_unique_constraint(op.f("users_hub_name_key"), "users", ["hub_name"])
    op.add_column("groups", sa.Column("hub_name", sa.Text(), nullable=True))
    op.create_unique_constraint(op.f("groups_hub_name_key"), "groups", ["hub_name"])
    op.add_column("tokens", sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True))
    op.drop_constraint(op.f("tokens_kind_check"), "tokens", type_="check")
    op.create_check_constraint(
        op.f("tokens_kind_check"),
        "tokens",
        "kind IN ('token', 'login') AND checked_at IS NULL "
        "OR kind = 'hub' AND checked_at IS NOT NULL",
    )


def downgrade():
    set_timeouts()
    op.execute("DELETE FROM tokens WHERE kind = 'hub'")
    op.drop_constraint(op.f("tokens_kind_check"), "tokens", type_="check")
    op.create_check_constraint(op.f("tokens_kind_check"), "tokens", "kind IN ('token', 'login')")
    op.drop_column("tokens", "checked_at")
    op.drop_constraint(op.f("groups_hub_name_key"), "groups", type_="unique")
    op.drop_column("groups", "hub_name")
    op.drop_constraint(op.f("users_hub_name_key"), "users", type_="unique")
    op.drop_column("users", "hub_name")
