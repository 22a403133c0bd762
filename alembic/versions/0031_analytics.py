"""Views and roll-ups for analysts

Why: who ran what, for how long and with which result is asked in SQL, at a size at which sums by hour
and day must be kept and not made anew. Existing executions are put among the pending ones, and added
by the next upkeep.

Revision ID: 0031
Revises: 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0015"
branch_labels = None
depends_on = None

# The SQL files under models/sql/analytics as they were at this revision.
SCHEMA = r"""
-- What analysts ask; views read the tables with the rights of whoever asks (security_invoker).
CREATE SCHEMA IF NOT EXISTS analytics;
COMMENT ON SCHEMA analytics IS 'Views and roll-ups of what ran, by whom, for how long and with which result';

-- The library whose code raised an error: that of the last frame of its traceback, as IPython and
-- Python write them. 'notebook' is a cell's own code, 'own code' a file outside of any library;
-- null where there is no frame to tell by.
CREATE OR REPLACE FUNCTION analytics.error_library(traceback jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT CASE
               WHEN (text ~ '(^|\n)\s*(File |Cell In|Input In)') IS NOT TRUE THEN NULL
               WHEN frame IS NULL THEN 'notebook'
               WHEN frame ~ '(site|dist)-packages/'
                   THEN substring(frame FROM '.*(?:site|dist)-packages/([A-Za-z0-9_]+)')
               WHEN frame ~ '/ipykernel_[0-9]+/|^<ipython' THEN 'notebook'
               WHEN frame ~ '/python[0-9][0-9.]*/'
                   THEN substring(frame FROM '/python[0-9][0-9.]*/([A-Za-z0-9_]+)')
               WHEN frame ~ '^<frozen ' THEN substring(frame FROM '^<frozen ([A-Za-z0-9_]+)')
               WHEN frame ~ '^[A-Za-z0-9_]+/.*\.(pyx|pxi|pxd)$' THEN split_part(frame, '/', 1)
               ELSE 'own code'
           END
    FROM (SELECT text,
                 substring(text FROM '.*(?:^|\n)\s*(?:File "?(<frozen [^>]+>|[^\s":,]+)|Cell In|Input In)')
                     AS frame
          FROM (SELECT regexp_replace(string_agg(line, E'\n' ORDER BY number),
                                      '\u001b\[[0-9;]*m', '', 'g') AS text
                FROM jsonb_array_elements_text(traceback) WITH ORDINALITY AS lines (line, number)) t
         ) f;
END;
COMMENT ON FUNCTION analytics.error_library IS
    'The library whose code raised an error, by the last frame of its traceback';
"""
ROLLUPS = r"""
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
"""
VIEWS = r"""
-- Views to ask; docs/analytics.md has a question to each. Those by hour and day read roll-ups.
CREATE OR REPLACE VIEW analytics.execution_history WITH (security_invoker = true) AS
SELECT
    e.id AS execution_id, e.queued_at, actor.name AS actor, run_as.name AS run_as,
    e.path AS notebook_path, e.cell_id AS cell, k.name AS kernel_name, e.kernel_id, e.client,
    e.code, e.status, e.reason, e.execution_count, e.started_at, e.finished_at,
    extract(epoch FROM coalesce(e.started_at, e.finished_at) - e.queued_at)::double precision
        AS queue_seconds,
    extract(epoch FROM e.finished_at - e.started_at)::double precision AS run_seconds,
    e.ename AS error_name, e.evalue AS error_value, e.output_bytes,
    e.session_id, e.incarnation, e.document_id, e.cell_version, e.source_hash, e.seq
FROM executions e
JOIN kernels k ON k.id = e.kernel_id
LEFT JOIN users actor ON actor.id = e.actor_id
LEFT JOIN users run_as ON run_as.id = e.run_as_id;
COMMENT ON VIEW analytics.execution_history IS 'Every execution: who ran what, when, for how long and with which result';
COMMENT ON COLUMN analytics.execution_history.execution_id IS 'The execution''s id';
COMMENT ON COLUMN analytics.execution_history.queued_at IS 'When it was asked for';
COMMENT ON COLUMN analytics.execution_history.actor IS 'Who asked; null for a client of the kernel that this server does not know';
COMMENT ON COLUMN analytics.execution_history.run_as IS 'Whose kernel ran it';
COMMENT ON COLUMN analytics.execution_history.notebook_path IS 'The notebook''s path at that time; null for code that is of no notebook';
COMMENT ON COLUMN analytics.execution_history.cell IS 'The cell''s id in the notebook';
COMMENT ON COLUMN analytics.execution_history.kernel_name IS 'The kernelspec''s name';
COMMENT ON COLUMN analytics.execution_history.kernel_id IS 'The kernel';
COMMENT ON COLUMN analytics.execution_history.client IS 'What asked: api, channel (a front end''s websocket), or the user name a foreign client gave';
COMMENT ON COLUMN analytics.execution_history.code IS 'The code, as it was sent';
COMMENT ON COLUMN analytics.execution_history.status IS 'queued, running, ok, error, aborted (one before it failed), cancelled or interrupted';
COMMENT ON COLUMN analytics.execution_history.reason IS 'Why it was aborted, cancelled or interrupted';
COMMENT ON COLUMN analytics.execution_history.execution_count IS 'The number in brackets beside the cell';
COMMENT ON COLUMN analytics.execution_history.started_at IS 'When the kernel began with it';
COMMENT ON COLUMN analytics.execution_history.finished_at IS 'When it was over';
COMMENT ON COLUMN analytics.execution_history.queue_seconds IS 'Seconds from being asked for until the kernel began';
COMMENT ON COLUMN analytics.execution_history.run_seconds IS 'Seconds that the kernel ran it; waiting for an answer to input() counts';
COMMENT ON COLUMN analytics.execution_history.error_name IS 'The exception''s class';
COMMENT ON COLUMN analytics.execution_history.error_value IS 'The exception''s text';
COMMENT ON COLUMN analytics.execution_history.output_bytes IS 'Bytes of its outputs, in UTF-8';
COMMENT ON COLUMN analytics.execution_history.session_id IS 'The session, if it is still known';
COMMENT ON COLUMN analytics.execution_history.incarnation IS 'The kernel''s incarnation; each restart raises it';
COMMENT ON COLUMN analytics.execution_history.document_id IS 'The notebook, if it is still known';
COMMENT ON COLUMN analytics.execution_history.cell_version IS 'The version of the cell''s source that ran';
COMMENT ON COLUMN analytics.execution_history.source_hash IS 'SHA-256 of the code';
COMMENT ON COLUMN analytics.execution_history.seq IS 'The order in which executions were asked for';

CREATE OR REPLACE VIEW analytics.activity_by_hour WITH (security_invoker = true) AS
SELECT
    r.hour, actor.name AS actor, run_as.name AS run_as, r.kernel_name, r.path AS notebook_path,
    r.executions, r.ok, r.failed, r.aborted, r.cancelled, r.interrupted, r.run_seconds,
    r.run_seconds_max, r.queue_seconds, r.queue_seconds_max, r.output_bytes
FROM analytics.rollup_hours r
LEFT JOIN users actor ON actor.id = r.actor_id
LEFT JOIN users run_as ON run_as.id = r.run_as_id;
COMMENT ON VIEW analytics.activity_by_hour IS 'What was run in each hour (UTC), by person, kernelspec and notebook; kept up to date as executions finish';
COMMENT ON COLUMN analytics.activity_by_hour.hour IS 'The hour in which they were asked for';
COMMENT ON COLUMN analytics.activity_by_hour.actor IS 'Who asked';
COMMENT ON COLUMN analytics.activity_by_hour.run_as IS 'Whose kernels ran them';
COMMENT ON COLUMN analytics.activity_by_hour.kernel_name IS 'The kernelspec''s name';
COMMENT ON COLUMN analytics.activity_by_hour.notebook_path IS 'The notebook; null for code that is of none';
COMMENT ON COLUMN analytics.activity_by_hour.executions IS 'Finished executions that were asked for in that time';
COMMENT ON COLUMN analytics.activity_by_hour.ok IS 'Those that succeeded';
COMMENT ON COLUMN analytics.activity_by_hour.failed IS 'Those that raised an error';
COMMENT ON COLUMN analytics.activity_by_hour.aborted IS 'Those not run because one before them failed';
COMMENT ON COLUMN analytics.activity_by_hour.cancelled IS 'Those taken back while they waited';
COMMENT ON COLUMN analytics.activity_by_hour.interrupted IS 'Those ended by a restart or the end of their kernel';
COMMENT ON COLUMN analytics.activity_by_hour.run_seconds IS 'Seconds run, together';
COMMENT ON COLUMN analytics.activity_by_hour.run_seconds_max IS 'Seconds that the longest ran';
COMMENT ON COLUMN analytics.activity_by_hour.queue_seconds IS 'Seconds waited, together';
COMMENT ON COLUMN analytics.activity_by_hour.queue_seconds_max IS 'Seconds that the longest wait took';
COMMENT ON COLUMN analytics.activity_by_hour.output_bytes IS 'Bytes of outputs, together';

CREATE OR REPLACE VIEW analytics.activity_by_day WITH (security_invoker = true) AS
SELECT
    r.day, actor.name AS actor, run_as.name AS run_as, r.kernel_name, r.path AS notebook_path,
    r.executions, r.ok, r.failed, r.aborted, r.cancelled, r.interrupted, r.run_seconds,
    r.run_seconds_max, r.queue_seconds, r.queue_seconds_max, r.output_bytes
FROM analytics.rollup_days r
LEFT JOIN users actor ON actor.id = r.actor_id
LEFT JOIN users run_as ON run_as.id = r.run_as_id;
COMMENT ON VIEW analytics.activity_by_day IS 'What was run in each day (UTC), by person, kernelspec and notebook; kept up to date as executions finish';
COMMENT ON COLUMN analytics.activity_by_day.day IS 'The day in which they were asked for';
COMMENT ON COLUMN analytics.activity_by_day.actor IS 'Who asked';
COMMENT ON COLUMN analytics.activity_by_day.run_as IS 'Whose kernels ran them';
COMMENT ON COLUMN analytics.activity_by_day.kernel_name IS 'The kernelspec''s name';
COMMENT ON COLUMN analytics.activity_by_day.notebook_path IS 'The notebook; null for code that is of none';
COMMENT ON COLUMN analytics.activity_by_day.executions IS 'Finished executions that were asked for in that time';
COMMENT ON COLUMN analytics.activity_by_day.ok IS 'Those that succeeded';
COMMENT ON COLUMN analytics.activity_by_day.failed IS 'Those that raised an error';
COMMENT ON COLUMN analytics.activity_by_day.aborted IS 'Those not run because one before them failed';
COMMENT ON COLUMN analytics.activity_by_day.cancelled IS 'Those taken back while they waited';
COMMENT ON COLUMN analytics.activity_by_day.interrupted IS 'Those ended by a restart or the end of their kernel';
COMMENT ON COLUMN analytics.activity_by_day.run_seconds IS 'Seconds run, together';
COMMENT ON COLUMN analytics.activity_by_day.run_seconds_max IS 'Seconds that the longest ran';
COMMENT ON COLUMN analytics.activity_by_day.queue_seconds IS 'Seconds waited, together';
COMMENT ON COLUMN analytics.activity_by_day.queue_seconds_max IS 'Seconds that the longest wait took';
COMMENT ON COLUMN analytics.activity_by_day.output_bytes IS 'Bytes of outputs, together';

CREATE OR REPLACE VIEW analytics.cells_by_day WITH (security_invoker = true) AS
SELECT
    r.day, r.path AS notebook_path, r.cell_id AS cell, actor.name AS actor, run_as.name AS run_as,
    r.executions, r.failed, r.run_seconds, r.run_seconds_max, r.output_bytes
FROM analytics.rollup_cells r
LEFT JOIN users actor ON actor.id = r.actor_id
LEFT JOIN users run_as ON run_as.id = r.run_as_id;
COMMENT ON VIEW analytics.cells_by_day IS 'How often and how long each cell ran on each day (UTC)';
COMMENT ON COLUMN analytics.cells_by_day.day IS 'The day on which they were asked for';
COMMENT ON COLUMN analytics.cells_by_day.notebook_path IS 'The notebook';
COMMENT ON COLUMN analytics.cells_by_day.cell IS 'The cell''s id in it';
COMMENT ON COLUMN analytics.cells_by_day.actor IS 'Who asked';
COMMENT ON COLUMN analytics.cells_by_day.run_as IS 'Whose kernels ran it';
COMMENT ON COLUMN analytics.cells_by_day.executions IS 'How often it ran to an end';
COMMENT ON COLUMN analytics.cells_by_day.failed IS 'How often it raised an error';
COMMENT ON COLUMN analytics.cells_by_day.run_seconds IS 'Seconds run, together';
COMMENT ON COLUMN analytics.cells_by_day.run_seconds_max IS 'Seconds that the longest run took';
COMMENT ON COLUMN analytics.cells_by_day.output_bytes IS 'Bytes of outputs, together';

CREATE OR REPLACE VIEW analytics.errors WITH (security_invoker = true) AS
SELECT
    e.id AS execution_id, e.queued_at, e.finished_at, actor.name AS actor, run_as.name AS run_as,
    e.path AS notebook_path, e.cell_id AS cell, e.ename AS error_name, e.evalue AS error_value,
    analytics.error_library(e.traceback) AS library, e.code
FROM executions e
LEFT JOIN users actor ON actor.id = e.actor_id
LEFT JOIN users run_as ON run_as.id = e.run_as_id
WHERE e.status = 'error';
COMMENT ON VIEW analytics.errors IS 'Every execution that raised an error, with the library that raised it';
COMMENT ON COLUMN analytics.errors.execution_id IS 'The execution''s id';
COMMENT ON COLUMN analytics.errors.queued_at IS 'When it was asked for';
COMMENT ON COLUMN analytics.errors.finished_at IS 'When it failed';
COMMENT ON COLUMN analytics.errors.actor IS 'Who asked';
COMMENT ON COLUMN analytics.errors.run_as IS 'Whose kernel ran it';
COMMENT ON COLUMN analytics.errors.notebook_path IS 'The notebook';
COMMENT ON COLUMN analytics.errors.cell IS 'The cell';
COMMENT ON COLUMN analytics.errors.error_name IS 'The exception''s class';
COMMENT ON COLUMN analytics.errors.error_value IS 'The exception''s text';
COMMENT ON COLUMN analytics.errors.library IS 'The library of the traceback''s last frame; notebook for a cell''s own code';
COMMENT ON COLUMN analytics.errors.code IS 'The code';

CREATE OR REPLACE VIEW analytics.errors_by_day WITH (security_invoker = true) AS
SELECT
    r.day, r.error_name, r.library, r.path AS notebook_path, actor.name AS actor,
    run_as.name AS run_as, r.errors
FROM analytics.rollup_errors r
LEFT JOIN users actor ON actor.id = r.actor_id
LEFT JOIN users run_as ON run_as.id = r.run_as_id;
COMMENT ON VIEW analytics.errors_by_day IS 'How often each error came from each library, by day (UTC) and notebook';
COMMENT ON COLUMN analytics.errors_by_day.day IS 'The day on which they were asked for';
COMMENT ON COLUMN analytics.errors_by_day.error_name IS 'The exception''s class';
COMMENT ON COLUMN analytics.errors_by_day.library IS 'The library of the traceback''s last frame; notebook for a cell''s own code';
COMMENT ON COLUMN analytics.errors_by_day.notebook_path IS 'The notebook';
COMMENT ON COLUMN analytics.errors_by_day.actor IS 'Who asked';
COMMENT ON COLUMN analytics.errors_by_day.run_as IS 'Whose kernels ran them';
COMMENT ON COLUMN analytics.errors_by_day.errors IS 'How many';

CREATE OR REPLACE VIEW analytics.failed_tries WITH (security_invoker = true) AS
SELECT
    e.id AS execution_id, e.queued_at, actor.name AS actor, e.path AS notebook_path,
    e.cell_id AS cell, e.ename AS error_name, later.id AS success_id,
    later.finished_at AS succeeded_at,
    extract(epoch FROM later.finished_at - e.finished_at)::double precision AS seconds_to_success,
    later.source_hash <> e.source_hash AS changed
FROM executions e
LEFT JOIN users actor ON actor.id = e.actor_id
LEFT JOIN LATERAL (
    SELECT s.id, s.finished_at, s.source_hash FROM executions s
    WHERE s.cell_id = e.cell_id AND s.seq > e.seq AND s.path = e.path AND s.status = 'ok'
    ORDER BY s.seq LIMIT 1
) later ON true
WHERE e.status = 'error' AND e.cell_id IS NOT NULL;
COMMENT ON VIEW analytics.failed_tries IS 'Each failed run of a cell, with the first later run of that cell that succeeded';
COMMENT ON COLUMN analytics.failed_tries.execution_id IS 'The failed execution';
COMMENT ON COLUMN analytics.failed_tries.queued_at IS 'When it was asked for';
COMMENT ON COLUMN analytics.failed_tries.actor IS 'Who asked';
COMMENT ON COLUMN analytics.failed_tries.notebook_path IS 'The notebook';
COMMENT ON COLUMN analytics.failed_tries.cell IS 'The cell';
COMMENT ON COLUMN analytics.failed_tries.error_name IS 'The exception''s class';
COMMENT ON COLUMN analytics.failed_tries.success_id IS 'The first later execution of the cell that succeeded; null if none has';
COMMENT ON COLUMN analytics.failed_tries.succeeded_at IS 'When that one was over';
COMMENT ON COLUMN analytics.failed_tries.seconds_to_success IS 'Seconds between the two ends';
COMMENT ON COLUMN analytics.failed_tries.changed IS 'Whether the code was another by then';

CREATE OR REPLACE VIEW analytics.cell_order WITH (security_invoker = true) AS
SELECT
    e.id AS execution_id, e.queued_at, actor.name AS actor, e.path AS notebook_path,
    e.cell_id AS cell, c.position, before.cell_id AS previous_cell, p.position AS previous_position,
    c.position < p.position AS out_of_order
FROM executions e
JOIN cells c ON c.notebook_id = e.document_id AND c.cell_id = e.cell_id
LEFT JOIN users actor ON actor.id = e.actor_id
LEFT JOIN LATERAL (
    SELECT b.cell_id FROM executions b
    WHERE b.kernel_id = e.kernel_id AND b.seq < e.seq AND b.incarnation = e.incarnation
      AND b.document_id = e.document_id AND b.cell_id IS NOT NULL
    ORDER BY b.seq DESC LIMIT 1
) before ON true
LEFT JOIN cells p ON p.notebook_id = e.document_id AND p.cell_id = before.cell_id;
COMMENT ON VIEW analytics.cell_order IS 'Runs of cells, with the cell of the notebook that ran before it on the same kernel';
COMMENT ON COLUMN analytics.cell_order.execution_id IS 'The execution''s id';
COMMENT ON COLUMN analytics.cell_order.queued_at IS 'When it was asked for';
COMMENT ON COLUMN analytics.cell_order.actor IS 'Who asked';
COMMENT ON COLUMN analytics.cell_order.notebook_path IS 'The notebook';
COMMENT ON COLUMN analytics.cell_order.cell IS 'The cell that ran';
COMMENT ON COLUMN analytics.cell_order.position IS 'Its place in the notebook as it is now, from 0';
COMMENT ON COLUMN analytics.cell_order.previous_cell IS 'The cell that ran before it since the kernel was started';
COMMENT ON COLUMN analytics.cell_order.previous_position IS 'Its place';
COMMENT ON COLUMN analytics.cell_order.out_of_order IS 'Whether a cell further down had run before it';

CREATE OR REPLACE VIEW analytics.stale_outputs WITH (security_invoker = true) AS
SELECT
    t.path AS notebook_path, c.cell_id AS cell, c.position, e.id AS execution_id, e.finished_at,
    c.version IS DISTINCT FROM e.cell_version AS source_changed,
    k.incarnation <> e.incarnation OR k.ended_at IS NOT NULL AS kernel_restarted
FROM cells c
JOIN executions e ON e.id = c.execution_id
JOIN kernels k ON k.id = e.kernel_id
JOIN documents d ON d.id = c.notebook_id
JOIN contents t ON t.id = d.content_id
WHERE e.finished_at IS NOT NULL
  AND (c.version IS DISTINCT FROM e.cell_version OR k.incarnation <> e.incarnation
       OR k.ended_at IS NOT NULL);
COMMENT ON VIEW analytics.stale_outputs IS 'Cells whose outputs are not what running them now would show';
COMMENT ON COLUMN analytics.stale_outputs.notebook_path IS 'The notebook, where it is now';
COMMENT ON COLUMN analytics.stale_outputs.cell IS 'The cell';
COMMENT ON COLUMN analytics.stale_outputs.position IS 'Its place in the notebook, from 0';
COMMENT ON COLUMN analytics.stale_outputs.execution_id IS 'Its latest execution';
COMMENT ON COLUMN analytics.stale_outputs.finished_at IS 'When that was over';
COMMENT ON COLUMN analytics.stale_outputs.source_changed IS 'Whether the cell''s source has changed since it was asked for';
COMMENT ON COLUMN analytics.stale_outputs.kernel_restarted IS 'Whether the kernel was restarted or has ended since: its variables are gone';

CREATE OR REPLACE VIEW analytics.kernel_hours WITH (security_invoker = true) AS
SELECT
    k.id AS kernel_id, k.name AS kernel_name, owner.name AS owner, k.created_at AS started_at,
    k.ended_at, life.hours, sums.busy_seconds / 3600 AS busy_hours,
    greatest(life.hours - sums.busy_seconds / 3600, 0) AS idle_hours, sums.executions
FROM kernels k
LEFT JOIN users owner ON owner.id = k.owner_id
CROSS JOIN LATERAL (
    SELECT extract(epoch FROM coalesce(k.ended_at, now()) - k.created_at)::double precision / 3600
        AS hours
) life
CROSS JOIN LATERAL (
    SELECT coalesce(sum(r.busy_seconds), 0) AS busy_seconds,
           coalesce(sum(r.executions), 0)::bigint AS executions
    FROM analytics.rollup_kernels r WHERE r.kernel_id = k.id
) sums;
COMMENT ON VIEW analytics.kernel_hours IS 'How long each kernel lived, and how much of that it was busy';
COMMENT ON COLUMN analytics.kernel_hours.kernel_id IS 'The kernel';
COMMENT ON COLUMN analytics.kernel_hours.kernel_name IS 'The kernelspec''s name';
COMMENT ON COLUMN analytics.kernel_hours.owner IS 'Whose it is';
COMMENT ON COLUMN analytics.kernel_hours.started_at IS 'When it was first started';
COMMENT ON COLUMN analytics.kernel_hours.ended_at IS 'When it ended; null while it lives';
COMMENT ON COLUMN analytics.kernel_hours.hours IS 'Hours between the two, or until now';
COMMENT ON COLUMN analytics.kernel_hours.busy_hours IS 'Hours in which it ran finished executions';
COMMENT ON COLUMN analytics.kernel_hours.idle_hours IS 'The other hours';
COMMENT ON COLUMN analytics.kernel_hours.executions IS 'Finished executions';

CREATE OR REPLACE VIEW analytics.run_comparison WITH (security_invoker = true) AS
SELECT
    e.id AS execution_id, e.queued_at, actor.name AS actor, e.path AS notebook_path,
    e.cell_id AS cell, e.status, before.id AS previous_id, before.queued_at AS previous_queued_at,
    before.status AS previous_status, e.source_hash <> before.source_hash AS code_changed,
    extract(epoch FROM e.finished_at - e.started_at)::double precision AS run_seconds,
    extract(epoch FROM before.finished_at - before.started_at)::double precision
        AS previous_run_seconds,
    e.output_bytes, before.output_bytes AS previous_output_bytes,
    (SELECT md5(string_agg(concat_ws(' ', o.output_type, o.name, o.text, o.data::text, o.ename),
                           '' ORDER BY o.seq))
     FROM outputs o WHERE o.execution_id = e.id AND o.partition_id = e.id
       AND o.cleared_at IS NULL)
    IS DISTINCT FROM
    (SELECT md5(string_agg(concat_ws(' ', o.output_type, o.name, o.text, o.data::text, o.ename),
                           '' ORDER BY o.seq))
     FROM outputs o WHERE o.execution_id = before.id AND o.partition_id = before.id
       AND o.cleared_at IS NULL) AS output_changed,
    e.code, before.code AS previous_code
FROM executions e
LEFT JOIN users actor ON actor.id = e.actor_id
JOIN LATERAL (
    SELECT b.* FROM executions b
    WHERE b.cell_id = e.cell_id AND b.seq < e.seq AND b.path = e.path
    ORDER BY b.seq DESC LIMIT 1
) before ON true;
COMMENT ON VIEW analytics.run_comparison IS 'Each run of a cell beside the run before it';
COMMENT ON COLUMN analytics.run_comparison.execution_id IS 'The later run';
COMMENT ON COLUMN analytics.run_comparison.queued_at IS 'When it was asked for';
COMMENT ON COLUMN analytics.run_comparison.actor IS 'Who asked for it';
COMMENT ON COLUMN analytics.run_comparison.notebook_path IS 'The notebook';
COMMENT ON COLUMN analytics.run_comparison.cell IS 'The cell';
COMMENT ON COLUMN analytics.run_comparison.status IS 'How it ended';
COMMENT ON COLUMN analytics.run_comparison.previous_id IS 'The run of the cell before it';
COMMENT ON COLUMN analytics.run_comparison.previous_queued_at IS 'When that was asked for';
COMMENT ON COLUMN analytics.run_comparison.previous_status IS 'How that ended';
COMMENT ON COLUMN analytics.run_comparison.code_changed IS 'Whether the code is another';
COMMENT ON COLUMN analytics.run_comparison.run_seconds IS 'Seconds that the later ran';
COMMENT ON COLUMN analytics.run_comparison.previous_run_seconds IS 'Seconds that the earlier ran';
COMMENT ON COLUMN analytics.run_comparison.output_bytes IS 'Bytes of the later''s outputs';
COMMENT ON COLUMN analytics.run_comparison.previous_output_bytes IS 'Bytes of the earlier''s outputs';
COMMENT ON COLUMN analytics.run_comparison.output_changed IS 'Whether what is shown differs (false when both have none or their outputs are no longer kept)';
COMMENT ON COLUMN analytics.run_comparison.code IS 'The later''s code';
COMMENT ON COLUMN analytics.run_comparison.previous_code IS 'The earlier''s code';

CREATE OR REPLACE VIEW analytics.group_activity_by_day WITH (security_invoker = true) AS
SELECT r.day, g.name AS group_name, run_as.name AS run_as, r.kernel_name, r.path AS notebook_path,
       r.executions, r.failed, r.run_seconds, r.output_bytes
FROM analytics.rollup_days r
JOIN group_members m ON m.user_id = r.run_as_id
JOIN groups g ON g.id = m.group_id
LEFT JOIN users run_as ON run_as.id = r.run_as_id;
COMMENT ON VIEW analytics.group_activity_by_day IS 'What was run on each day (UTC) on kernels of the members of each group; who is in two groups counts in both';
COMMENT ON COLUMN analytics.group_activity_by_day.day IS 'The day on which they were asked for';
COMMENT ON COLUMN analytics.group_activity_by_day.group_name IS 'The group';
COMMENT ON COLUMN analytics.group_activity_by_day.run_as IS 'The member whose kernels ran them';
COMMENT ON COLUMN analytics.group_activity_by_day.kernel_name IS 'The kernelspec''s name';
COMMENT ON COLUMN analytics.group_activity_by_day.notebook_path IS 'The notebook; null for code that is of none';
COMMENT ON COLUMN analytics.group_activity_by_day.executions IS 'Finished executions';
COMMENT ON COLUMN analytics.group_activity_by_day.failed IS 'Those that raised an error';
COMMENT ON COLUMN analytics.group_activity_by_day.run_seconds IS 'Seconds run, together';
COMMENT ON COLUMN analytics.group_activity_by_day.output_bytes IS 'Bytes of outputs, together';
"""
EARLIER = """
INSERT INTO analytics.rollup_pending (execution_id, finished, output_bytes)
SELECT id, true, output_bytes FROM executions WHERE finished_at IS NOT NULL
"""

# What was there before.
FORMER = """
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN SELECT relname FROM pg_class
                 WHERE relnamespace = 'analytics'::regnamespace AND relkind = 'v' LOOP
        EXECUTE format('DROP VIEW analytics.%I CASCADE', found.relname);
    END LOOP;
    FOR found IN SELECT relname FROM pg_class
                 WHERE relnamespace = 'analytics'::regnamespace AND relkind = 'r' LOOP
        EXECUTE format('DROP TABLE analytics.%I', found.relname);
    END LOOP;
END
$$;
DROP FUNCTION analytics.roll_up(integer);
DROP FUNCTION analytics.note_finished();
DROP FUNCTION analytics.error_library(jsonb);
COMMENT ON SCHEMA analytics IS NULL;
CREATE VIEW analytics.execution_history WITH (security_invoker = true) AS
SELECT * FROM public.execution_history;
"""


def upgrade():
    op.create_index(
        "executions_failed_idx",
        "executions",
        ["queued_at"],
        unique=False,
        postgresql_where=sa.text("status = 'error'"),
    )
    for statements in (SCHEMA, ROLLUPS, VIEWS, EARLIER):
        op.execute(sa.text(statements.replace(":", "\\:")))


def downgrade():
    op.execute("DROP TRIGGER executions_finished_update ON executions")
    op.execute("DROP TRIGGER executions_finished_insert ON executions")
    # The schema and its first view are those of an earlier revision.
    op.execute(FORMER)
    op.drop_index("executions_failed_idx", table_name="executions")
