"""Tables of the first issue

Why: everything that the first whole path needs: people and tokens, server processes, kernels and
sessions, contents and documents, notebooks and cells, executions and what they said.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# The SQL files under models/sql as they were at this revision.
SQL = [
    # functions/current_user_id.sql
    """
-- The person a connection acts for: the setting `datastore.user_id`, or null. A setting that was
-- set in an earlier transaction of a pooled connection reads back as '', which is nobody too.
CREATE OR REPLACE FUNCTION datastore_current_user_id() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('datastore.user_id', true), '')::uuid;
""",
    # functions/executions_final.sql
    """
-- A finished execution stays what it was: a late message, a second server or a script must not turn
-- "interrupted" into "ok" or run it again.
CREATE OR REPLACE FUNCTION executions_final() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'execution % has finished as %', OLD.id, OLD.status
        USING ERRCODE = 'check_violation', CONSTRAINT = 'executions_final';
END
$$;
""",
    # functions/input_requests_once.sql
    """
-- An answer is given once: whoever comes second finds the request closed.
CREATE OR REPLACE FUNCTION input_requests_once() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'input request % is already %', OLD.id, OLD.status
        USING ERRCODE = 'check_violation', CONSTRAINT = 'input_requests_once';
END
$$;
""",
    # functions/outputs_append_only.sql
    """
-- What a kernel said is not rewritten; only a display may be updated, and an output shown or cleared.
CREATE OR REPLACE FUNCTION outputs_append_only() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'output % can only be appended', OLD.id
        USING ERRCODE = 'check_violation', CONSTRAINT = 'outputs_append_only';
END
$$;
""",
    # triggers/executions_final.sql
    """
CREATE OR REPLACE TRIGGER executions_final
BEFORE UPDATE ON executions FOR EACH ROW
WHEN (OLD.finished_at IS NOT NULL AND NEW.status IS DISTINCT FROM OLD.status)
EXECUTE FUNCTION executions_final();
""",
    # triggers/input_requests_once.sql
    """
CREATE OR REPLACE TRIGGER input_requests_once
BEFORE UPDATE ON input_requests FOR EACH ROW
WHEN (OLD.status <> 'pending')
EXECUTE FUNCTION input_requests_once();
""",
    # triggers/outputs_append_only.sql
    """
CREATE OR REPLACE TRIGGER outputs_append_only
BEFORE UPDATE ON outputs FOR EACH ROW
WHEN (ROW(NEW.execution_id, NEW.seq, NEW.output_type, NEW.name, NEW.text)
      IS DISTINCT FROM ROW(OLD.execution_id, OLD.seq, OLD.output_type, OLD.name, OLD.text))
EXECUTE FUNCTION outputs_append_only();
""",
    # views/execution_history.sql
    """
-- Who ran what, when, for how long and with which result; newest last. Times in seconds.
CREATE OR REPLACE VIEW execution_history WITH (security_invoker = true) AS
SELECT
    e.id AS execution_id,
    e.queued_at,
    actor.name AS actor,
    run_as.name AS run_as,
    e.path AS notebook_path,
    e.cell_id AS cell,
    k.name AS kernel_name,
    e.kernel_id,
    e.client,
    e.code,
    e.status,
    e.reason,
    e.execution_count,
    e.started_at,
    e.finished_at,
    extract(epoch FROM coalesce(e.started_at, e.finished_at) - e.queued_at)::double precision
        AS queue_seconds,
    extract(epoch FROM e.finished_at - e.started_at)::double precision AS run_seconds,
    e.ename AS error_name,
    e.evalue AS error_value,
    e.output_bytes
FROM executions e
JOIN kernels k ON k.id = e.kernel_id
LEFT JOIN users actor ON actor.id = e.actor_id
JOIN users run_as ON run_as.id = e.run_as_id
ORDER BY e.queued_at, e.seq;
""",
    # policies/own_rows.sql
    """
-- Default deny for every role but the server's own: a login that is merely granted SELECT sees its
-- own rows of these tables and nothing of the others, whatever a query forgets to filter.
ALTER TABLE users ENABLE ROW LEVEL SECURITY;
ALTER TABLE tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE kernels ENABLE ROW LEVEL SECURITY;
ALTER TABLE executions ENABLE ROW LEVEL SECURITY;
ALTER TABLE outputs ENABLE ROW LEVEL SECURITY;
ALTER TABLE input_requests ENABLE ROW LEVEL SECURITY;

