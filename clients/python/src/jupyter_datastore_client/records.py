"""Made by `jupyter-datastore typescript --of records --language python` from the models' published columns."""
# ruff: noqa: E501

from typing import Any, Literal, NotRequired, TypedDict, overload

from jupyter_datastore_client.table import Table


class CellRecord(TypedDict):
    """A cell of a notebook, as its document says."""

    id: str
    notebook_id: str
    cell_id: str
    position: int
    cell_type: Literal["code", "markdown", "raw"]
    source: str
    version: int
    metadata: dict[str, Any]
    extra: dict[str, Any]
    execution_count: int | None
    execution_state: str
    execution_id: str | None
    attachments: NotRequired[dict[str, Any] | None]


class CheckpointRecord(TypedDict):
    """A copy of a file that the contents manager keeps, as it was last listed or made here."""

    id: str
    content_id: str
    checkpoint_id: str
    last_modified: str


class CommMessageRecord(TypedDict):
    """A message on a comm, in the kernel's order; kept while the comm is open."""

    id: int
    comm_id: str
    execution_id: str | None
    direction: Literal["kernel", "client"]
    actor_id: str | None
    msg_id: str | None
    msg_type: Literal["comm_open", "comm_msg", "comm_close"]
    data: dict[str, Any]
    metadata: dict[str, Any]
    size_bytes: int
    created_at: str
    buffers: NotRequired[list[str]]


class CommRecord(TypedDict):
    """A comm (the channel behind a widget) between a kernel and its clients."""

    id: str
    kernel_id: str
    incarnation: int
    comm_id: str
    target_name: str
    target_module: str | None
    state: Literal["open", "closed"]
    reason: str | None
    execution_id: str | None
    last_message_id: int
    dropped_through: int
    opened_at: str
    closed_at: str | None
    data: NotRequired[dict[str, Any]]
    metadata: NotRequired[dict[str, Any]]
    buffers: NotRequired[list[str]]


class ConfigSectionRecord(TypedDict):
    """One section of a user's frontend settings, as `/api/config/{name}` changes it."""

    user_id: str
    name: str
    data: dict[str, Any]
    updated_at: str


class ContentRecord(TypedDict):
    """A file under the root directory, as it was last seen on disk."""

    id: str
    parent_id: str | None
    path: str
    name: str
    type: Literal["notebook", "file", "directory"]
    format: str | None
    mimetype: str | None
    writable: bool
    size: int | None
    created: str | None
    last_modified: str | None
    hash: str | None
    hash_algorithm: str | None
    missing_since: str | None


class DocumentForkRecord(TypedDict):
    """A fork of a document, as jupyter-collaboration has them: edited apart, merged or dropped."""

    id: str
    document_id: str
    title: str
    description: str
    synchronize: bool
    actor_id: str | None
    created_at: str


class DocumentVersionRecord(TypedDict):
    """A version of a document that somebody gave a name; `state` is its whole Yjs state."""

    id: str
    document_id: str
    version: int
    name: str
    actor_id: str | None
    created_at: str


class DocumentRecord(TypedDict):
    """An open notebook or text file: its merge state's version and what is on disk."""

    id: str
    content_id: str
    type: Literal["notebook", "file"]
    format: str
    version: int
    saved_version: int
    saved_at: str | None
    save_error: str | None
    created_at: str


class ExecutionRecord(TypedDict):
    """One run of one piece of code on one incarnation of one kernel."""

    id: str
    seq: int
    kernel_id: str
    incarnation: int
    session_id: str | None
    document_id: str | None
    path: str | None
    cell_id: str | None
    cell_version: int | None
    actor_id: str | None
    run_as_id: str
    client: str
    msg_id: str
    code: str
    source_hash: str
    silent: bool
    store_history: bool
    stop_on_error: bool
    allow_stdin: bool
    status: Literal["queued", "running", "ok", "error", "aborted", "cancelled", "interrupted"]
    reason: str | None
    execution_count: int | None
    queued_at: str
    started_at: str | None
    finished_at: str | None
    ename: str | None
    evalue: str | None
    traceback: list[str] | None
    output_bytes: int
    user_expressions: NotRequired[dict[str, Any]]
    reply: NotRequired[dict[str, Any] | None]


