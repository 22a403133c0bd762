"""The shapes of what goes over the wire, for the OpenAPI document.

They describe answers and bodies; routes do not validate against them, which would cost time for
each answer. Jupyter's shapes are those of jupyter_server's API definition.
"""

from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict


class Error(TypedDict):
    """Why a request failed: `message` for a person, `reason` if there is more to say."""

    message: str
    reason: Any


class Version(TypedDict):
    """The server's version."""

    version: str


class APIStatus(TypedDict):
    """The server's activity."""

    started: str
    last_activity: str
    connections: int
    kernels: int


class IdentityModel(TypedDict):
    """A person, as other people are shown them."""

    username: str
    name: str
    display_name: str
    initials: str | None
    avatar_url: str | None
    color: str | None


class Me(TypedDict):
    """The asker, and what they may do of what they asked about."""

    identity: IdentityModel
    permissions: dict[str, list[str]]


class UpdatedMe(TypedDict):
    """The asker after a change."""

    status: Literal["success"]
    identity: IdentityModel


class HelpLink(TypedDict):
    """An entry of the help menu."""

    text: str
    url: str


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


class KernelSpec(TypedDict):
    """A kernel that can be started."""

    name: str
    spec: KernelSpecFile
    resources: dict[str, str]


class KernelSpecs(TypedDict):
    """All kernels that can be started."""

    default: str
    kernelspecs: dict[str, KernelSpec]


class Kernel(TypedDict):
    """A kernel; `reason` says why it is dead or was restarted."""

    id: str
    name: str
    last_activity: str
    execution_state: str
    connections: int
    reason: NotRequired[str]


class StartKernel(TypedDict):
    """What to start: the kernelspec's name, and the folder to run in."""

    name: NotRequired[str | None]
    path: NotRequired[str | None]
    env: NotRequired[dict[str, str]]


class SessionNotebook(TypedDict):
    """The notebook of a session."""

    path: str
    name: str


class Session(TypedDict):
    """A path and the kernel that serves it."""

    id: str
    path: str
    name: str
    type: str
    kernel: Kernel
    notebook: NotRequired[SessionNotebook]


class WantedKernel(TypedDict):
    """A running kernel by `id`, or one to be started by its kernelspec's `name`."""

    id: NotRequired[str | None]
    name: NotRequired[str | None]


class SessionBody(TypedDict):
    """What a session is, or is to become; a new one needs `path` and `type`."""

    path: NotRequired[str]
    name: NotRequired[str]
    type: NotRequired[str]
    kernel: NotRequired[WantedKernel]


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


class SaveContents(TypedDict):
    """What to save; `chunk` numbers the parts of an upload, the last being -1."""

    type: Literal["directory", "file", "notebook"]
    format: NotRequired[Literal["text", "base64", "json"] | None]
    content: NotRequired[Any]
    chunk: NotRequired[int]
    name: NotRequired[str]
    path: NotRequired[str]


class CreateContents(TypedDict):
    """What to create: an untitled thing, or a copy."""

    copy_from: NotRequired[str]
    ext: NotRequired[str]
    type: NotRequired[str]


class RenameContents(TypedDict):
    """The new path."""

    path: str


class Checkpoints(TypedDict):
    """A kept state of a file."""

    id: str
    last_modified: str


class Terminal(TypedDict):
    """A terminal."""

    name: str
    last_activity: str


class StartTerminal(TypedDict):
    """A terminal to start."""

    name: NotRequired[str | None]
    cwd: NotRequired[str | None]


class Resolved(TypedDict):
    """A path as one scope has it."""

    scope: str
    path: str


class Unresolved(TypedDict):
    """Why one scope could not be asked."""

    scope: str
    reason: str


class ResolvedPath(TypedDict):
    """What a path stands for."""

    resolved: list[Resolved]
    unresolved: NotRequired[list[Unresolved]]


class Exporter(TypedDict):
    """A format of nbconvert."""

    output_mimetype: str


class ConvertNotebook(TypedDict):
    """A notebook to convert."""

    name: NotRequired[str]
    content: dict[str, Any]


class Event(TypedDict):
    """An event of a registered schema; `timestamp` is a time with offset and Z."""

    schema_id: str
    version: str | int
    data: dict[str, Any]
    timestamp: NotRequired[str]


class InputRequest(TypedDict):
    """A question that running code waits for."""

    id: str
    prompt: str
    password: bool
    created_at: str


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


class StartedExecutions(TypedDict):
    """Executions in the order in which they will run."""

    executions: list[Execution]


class OutputPieces(TypedDict):
    """What is new of an execution's outputs."""

    outputs: list[dict[str, Any]]
    cursor: str
    execution: Execution


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


class RunCells(TypedDict):
    """Which cells of the session's notebook to run."""

    cells: Literal["all"] | list[str]
    stop_on_error: NotRequired[bool]
    allow_stdin: NotRequired[bool]
    silent: NotRequired[bool]
    store_history: NotRequired[bool]
    user_expressions: NotRequired[dict[str, Any]]


class Answer(TypedDict):
    """The answer to an input request."""

    value: str
    input_request_id: NotRequired[str]


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


class OpenComm(CommData):
    """A comm to open from the client's side."""

    target_name: str
    comm_id: NotRequired[str]
    target_module: NotRequired[str]


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


class SentCommMessage(TypedDict):
    """A message that was sent on a comm."""

    msg_id: str
    comm: str


def json_schemas(types: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schema of each type by its repr, and the definitions they refer to."""
    mode: Literal["validation"] = "validation"
    inputs = [(repr(kind), mode, TypeAdapter[Any](kind)) for kind in types]
    found, definitions = TypeAdapter.json_schemas(
        inputs, ref_template="#/components/schemas/{model}"
    )
    return {key: schema for (key, _), schema in found.items()}, definitions.get("$defs", {})
