-- The changes of these tables that have become visible since a position, with the snapshot of this
-- statement and the newest change in it, of any table (xid 0: there is none); at least one row, with
-- nulls when there is no change. What empties a table is always among them. At most `max_records`
-- records, and the rest of the row that has the last one and one row more, which are too many.
--
-- `last_xid` is the largest transaction id in the log at that position. What is above it is new whatever
-- the snapshot says: after a crash PostgreSQL may give out again ids of transactions that had
-- written nothing, which the old snapshot takes for ended. Ids below the snapshot's xmax are new if they
-- were running then; these are looked up one by one, so that one that runs for hours costs nothing.
--
-- By the index always: a day's partition is new and has no statistics, without which it would be read
-- whole, again and again, until it is analyzed.
CREATE OR REPLACE FUNCTION datastore_changes_since(
    previous pg_snapshot, previous_xid xid8, max_records integer, tables text[]
) RETURNS TABLE (
    snapshot text, last_xid text, last_id bigint, last_at timestamptz, xid text, id bigint,
    table_name text, op text, record_ids text[], columns text[], keys text[]
)
LANGUAGE sql STABLE
SET enable_seqscan = off
AS $$
    SELECT pg_current_snapshot()::text, coalesce(l.xid::text, '0'), coalesce(l.id, 0), l.at,
           c.xid::text, c.id, c.table_name, c.op, c.record_ids, c.columns, c.keys::text[]
    FROM (SELECT) AS always
    LEFT JOIN (SELECT * FROM changes ORDER BY xid DESC, id DESC LIMIT 1) AS l ON true
    LEFT JOIN (
        SELECT limited.*, sum(cardinality(limited.record_ids)) OVER (ORDER BY limited.xid, limited.id)
                          - cardinality(limited.record_ids) AS before
        FROM (
            SELECT * FROM (
                SELECT n.* FROM changes n
                WHERE n.xid >= least(pg_snapshot_xmax(previous), previous_xid)
                  AND (n.xid > previous_xid OR NOT pg_visible_in_snapshot(n.xid, previous))
                  AND (n.table_name = ANY (tables) OR n.op = 'T')
                UNION ALL
                SELECT r.* FROM changes r
                WHERE r.xid = ANY (ARRAY(SELECT pg_snapshot_xip(previous)))
                  AND r.xid < least(pg_snapshot_xmax(previous), previous_xid)
                  AND (r.table_name = ANY (tables) OR r.op = 'T')
            ) AS found
            ORDER BY found.xid, found.id
            LIMIT max_records + 1
        ) AS limited
    ) AS c ON c.before <= max_records
    ORDER BY c.xid, c.id
$$;
