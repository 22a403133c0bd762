SELECT count(*) AS executions,
       count(*) FILTER (WHERE status = 'ok') AS ok,
       count(*) FILTER (WHERE status = 'error') AS failed,
       count(*) FILTER (WHERE status IN ('aborted', 'cancelled', 'interrupted')) AS not_run,
       count(*) FILTER (WHERE status IN ('queued', 'running')) AS unfinished,
       count(DISTINCT run_as) AS people,
       count(DISTINCT notebook_path) AS notebooks,
       count(DISTINCT kernel_id) AS kernels,
       coalesce(sum(run_seconds), 0) AS run_seconds,
       coalesce(sum(output_bytes), 0)::bigint AS output_bytes
FROM analytics.execution_history
WHERE queued_at >= :begins AND queued_at < :ends
