-- A year of history, made in the database: people of very different diligence work on notebooks of
-- their own on working days, one kernel a day, mostly from top to bottom; cells are run again, fail,
-- print, show tables and pictures. `jds.*` settings say how much.

-- name: people
INSERT INTO users (id, name, admin)
SELECT md5('user' || u)::uuid, 'user' || u, false
FROM generate_series(1, :users) u ON CONFLICT DO NOTHING;
INSERT INTO groups (id, name) SELECT md5('group' || g)::uuid, 'group' || g FROM generate_series(1, 8) g;
INSERT INTO group_members (group_id, user_id)
SELECT md5('group' || 1 + u % 8)::uuid, md5('user' || u)::uuid FROM generate_series(1, :users) u;
INSERT INTO contents (id, path, name, type)
SELECT md5('content' || n)::uuid, path, split_part(path, '/', 2), 'notebook'
FROM (SELECT n, format('user%s/%s-%s.ipynb', n / 12 + 1,
                       (ARRAY['analysis', 'model', 'lecture', 'report'])[n % 4 + 1], n % 12) AS path
      FROM generate_series(0, :users * 12 - 1) n) t;
INSERT INTO documents (id, content_id, type, format)
SELECT md5('document' || n)::uuid, md5('content' || n)::uuid, 'notebook', 'json'
FROM generate_series(0, :users * 12 - 1) n;
INSERT INTO notebooks (id, nbformat, nbformat_minor, metadata)
SELECT md5('document' || n)::uuid, 4, 5, '{}' FROM generate_series(0, :users * 12 - 1) n;
INSERT INTO server_status (id, hostname, pid, process_started_at, version)
VALUES (md5('server')::uuid, 'generated', 1, now(), '0');

-- name: kernels
INSERT INTO kernels (id, name, execution_state, owner_id, created_at, last_activity, ended_at, incarnation)
SELECT md5(format('kernel %s %s', u, d)), (ARRAY['python3', 'python3', 'python3', 'ir', 'julia-1.11'])[u % 5 + 1],
       CASE WHEN d < :days - 1 THEN 'dead' ELSE 'idle' END, md5('user' || u)::uuid,
       begins, begins + interval '10 hours',
       CASE WHEN d < :days - 1 THEN begins + interval '10 hours' END, 1 + (u + d) % 3 / 2
FROM generate_series(1, :users) u, generate_series(0, :days - 1) d,
     LATERAL (SELECT :start::timestamptz + d * interval '1 day' + interval '7 hours' AS begins) t;

-- name: executions
INSERT INTO partitions.:leaf (id, seq, kernel_id, incarnation, document_id, path, cell_id, cell_version,
    actor_id, run_as_id, client, msg_id, code, source_hash, status, reason, execution_count, queued_at,
    started_at, finished_at, ename, evalue, traceback, output_bytes)
SELECT id, seq, kernel_id, 1 + (u + day) % 3 / 2, md5('document' || notebook)::uuid,
       format('user%s/%s-%s.ipynb', u, (ARRAY['analysis', 'model', 'lecture', 'report'])[notebook % 4 + 1], notebook % 12),
       left(md5(notebook || ' ' || position), 8), 1 + day / 40,
       CASE WHEN r_client < 0.03 THEN NULL ELSE md5('user' || u)::uuid END, md5('user' || u)::uuid,
       CASE WHEN r_client < 0.03 THEN 'kernel client' WHEN r_client < 0.5 THEN 'channel' ELSE 'api' END,
       id::text, code, md5(code), status, CASE WHEN status IN ('ok', 'error') THEN NULL ELSE 'generated' END,
       CASE WHEN status IN ('ok', 'error') THEN n END, queued_at,
       CASE WHEN status IN ('ok', 'error', 'interrupted') THEN queued_at + queue END,
       queued_at + queue + run,
       CASE WHEN status = 'error' THEN kinds[kind][1] END, CASE WHEN status = 'error' THEN kinds[kind][2] END,
       CASE WHEN status = 'error' THEN jsonb_build_array(
           repeat('-', 75), kinds[kind][1] || '   Traceback (most recent call last)',
           E'\u001b[36mCell\u001b[39m\u001b[36m \u001b[39m\u001b[32mIn[' || n || E']\u001b[39m\u001b[32m, line 3\u001b[39m\n      1 data = load()\n----> 3 '
           || left(code, 40)) || CASE WHEN kinds[kind][3] = '' THEN '[]'::jsonb ELSE jsonb_build_array(
           E'\u001b[36mFile \u001b[39m\u001b[32m/opt/conda/lib/python3.11/' || kinds[kind][3]
           || E'\u001b[39m, in inner(self, key)\n   3806     raise\n-> 3807 raise ' || kinds[kind][1]) END
           || jsonb_build_array(kinds[kind][1] || ': ' || kinds[kind][2]) END,
       CASE WHEN status = 'ok' THEN bytes ELSE 0 END
