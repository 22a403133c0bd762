"""Comms with state

Why: a reader gets a comm's current state without replaying its messages, clients' messages are
recorded beside the kernel's, and what a comm's callback printed says which comm it was. The new
columns have constant defaults, so no table is rewritten.

Revision ID: 0004
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0002"
branch_labels = None
depends_on = None

COUNTERS = ("last_message_id", "dropped_through", "bytes_kept")


def upgrade():
    op.add_column(
        "comm_messages",
        sa.Column("direction", sa.Text(), server_default=sa.text("'kernel'"), nullable=False),
    )
    op.add_column("comm_messages", sa.Column("actor_id", sa.Uuid(), nullable=True))
    op.add_column("comm_messages", sa.Column("msg_id", sa.Text(), nullable=True))
    op.add_column(
        "comm_messages",
        sa.Column("size_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.create_check_constraint(
        op.f("comm_messages_direction_check"),
        "comm_messages",
        "direction IN ('kernel', 'client')",
    )
    op.create_foreign_key(
        op.f("comm_messages_actor_id_fkey"), "comm_messages", "users", ["actor_id"], ["id"]
    )
    op.add_column("comms", sa.Column("reason", sa.Text(), nullable=True))
    for name in ("data", "metadata"):
        kind = postgresql.JSONB(none_as_null=True)
        default = sa.text("'{}'::jsonb")
        op.add_column("comms", sa.Column(name, kind, server_default=default, nullable=False))
    op.add_column(
        "comms",
        sa.Column(
            "buffers",
            postgresql.ARRAY(sa.LargeBinary()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
    )
    for name in COUNTERS:
        kind = sa.BigInteger()
        op.add_column("comms", sa.Column(name, kind, server_default=sa.text("0"), nullable=False))
    op.add_column(
        "comms",
        sa.Column("messages_kept", sa.Integer(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column("outputs", sa.Column("comm_id", sa.Text(), nullable=True))
    op.create_index(
        "outputs_comm_id_idx",
        "outputs",
        ["kernel_id", "comm_id"],
        unique=False,
        postgresql_where=sa.text("comm_id IS NOT NULL"),
    )
    # Comms that are open now begin with what they were opened with.
    op.execute(
        """
UPDATE comms c
SET data = opened.data, metadata = opened.metadata, buffers = opened.buffers,
    last_message_id = kept.last, messages_kept = kept.messages
FROM (SELECT DISTINCT ON (comm_id) comm_id, data, metadata, buffers
      FROM comm_messages WHERE msg_type = 'comm_open' ORDER BY comm_id, id DESC) opened,
     (SELECT comm_id, max(id) AS last, count(*) AS messages
      FROM comm_messages GROUP BY comm_id) kept
WHERE c.state = 'open' AND opened.comm_id = c.id AND kept.comm_id = c.id
"""
    )


def downgrade():
    op.drop_index(
        "outputs_comm_id_idx",
        table_name="outputs",
        postgresql_where=sa.text("comm_id IS NOT NULL"),
    )
    op.drop_column("outputs", "comm_id")
    for name in ("messages_kept", *COUNTERS, "buffers", "metadata", "data", "reason"):
        op.drop_column("comms", name)
    op.drop_constraint(op.f("comm_messages_actor_id_fkey"), "comm_messages", type_="foreignkey")
    # Without the direction a client's message would pass for the kernel's.
    op.execute("DELETE FROM comm_messages WHERE direction = 'client'")
    for name in ("size_bytes", "msg_id", "actor_id", "direction"):
        op.drop_column("comm_messages", name)
