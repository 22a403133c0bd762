"""Made by `jupyter-datastore typescript --of api --language python` from the API's OpenAPI document."""
# ruff: noqa: E501

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class APIStatus(TypedDict):
    """The server's activity."""

    started: str
    last_activity: str
    connections: int
    kernels: int


class AcceptLink(TypedDict):
    """A link's code."""

    code: str


class Answer(TypedDict):
    """The answer to an input request."""

    value: str
    input_request_id: NotRequired[str]


class AuditEntry(TypedDict):
    """Something that was done about access, or attempted."""

    id: int
    at: str
    event: str
    actor_id: str | None
    actor: str | None
    detail: dict[str, Any]


class CellPlace(TypedDict):
    """A place among the cells: `index`, or `before` or `after` another cell; one of them."""

    index: NotRequired[int]
    before: NotRequired[str]
    after: NotRequired[str]


class ChangeCell(TypedDict):
    """What to change of a cell; a text is compared with `base`, or refused unless at `version`."""

    source: NotRequired[str]
    splices: NotRequired[list[Splice]]
    base: NotRequired[str]
    version: NotRequired[int]
    type: NotRequired[Literal["code", "markdown", "raw"]]
    metadata: NotRequired[dict[str, Any]]
    attachments: NotRequired[dict[str, Any] | None]
    outputs: NotRequired[list[dict[str, Any]]]


class ChangePassword(TypedDict):
    """A new password, and the one until now."""

    password: str
    current: NotRequired[str]


class ChangeUser(TypedDict):
    """What to change of a user."""

    name: NotRequired[str]
    disabled: NotRequired[bool]
    admin: NotRequired[bool]
    password: NotRequired[str]


class Checkpoints(TypedDict):
    """A kept state of a file."""

    id: str
    last_modified: str


class Comm(TypedDict):
    """A comm, with what a comm_open sent now would carry; buffers are base64."""

    id: str
    kernel_id: str
    comm_id: str
    target_name: str
    target_module: str | None
    state: Literal["open", "closed"]
    reason: str | None
    incarnation: int
    execution_id: str | None
    data: dict[str, Any]
    metadata: dict[str, Any]
    buffers: list[str]
    last_message_id: int
    dropped_through: int
    opened_at: str
    closed_at: str | None


class CommData(TypedDict):
    """What a comm message carries; buffers are base64."""

    data: NotRequired[dict[str, Any]]
    metadata: NotRequired[dict[str, Any]]
    buffers: NotRequired[list[str]]


class CommMessage(TypedDict):
    """A recorded message of a comm."""

    id: int
    msg_id: str | None
    msg_type: Literal["comm_open", "comm_msg", "comm_close"]
    direction: Literal["kernel", "client"]
    data: dict[str, Any]
    metadata: dict[str, Any]
    buffers: list[str]
    created_at: str


class CommMessages(TypedDict):
    """A page of a comm's messages in the kernel's order; `next` is what `after` takes."""

    messages: list[CommMessage]
    next: int | None
    state: Literal["open", "closed"]
    last_message_id: int
    dropped_through: int


class Contents(TypedDict):
    """A file, notebook or folder; `content` and `format` are null where it was not asked for."""

    name: str
    path: str
    type: Literal["directory", "file", "notebook"]
    writable: bool
    created: str
    last_modified: str
    size: NotRequired[int | None]
    mimetype: str | None
    content: Any
    format: Literal["text", "base64", "json"] | None
    hash: NotRequired[str | None]
    hash_algorithm: NotRequired[str | None]
    message: NotRequired[str]


class ConvertNotebook(TypedDict):
    """A notebook to convert."""

    name: NotRequired[str]
    content: dict[str, Any]


class CreateContents(TypedDict):
    """What to create: an untitled thing, or a copy."""

    copy_from: NotRequired[str]
    ext: NotRequired[str]
    type: NotRequired[str]


class CreateToken(TypedDict):
    """A token to make: for oneself, by an administrator for any user."""

    name: NotRequired[str]
    scopes: NotRequired[list[str]]
    user: NotRequired[str]
    expires_at: NotRequired[str]


class CreateUser(TypedDict):
    """A user to make; with a password they can log in by name."""

    name: str
    display_name: NotRequired[str]
    admin: NotRequired[bool]
    password: NotRequired[str]


class DocumentCell(TypedDict):
    """A cell of a notebook, with the version of its source."""

    id: str
    type: Literal["code", "markdown", "raw"]
    source: str
    version: int
    metadata: dict[str, Any]
    execution_count: int | None
    execution_state: str
    execution_id: str | None


