SELECT hour, count(queued_at) AS executions,
       count(*) FILTER (WHERE status = 'ok') AS ok,
       count(*) FILTER (WHERE status = 'error') AS failed,
       count(*) FILTER (WHERE status NOT IN ('ok', 'error')) AS other,
       coalesce(avg(queue_seconds), 0)::double precision AS wait_seconds,
       coalesce(percentile_cont(0.95) WITHIN GROUP (ORDER BY queue_seconds), 0)::double precision
           AS wait_p95,
       coalesce(sum(run_seconds), 0)::double precision AS run_seconds
FROM generate_series(CAST(:begins AS timestamptz), CAST(:ends AS timestamptz) - interval '1 second',
                     interval '1 hour') AS hour
LEFT JOIN (SELECT queued_at, status, queue_seconds, run_seconds FROM analytics.execution_history
           WHERE queued_at >= :begins AND queued_at < :ends) e
    ON e.queued_at >= hour AND e.queued_at < hour + interval '1 hour'
GROUP BY hour
ORDER BY hour
