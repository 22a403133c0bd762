-- Tables that grow are partitioned by time; their partitions are in the schema `partitions`, named
-- for their table and their first day, and made ahead. Executions and outputs have no default partition:
-- with one, none could be detached without locking the table. The change log has one, since nobody
-- reads it for long.
CREATE SCHEMA IF NOT EXISTS partitions;

-- The partitions of all tables with their bounds as times; a null bound is open, or no time.
CREATE OR REPLACE FUNCTION datastore_partitions()
RETURNS TABLE (parent name, name name, low timestamptz, high timestamptz, low_bound text,
               high_bound text, detaching boolean)
LANGUAGE sql STABLE
SET datestyle = 'ISO'
BEGIN ATOMIC
    SELECT parent.relname, leaf.relname, bounds.low, bounds.high, texts.low, texts.high,
           i.inhdetachpending
    FROM pg_inherits i
    JOIN pg_class parent ON parent.oid = i.inhparent AND parent.relkind = 'p'
    JOIN pg_class leaf ON leaf.oid = i.inhrelid
    JOIN pg_namespace n ON n.oid = leaf.relnamespace AND n.nspname = 'partitions'
    CROSS JOIN LATERAL (SELECT pg_get_expr(leaf.relpartbound, leaf.oid) AS bound) b
    CROSS JOIN LATERAL (
        SELECT substring(b.bound FROM 'FROM \(''([^'']+)''\)') AS low,
               substring(b.bound FROM 'TO \(''([^'']+)''\)') AS high
    ) texts
    CROSS JOIN LATERAL (
        SELECT CASE WHEN texts.low ~ '^0[0-4].{6}-.{4}-0' AND texts.low > '0000001'
                    THEN datastore_time_of(texts.low::uuid)
                    WHEN texts.low ~ '^\d{4}-\d\d-\d\d ' THEN texts.low::timestamptz END AS low,
               CASE WHEN texts.high ~ '^0[0-4].{6}-.{4}-0' AND texts.high > '0000001'
                    THEN datastore_time_of(texts.high::uuid)
                    WHEN texts.high ~ '^\d{4}-\d\d-\d\d ' THEN texts.high::timestamptz END AS high
    ) bounds;
END;

-- Make one partition and attach it; false when there is one of that name. The table itself is not
-- locked against readers and writers (ATTACH takes SHARE UPDATE EXCLUSIVE); tables that its foreign
-- keys refer to are locked against writers for a moment, so call it with a short lock_timeout.
CREATE OR REPLACE FUNCTION datastore_make_partition(parent text, label text, low text, high text)
RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    leaf text := parent || '_' || label;
    made record;
    key text;
    strays regclass;
BEGIN
    IF to_regclass(format('partitions.%I', leaf)) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE partitions.%I (LIKE public.%I INCLUDING ALL EXCLUDING IDENTITY'
                   ' EXCLUDING INDEXES EXCLUDING STATISTICS EXCLUDING COMMENTS)', leaf, parent);
    -- What ATTACH would make as well, with names that say which of the table's they are.
    FOR made IN
        SELECT regexp_replace(c.relname, '^' || parent, leaf) AS name,
               regexp_replace(pg_get_indexdef(i.indexrelid), '^CREATE (UNIQUE )?INDEX .* USING ',
                              'USING ') AS definition,
               CASE WHEN i.indisunique THEN 'UNIQUE' ELSE '' END AS kind,
               pg_get_constraintdef(k.oid) AS key
        FROM pg_index i
        JOIN pg_class c ON c.oid = i.indexrelid
        LEFT JOIN pg_constraint k ON k.conindid = c.oid AND k.contype IN ('p', 'u')
        WHERE i.indrelid = format('public.%I', parent)::regclass
    LOOP
        IF made.key IS NULL THEN
            EXECUTE format('CREATE %s INDEX %I ON partitions.%I %s',
                           made.kind, made.name, leaf, made.definition);
        ELSE
            EXECUTE format('ALTER TABLE partitions.%I ADD CONSTRAINT %I %s',
                           leaf, made.name, made.key);
        END IF;
    END LOOP;
    -- Policies are the table's: nobody but the owner reads a partition past them.
    EXECUTE format('ALTER TABLE partitions.%I ENABLE ROW LEVEL SECURITY', leaf);
    IF parent = 'executions' THEN
        -- A unique constraint of the whole table would have to contain the id.
        EXECUTE format('CREATE UNIQUE INDEX %I ON partitions.%I (kernel_id, msg_id)',
                       leaf || '_kernel_id_msg_id_key', leaf);
    ELSIF parent = 'outputs' AND label <> 'kept' THEN
        -- Between partitions of one period: a foreign key between the tables would have every
        -- detached partition compared with all outputs.
        EXECUTE format('ALTER TABLE partitions.%I ADD CONSTRAINT %I FOREIGN KEY (execution_id)'
                       ' REFERENCES partitions.%I (id) ON DELETE CASCADE',
                       leaf, leaf || '_execution_id_fkey', 'executions_' || label);
    END IF;
    SELECT a.attname, nullif(p.partdefid, 0)::regclass INTO key, strays
    FROM pg_partitioned_table p
    JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
    WHERE p.partrelid = format('public.%I', parent)::regclass;
    IF strays IS NOT NULL THEN
        -- ATTACH locks the default partition, and refuses while it has rows of the new one.
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', strays);
        EXECUTE format('WITH moved AS (DELETE FROM %s WHERE %2$I >= %3$L AND %2$I < %4$L RETURNING *)'
                       ' INSERT INTO partitions.%5$I SELECT * FROM moved',
                       strays, key, low, high, leaf);
    END IF;
    EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION partitions.%I FOR VALUES FROM (%s) TO (%s)',
                   parent, leaf, coalesce(quote_literal(low), 'MINVALUE'),
                   coalesce(quote_literal(high), 'MAXVALUE'));
    RETURN true;
