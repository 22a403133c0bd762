"""Finding the database that commands mean: the one named, or a running embedded one."""

import os
from pathlib import Path

from app.db import embedded


def find_url(data_dir: Path | None = None) -> str | None:
    """Return the database's libpq URL, or None when there is none.

    `DATASTORE_DATABASE_URL` if set; else of the embedded server that runs on `data_dir`
    (`DATASTORE_DATA_DIR`, else the default folder).
    """
    if data_dir is None and (url := os.environ.get("DATASTORE_DATABASE_URL")):
        return url
    folder = data_dir or Path(os.environ.get("DATASTORE_DATA_DIR") or embedded.default_data_dir())
    return embedded.read_url(folder)