class DocumentCells(TypedDict):
    """A notebook's cells in its order."""

    document_id: str
    path: str | None
    version: int
    cells: list[DocumentCell]


class DocumentChange(TypedDict):
    """A change of a document: who, when, and what it did to which cell."""

    version: int
    at: str
    user: str | None
    origin: str
    edits: int
    undoes: list[int] | None
    size_bytes: int
    cells: dict[str, list[str]]


class DocumentContent(TypedDict):
    """A document as it was at a version: a notebook, or a text."""

    document_id: str
    version: int
    content: dict[str, Any] | str


class DocumentHistory(TypedDict):
    """A document's changes, the latest first."""

    document_id: str
    version: int
    compacted_version: int
    changes: list[DocumentChange]


class EditedCell(TypedDict):
    """A cell after an edit, with its place and the document's version."""

    id: str
    type: Literal["code", "markdown", "raw"]
    source: str
    version: int
    metadata: dict[str, Any]
    execution_count: int | None
    execution_state: str
    execution_id: str | None
    document_id: str
    document_version: int
    position: int


class Error(TypedDict):
    """Why a request failed: `message` for a person, `reason` if there is more to say."""

    message: str
    reason: Any


class Event(TypedDict):
    """An event of a registered schema; `timestamp` is a time with offset and Z."""

    schema_id: str
    version: str | int
    data: dict[str, Any]
    timestamp: NotRequired[str]


class Execute(TypedDict):
    """What to run: `code`, or `cell_id` with `path` or `document_id`."""

    code: NotRequired[str]
    cell_id: NotRequired[str]
    path: NotRequired[str]
    document_id: NotRequired[str]
    cell_version: NotRequired[int]
    silent: NotRequired[bool]
    store_history: NotRequired[bool]
    stop_on_error: NotRequired[bool]
    allow_stdin: NotRequired[bool]
    user_expressions: NotRequired[dict[str, Any]]
    idempotency_key: NotRequired[str]


class Execution(TypedDict):
    """One run of one piece of code."""

    id: str
    seq: int
    kernel_id: str
    incarnation: int
    session_id: str | None
    document_id: str | None
    path: str | None
    cell_id: str | None
    cell_version: int | None
    actor: str | None
    run_as: str
    client: str
    msg_id: str
    idempotency_key: str | None
    code: str
    source_hash: str
    silent: bool
    store_history: bool
    stop_on_error: bool
    allow_stdin: bool
    user_expressions: dict[str, Any]
    status: Literal["queued", "running", "ok", "error", "aborted", "cancelled", "interrupted"]
    reason: str | None
    execution_count: int | None
    queued_at: str
    started_at: str | None
    finished_at: str | None
    ename: str | None
    evalue: str | None
    traceback: list[str] | None
    reply: dict[str, Any] | None
    output_bytes: int
    input_request: InputRequest | None
    outputs: NotRequired[list[dict[str, Any]]]


class Executions(TypedDict):
    """Executions, newest first, and the cursor of the next page."""

    executions: list[Execution]
    next: str | None


class Exporter(TypedDict):
    """A format of nbconvert."""

    output_mimetype: str


class FeedPage(TypedDict):
    """A page of a table's records; `next` is for `after`, `cursor` what a feed resumes at."""

    table: str
    next: str | None
    cursor: str
    records: list[dict[str, Any]]


class FeedTable(TypedDict):
    """A table that can be followed: its id's columns, what is sent and told of, its filters."""

    table: str
    id: list[str]
    columns: list[str]
    announced: list[str]
    filters: list[str]


class FeedTables(TypedDict):
    """The tables that can be followed."""

    tables: list[FeedTable]


class Grant(TypedDict):
    """A permission to give, to one of `user`, `group` and `everyone`."""

    path: NotRequired[str]
    kernel_id: NotRequired[str]
    role: NotRequired[Literal["viewer", "runner", "editor", "owner"]]
    actions: NotRequired[list[Literal["read", "write", "execute", "share"]]]
    expires_at: NotRequired[str]
    resource: NotRequired[Literal["server"]]
    user: NotRequired[str]
    group: NotRequired[str]
    everyone: NotRequired[bool]


class Group(TypedDict):
    """A group, with the names of the members that the asker may know."""

    id: str
    name: str
    members: list[str]


class GroupName(TypedDict):
    """A group's name."""

    id: str
    name: str


class HelpLink(TypedDict):
    """An entry of the help menu."""

    text: str
    url: str


