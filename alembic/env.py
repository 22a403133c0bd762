"""How migrations run: online, one transaction for all, with time limits on locks."""

import os
import sys
from logging.config import fileConfig

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from alembic import context
from app.db.engine import sync_url
from app.db.locate import find_url
from models import Base

config = context.config
if config.config_file_name is not None and config.attributes.get("connection") is None:
    fileConfig(config.config_file_name, disable_existing_loggers=False)


def include_name(name, type_, _):
    """Leave alone what is not ours."""
    return type_ != "schema" or name in (None, "public")


def run(connection):
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_server_default=True,
        include_name=include_name,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_online():
    url = config.get_main_option("sqlalchemy.url") or find_url()
    if url is None:
        sys.exit(
            "Which database? Set DATASTORE_DATABASE_URL, or start a server with "
            "`jupyter-datastore serve`, which migrates its own."
        )
    engine = create_engine(sync_url(url), poolclass=NullPool)
    with engine.connect() as connection:
        # Two servers that start at once must not migrate at once.
        connection.execute(text("SELECT pg_advisory_lock(7366470210)"))
        connection.execute(text("SET lock_timeout = '10s'"))
        connection.commit()
        run(connection)


if context.is_offline_mode():
    context.configure(
        url=os.environ.get("DATASTORE_DATABASE_URL", "postgresql://"),
        target_metadata=Base.metadata,
        literal_binds=True,
    )
    with context.begin_transaction():
        context.run_migrations()
elif (shared := config.attributes.get("connection")) is not None:
    run(shared)
else:
    run_online()
