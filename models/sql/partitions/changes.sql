-- The change log's first days. What is of no period (nobody made one in time, or the clock is wrong)
-- is in the default partition, so that no writer is ever refused.
CREATE TABLE partitions.changes_default PARTITION OF changes DEFAULT;
ALTER TABLE partitions.changes_default ENABLE ROW LEVEL SECURITY;
SELECT datastore_make_next_partition('changes', 'day') FROM generate_series(1, 3);
