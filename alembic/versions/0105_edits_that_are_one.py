"""An update that is one edit does not say so

Why: each keystroke is a row of document_updates, and what a row says that all others say too is
stored a thousand times. Null is one; rows that there are stay as they are.

Revision ID: 0105
Revises: 0095
"""

from alembic import op

revision = "0105"
down_revision = "0095"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let the count be null."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(
        "ALTER TABLE document_updates ALTER COLUMN edits DROP DEFAULT,"
        " ALTER COLUMN edits DROP NOT NULL"
    )


def downgrade() -> None:
    """Write it in every row; editors wait meanwhile."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute("UPDATE document_updates SET edits = 1 WHERE edits IS NULL")
    op.execute(
        "ALTER TABLE document_updates ALTER COLUMN edits SET DEFAULT 1,"
        " ALTER COLUMN edits SET NOT NULL"
    )
