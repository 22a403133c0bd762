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
