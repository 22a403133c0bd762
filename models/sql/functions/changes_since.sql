-- The changes that have become visible since a position, with the snapshot of this statement; at
-- least one row, with nulls when there is none. At most `max_rows` + 1, of which the last is too many.
--
-- `last_xid` is the largest transaction id in the log at that position. What is above it is new whatever
-- the snapshot says: after a crash PostgreSQL may give out again ids of transactions that had
-- written nothing, which the old snapshot takes for ended. Ids below the snapshot's xmax are new if they
-- were running then; these are looked up one by one, so that one that runs for hours costs nothing.
--
-- By the index always: a day's partition is new and has no statistics, without which it would be read
-- whole, again and again, until it is analyzed.
CREATE OR REPLACE FUNCTION datastore_changes_since(
    previous pg_snapshot, previous_xid xid8, max_rows integer
) RETURNS TABLE (
    snapshot text, xid text, id bigint, at timestamptz, table_name text, op text, record_id text,
    columns text[], keys text
)
LANGUAGE sql STABLE
SET enable_seqscan = off
AS $$
    SELECT pg_current_snapshot()::text, c.xid::text, c.id, c.at, c.table_name, c.op, c.record_id,
           c.columns, c.keys::text
    FROM (SELECT) AS always
    LEFT JOIN (
        SELECT * FROM (
            SELECT n.* FROM changes n
            WHERE n.xid >= least(pg_snapshot_xmax(previous), previous_xid)
              AND (n.xid > previous_xid OR NOT pg_visible_in_snapshot(n.xid, previous))
            UNION ALL
            SELECT r.* FROM changes r
            WHERE r.xid = ANY (ARRAY(SELECT pg_snapshot_xip(previous)))
              AND r.xid < least(pg_snapshot_xmax(previous), previous_xid)
        ) AS found
        ORDER BY found.xid, found.id
        LIMIT max_rows + 1
    ) AS c ON true
    ORDER BY c.xid, c.id
$$;
