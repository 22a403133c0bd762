-- What the roles may do at all; the policies say to which rows. A table that is not named here is
-- closed to both: whoever adds one grants it, and gives it policies.
GRANT USAGE ON SCHEMA public TO datastore_request, datastore_analyst;
GRANT USAGE ON SCHEMA analytics TO datastore_request, datastore_analyst;
GRANT SELECT ON
    users, groups, group_members, tokens, permissions, share_links, audit, server_status,
    kernelspecs, kernels, sessions, contents, checkpoints, documents, document_updates,
    document_snapshots, notebooks, cells, executions, outputs, input_requests, comms,
    comm_messages, terminals, config_sections, idempotency_keys, execution_history
    TO datastore_request;
GRANT UPDATE (full_name, display_name, initials, avatar_url, color) ON users TO datastore_request;
GRANT INSERT, UPDATE, DELETE ON cells, config_sections TO datastore_request;
GRANT INSERT, UPDATE ON notebooks TO datastore_request;
GRANT INSERT, DELETE ON document_snapshots TO datastore_request;
GRANT INSERT ON document_updates, outputs, kernels, sessions TO datastore_request;
GRANT UPDATE (version) ON documents TO datastore_request;
GRANT UPDATE (path, name, type, kernel_id, document_id) ON sessions TO datastore_request;
GRANT UPDATE (status, value, answered_by_id, answered_at) ON input_requests TO datastore_request;
GRANT INSERT ON executions, idempotency_keys, terminals TO datastore_request;

-- No secret and no key: not `tokens`, not `connection_info`, nor what somebody typed.
GRANT SELECT ON
    users, groups, group_members, kernelspecs, sessions, contents, checkpoints, documents,
    notebooks, cells, executions, outputs, comms, execution_history
    TO datastore_analyst;
GRANT SELECT (id, name, path, execution_state, reason, incarnation, connections, owner_id,
    server_id, created_at, last_activity, ended_at) ON kernels TO datastore_analyst;
GRANT SELECT (id, execution_id, kernel_id, msg_id, prompt, password, status, answered_by_id,
    created_at, answered_at) ON input_requests TO datastore_analyst;
GRANT SELECT ON ALL TABLES IN SCHEMA analytics TO datastore_request, datastore_analyst;
ALTER DEFAULT PRIVILEGES IN SCHEMA analytics
    GRANT SELECT ON TABLES TO datastore_request, datastore_analyst;

-- What tells of others is not for people's own logins; what the policies call is for all.
REVOKE ALL ON FUNCTION datastore_may(uuid, text, text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION datastore_scope(uuid, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION datastore_shared_kernels(uuid, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION datastore_grants(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION datastore_audit(text, jsonb, uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION datastore_create_login(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION datastore_drop_login(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION datastore_detach_outputs(bigint[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION datastore_may(uuid, text, text, text) TO datastore_request;
GRANT EXECUTE ON FUNCTION datastore_detach_outputs(bigint[]) TO datastore_request;

-- The server's own role adds to the audit and reads it, and no more.
DO $$
BEGIN
    EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON audit FROM %I', current_user);
END
$$;
