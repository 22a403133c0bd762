"""The tables of Jupyter Datastore, one module per subject, and the SQL that belongs to them.

Importing this package registers every table, and the functions, triggers, views, policies
and publications under `models/sql`, with `Base.metadata`.
"""

from models import sql
from models.base import Base
from models.documents import (
    Cell,
    Checkpoint,
    CollaborationSession,
    Content,
    Document,
    DocumentFork,
    DocumentSnapshot,
    DocumentUpdate,
    DocumentVersion,
    Notebook,
    TextContent,
)
from models.executions import (
    Comm,
    CommMessage,
    Execution,
    IdempotencyKey,
    InputRequest,
    Output,
)
from models.feed import Change, FeedEpoch, FeedMark, Presence
from models.kernels import Kernel, Kernelspec, ServerProcess, Session
from models.lab import LabSetting, LabWorkspace
from models.people import (
    AuditEntry,
    Group,
    GroupMember,
    Password,
    Permission,
    ShareLink,
    SqlRole,
    Token,
    User,
)
from models.replication import Replica
from models.services import ConfigSection, Terminal

__all__ = [
    "AuditEntry",
    "Base",
    "Cell",
    "Change",
    "Checkpoint",
    "CollaborationSession",
    "Comm",
    "CommMessage",
    "ConfigSection",
    "Content",
    "Document",
    "DocumentFork",
    "DocumentSnapshot",
    "DocumentUpdate",
    "DocumentVersion",
    "Execution",
    "FeedEpoch",
    "FeedMark",
    "Group",
    "GroupMember",
    "IdempotencyKey",
    "InputRequest",
    "Kernel",
    "Kernelspec",
    "LabSetting",
    "LabWorkspace",
    "Notebook",
    "Output",
    "Password",
    "Permission",
    "Presence",
    "Replica",
    "ServerProcess",
    "Session",
    "ShareLink",
    "SqlRole",
    "Terminal",
    "TextContent",
    "Token",
    "User",
]

sql.attach(Base.metadata)
