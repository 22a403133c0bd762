-- Bytes as the feed's JSON has them: base64 in one line; a list of bytes as a list of such strings.
CREATE OR REPLACE FUNCTION datastore_base64(bytes bytea) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN translate(encode(bytes, 'base64'), E'\n', '');

CREATE OR REPLACE FUNCTION datastore_base64(list bytea[]) RETURNS json
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (
    SELECT coalesce(json_agg(datastore_base64(item) ORDER BY number), '[]'::json)
    FROM unnest(list) WITH ORDINALITY AS items (item, number)
);
