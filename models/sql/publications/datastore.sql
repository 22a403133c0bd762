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