class GroupMemberRecord(TypedDict):
    """That a user is in a group."""

    group_id: str
    user_id: str
    created_at: str


class GroupRecord(TypedDict):
    """Users who are given permissions together; who is in one with a `hub_name` says the hub."""

    id: str
    name: str
    created_at: str


class InputRequestRecord(TypedDict):
    """A question that running code asks (`input()`, `getpass()`); anyone allowed may answer, once."""

    id: str
    execution_id: str
    kernel_id: str
    msg_id: str
    prompt: str
    password: bool
    status: Literal["pending", "answered", "cancelled"]
    answered_by_id: str | None
    created_at: str
    answered_at: str | None


class KernelRecord(TypedDict):
    """A kernel, living or ended; history refers to ended ones, so rows stay."""

    id: str
    name: str
    path: str
    execution_state: Literal["unknown", "starting", "idle", "busy", "terminating", "restarting", "autorestarting", "dead"]
    reason: str | None
    incarnation: int
    connections: int
    owner_id: str
    server_id: str | None
    kernel_info: dict[str, Any] | None
    created_at: str
    last_activity: str
    ended_at: str | None


class KernelspecRecord(TypedDict):
    """A kernel that can be started, as Jupyter found it when it was last listed."""

    id: str
    name: str
    is_default: bool
    spec: dict[str, Any]
    resources: dict[str, Any]


class LabSettingRecord(TypedDict):
    """A person's settings of one plugin of JupyterLab."""

    user_id: str
    schema_id: str
    raw: str
    settings: dict[str, Any]
    created_at: str
    last_modified: str


class LabWorkspaceRecord(TypedDict):
    """A person's layout of one JupyterLab workspace: what is open, where, and how."""

    user_id: str
    name: str
    created_at: str
    last_modified: str
    data: NotRequired[dict[str, Any]]
    metadata: NotRequired[dict[str, Any]]


class NotebookRecord(TypedDict):
    """A notebook's own fields; `extra` are top-level keys that nbformat does not define."""

    id: str
    nbformat: int
    nbformat_minor: int
    metadata: dict[str, Any]
    extra: dict[str, Any]


class OutputRecord(TypedDict):
    """One output message of an execution, or an output that a file brought with it."""

    id: int
    execution_id: str | None
    seq: int
    kernel_id: str | None
    cell_id: str | None
    output_type: Literal["stream", "display_data", "execute_result", "error", "unknown"]
    name: str | None
    text: str | None
    data: dict[str, Any] | None
    metadata: dict[str, Any] | None
    execution_count: int | None
    ename: str | None
    evalue: str | None
    traceback: list[str] | None
    extra: dict[str, Any] | None
    display_id: str | None
    comm_id: str | None
    size_bytes: int
    created_at: str
    updated_at: str | None
    cleared_at: str | None


class PresenceRecord(TypedDict):
    """A connection to the feed: who it is, and what it said it looks at."""

    id: str
    user_id: str
    server_id: str
    client: str | None
    data: dict[str, Any] | None
    connected_at: str
    updated_at: str


class ServerProcessRecord(TypedDict):
    """One run of the server; a kernel's host."""

    id: str
    hostname: str
    version: str
    started_at: str
    stopped_at: str | None


class SessionRecord(TypedDict):
    """A path (notebook, console or file) and the kernel that serves it."""

    id: str
    path: str
    name: str
    type: str
    kernel_id: str
    document_id: str | None
    owner_id: str
    created_at: str
    ended_at: str | None


class TerminalRecord(TypedDict):
    """A shell on a pseudo-terminal of one server process, living or ended."""

    id: str
    name: str
    owner_id: str
    server_id: str | None
    created_at: str
    last_activity: str
    ended_at: str | None


class TextContentRecord(TypedDict):
    """The text of an open text file, as its document says, with line feeds as line ends."""

    id: str
    text: NotRequired[str]


