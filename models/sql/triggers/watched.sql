-- The tables whose changes are logged, as the models' __feed__ says (tests/models/test_feed.py).
SELECT datastore_watch('cells', '{cell_id, execution_id, id, notebook_id}');
SELECT datastore_watch('checkpoints', '{content_id, id}');
SELECT datastore_watch('comm_messages', '{comm_id, execution_id, id}');
SELECT datastore_watch(
    'comms',
    '{comm_id, execution_id, id, kernel_id, state, target_name}',
    withheld => '{bytes_kept, messages_kept}'
);
SELECT datastore_watch('config_sections', '{name, user_id}', id => '{user_id, name}');
SELECT datastore_watch('contents', '{id, parent_id, path, type}', withheld => '{file_key}');
SELECT datastore_watch('document_forks', '{document_id, id}', withheld => '{state}');
SELECT datastore_watch('document_versions', '{document_id, id}', withheld => '{state}');
SELECT datastore_watch(
    'documents',
    '{content_id, id}',
    withheld => '{compacted_version, disk_base, disk_hash}'
);
SELECT datastore_watch(
    'executions',
    '{actor_id, cell_id, document_id, id, kernel_id, path, session_id, status}',
    withheld => '{idempotency_key}'
);
SELECT datastore_watch('group_members', '{group_id, user_id}', id => '{group_id, user_id}');
SELECT datastore_watch('groups', '{id, name}', withheld => '{hub_name}');
SELECT datastore_watch(
    'input_requests',
    '{execution_id, id, kernel_id, status}',
    withheld => '{value}'
);
SELECT datastore_watch(
    'kernels',
    '{id, name, owner_id, path, server_id}',
    withheld => '{connection_info, pid, pid_started_at, recorded_batch}'
);
SELECT datastore_watch('kernelspecs', '{id, name}', withheld => '{refreshed_at}');
SELECT datastore_watch('lab_settings', '{schema_id, user_id}', id => '{user_id, schema_id}');
SELECT datastore_watch('lab_workspaces', '{name, user_id}', id => '{user_id, name}');
SELECT datastore_watch('notebooks', '{id}');
SELECT datastore_watch(
    'outputs',
    '{cell_id, comm_id, execution_id, id, kernel_id}',
    withheld => '{partition_id}'
);
SELECT datastore_watch('presence', '{id, server_id, user_id}');
SELECT datastore_watch(
    'server_status',
    '{id}',
    withheld => '{heartbeat_at, pid, process_started_at}'
);
SELECT datastore_watch('sessions', '{document_id, id, kernel_id, owner_id, path, type}');
SELECT datastore_watch('terminals', '{id, name, owner_id, server_id}', withheld => '{cwd}');
SELECT datastore_watch('text_contents', '{id}');
SELECT datastore_watch('users', '{id, name}', withheld => '{home_id, home_path, hub_name}');
