-- Removes changes that became visible more than `retention` ago and returns how many; notes the present
-- snapshot for later. To be called every now and then by each server; one at a time works.
CREATE OR REPLACE FUNCTION datastore_prune_changes(retention interval) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    mark feed_marks;
    removed bigint := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(7366470211) THEN
        RETURN 0;
    END IF;
    SELECT * INTO mark FROM feed_marks
    WHERE at <= clock_timestamp() - retention ORDER BY at DESC LIMIT 1;
    IF FOUND THEN
        UPDATE feed_epoch SET pruned = mark.snapshot;
        DELETE FROM changes
        WHERE xid < pg_snapshot_xmax(mark.snapshot) AND pg_visible_in_snapshot(xid, mark.snapshot);
        GET DIAGNOSTICS removed = ROW_COUNT;
        DELETE FROM feed_marks WHERE at <= mark.at;
    END IF;
    IF NOT EXISTS (SELECT FROM feed_marks WHERE at > clock_timestamp() - retention / 20) THEN
        INSERT INTO feed_marks DEFAULT VALUES;
    END IF;
    RETURN removed;
END
$$;
