"""The tables of Jupyter Datastore, one module per subject, and the SQL that belongs to them.

Importing this package registers every table, and the functions, triggers, views, policies
and publications under `models/sql`, with `Base.metadata`.
"""

from models import sql
from models.base import Base
from models.documents import (
    Cell,
    Checkpoint,
    Content,
    Document,
    DocumentSnapshot,
    DocumentUpdate,
    Notebook,
)
from models.executions import (
    Comm,
    CommMessage,
    Execution,
    IdempotencyKey,
    InputRequest,
    Output,
)
from models.kernels import Kernel, Kernelspec, ServerProcess, Session
from models.people import Token, User
from models.replication import Replica
from models.services import ConfigSection, Terminal

__all__ = [
    "Base",
    "Cell",
    "Checkpoint",
    "Comm",
    "CommMessage",
    "ConfigSection",
    "Content",
    "Document",
    "DocumentSnapshot",
    "DocumentUpdate",
    "Execution",
    "IdempotencyKey",
    "InputRequest",
    "Kernel",
    "Kernelspec",
    "Notebook",
    "Output",
    "Replica",
    "ServerProcess",
    "Session",
    "Terminal",
    "Token",
    "User",
]

sql.attach(Base.metadata)
