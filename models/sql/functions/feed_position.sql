-- The present end of the change log: the snapshot of this statement, and the newest change in it. Its
-- transaction id is 0 when the log is empty.
CREATE OR REPLACE FUNCTION datastore_feed_position(
    OUT snapshot text, OUT last_xid text, OUT last_id bigint, OUT last_at timestamptz
)
LANGUAGE sql STABLE AS $$
    SELECT pg_current_snapshot()::text, coalesce(c.xid::text, '0'), coalesce(c.id, 0), c.at
    FROM (SELECT) AS always
    LEFT JOIN (SELECT * FROM changes ORDER BY xid DESC, id DESC LIMIT 1) AS c ON true
$$;