FROM (SELECT :first_seq + row_number() OVER (ORDER BY queued_at) AS seq,
             uuidv7(queued_at - now()) AS id,
             md5(format('kernel %s %s', u, day)) AS kernel_id, *,
             -- From top to bottom, a cell often twice, now and then anywhere.
             CASE WHEN r_order < 0.08 THEN (r_cell * 14)::int ELSE (n * 2 / 3) % 15 END AS position
      FROM (SELECT *, row_number() OVER (PARTITION BY u, day ORDER BY queued_at) AS n,
                   (u - 1) * 12 + (u + day / 5) % 12 AS notebook,
                   (ARRAY['import numpy as np' || E'\n' || 'import pandas as pd',
                          'data = pd.read_csv("measurements.csv")' || E'\n' || 'data.head()',
                          'model = fit(data, rate=' || (r_cell * 10)::int || ')' || E'\n' || 'model.score(test)',
                          'for step in range(100):' || E'\n' || '    loss = train(step)' || E'\n' || '    print(step, loss)',
                          'data.groupby("station")["temperature"].mean().plot()',
                          'summary = data.describe()' || E'\n' || 'summary',
                          'x = np.linspace(0, ' || (r_cell * 5)::int || ')' || E'\n' || 'y = np.sin(x)',
                          'result = join(left, right, on="id")' || E'\n' || 'len(result)'])[(r_code * 8)::int % 8 + 1] AS code,
                   -ln(r_queue + 1e-9) * interval '0.15 s' AS queue,
                   CASE WHEN r_run < 0.02 THEN (60 + r_cell * 900) * interval '1 s'
                        ELSE -ln(r_run) * interval '0.9 s' END AS run,
                   CASE WHEN r_status < 0.925 THEN 'ok' WHEN r_status < 0.98 THEN 'error'
                        WHEN r_status < 0.99 THEN 'aborted' WHEN r_status < 0.993 THEN 'cancelled'
                        ELSE 'interrupted' END AS status,
                   (r_kind * 7)::int % 7 + 1 AS kind,
                   CASE WHEN r_out < 0.02 THEN 20000 WHEN r_out < 0.35 THEN 0 ELSE (40 + r_out * 300)::int END AS bytes
            FROM (SELECT day, 1 + floor(power(random(), 1.7) * :users)::int AS u,
                         :start::timestamptz + day * interval '1 day' + interval '7 hours'
                         + (random() + random()) * interval '5 hours' AS queued_at,
                         random() AS r_order, random() AS r_cell, random() AS r_code, random() AS r_queue,
                         random() AS r_run, random() AS r_status, random() AS r_kind, random() AS r_out,
                         random() AS r_client
                  FROM (SELECT d AS day, :per_day * CASE WHEN extract(isodow FROM :start::timestamptz + d * interval '1 day') < 6
                                                         THEN 1.28 ELSE 0.3 END AS many
                        FROM generate_series(:from_day, :to_day) d) days,
                       generate_series(1, many::int)) made
            WHERE queued_at < now()) numbered) placed,
     (SELECT ARRAY[['NameError', 'name ''data'' is not defined', ''],
                   ['KeyError', '''humidity''', 'site-packages/pandas/core/indexes/base.py:3812'],
                   ['ValueError', 'shapes (3,) and (4,) not aligned', 'site-packages/numpy/core/fromnumeric.py:57'],
                   ['FileNotFoundError', 'No such file or directory: ''measurements.csv''', 'site-packages/pandas/io/common.py:873'],
                   ['NotFittedError', 'This model is not fitted yet', 'site-packages/sklearn/utils/validation.py:1751'],
                   ['JSONDecodeError', 'Expecting value: line 1 column 1 (char 0)', 'json/decoder.py:355'],
                   ['TypeError', 'unsupported operand type(s)', '']] AS kinds) errors;

-- name: outputs
INSERT INTO partitions.:leaf (id, partition_id, execution_id, seq, kernel_id, output_type, name, text, data, metadata,
    execution_count, ename, evalue, traceback, size_bytes, created_at)
SELECT :first_id + row_number() OVER (), e.id, e.id, o.seq, e.kernel_id, o.type,
       CASE WHEN o.type = 'stream' THEN 'stdout' END,
       CASE WHEN o.type = 'stream' THEN repeat(e.seq || ' 0.731 step done' || E'\n', 1 + (e.seq % 9)::int) END,
       CASE o.type WHEN 'execute_result' THEN jsonb_build_object('text/plain', '   temperature' || E'\n' || e.seq, 'text/html',
                        '<table><tr><td>' || repeat(e.seq || '</td><td>', 8) || '</td></tr></table>')
                   WHEN 'display_data' THEN jsonb_build_object('image/png', repeat(md5(e.seq::text), 160), 'text/plain', '<Figure size 640x480>') END,
       CASE WHEN o.type IN ('execute_result', 'display_data') THEN '{}'::jsonb END,
       CASE WHEN o.type = 'execute_result' THEN e.execution_count END,
       CASE WHEN o.type = 'error' THEN e.ename END, CASE WHEN o.type = 'error' THEN e.evalue END,
       CASE WHEN o.type = 'error' THEN e.traceback END,
       CASE o.type WHEN 'display_data' THEN 5200 ELSE 180 END, e.finished_at
FROM partitions.:executions e,
     LATERAL (SELECT 1 AS seq, 'stream' AS type WHERE e.output_bytes > 0
              UNION ALL SELECT 2, CASE WHEN e.output_bytes = 20000 THEN 'display_data' ELSE 'execute_result' END
              WHERE e.output_bytes > 180
              UNION ALL SELECT 3, 'error' WHERE e.status = 'error') o;

-- name: cells
INSERT INTO cells (id, notebook_id, cell_id, position, cell_type, source, version, metadata, execution_count, execution_id)
SELECT md5(n || 'cell' || p)::uuid, md5('document' || n)::uuid, left(md5(n || ' ' || p), 8), p, 'code',
       coalesce(e.code, ''), coalesce(e.cell_version + (n + p) % 7 / 6, 1), '{}', e.execution_count, e.id
FROM generate_series(0, :users * 12 - 1) n, generate_series(0, 14) p
LEFT JOIN LATERAL (
    SELECT x.id, x.code, x.cell_version, x.execution_count FROM executions x
    WHERE x.cell_id = left(md5(n || ' ' || p), 8) ORDER BY x.seq DESC LIMIT 1
) e ON true;
