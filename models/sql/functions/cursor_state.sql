-- Whether what happened since a position can be told: 'ok', 'expired' when part of it was pruned, 'epoch'
-- when this database never was there: the newest change of the position is not in the log and was not
-- pruned (a crash with synchronous_commit off, files put back from a backup).
CREATE OR REPLACE FUNCTION datastore_cursor_state(
    previous pg_snapshot, previous_xid xid8, previous_id bigint, previous_at timestamptz
) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN e.pruned IS NOT NULL AND (
            pg_snapshot_xmax(e.pruned) > pg_snapshot_xmax(previous)
            OR EXISTS (SELECT FROM pg_snapshot_xip(previous) AS x (id)
                       WHERE pg_visible_in_snapshot(x.id, e.pruned))
        ) THEN 'expired'
        WHEN previous_xid = '0'::xid8
          OR e.pruned IS NOT NULL AND pg_visible_in_snapshot(previous_xid, e.pruned)
          OR EXISTS (SELECT FROM changes c
                     WHERE c.xid = previous_xid AND c.id = previous_id AND c.at = previous_at)
        THEN 'ok'
        ELSE 'epoch'
    END
    FROM feed_epoch e
$$;
