#!/bin/sh
# Run once by the postgres image, on a new volume: the role by which replicas read. It may connect
# from the containers' network for replication of this database, and read what is published.
set -eu
psql -v ON_ERROR_STOP=1 -v password="$REPLICATION_PASSWORD" -U "$POSTGRES_USER" -d "$POSTGRES_DB" <<'SQL'
CREATE ROLE replication LOGIN REPLICATION BYPASSRLS PASSWORD :'password';
GRANT USAGE ON SCHEMA public TO replication;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO replication;
SQL