class IdentityModel(TypedDict):
    """A person, as other people are shown them."""

    username: str
    name: str
    display_name: str
    initials: str | None
    avatar_url: str | None
    color: str | None


class InputRequest(TypedDict):
    """A question that running code waits for."""

    id: str
    prompt: str
    password: bool
    created_at: str


class InsertCell(TypedDict):
    """A cell to insert, at the end unless a place is given."""

    index: NotRequired[int]
    before: NotRequired[str]
    after: NotRequired[str]
    id: NotRequired[str]
    type: NotRequired[Literal["code", "markdown", "raw"]]
    source: NotRequired[str]
    metadata: NotRequired[dict[str, Any]]
    attachments: NotRequired[dict[str, Any]]


class Kernel(TypedDict):
    """A kernel; `reason` says why it is dead or was restarted."""

    id: str
    name: str
    last_activity: str
    execution_state: str
    connections: int
    reason: NotRequired[str]


class KernelSpec(TypedDict):
    """A kernel that can be started."""

    name: str
    spec: KernelSpecFile
    resources: dict[str, str]


class KernelSpecFile(TypedDict):
    """A kernel.json."""

    argv: list[str]
    display_name: str
    language: str
    interrupt_mode: NotRequired[str]
    codemirror_mode: NotRequired[str | dict[str, Any]]
    env: NotRequired[dict[str, str]]
    help_links: NotRequired[list[HelpLink]]
    metadata: NotRequired[dict[str, Any]]


class KernelSpecs(TypedDict):
    """All kernels that can be started."""

    default: str
    kernelspecs: dict[str, KernelSpec]


class MadeShareLink(TypedDict):
    """A new link with its code, which is shown this once."""

    id: str
    prefix: str
    resource: Literal["contents", "kernels", "server"]
    path: str | None
    kernel_id: str | None
    actions: list[Literal["read", "write", "execute", "share"]]
    role: Literal["viewer", "runner", "editor", "owner"] | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    code: str


class MadeToken(TypedDict):
    """A new token with its secret, which is shown this once."""

    id: str
    user: str
    kind: str
    name: str
    prefix: str
    scopes: list[str] | None
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    revoked_at: str | None
    token: str


class Me(TypedDict):
    """The asker, and what they may do of what they asked about."""

    identity: IdentityModel
    permissions: dict[str, list[str]]


class NameGroup(TypedDict):
    """A name for a group."""

    name: str


class NameVersion(TypedDict):
    """A name for a version: that of `version`, of the time `at`, or else the present one."""

    name: str
    version: NotRequired[int]
    at: NotRequired[str]


class NamedVersion(TypedDict):
    """A version of a document that somebody named."""

    name: str
    version: int
    user: str | None
    at: str


class NamedVersions(TypedDict):
    """A document's named versions, the latest first."""

    versions: list[NamedVersion]


class OpenComm(TypedDict):
    """A comm to open from the client's side."""

    data: NotRequired[dict[str, Any]]
    metadata: NotRequired[dict[str, Any]]
    buffers: NotRequired[list[str]]
    target_name: str
    comm_id: NotRequired[str]
    target_module: NotRequired[str]


class OutputPieces(TypedDict):
    """What is new of an execution's outputs."""

    outputs: list[dict[str, Any]]
    cursor: str
    execution: Execution


class Overwritten(TypedDict):
    """Where what a file had is kept, null when nothing had to be overwritten."""

    kept: str | None


class Permission(TypedDict):
    """What a user, a group or everyone may do to contents, a kernel or the server."""

    id: str
    subject: str
    user: str | None
    group: str | None
    resource: Literal["contents", "kernels", "server"]
    path: str | None
    kernel_id: str | None
    actions: list[Literal["read", "write", "execute", "share"]]
    role: Literal["viewer", "runner", "editor", "owner"] | None
    granted_by: str | None
    share_link_id: str | None
    created_at: str
    expires_at: str | None


class Permissions(TypedDict):
    """The permissions that hold on a target, with its owner; without one, the asker's."""

    permissions: list[Permission]
    owner: NotRequired[str | None]
    admin: NotRequired[bool]
    home: NotRequired[str | None]


class RenameContents(TypedDict):
    """The new path."""

    path: str


class Resolved(TypedDict):
    """A path as one scope has it."""

    scope: str
    path: str


class ResolvedPath(TypedDict):
    """What a path stands for."""

    resolved: list[Resolved]
    unresolved: NotRequired[list[Unresolved]]


