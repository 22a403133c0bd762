-- The partitions that a new database begins with. Ids of other versions than 7 (executions that were
-- recorded before the tables were partitioned) have partitions of their own; so have outputs that
-- no period's end removes, because a file brought them or a cell still shows them.
SELECT datastore_make_partition(
    'executions', 'before', NULL, datastore_id_at(date_trunc('month', now(), 'UTC'))::text);
SELECT datastore_make_partition(
    'executions', 'unordered', '05000000-0000-0000-0000-000000000000', NULL);
SELECT datastore_make_partition(
    'outputs', 'kept', NULL, '00000000-0000-0000-0000-000000000001');
SELECT datastore_make_partition(
    'outputs', 'before', '00000000-0000-0000-0000-000000000001',
    datastore_id_at(date_trunc('month', now(), 'UTC'))::text);
SELECT datastore_make_partition(
    'outputs', 'unordered', '05000000-0000-0000-0000-000000000000', NULL);
SELECT datastore_make_next_partition('executions', 'month') FROM generate_series(1, 3);
