SELECT error_name, coalesce(library, 'unknown') AS library, count(*) AS errors,
       count(DISTINCT run_as) AS people,
       (array_agg(error_value ORDER BY queued_at DESC))[1] AS latest
FROM analytics.errors
WHERE queued_at >= :begins AND queued_at < :ends
GROUP BY error_name, coalesce(library, 'unknown')
ORDER BY errors DESC, error_name
LIMIT :rows