DROP POLICY IF EXISTS users_self ON users;
CREATE POLICY users_self ON users USING (id = datastore_current_user_id());

DROP POLICY IF EXISTS tokens_own ON tokens;
CREATE POLICY tokens_own ON tokens USING (user_id = datastore_current_user_id());

DROP POLICY IF EXISTS kernels_own ON kernels;
CREATE POLICY kernels_own ON kernels USING (owner_id = datastore_current_user_id());

DROP POLICY IF EXISTS executions_own ON executions;
CREATE POLICY executions_own ON executions
    USING (datastore_current_user_id() IN (actor_id, run_as_id));

DROP POLICY IF EXISTS outputs_own ON outputs;
CREATE POLICY outputs_own ON outputs
    USING (EXISTS (SELECT FROM executions e WHERE e.id = outputs.execution_id));

DROP POLICY IF EXISTS input_requests_own ON input_requests;
CREATE POLICY input_requests_own ON input_requests
    USING (EXISTS (SELECT FROM executions e WHERE e.id = input_requests.execution_id));
""",
]


def upgrade():
    op.create_table(
        "contents",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=True),
        sa.Column("mimetype", sa.Text(), nullable=True),
        sa.Column("writable", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("created", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_modified", sa.DateTime(timezone=True), nullable=True),
        sa.Column("hash", sa.Text(), nullable=True),
        sa.Column("hash_algorithm", sa.Text(), nullable=True),
        sa.CheckConstraint("path NOT LIKE '/%'", name=op.f("contents_path_is_relative_check")),
        sa.CheckConstraint(
            "type IN ('notebook', 'file', 'directory')", name=op.f("contents_type_check")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("contents_pkey")),
        sa.UniqueConstraint("path", name=op.f("contents_path_key")),
    )
    op.create_table(
        "kernelspecs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("is_default", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "spec", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False
        ),
        sa.Column(
            "resources", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False
        ),
        sa.Column(
            "refreshed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("kernelspecs_pkey")),
        sa.UniqueConstraint("name", name=op.f("kernelspecs_name_key")),
    )
    op.create_table(
        "server_status",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("hostname", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("process_started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "heartbeat_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("server_status_pkey")),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=True),
        sa.Column("admin", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("name <> ''", name=op.f("users_name_not_empty_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("users_pkey")),
        sa.UniqueConstraint("name", name=op.f("users_name_key")),
    )
    op.create_table(
        "documents",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("content_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("saved_version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("saved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("save_error", sa.Text(), nullable=True),
        sa.Column("disk_hash", sa.Text(), nullable=True),
        sa.Column(
            "disk_base", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("type IN ('notebook', 'file')", name=op.f("documents_type_check")),
        sa.CheckConstraint(
            "saved_version <= version", name=op.f("documents_saved_not_ahead_check")
        ),
        sa.ForeignKeyConstraint(
            ["content_id"],
            ["contents.id"],
            name=op.f("documents_content_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("documents_pkey")),
        sa.UniqueConstraint("content_id", name=op.f("documents_content_id_key")),
    )
    op.create_index(
        "documents_unsaved_idx",
        "documents",
        ["id"],
        unique=False,
        postgresql_where=sa.text("saved_version < version"),
    )
    op.create_table(
        "kernels",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column(
            "execution_state", sa.Text(), server_default=sa.text("'starting'"), nullable=False
        ),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("incarnation", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("connections", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("server_id", sa.Uuid(), nullable=True),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("pid_started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "connection_info",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=True,
        ),
        sa.Column(
            "kernel_info", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("recorded_batch", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
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
        sa.CheckConstraint(
            "ended_at IS NULL OR execution_state = 'dead'", name=op.f("kernels_ended_is_dead_check")
        ),
        sa.CheckConstraint(
            "execution_state IN ('unknown', 'starting', 'idle', 'busy', 'terminating', 'restarting', 'autorestarting', 'dead')",
            name=op.f("kernels_execution_state_check"),
        ),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name=op.f("kernels_owner_id_fkey")),
        sa.ForeignKeyConstraint(
            ["server_id"],
            ["server_status.id"],
            name=op.f("kernels_server_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("kernels_pkey")),
    )
    op.create_index(
        "kernels_living_idx",
        "kernels",
        ["id"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("tokens_user_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("tokens_pkey")),
        sa.UniqueConstraint("hash", name=op.f("tokens_hash_key")),
    )
    op.create_table(
        "document_snapshots",
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["document_id"],
            ["documents.id"],
            name=op.f("document_snapshots_document_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("document_id", "version", name=op.f("document_snapshots_pkey")),
    )
    op.create_table(
        "document_updates",
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("update", sa.LargeBinary(), nullable=False),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "origin IN ('load', 'api', 'execution', 'disk', 'room')",
            name=op.f("document_updates_origin_check"),
        ),
        sa.ForeignKeyConstraint(
            ["actor_id"], ["users.id"], name=op.f("document_updates_actor_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["document_id"],
            ["documents.id"],
            name=op.f("document_updates_document_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("document_id", "version", name=op.f("document_updates_pkey")),
    )
    op.create_table(
        "notebooks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("nbformat", sa.Integer(), nullable=False),
        sa.Column("nbformat_minor", sa.Integer(), nullable=False),
        sa.Column(
            "metadata", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False
        ),
        sa.Column(
            "extra",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["id"], ["documents.id"], name=op.f("notebooks_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("notebooks_pkey")),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("kernel_id", sa.Text(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=True),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["document_id"],
            ["documents.id"],
            name=op.f("sessions_document_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["kernel_id"], ["kernels.id"], name=op.f("sessions_kernel_id_fkey")
        ),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name=op.f("sessions_owner_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("sessions_pkey")),
    )
    op.create_index(op.f("sessions_document_id_idx"), "sessions", ["document_id"], unique=False)
    op.create_index(op.f("sessions_kernel_id_idx"), "sessions", ["kernel_id"], unique=False)
    op.create_index(
        "sessions_living_path_idx",
        "sessions",
        ["path"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "executions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kernel_id", sa.Text(), nullable=False),
        sa.Column("incarnation", sa.Integer(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("document_id", sa.Uuid(), nullable=True),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("cell_id", sa.Text(), nullable=True),
        sa.Column("cell_version", sa.Integer(), nullable=True),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("run_as_id", sa.Uuid(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("msg_id", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("source_hash", sa.Text(), nullable=False),
        sa.Column("silent", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("store_history", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("stop_on_error", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("allow_stdin", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column(
            "user_expressions",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("status", sa.Text(), server_default=sa.text("'queued'"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("execution_count", sa.BigInteger(), nullable=True),
        sa.Column(
            "queued_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ename", sa.Text(), nullable=True),
        sa.Column("evalue", sa.Text(), nullable=True),
        sa.Column(
            "traceback", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column(
            "reply", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("output_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint(
            "(finished_at IS NULL) = (status IN ('queued', 'running'))",
            name=op.f("executions_finished_is_final_check"),
        ),
        sa.CheckConstraint(
            "status <> 'running' OR started_at IS NOT NULL",
            name=op.f("executions_running_has_started_check"),
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'ok', 'error', 'aborted', 'cancelled', 'interrupted')",
            name=op.f("executions_status_check"),
        ),
        sa.ForeignKeyConstraint(["actor_id"], ["users.id"], name=op.f("executions_actor_id_fkey")),
        sa.ForeignKeyConstraint(
            ["document_id"],
            ["documents.id"],
            name=op.f("executions_document_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["kernel_id"], ["kernels.id"], name=op.f("executions_kernel_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["run_as_id"], ["users.id"], name=op.f("executions_run_as_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["sessions.id"],
            name=op.f("executions_session_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("executions_pkey")),
        sa.UniqueConstraint("kernel_id", "msg_id", name=op.f("executions_kernel_id_msg_id_key")),
        sa.UniqueConstraint("seq", name=op.f("executions_seq_key")),
    )
    op.create_index("executions_actor_id_seq_idx", "executions", ["actor_id", "seq"], unique=False)
    op.create_index("executions_cell_id_seq_idx", "executions", ["cell_id", "seq"], unique=False)
    op.create_index(op.f("executions_document_id_idx"), "executions", ["document_id"], unique=False)
    op.create_index(
        "executions_idempotency_key_key",
        "executions",
        ["actor_id", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_index(
        "executions_kernel_id_seq_idx", "executions", ["kernel_id", "seq"], unique=False
    )
    op.create_index("executions_path_seq_idx", "executions", ["path", "seq"], unique=False)
    op.create_index("executions_queued_at_idx", "executions", ["queued_at"], unique=False)
    op.create_index(
        "executions_unfinished_idx",
        "executions",
        ["kernel_id", "seq"],
        unique=False,
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.create_table(
        "cells",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("notebook_id", sa.Uuid(), nullable=False),
        sa.Column("cell_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("cell_type", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column(
            "metadata", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False
        ),
        sa.Column(
            "attachments", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column(
            "extra",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("execution_count", sa.BigInteger(), nullable=True),
        sa.Column("execution_state", sa.Text(), server_default=sa.text("'idle'"), nullable=False),
        sa.Column("execution_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint(
            "cell_type IN ('code', 'markdown', 'raw')", name=op.f("cells_cell_type_check")
        ),
        sa.CheckConstraint("position >= 0", name=op.f("cells_position_check")),
        sa.CheckConstraint("version >= 1", name=op.f("cells_version_check")),
        sa.ForeignKeyConstraint(
            ["execution_id"],
            ["executions.id"],
            name=op.f("cells_execution_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["notebook_id"],
            ["notebooks.id"],
            name=op.f("cells_notebook_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("cells_pkey")),
        sa.UniqueConstraint("notebook_id", "cell_id", name=op.f("cells_notebook_id_cell_id_key")),
    )
    op.create_table(
        "comms",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kernel_id", sa.Text(), nullable=False),
        sa.Column("incarnation", sa.Integer(), nullable=False),
        sa.Column("comm_id", sa.Text(), nullable=False),
        sa.Column("target_name", sa.Text(), nullable=False),
        sa.Column("target_module", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("execution_id", sa.Uuid(), nullable=True),
        sa.Column(
            "opened_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'closed') = (closed_at IS NOT NULL)", name=op.f("comms_closed_has_time_check")
        ),
        sa.CheckConstraint("state IN ('open', 'closed')", name=op.f("comms_state_check")),
        sa.ForeignKeyConstraint(
            ["execution_id"],
            ["executions.id"],
            name=op.f("comms_execution_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(["kernel_id"], ["kernels.id"], name=op.f("comms_kernel_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("comms_pkey")),
        sa.UniqueConstraint("kernel_id", "comm_id", name=op.f("comms_kernel_id_comm_id_key")),
    )
    op.create_table(
        "input_requests",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("execution_id", sa.Uuid(), nullable=False),
        sa.Column("kernel_id", sa.Text(), nullable=False),
        sa.Column("msg_id", sa.Text(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("password", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("value", sa.Text(), nullable=True),
        sa.Column("answered_by_id", sa.Uuid(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'answered') = (answered_at IS NOT NULL)",
            name=op.f("input_requests_answered_has_time_check"),
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'answered', 'cancelled')",
            name=op.f("input_requests_status_check"),
        ),
        sa.CheckConstraint(
            "NOT password OR value IS NULL", name=op.f("input_requests_password_not_stored_check")
        ),
        sa.ForeignKeyConstraint(
            ["answered_by_id"], ["users.id"], name=op.f("input_requests_answered_by_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["execution_id"],
            ["executions.id"],
            name=op.f("input_requests_execution_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["kernel_id"], ["kernels.id"], name=op.f("input_requests_kernel_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("input_requests_pkey")),
    )
    op.create_index(
        op.f("input_requests_execution_id_idx"), "input_requests", ["execution_id"], unique=False
    )
    op.create_index(
        "input_requests_pending_idx",
        "input_requests",
        ["execution_id"],
        unique=False,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_table(
        "comm_messages",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("comm_id", sa.Uuid(), nullable=False),
        sa.Column("execution_id", sa.Uuid(), nullable=True),
        sa.Column("msg_type", sa.Text(), nullable=False),
        sa.Column(
            "data", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False
        ),
        sa.Column(
            "metadata", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False
        ),
        sa.Column(
            "buffers",
            postgresql.ARRAY(sa.LargeBinary()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "msg_type IN ('comm_open', 'comm_msg', 'comm_close')",
            name=op.f("comm_messages_msg_type_check"),
        ),
        sa.ForeignKeyConstraint(
            ["comm_id"], ["comms.id"], name=op.f("comm_messages_comm_id_fkey"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["execution_id"],
            ["executions.id"],
            name=op.f("comm_messages_execution_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("comm_messages_pkey")),
    )
    op.create_index(
        "comm_messages_comm_id_id_idx", "comm_messages", ["comm_id", "id"], unique=False
    )
    op.create_table(
        "outputs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("execution_id", sa.Uuid(), nullable=True),
        sa.Column("seq", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("kernel_id", sa.Text(), nullable=True),
        sa.Column("cell_id", sa.Uuid(), nullable=True),
        sa.Column("output_type", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column(
            "data", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column(
            "metadata", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("execution_count", sa.BigInteger(), nullable=True),
        sa.Column("ename", sa.Text(), nullable=True),
        sa.Column("evalue", sa.Text(), nullable=True),
        sa.Column(
            "traceback", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column(
            "extra", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("display_id", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cleared_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "output_type IN ('stream', 'display_data', 'execute_result', 'error', 'unknown')",
            name=op.f("outputs_output_type_check"),
        ),
        sa.CheckConstraint(
            "execution_id IS NOT NULL OR seq = 0", name=op.f("outputs_seq_is_of_execution_check")
        ),
        sa.ForeignKeyConstraint(
            ["cell_id"], ["cells.id"], name=op.f("outputs_cell_id_fkey"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["execution_id"],
            ["executions.id"],
            name=op.f("outputs_execution_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["kernel_id"], ["kernels.id"], name=op.f("outputs_kernel_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("outputs_pkey")),
    )
    op.create_index(
        "outputs_cell_id_idx",
        "outputs",
        ["cell_id", "id"],
        unique=False,
        postgresql_where=sa.text("cell_id IS NOT NULL"),
    )
    op.create_index(
        "outputs_display_id_idx",
        "outputs",
        ["kernel_id", "display_id"],
        unique=False,
        postgresql_where=sa.text("display_id IS NOT NULL"),
    )
    op.create_index(
        "outputs_execution_id_seq_key",
        "outputs",
        ["execution_id", "seq"],
        unique=True,
        postgresql_where=sa.text("execution_id IS NOT NULL"),
    )
    for statements in SQL:
        op.execute(sa.text(statements.replace(":", "\\:")))


def downgrade():
    op.execute("DROP VIEW execution_history")
    op.drop_index(
        "outputs_execution_id_seq_key",
        table_name="outputs",
        postgresql_where=sa.text("execution_id IS NOT NULL"),
    )
    op.drop_index(
        "outputs_display_id_idx",
        table_name="outputs",
        postgresql_where=sa.text("display_id IS NOT NULL"),
    )
    op.drop_index(
        "outputs_cell_id_idx", table_name="outputs", postgresql_where=sa.text("cell_id IS NOT NULL")
    )
    op.drop_table("outputs")
    op.drop_index("comm_messages_comm_id_id_idx", table_name="comm_messages")
    op.drop_table("comm_messages")
    op.drop_index(
        "input_requests_pending_idx",
        table_name="input_requests",
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.drop_index(op.f("input_requests_execution_id_idx"), table_name="input_requests")
    op.drop_table("input_requests")
    op.drop_table("comms")
    op.drop_table("cells")
    op.drop_index(
        "executions_unfinished_idx",
        table_name="executions",
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.drop_index("executions_queued_at_idx", table_name="executions")
    op.drop_index("executions_path_seq_idx", table_name="executions")
    op.drop_index("executions_kernel_id_seq_idx", table_name="executions")
    op.drop_index(
        "executions_idempotency_key_key",
        table_name="executions",
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.drop_index(op.f("executions_document_id_idx"), table_name="executions")
    op.drop_index("executions_cell_id_seq_idx", table_name="executions")
    op.drop_index("executions_actor_id_seq_idx", table_name="executions")
    op.drop_table("executions")
    op.drop_index(
        "sessions_living_path_idx",
        table_name="sessions",
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.drop_index(op.f("sessions_kernel_id_idx"), table_name="sessions")
    op.drop_index(op.f("sessions_document_id_idx"), table_name="sessions")
    op.drop_table("sessions")
    op.drop_table("notebooks")
    op.drop_table("document_updates")
    op.drop_table("document_snapshots")
    op.drop_table("tokens")
    op.drop_index(
        "kernels_living_idx", table_name="kernels", postgresql_where=sa.text("ended_at IS NULL")
    )
    op.drop_table("kernels")
    op.drop_index(
        "documents_unsaved_idx",
        table_name="documents",
        postgresql_where=sa.text("saved_version < version"),
    )
    op.drop_table("documents")
    op.drop_table("users")
    op.drop_table("server_status")
    op.drop_table("kernelspecs")
    op.drop_table("contents")
    for function in ("executions_final", "outputs_append_only", "input_requests_once"):
        op.execute(f"DROP FUNCTION {function}()")
    op.execute("DROP FUNCTION datastore_current_user_id()")
