SELECT notebook_path, cell, count(*) AS runs,
       max(run_seconds)::double precision AS slowest_seconds,
       avg(run_seconds)::double precision AS average_seconds,
       (array_agg(split_part(code, E'\n', 1) ORDER BY seq DESC))[1] AS first_line
FROM analytics.execution_history
WHERE queued_at >= :begins AND queued_at < :ends AND run_seconds IS NOT NULL
  AND cell IS NOT NULL
GROUP BY notebook_path, cell
ORDER BY slowest_seconds DESC, notebook_path, cell
LIMIT :rows