END
$$;

-- Make the partition that follows the last one in time: of a month, week, day or hour (UTC). Returns its
-- end. The table's key is a UUIDv7 or a timestamptz. Outputs follow executions. A table with a default
-- partition needs none for the time until `at` in which there was none.
CREATE OR REPLACE FUNCTION datastore_make_next_partition(
    parent text, unit text, at timestamptz DEFAULT now()
) RETURNS timestamptz
LANGUAGE plpgsql AS $$
DECLARE
    begins timestamp;
    ends timestamp;
    label text;
    low text;
    high text;
    is_uuid boolean;
    has_default boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('datastore partitions'));
    SELECT max(p.high) AT TIME ZONE 'UTC' INTO begins
    FROM datastore_partitions() p WHERE p.parent = datastore_make_next_partition.parent;
    SELECT a.atttypid = 'uuid'::regtype, p.partdefid <> 0 INTO STRICT is_uuid, has_default
    FROM pg_partitioned_table p
    JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
    WHERE p.partrelid = format('public.%I', parent)::regclass;
    begins := coalesce(begins, date_trunc(unit, at AT TIME ZONE 'UTC'));
    IF has_default THEN
        begins := greatest(begins, date_trunc(unit, at AT TIME ZONE 'UTC'));
        IF begins AT TIME ZONE 'UTC' <= clock_timestamp() THEN
            -- Somebody may be writing to the default partition what is of the new one.
            EXECUTE format('LOCK TABLE ONLY public.%I IN SHARE ROW EXCLUSIVE MODE', parent);
        END IF;
    END IF;
    ends := date_trunc(unit, begins) + ('1 ' || unit)::interval;
    label := to_char(begins, CASE unit WHEN 'hour' THEN 'YYYY_MM_DD_HH24' ELSE 'YYYY_MM_DD' END);
    IF is_uuid THEN
        low := datastore_id_at(begins AT TIME ZONE 'UTC');
        high := datastore_id_at(ends AT TIME ZONE 'UTC');
    ELSE
        low := begins AT TIME ZONE 'UTC';
        high := ends AT TIME ZONE 'UTC';
    END IF;
    PERFORM datastore_make_partition(parent, label, low, high);
    IF parent = 'executions' THEN
        PERFORM datastore_make_partition('outputs', label, low, high);
    END IF;
    RETURN ends AT TIME ZONE 'UTC';
END
$$;

-- Drop a partition that was detached, and tell who follows its table to fetch anew: its rows went
-- without a trigger.
CREATE OR REPLACE FUNCTION datastore_drop_detached(parent text, leaf text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    had_rows boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM partitions.%I)', leaf) INTO had_rows;
    EXECUTE format('DROP TABLE partitions.%I', leaf);
    IF had_rows AND EXISTS (SELECT FROM pg_trigger
                            WHERE tgrelid = to_regclass(format('public.%I', parent))
                              AND tgname = 'datastore_changes_truncate') THEN
        INSERT INTO changes (table_name, op) VALUES (parent, 'T');
        PERFORM pg_notify('datastore_changes', '');
    END IF;
END
$$;
