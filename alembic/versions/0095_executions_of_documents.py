"""Executions are found by their document

Why: whoever may see few of many executions had the whole history read backwards for a list of
theirs. Adds an index; writers wait while it is made (some seconds for a million executions).

Revision ID: 0095
Revises: 0091
"""

from alembic import op

revision = "0095"
down_revision = "0091"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index to all partitions."""
    # A migration waits rather for the next attempt than with the whole service behind it.
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(
        "CREATE INDEX executions_document_id_seq_idx ON executions (document_id, seq) "
        "WHERE document_id IS NOT NULL"
    )


def downgrade() -> None:
    """Drop it."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute("DROP INDEX executions_document_id_seq_idx")
