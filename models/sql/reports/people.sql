SELECT coalesce(actor, client) AS person, count(*) AS executions,
       count(*) FILTER (WHERE status = 'error') AS failed,
       count(DISTINCT notebook_path) AS notebooks,
       coalesce(sum(run_seconds), 0)::double precision AS run_seconds,
       coalesce(sum(output_bytes), 0)::bigint AS output_bytes
FROM analytics.execution_history
WHERE queued_at >= :begins AND queued_at < :ends
GROUP BY coalesce(actor, client)
ORDER BY executions DESC, person
LIMIT :rows
