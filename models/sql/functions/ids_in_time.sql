-- Ids of executions are UUIDv7 (RFC 9562, section 5.7): their first 48 bits are milliseconds since
-- 1970. The smallest id of a time, for bounds of partitions and for conditions that prune them.
CREATE OR REPLACE FUNCTION datastore_id_at(at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
RETURN (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;

-- The time of an id, at its millisecond; meaningless for an id of another version.
CREATE OR REPLACE FUNCTION datastore_time_of(id uuid) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
RETURN to_timestamp(('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 1000.0);

-- The lowest id of an execution that was asked for after another one, so that partitions of earlier times
-- need not be looked into. A day is left for clocks that differ and for what waits to be written.
-- Executions that had ids before those told the time are older than `periods_from`: it is zero for them.
CREATE OR REPLACE FUNCTION datastore_lowest_id_after(id uuid, queued_at timestamptz, periods_from timestamptz)
RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN queued_at >= periods_from
            THEN datastore_id_at(greatest(least(queued_at, datastore_time_of(id)) - interval '1 day',
                                          to_timestamp(0)))
            ELSE '00000000-0000-0000-0000-000000000000'::uuid END;
