"""Executions have one index by their document

Why: since 0095 there is one by (document_id, seq), which finds what the one by document_id alone does;
each index is written three times for an execution. Locks the table for a moment.

Revision ID: 0097
Revises: 0096
"""

from alembic import op

revision = "0097"
down_revision = "0096"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the index from all partitions."""
    # A migration waits rather for the next attempt than with the whole service behind it.
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute("DROP INDEX executions_document_id_idx")


def downgrade() -> None:
    """Make it again; writers wait meanwhile."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute("CREATE INDEX executions_document_id_idx ON executions (document_id)")