class Restore(TypedDict):
    """Which version to restore: one of its number, a time and its name."""

    version: NotRequired[int]
    at: NotRequired[str]
    name: NotRequired[str]


class Restored(TypedDict):
    """The version that was restored, and the version that it is now."""

    restored: int
    version: int


class RunCells(TypedDict):
    """Which cells of the session's notebook to run."""

    cells: Literal["all"] | list[str]
    stop_on_error: NotRequired[bool]
    allow_stdin: NotRequired[bool]
    silent: NotRequired[bool]
    store_history: NotRequired[bool]
    user_expressions: NotRequired[dict[str, Any]]


class SaveContents(TypedDict):
    """What to save; `chunk` numbers the parts of an upload, the last being -1."""

    type: Literal["directory", "file", "notebook"]
    format: NotRequired[Literal["text", "base64", "json"] | None]
    content: NotRequired[Any]
    chunk: NotRequired[int]
    name: NotRequired[str]
    path: NotRequired[str]


class SentCommMessage(TypedDict):
    """A message that was sent on a comm."""

    msg_id: str
    comm: str


class Session(TypedDict):
    """A path and the kernel that serves it."""

    id: str
    path: str
    name: str
    type: str
    kernel: Kernel
    notebook: NotRequired[SessionNotebook]


class SessionBody(TypedDict):
    """What a session is, or is to become; a new one needs `path` and `type`."""

    path: NotRequired[str]
    name: NotRequired[str]
    type: NotRequired[str]
    kernel: NotRequired[WantedKernel]


class SessionNotebook(TypedDict):
    """The notebook of a session."""

    path: str
    name: str


class ShareLink(TypedDict):
    """A link that gives whoever accepts it a permission, without its code."""

    id: str
    prefix: str
    resource: Literal["contents", "kernels", "server"]
    path: str | None
    kernel_id: str | None
    actions: list[Literal["read", "write", "execute", "share"]]
    role: Literal["viewer", "runner", "editor", "owner"] | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class ShareTarget(TypedDict):
    """What is shared (`path` or `kernel_id`), and as which role or for which actions."""

    path: NotRequired[str]
    kernel_id: NotRequired[str]
    role: NotRequired[Literal["viewer", "runner", "editor", "owner"]]
    actions: NotRequired[list[Literal["read", "write", "execute", "share"]]]
    expires_at: NotRequired[str]


class Splice(TypedDict):
    """A change of a text, in characters: at `offset` so many deleted, a text inserted."""

    offset: int
    delete: NotRequired[int]
    insert: NotRequired[str]


class StartKernel(TypedDict):
    """What to start: the kernelspec's name, and the folder to run in."""

    name: NotRequired[str | None]
    path: NotRequired[str | None]
    env: NotRequired[dict[str, str]]


class StartTerminal(TypedDict):
    """A terminal to start."""

    name: NotRequired[str | None]
    cwd: NotRequired[str | None]


class StartedExecutions(TypedDict):
    """Executions in the order in which they will run."""

    executions: list[Execution]


class TakeBack(TypedDict):
    """How many steps to undo or redo (1)."""

    steps: NotRequired[int]


class TakenBack(TypedDict):
    """What an undo or redo did (`done`: 0 or 1), and what is possible after it."""

    undo: int
    redo: int
    done: int
    version: int


class Terminal(TypedDict):
    """A terminal."""

    name: str
    last_activity: str


class Token(TypedDict):
    """A token or a log-in, without its secret; no scopes are all that its user may."""

    id: str
    user: str
    kind: str
    name: str
    prefix: str
    scopes: list[str] | None
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    revoked_at: str | None


class UndoSteps(TypedDict):
    """How many steps the asker can undo and redo."""

    undo: int
    redo: int


class Unresolved(TypedDict):
    """Why one scope could not be asked."""

    scope: str
    reason: str


class UpdatedMe(TypedDict):
    """The asker after a change."""

    status: Literal["success"]
    identity: IdentityModel


class User(TypedDict):
    """A user; all but the names is for administrators only."""

    id: str
    name: str
    display_name: str
    admin: NotRequired[bool]
    home: NotRequired[str | None]
    created_at: NotRequired[str]
    disabled_at: NotRequired[str | None]
    hub_name: NotRequired[str | None]


class Version(TypedDict):
    """The server's version."""

    version: str


class VersionName(TypedDict):
    """A version's name."""

    name: str
    version: int


class WantedKernel(TypedDict):
    """A running kernel by `id`, or one to be started by its kernelspec's `name`."""

    id: NotRequired[str | None]
    name: NotRequired[str | None]
