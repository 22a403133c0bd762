-- Ids of executions are UUIDv7 (RFC 9562, section 5.7): their first 48 bits are milliseconds since
-- 1970. The smallest id of a time, for bounds of partitions and for conditions that prune them.
CREATE OR REPLACE FUNCTION datastore_id_at(at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
RETURN (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;

-- The time of an id, at its millisecond; meaningless for an id of another version.
CREATE OR REPLACE FUNCTION datastore_time_of(id uuid) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
RETURN to_timestamp(('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 1000.0);
