-- Sums by hour and day of finished executions, for dashboards. They are brought up to date by adding
-- what has finished since (`analytics.roll_up`), so that history that is no longer kept stays counted.
CREATE TABLE IF NOT EXISTS analytics.rollup_hours (
    hour timestamptz NOT NULL,
    run_as_id uuid NOT NULL,
    actor_id uuid,
    kernel_name text NOT NULL,
    path text,
    executions bigint NOT NULL,
    ok bigint NOT NULL,
    failed bigint NOT NULL,
    aborted bigint NOT NULL,
    cancelled bigint NOT NULL,
    interrupted bigint NOT NULL,
    run_seconds double precision NOT NULL,
    run_seconds_max double precision NOT NULL,
    queue_seconds double precision NOT NULL,
    queue_seconds_max double precision NOT NULL,
    output_bytes bigint NOT NULL,
    CONSTRAINT rollup_hours_key UNIQUE NULLS NOT DISTINCT (hour, run_as_id, actor_id, kernel_name, path)
);
CREATE TABLE IF NOT EXISTS analytics.rollup_days (
    day date NOT NULL,
    run_as_id uuid NOT NULL,
    actor_id uuid,
    kernel_name text NOT NULL,
    path text,
    executions bigint NOT NULL,
    ok bigint NOT NULL,
    failed bigint NOT NULL,
    aborted bigint NOT NULL,
    cancelled bigint NOT NULL,
    interrupted bigint NOT NULL,
    run_seconds double precision NOT NULL,
    run_seconds_max double precision NOT NULL,
    queue_seconds double precision NOT NULL,
    queue_seconds_max double precision NOT NULL,
    output_bytes bigint NOT NULL,
    CONSTRAINT rollup_days_key UNIQUE NULLS NOT DISTINCT (day, run_as_id, actor_id, kernel_name, path)
);
CREATE TABLE IF NOT EXISTS analytics.rollup_cells (
    day date NOT NULL,
    path text NOT NULL,
    cell_id text NOT NULL,
    run_as_id uuid NOT NULL,
    actor_id uuid,
    executions bigint NOT NULL,
    failed bigint NOT NULL,
    run_seconds double precision NOT NULL,
    run_seconds_max double precision NOT NULL,
    output_bytes bigint NOT NULL,
    CONSTRAINT rollup_cells_key UNIQUE NULLS NOT DISTINCT (day, path, cell_id, run_as_id, actor_id)
);
CREATE TABLE IF NOT EXISTS analytics.rollup_errors (
    day date NOT NULL,
    error_name text NOT NULL,
    library text,
    path text,
    run_as_id uuid NOT NULL,
    actor_id uuid,
    errors bigint NOT NULL,
    CONSTRAINT rollup_errors_key
        UNIQUE NULLS NOT DISTINCT (day, error_name, library, path, run_as_id, actor_id)
);
CREATE TABLE IF NOT EXISTS analytics.rollup_kernels (
    kernel_id text NOT NULL,
    day date NOT NULL,
    executions bigint NOT NULL,
    busy_seconds double precision NOT NULL,
    CONSTRAINT rollup_kernels_key PRIMARY KEY (kernel_id, day)
);
-- What has happened since the last roll-up: an execution that has finished, or outputs that came
-- after its end. Rows are taken out in the transaction that adds them, so each counts once,
-- in whichever order transactions commit.
CREATE TABLE IF NOT EXISTS analytics.rollup_pending (
    execution_id uuid NOT NULL,
    finished boolean NOT NULL,
    output_bytes bigint NOT NULL
);

CREATE OR REPLACE FUNCTION analytics.note_finished() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP = 'INSERT' OR OLD.finished_at IS NULL THEN
        INSERT INTO analytics.rollup_pending VALUES (NEW.id, true, NEW.output_bytes);
    ELSE
        INSERT INTO analytics.rollup_pending VALUES (NEW.id, false, NEW.output_bytes - OLD.output_bytes);
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER executions_finished_insert
AFTER INSERT ON executions FOR EACH ROW
WHEN (NEW.finished_at IS NOT NULL)
EXECUTE FUNCTION analytics.note_finished();

CREATE OR REPLACE TRIGGER executions_finished_update
AFTER UPDATE ON executions FOR EACH ROW
WHEN (NEW.finished_at IS NOT NULL
      AND (OLD.finished_at IS NULL OR NEW.output_bytes <> OLD.output_bytes))
