"""What a kernel message means for the tables, as plain data.

The tracker turns each item into operations exactly once; the writer may then apply the same
operations again after a failed transaction. Nothing here touches the database.
"""

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(eq=False, slots=True)
class Keeper:
    """A client that saves its notebooks itself for as long as it is `here`.

    `documents` are those whose cells it has run: their files are the server's again when it goes.
    """

    here: bool = True
    documents: set[uuid.UUID] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class CellTarget:
    """The cell an execution shows its outputs in; `keeper` saves its notebook, if not None."""

    document_id: uuid.UUID
    cell_id: str
    keeper: Keeper | None = field(default=None, compare=False, repr=False)


@dataclass(slots=True)
class NewExecution:
    """An execution that another client of the kernel asked for; `values` are column values."""

    values: dict[str, Any]


@dataclass(slots=True)
class ExecutionChange:
    """New column values of an execution; a finished one is left as it is."""

    execution_id: uuid.UUID
    values: dict[str, Any]


@dataclass(slots=True)
class AppendOutput:
    """One output; `output` is what nbformat knows of it, without `transient`."""

    execution_id: uuid.UUID | None
    seq: int
    target: CellTarget | None
    output: dict[str, Any]
    display_id: str | None
    size_bytes: int
    created_at: datetime
    comm_id: str | None = None


@dataclass(slots=True)
class ClearOutputs:
    """The code asked that its outputs so far no longer be shown; a comm's callback, its own."""

    execution_id: uuid.UUID | None
    target: CellTarget | None
    at: datetime
    comm_id: str | None = None


@dataclass(slots=True)
class UpdateDisplay:
    """New content for every output with this display id."""

    display_id: str
    data: dict[str, Any]
    metadata: dict[str, Any]
    at: datetime


@dataclass(slots=True)
class QueueCell:
    """The execution is with the kernel and has not begun: its cell shows the former outputs."""

    execution_id: uuid.UUID
    target: CellTarget


@dataclass(slots=True)
class BeginCell:
    """The kernel has begun with the execution: its cell shows only this run's outputs."""

    execution_id: uuid.UUID
    target: CellTarget


@dataclass(slots=True)
class EndCell:
    """The execution is over: its cell is idle again, with this execution count."""

    execution_id: uuid.UUID
    target: CellTarget
    execution_count: int | None


@dataclass(slots=True)
class KernelChange:
    """New column values of the kernel's row."""

    values: dict[str, Any]


@dataclass(slots=True)
class NewInput:
    """Running code asks a question."""

    id: uuid.UUID
    execution_id: uuid.UUID
    msg_id: str
    prompt: str
    password: bool
    at: datetime


@dataclass(slots=True)
class AnswerInput:
    """A client has answered the input request with this message id."""

    msg_id: str
    actor_id: uuid.UUID
    value: str = field(repr=False)
    at: datetime


@dataclass(slots=True)
class CancelInputs:
    """Nobody needs to answer any more: of one execution, or of all of the kernel's."""

    execution_id: uuid.UUID | None = None


@dataclass(slots=True)
class CommEvent:
    """A comm_open, comm_msg or comm_close, in the kernel's order."""

    msg_type: str
    comm_id: str
    incarnation: int
    execution_id: uuid.UUID | None
    content: dict[str, Any]
    metadata: dict[str, Any]
    buffers: list[bytes] = field(repr=False)
    at: datetime
    size_bytes: int = 0
    msg_id: str | None = None
    direction: str = "kernel"
    actor_id: uuid.UUID | None = None


@dataclass(slots=True)
class CloseComms:
    """The kernel's process has ended, and its comms with it."""

    at: datetime
    reason: str | None = None


Operation = (
    NewExecution
    | ExecutionChange
    | AppendOutput
    | ClearOutputs
    | UpdateDisplay
    | QueueCell
    | BeginCell
    | EndCell
    | KernelChange
    | NewInput
    | AnswerInput
    | CancelInputs
    | CommEvent
    | CloseComms
)
