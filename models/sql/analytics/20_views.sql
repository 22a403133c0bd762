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
      -- What `seq` implies already, said of the key: each partition of before would be another place
      -- of the disk to look at, for every failed run.
      AND s.id >= datastore_lowest_id_after(e.id, e.queued_at, (
          -- By the end of the first period, ids had begun to tell the time.
          SELECT min(p.high) FROM datastore_partitions() p
          WHERE p.parent = 'executions' AND p.low IS NOT NULL))
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
