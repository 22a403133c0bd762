"""Addresses of databases, and connections to them for replication's commands."""

from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

CONNECT_SECONDS = 10
Row = dict[str, Any]
Connection = psycopg.Connection[Row]


class ReplicationError(Exception):
    """Replication cannot do what was asked; the message says why and what to do."""


def libpq_url(url: str) -> str:
    """Return a database's URL as libpq reads it, whichever driver it names."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ReplicationError(f"Not the URL of a database: {url}") from error
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise ReplicationError(f"Not the URL of a PostgreSQL database: {url}")
    return parsed.set(drivername="postgresql").render_as_string(hide_password=False)


def without_password(url: str) -> str:
    """Return a database's URL without a password, as it may be stored and shown."""
    parsed = make_url(libpq_url(url))._replace(password=None)
    parsed = parsed.difference_update_query(["password"])
    return parsed.render_as_string(hide_password=False)


def conninfo(url: str, **more: str) -> str:
    """Return libpq's keyword form of a URL, as CREATE SUBSCRIPTION takes it."""
    parameters: dict[str, Any] = {**conninfo_to_dict(libpq_url(url)), **more}
    return make_conninfo(**parameters)


def connect(url: str) -> Connection:
    """Open a connection in which each statement is a transaction; rows are dicts.

    Text forms of values do not depend on the server's settings. Raises ReplicationError.
    """
    try:
        connection: Connection = psycopg.connect(
            conninfo(url, connect_timeout=str(CONNECT_SECONDS)),
            autocommit=True,
            application_name="jupyter-datastore replica",
            options="-c TimeZone=UTC -c DateStyle=ISO -c bytea_output=hex -c extra_float_digits=1",
            row_factory=dict_row,
        )
    except psycopg.Error as error:
        raise ReplicationError(
            f"Cannot connect to {without_password(url)}: {one_line(error)}"
        ) from error
    return connection


def one_line(error: BaseException) -> str:
    """Return an error's message, of the database's if it has one, in a line without full stop."""
    told = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return " ".join(str(told).split("CONTEXT:")[0].split()).rstrip(".")


def one(connection: Connection, query: LiteralString, *values: object) -> Row:
    """Return the first row of a query that has one."""
    row = connection.execute(query, values).fetchone()
    if row is None:
        raise ReplicationError("The database answered nothing where a row was expected.")
    return row


def identity(connection: Connection) -> tuple[int, int]:
    """Return what tells this database from every other: its cluster's identifier and its oid."""
    row = one(
        connection,
        "SELECT system_identifier AS cluster,"
        " (SELECT oid::bigint FROM pg_database WHERE datname = current_database()) AS database"
        " FROM pg_control_system()",
    )
    return row["cluster"], row["database"]


def table_name(table: str) -> sql.Identifier:
    """Return a table of `models.publication` as it stands in a statement."""
    return sql.Identifier(*table.split("."))
