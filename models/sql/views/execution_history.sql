-- Who ran what, when, for how long and with which result; newest last. Times in seconds.
CREATE OR REPLACE VIEW execution_history WITH (security_invoker = true) AS
SELECT
    e.id AS execution_id,
    e.queued_at,
    actor.name AS actor,
    run_as.name AS run_as,
    e.path AS notebook_path,
    e.cell_id AS cell,
    k.name AS kernel_name,
    e.kernel_id,
    e.client,
    e.code,
    e.status,
    e.reason,
    e.execution_count,
    e.started_at,
    e.finished_at,
    extract(epoch FROM coalesce(e.started_at, e.finished_at) - e.queued_at)::double precision
        AS queue_seconds,
    extract(epoch FROM e.finished_at - e.started_at)::double precision AS run_seconds,
    e.ename AS error_name,
    e.evalue AS error_value,
    e.output_bytes
FROM executions e
JOIN kernels k ON k.id = e.kernel_id
LEFT JOIN users actor ON actor.id = e.actor_id
JOIN users run_as ON run_as.id = e.run_as_id
ORDER BY e.queued_at, e.seq;
