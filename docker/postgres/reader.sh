#!/bin/sh
# Run once by the postgres image, on the replica's new volume: the role by which dashboards read
# everybody's history. It can read all that is there, since no secret is, and write nothing.
set -eu
psql -v ON_ERROR_STOP=1 -v password="$READER_PASSWORD" -U "$POSTGRES_USER" -d "$POSTGRES_DB" <<'SQL'
CREATE ROLE reader LOGIN BYPASSRLS PASSWORD :'password';
GRANT pg_read_all_data TO reader;
SQL
