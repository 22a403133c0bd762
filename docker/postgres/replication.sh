#!/bin/sh
# Run once by the postgres image, on the publisher's new volume: the role by which replicas read.
# `jupyter-datastore replica add` grants it the published columns and nothing else.
set -eu
psql -v ON_ERROR_STOP=1 -v password="$REPLICATION_PASSWORD" -U "$POSTGRES_USER" -d "$POSTGRES_DB" <<'SQL'
CREATE ROLE replication LOGIN REPLICATION BYPASSRLS PASSWORD :'password';
SQL
