-- Drops a partition of the change log in which every change was visible in a snapshot; false when
-- that has to wait. The lock waits for all who are writing and has nobody wait longer than its timeout;
-- while it is held, no change is written that is not committed, so that none can be lost.
CREATE OR REPLACE FUNCTION datastore_drop_changes(leaf text, upto pg_snapshot) RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '100ms'
AS $$
DECLARE
    needed text := format(
        'SELECT EXISTS (SELECT FROM partitions.%I'
        ' WHERE xid >= pg_snapshot_xmin($1) AND NOT pg_visible_in_snapshot(xid, $1))', leaf);
    is_needed boolean;
BEGIN
    EXECUTE needed INTO is_needed USING upto;
    IF is_needed THEN
        RETURN false;
    END IF;
    LOCK TABLE ONLY changes IN ACCESS EXCLUSIVE MODE;
    EXECUTE needed INTO is_needed USING upto;
    IF NOT is_needed THEN
        EXECUTE format('DROP TABLE partitions.%I', leaf);
    END IF;
    RETURN NOT is_needed;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
    RETURN false;
END
$$;

-- Voids cursors from before changes that became visible more than `retention` ago; notes the present
-- snapshot for later; drops the partitions of which an earlier call has voided everything, and returns
-- their names. To be called every now and then by each server; one at a time works.
CREATE OR REPLACE FUNCTION datastore_prune_changes(retention interval) RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
    mark feed_marks;
    -- Committed before this transaction: whoever reads by an older one has the table locked by now.
    before pg_snapshot := (SELECT pruned FROM feed_epoch);
    leaf text;
    dropped text[] := '{}';
BEGIN
    IF NOT pg_try_advisory_xact_lock(7366470213) THEN
        RETURN dropped;
    END IF;
    SELECT * INTO mark FROM feed_marks
    WHERE at <= clock_timestamp() - retention ORDER BY at DESC LIMIT 1;
    IF FOUND THEN
        UPDATE feed_epoch SET pruned = mark.snapshot;
        DELETE FROM feed_marks WHERE at <= mark.at;
    END IF;
    IF NOT EXISTS (SELECT FROM feed_marks WHERE at > clock_timestamp() - retention / 20) THEN
        INSERT INTO feed_marks DEFAULT VALUES;
    END IF;
    IF before IS NULL THEN
        RETURN dropped;
    END IF;
    DELETE FROM partitions.changes_default
    WHERE xid < pg_snapshot_xmax(before) AND pg_visible_in_snapshot(xid, before);
    -- Last, since it may lock the table until the commit.
    FOR leaf IN
        SELECT p.name FROM datastore_partitions() p
        WHERE p.parent = 'changes' AND p.high <= clock_timestamp() - retention ORDER BY p.high
    LOOP
        EXIT WHEN NOT datastore_drop_changes(leaf, before);
        dropped := dropped || leaf;
    END LOOP;
    RETURN dropped;
END
$$;
