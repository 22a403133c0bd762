"""Live tables and actions of a Jupyter Datastore server."""

from jupyter_datastore_client.changes import Change
from jupyter_datastore_client.connection import Status
from jupyter_datastore_client.errors import (
    ApiError,
    ClosedError,
    DatastoreError,
    FeedError,
    NotAllowedError,
)
from jupyter_datastore_client.store import Datastore
from jupyter_datastore_client.table import ChangeStream, LiveTable, Table

__all__ = [
    "ApiError",
    "Change",
    "ChangeStream",
    "ClosedError",
    "Datastore",
    "DatastoreError",
    "FeedError",
    "LiveTable",
    "NotAllowedError",
    "Status",
    "Table",
]
