"""What replicas and the stream receive: the publication; room in hot tables

Why: `jupyter-datastore replica` and `stream` read one publication, whose column lists and row filter
keep secrets in. A column that is not published must have a default or be nullable on the replica,
hence the default of `kernelspecs.spec`. Fill factors and vacuum thresholds apply to pages and
vacuums to come; no table is rewritten.

Revision ID: 0040
Revises: 0031
"""

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0031"
branch_labels = None
depends_on = None

# The SQL files under models/sql as they were at this revision.
SQL = [
    # policies/replicas.sql
    """
-- Addresses of databases are the server's own business: no role that was merely granted SELECT sees
-- a row.
ALTER TABLE replicas ENABLE ROW LEVEL SECURITY;
""",
    # publications/datastore.sql
    """
-- What leaves this database, for replicas and `jupyter-datastore stream`. models/publication.py
-- declares it and says why the rest is withheld; a test holds the two together.
--
-- A row filter may read only columns of the replica identity, so that of input_requests has
-- `password` in it.
ALTER TABLE input_requests REPLICA IDENTITY USING INDEX input_requests_replica_key;
-- Their keys have columns that may be null; then no column list is possible.
ALTER TABLE analytics.rollup_cells REPLICA IDENTITY FULL;
ALTER TABLE analytics.rollup_days REPLICA IDENTITY FULL;
ALTER TABLE analytics.rollup_errors REPLICA IDENTITY FULL;
ALTER TABLE analytics.rollup_hours REPLICA IDENTITY FULL;

DROP PUBLICATION IF EXISTS datastore;
CREATE PUBLICATION datastore FOR TABLE
    analytics.rollup_cells,
    analytics.rollup_days,
    analytics.rollup_errors,
    analytics.rollup_hours,
    analytics.rollup_kernels (
        kernel_id, day, executions, busy_seconds
    ),
    cells (
        id, notebook_id, cell_id, position, cell_type, source, version, metadata,
        attachments, extra, execution_count, execution_state, execution_id
    ),
    contents (
        id, parent_id, path, name, type, format, mimetype, writable, size, created,
        last_modified, hash, hash_algorithm, file_key, missing_since
    ),
    documents (
        id, content_id, type, format, version, saved_version, saved_at, save_error,
        disk_hash, created_at
    ),
    executions (
        id, seq, kernel_id, incarnation, session_id, document_id, path, cell_id,
        cell_version, actor_id, run_as_id, client, msg_id, code, source_hash, silent,
        store_history, stop_on_error, allow_stdin, user_expressions, status, reason,
        execution_count, queued_at, started_at, finished_at, ename, evalue, traceback,
        reply, output_bytes
    ),
    group_members (
        group_id, user_id, created_at
    ),
    groups (
        id, name, created_at
    ),
    input_requests (
        id, execution_id, kernel_id, msg_id, prompt, password, status, answered_by_id,
        created_at, answered_at
    ) WHERE (NOT password),
    kernels (
        id, name, path, execution_state, reason, incarnation, connections, owner_id,
        server_id, pid, pid_started_at, kernel_info, recorded_batch, created_at,
        last_activity, ended_at
    ),
    kernelspecs (
        id, name, is_default, resources, refreshed_at
    ),
    notebooks (
        id, nbformat, nbformat_minor, metadata, extra
    ),
    outputs (
        id, partition_id, execution_id, seq, kernel_id, cell_id, output_type, name, text,
        data, metadata, execution_count, ename, evalue, traceback, extra, display_id,
        comm_id, size_bytes, created_at, updated_at, cleared_at
    ),
    permissions (
        id, subject, user_id, group_id, resource, content_id, kernel_id, actions,
        granted_by_id, share_link_id, created_at, expires_at
    ),
    server_status (
        id, hostname, pid, process_started_at, version, started_at, heartbeat_at, stopped_at
    ),
    sessions (
        id, path, name, type, kernel_id, document_id, owner_id, created_at, ended_at
    ),
    sql_roles (
        role_name, user_id, created_at
    ),
    users (
        id, name, full_name, display_name, initials, avatar_url, color, admin, home_id,
        home_path, created_at, disabled_at
    )
WITH (publish_via_partition_root = true);
""",
    # storage/hot_tables.sql
    """
-- Rows that are updated many times a minute: room on their pages for the next version, so that an
-- update touches no index, and vacuum after few dead rows, since the tables are small and read often.
ALTER TABLE kernels SET (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200
);
ALTER TABLE documents SET (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200
);
ALTER TABLE comms SET (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200
);
ALTER TABLE server_status SET (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200
);
ALTER TABLE cells SET (
    fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500
);
-- Messages come and go with their comms.
ALTER TABLE comm_messages SET (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000
);
""",
]

HOT_TABLES = ("kernels", "documents", "comms", "server_status", "cells", "comm_messages")


def upgrade():
    op.create_table(
        "replicas",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("name ~ '^[a-z0-9_]{1,40}$'", name=op.f("replicas_name_check")),
        sa.CheckConstraint(
            "target ~ '^postgresql://'", name=op.f("replicas_target_is_address_check")
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("replicas_pkey")),
        sa.UniqueConstraint("target", name=op.f("replicas_target_key")),
    )
    op.alter_column("kernelspecs", "spec", server_default=sa.text("'{}'::jsonb"))
    op.create_index("input_requests_replica_key", "input_requests", ["id", "password"], unique=True)
    for statements in SQL:
        op.execute(statements)


def downgrade():
    for table in HOT_TABLES:
        op.execute(
            f"ALTER TABLE {table} RESET (fillfactor, autovacuum_vacuum_scale_factor,"
            " autovacuum_vacuum_threshold)"
        )
    op.execute("DROP PUBLICATION datastore")
    op.execute("ALTER TABLE input_requests REPLICA IDENTITY DEFAULT")
    for table in ("cells", "days", "errors", "hours"):
        op.execute(f"ALTER TABLE analytics.rollup_{table} REPLICA IDENTITY DEFAULT")
    op.drop_index("input_requests_replica_key", table_name="input_requests")
    op.alter_column("kernelspecs", "spec", server_default=None)
    op.drop_table("replicas")
