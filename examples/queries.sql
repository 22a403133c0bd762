-- Questions to the view `execution_history`, one row for each execution. Times are in seconds.
-- psql "$(jupyter-datastore db url)" -f examples/queries.sql

-- The slowest cells of the last seven days, of the runs that came to their end.
SELECT notebook_path,
       cell,
       count(*) AS runs,
       round(max(run_seconds)::numeric, 2) AS slowest,
       round(avg(run_seconds)::numeric, 2) AS average
FROM execution_history
WHERE cell IS NOT NULL AND status IN ('ok', 'error') AND queued_at > now() - interval '7 days'
GROUP BY notebook_path, cell
ORDER BY slowest DESC
LIMIT 5;

-- How often executions fail, and of what.
SELECT error_name,
       count(*) AS executions,
       round(100.0 * count(*) / sum(count(*)) OVER (), 1) AS percent
FROM execution_history
WHERE status IN ('ok', 'error')
GROUP BY error_name
ORDER BY executions DESC;

-- Who ran what today.
SELECT actor,
       notebook_path,
       count(*) AS executions,
       count(*) FILTER (WHERE status = 'error') AS failed,
       round(sum(run_seconds)::numeric, 1) AS seconds,
       pg_size_pretty(sum(output_bytes)) AS output
FROM execution_history
WHERE queued_at >= current_date
GROUP BY actor, notebook_path
ORDER BY seconds DESC NULLS LAST;