EXECUTE FUNCTION analytics.note_finished();

-- Add up to so many of the pending rows to the roll-ups; returns how many were taken.
CREATE OR REPLACE FUNCTION analytics.roll_up(at_most integer) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    taken bigint;
BEGIN
    -- One at a time: two that add to the same rows in another order would deadlock.
    PERFORM pg_advisory_xact_lock(hashtext('datastore roll-ups'));
    WITH taken AS (
        DELETE FROM analytics.rollup_pending
        WHERE ctid = ANY (ARRAY(SELECT ctid FROM analytics.rollup_pending LIMIT at_most))
        RETURNING *
    ), by_execution AS (
        SELECT execution_id, bool_or(finished) AS finished, sum(output_bytes)::bigint AS bytes
        FROM taken GROUP BY execution_id
    ), facts AS (
        SELECT date_trunc('hour', e.queued_at, 'UTC') AS hour,
               (e.queued_at AT TIME ZONE 'UTC')::date AS day,
               e.run_as_id, e.actor_id, k.name AS kernel_name, e.path, e.cell_id, e.kernel_id,
               e.ename, CASE WHEN e.ename IS NOT NULL AND b.finished
                             THEN analytics.error_library(e.traceback) END AS library,
               b.finished::int AS n,
               CASE WHEN b.finished THEN e.status END AS status,
               CASE WHEN b.finished
                    THEN coalesce(extract(epoch FROM e.finished_at - e.started_at), 0)
                    ELSE 0 END::double precision AS run,
               CASE WHEN b.finished
                    THEN greatest(extract(epoch FROM coalesce(e.started_at, e.finished_at)
                                                     - e.queued_at), 0)
                    ELSE 0 END::double precision AS queue,
               b.bytes
        FROM by_execution b
        JOIN executions e ON e.id = b.execution_id
        JOIN kernels k ON k.id = e.kernel_id
    ), hours AS (
        INSERT INTO analytics.rollup_hours AS r
        SELECT hour, run_as_id, actor_id, kernel_name, path, sum(n),
               count(*) FILTER (WHERE status = 'ok'), count(*) FILTER (WHERE status = 'error'),
               count(*) FILTER (WHERE status = 'aborted'),
               count(*) FILTER (WHERE status = 'cancelled'),
               count(*) FILTER (WHERE status = 'interrupted'),
               sum(run), max(run), sum(queue), max(queue), sum(bytes)
        FROM facts GROUP BY hour, run_as_id, actor_id, kernel_name, path
        ON CONFLICT ON CONSTRAINT rollup_hours_key DO UPDATE SET
            executions = r.executions + excluded.executions, ok = r.ok + excluded.ok,
            failed = r.failed + excluded.failed, aborted = r.aborted + excluded.aborted,
            cancelled = r.cancelled + excluded.cancelled,
            interrupted = r.interrupted + excluded.interrupted,
            run_seconds = r.run_seconds + excluded.run_seconds,
            run_seconds_max = greatest(r.run_seconds_max, excluded.run_seconds_max),
            queue_seconds = r.queue_seconds + excluded.queue_seconds,
            queue_seconds_max = greatest(r.queue_seconds_max, excluded.queue_seconds_max),
            output_bytes = r.output_bytes + excluded.output_bytes
    ), days AS (
        INSERT INTO analytics.rollup_days AS r
        SELECT day, run_as_id, actor_id, kernel_name, path, sum(n),
               count(*) FILTER (WHERE status = 'ok'), count(*) FILTER (WHERE status = 'error'),
               count(*) FILTER (WHERE status = 'aborted'),
               count(*) FILTER (WHERE status = 'cancelled'),
               count(*) FILTER (WHERE status = 'interrupted'),
               sum(run), max(run), sum(queue), max(queue), sum(bytes)
        FROM facts GROUP BY day, run_as_id, actor_id, kernel_name, path
        ON CONFLICT ON CONSTRAINT rollup_days_key DO UPDATE SET
            executions = r.executions + excluded.executions, ok = r.ok + excluded.ok,
            failed = r.failed + excluded.failed, aborted = r.aborted + excluded.aborted,
            cancelled = r.cancelled + excluded.cancelled,
            interrupted = r.interrupted + excluded.interrupted,
            run_seconds = r.run_seconds + excluded.run_seconds,
            run_seconds_max = greatest(r.run_seconds_max, excluded.run_seconds_max),
            queue_seconds = r.queue_seconds + excluded.queue_seconds,
            queue_seconds_max = greatest(r.queue_seconds_max, excluded.queue_seconds_max),
            output_bytes = r.output_bytes + excluded.output_bytes
    ), cells AS (
        INSERT INTO analytics.rollup_cells AS r
        SELECT day, path, cell_id, run_as_id, actor_id, sum(n),
               count(*) FILTER (WHERE status = 'error'), sum(run), max(run), sum(bytes)
        FROM facts WHERE path IS NOT NULL AND cell_id IS NOT NULL
        GROUP BY day, path, cell_id, run_as_id, actor_id
        ON CONFLICT ON CONSTRAINT rollup_cells_key DO UPDATE SET
            executions = r.executions + excluded.executions,
            failed = r.failed + excluded.failed,
            run_seconds = r.run_seconds + excluded.run_seconds,
            run_seconds_max = greatest(r.run_seconds_max, excluded.run_seconds_max),
            output_bytes = r.output_bytes + excluded.output_bytes
    ), errors AS (
        INSERT INTO analytics.rollup_errors AS r
        -- An index takes no names of any length.
        SELECT day, left(ename, 200), left(library, 200), path, run_as_id, actor_id, count(*)
        FROM facts WHERE status = 'error' AND ename IS NOT NULL
        GROUP BY day, left(ename, 200), left(library, 200), path, run_as_id, actor_id
        ON CONFLICT ON CONSTRAINT rollup_errors_key DO UPDATE SET errors = r.errors + excluded.errors
    ), kernel_days AS (
        INSERT INTO analytics.rollup_kernels AS r
        SELECT kernel_id, day, sum(n), sum(run)
        FROM facts GROUP BY kernel_id, day
        ON CONFLICT ON CONSTRAINT rollup_kernels_key DO UPDATE SET
            executions = r.executions + excluded.executions,
            busy_seconds = r.busy_seconds + excluded.busy_seconds
    )
    SELECT count(*) INTO taken FROM taken;
    RETURN taken;
