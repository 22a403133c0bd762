SELECT notebook_path, count(*) AS executions,
       count(*) FILTER (WHERE status = 'error') AS failed,
       count(DISTINCT cell) AS cells,
       coalesce(sum(run_seconds), 0)::double precision AS run_seconds,
       coalesce(sum(output_bytes), 0)::bigint AS output_bytes
FROM analytics.execution_history
WHERE queued_at >= :begins AND queued_at < :ends AND notebook_path IS NOT NULL
GROUP BY notebook_path
ORDER BY executions DESC, notebook_path
LIMIT :rows