class UserRecord(TypedDict):
    """A person or service that acts; `name` is what Jupyter calls the username."""

    id: str
    name: str
    full_name: str | None
    display_name: str | None
    initials: str | None
    avatar_url: str | None
    color: str | None
    admin: bool
    created_at: str
    disabled_at: str | None


# The columns that make up a record's id.
ID_COLUMNS: dict[str, tuple[str, ...]] = {
    "cells": ("id",),
    "checkpoints": ("id",),
    "comm_messages": ("id",),
    "comms": ("id",),
    "config_sections": ("user_id", "name"),
    "contents": ("id",),
    "document_forks": ("id",),
    "document_versions": ("id",),
    "documents": ("id",),
    "executions": ("id",),
    "group_members": ("group_id", "user_id"),
    "groups": ("id",),
    "input_requests": ("id",),
    "kernels": ("id",),
    "kernelspecs": ("id",),
    "lab_settings": ("user_id", "schema_id"),
    "lab_workspaces": ("user_id", "name"),
    "notebooks": ("id",),
    "outputs": ("id",),
    "presence": ("id",),
    "server_status": ("id",),
    "sessions": ("id",),
    "terminals": ("id",),
    "text_contents": ("id",),
    "users": ("id",),
}


class TypedTables:
    """`table`, typed by the table's name."""

    @overload
    def table(self, name: Literal["cells"]) -> Table[CellRecord]: ...

    @overload
    def table(self, name: Literal["checkpoints"]) -> Table[CheckpointRecord]: ...

    @overload
    def table(self, name: Literal["comm_messages"]) -> Table[CommMessageRecord]: ...

    @overload
    def table(self, name: Literal["comms"]) -> Table[CommRecord]: ...

    @overload
    def table(self, name: Literal["config_sections"]) -> Table[ConfigSectionRecord]: ...

    @overload
    def table(self, name: Literal["contents"]) -> Table[ContentRecord]: ...

    @overload
    def table(self, name: Literal["document_forks"]) -> Table[DocumentForkRecord]: ...

    @overload
    def table(self, name: Literal["document_versions"]) -> Table[DocumentVersionRecord]: ...

    @overload
    def table(self, name: Literal["documents"]) -> Table[DocumentRecord]: ...

    @overload
    def table(self, name: Literal["executions"]) -> Table[ExecutionRecord]: ...

    @overload
    def table(self, name: Literal["group_members"]) -> Table[GroupMemberRecord]: ...

    @overload
    def table(self, name: Literal["groups"]) -> Table[GroupRecord]: ...

    @overload
    def table(self, name: Literal["input_requests"]) -> Table[InputRequestRecord]: ...

    @overload
    def table(self, name: Literal["kernels"]) -> Table[KernelRecord]: ...

    @overload
    def table(self, name: Literal["kernelspecs"]) -> Table[KernelspecRecord]: ...

    @overload
    def table(self, name: Literal["lab_settings"]) -> Table[LabSettingRecord]: ...

    @overload
    def table(self, name: Literal["lab_workspaces"]) -> Table[LabWorkspaceRecord]: ...

    @overload
    def table(self, name: Literal["notebooks"]) -> Table[NotebookRecord]: ...

    @overload
    def table(self, name: Literal["outputs"]) -> Table[OutputRecord]: ...

    @overload
    def table(self, name: Literal["presence"]) -> Table[PresenceRecord]: ...

    @overload
    def table(self, name: Literal["server_status"]) -> Table[ServerProcessRecord]: ...

    @overload
    def table(self, name: Literal["sessions"]) -> Table[SessionRecord]: ...

    @overload
    def table(self, name: Literal["terminals"]) -> Table[TerminalRecord]: ...

    @overload
    def table(self, name: Literal["text_contents"]) -> Table[TextContentRecord]: ...

    @overload
    def table(self, name: Literal["users"]) -> Table[UserRecord]: ...

    @overload
    def table(self, name: str) -> Table[Any]: ...

    def table(self, name: str) -> Table[Any]:
        """Return a table to follow or to read; further tables are untyped."""
        return self._table(name)

    def _table(self, name: str) -> Table[Any]:
        raise NotImplementedError