END
$$;

-- Roll-ups show a person what is of their own and of their kernels, and an administrator all. Not what
-- others may read: a path was another file's once, and sums do not follow a file that is moved.
ALTER TABLE analytics.rollup_hours ENABLE ROW LEVEL SECURITY;
ALTER TABLE analytics.rollup_days ENABLE ROW LEVEL SECURITY;
ALTER TABLE analytics.rollup_cells ENABLE ROW LEVEL SECURITY;
ALTER TABLE analytics.rollup_errors ENABLE ROW LEVEL SECURITY;
ALTER TABLE analytics.rollup_kernels ENABLE ROW LEVEL SECURITY;
ALTER TABLE analytics.rollup_pending ENABLE ROW LEVEL SECURITY;

DROP POLICY IF EXISTS rollup_hours_read ON analytics.rollup_hours;
CREATE POLICY rollup_hours_read ON analytics.rollup_hours FOR SELECT
    USING (actor_id = (SELECT datastore_current_user_id())
        OR run_as_id = (SELECT datastore_current_user_id())
        OR (SELECT datastore_am_admin()));
DROP POLICY IF EXISTS rollup_days_read ON analytics.rollup_days;
CREATE POLICY rollup_days_read ON analytics.rollup_days FOR SELECT
    USING (actor_id = (SELECT datastore_current_user_id())
        OR run_as_id = (SELECT datastore_current_user_id())
        OR (SELECT datastore_am_admin()));
DROP POLICY IF EXISTS rollup_cells_read ON analytics.rollup_cells;
CREATE POLICY rollup_cells_read ON analytics.rollup_cells FOR SELECT
    USING (actor_id = (SELECT datastore_current_user_id())
        OR run_as_id = (SELECT datastore_current_user_id())
        OR (SELECT datastore_am_admin()));
DROP POLICY IF EXISTS rollup_errors_read ON analytics.rollup_errors;
CREATE POLICY rollup_errors_read ON analytics.rollup_errors FOR SELECT
    USING (actor_id = (SELECT datastore_current_user_id())
        OR run_as_id = (SELECT datastore_current_user_id())
        OR (SELECT datastore_am_admin()));
DROP POLICY IF EXISTS rollup_kernels_read ON analytics.rollup_kernels;
CREATE POLICY rollup_kernels_read ON analytics.rollup_kernels FOR SELECT
    USING (EXISTS (SELECT FROM kernels k WHERE k.id = rollup_kernels.kernel_id));
