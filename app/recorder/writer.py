"""Applying a batch of operations in one transaction.

Locks are taken in one order, so that two recorders, or a recorder and a request, cannot deadlock:
documents (by id), then the kernel, then executions. Adjacent pieces of one stream become one row;
everything else is one row a message. Applying the same batch again after a rollback is safe; the
kernel's `recorded_batch` tells whether an earlier attempt was committed after all.
"""

import contextlib
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import groupby
from typing import Any

from sqlalchemy import Select, Update, UpdateBase, case, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from app.db.engine import Transaction
from app.db.together import (
    Together,
    Write,
    parameter,
    parameters,
    row_insert,
    row_update,
    rows_insert,
)
from app.documents.editor import NotebookEditor
from app.documents.store import DocumentStore
from app.errors import NotFoundError
from app.recorder.comms import CommWriter, Retention
from app.recorder.followers import CommRecord
from app.recorder.operations import (
    AnswerInput,
    AppendOutput,
    BeginCell,
    CancelInputs,
    CellTarget,
    ClearOutputs,
    CloseComms,
    CommEvent,
    EndCell,
    ExecutionChange,
    KernelChange,
    NewExecution,
    NewInput,
    Operation,
    QueueCell,
    UpdateDisplay,
)
from models import Cell, Execution, InputRequest, Kernel, Output
from models.executions import KEPT

# Adjacent pieces of a stream are joined into rows up to this many characters.
_STREAM_ROW = 64 * 1024


@dataclass
class _Rows:
    """What the batch comes to, once its operations have been put together."""

    executions: list[dict[str, Any]] = field(default_factory=list)
    changes: dict[uuid.UUID, dict[str, Any]] = field(default_factory=dict)
    output_bytes: dict[uuid.UUID, int] = field(default_factory=lambda: defaultdict(int))
    outputs: list[dict[str, Any]] = field(default_factory=list)
    open_row: dict[uuid.UUID | None, dict[str, Any]] = field(default_factory=dict)
    clears: dict[tuple[uuid.UUID | None, str | None], datetime] = field(default_factory=dict)
    displays: dict[str, UpdateDisplay] = field(default_factory=dict)
    kernel: dict[str, Any] = field(default_factory=dict)
    inputs: dict[uuid.UUID, dict[str, Any]] = field(default_factory=dict)
    cancel_inputs: list[uuid.UUID | None] = field(default_factory=list)
    answers: list[AnswerInput] = field(default_factory=list)
    comms: list[CommEvent | CloseComms] = field(default_factory=list)


class BatchWriter:
    """Writes the batches of one kernel; keeps nothing between them.

    `comm_records` is what the last batch written means for those who follow comms.
    """

    def __init__(
        self, kernel_id: str, documents: DocumentStore, retention: Retention | None = None
    ) -> None:
        self.comm_records: list[CommRecord] = []
        self._kernel_id = kernel_id
        self._documents = documents
        self._retention = retention or Retention()

    async def was_committed(self, tx: Transaction, number: int) -> bool:
        """Tell whether the batch with this number is in the database."""
        query = select(Kernel.recorded_batch).where(Kernel.id == self._kernel_id)
        return (await tx.execute(query)).scalar_one() >= number

    async def write(self, tx: Transaction, number: int, operations: list[Operation]) -> None:
        """Apply the operations and note the batch's number; the caller commits."""
        self.comm_records = []
        editors = await self._editors(tx, operations)
        rows = _Rows()
        for appends, together in groupby(operations, lambda op: isinstance(op, AppendOutput)):
            with contextlib.ExitStack() as stack:
                for editor in editors.values() if appends else ():
                    stack.enter_context(editor.appending())
                for operation in together:
                    await self._add(rows, editors, operation)
        await self._flush(tx, number, rows)

    async def alone(
        self, number: int, operations: list[Operation]
    ) -> tuple[Write, dict[str, Any]] | None:
        """Return what `write` would do as one write, if it is one: of code that has no cell."""
        if not _is_one_write(operations):
            return None
        rows = _Rows()
        for operation in operations:
            await self._add(rows, {}, operation)
        _join_texts(rows)
        together = Together()
        for change, values in self._changes(number, rows):
            together.add(change, values)
        for row in rows.outputs:
            together.add(_INSERT_OUTPUT, parameters(_OUTPUTS, _only(row)))
        return together.take()

    async def _editors(
        self, tx: Transaction, operations: list[Operation]
    ) -> dict[uuid.UUID, NotebookEditor]:
        """Lock the documents whose cells or displays the batch touches, in order of id."""
        wanted = {
            target.document_id
            for operation in operations
            if (target := getattr(operation, "target", None)) is not None
        }
        displays = {op.display_id for op in operations if isinstance(op, UpdateDisplay)}
        if displays:
            wanted |= set(await tx.scalars(_documents_showing(self._kernel_id, displays)))
        editors = {}
        for document_id in sorted(wanted):
            # A document may be deleted while its cells run: the rows are kept all the same.
            with contextlib.suppress(NotFoundError):
                editors[document_id] = await self._documents.edit(
                    tx, document_id, origin="execution", save=_saved_here(operations, document_id)
                )
        return editors

    async def _add(  # noqa: C901, PLR0912 (one case an operation)
        self, rows: _Rows, editors: dict[uuid.UUID, NotebookEditor], operation: Operation
    ) -> None:
        match operation:
            case AppendOutput():
                self._append(rows, _editor(editors, operation.target), operation)
            case ClearOutputs():
                await _clear(rows, _editor(editors, operation.target), operation)
            case UpdateDisplay():
                await self._display(rows, editors, operation)
            case QueueCell(execution_id, target):
                if editor := _editor(editors, target):
                    await editor.queue_execution(target.cell_id, execution_id)
            case BeginCell(execution_id, target):
                if editor := _editor(editors, target):
                    await editor.begin_execution(target.cell_id, execution_id)
                    _hide(rows, editor, target.cell_id)
            case EndCell(execution_id, target, count):
                if editor := _editor(editors, target):
                    await editor.end_execution(target.cell_id, execution_id, count)
            case NewExecution(values):
                rows.executions.append(values)
            case ExecutionChange(execution_id, values):
                rows.changes.setdefault(execution_id, {}).update(values)
            case KernelChange(values):
                rows.kernel.update(values)
            case NewInput():
                rows.inputs[operation.id] = self._input_row(operation)
            case AnswerInput():
                _answer(rows, operation)
            case CancelInputs(execution_id):
                _cancel_inputs(rows, execution_id)
            case CommEvent() | CloseComms():
                rows.comms.append(operation)

    def _append(self, rows: _Rows, editor: NotebookEditor | None, op: AppendOutput) -> None:
        cell_id = None
        if editor and op.target and op.execution_id:
            shown = editor.append_output(
                op.target.cell_id,
                op.execution_id,
                op.output,
                kernel_id=self._kernel_id,
                display_id=op.display_id,
            )
            row = editor.row(op.target.cell_id)
            cell_id = row.id if shown and row else None
        if op.execution_id:
            rows.output_bytes[op.execution_id] += op.size_bytes
        last = rows.open_row.get(op.execution_id)
        if last is not None and _continues(last, op, cell_id):
            last["text"].append(op.output["text"])
            last["length"] += len(op.output["text"])
            last["size_bytes"] += op.size_bytes
            return
        rows.outputs.append(self._output_row(op, cell_id))
        rows.open_row[op.execution_id] = rows.outputs[-1]

    def _output_row(self, op: AppendOutput, cell_id: uuid.UUID | None) -> dict[str, Any]:
        output = op.output
        text = output.get("text")
        return {
            "execution_id": op.execution_id,
            "partition_id": op.execution_id or KEPT,
            "seq": op.seq,
            "kernel_id": self._kernel_id,
            "cell_id": cell_id,
            "output_type": output["output_type"],
            "name": output.get("name"),
            "text": None if text is None else [text],
            "length": len(text or ""),
            "data": output.get("data"),
            "metadata": output.get("metadata"),
            "execution_count": output.get("execution_count"),
            "ename": output.get("ename"),
            "evalue": output.get("evalue"),
            "traceback": output.get("traceback"),
            "extra": output.get("extra"),
            "display_id": op.display_id,
            "comm_id": op.comm_id,
            "size_bytes": op.size_bytes,
            "created_at": op.created_at,
            "updated_at": None,
            "cleared_at": None,
        }

    async def _display(
        self,
        rows: _Rows,
        editors: dict[uuid.UUID, NotebookEditor],
        op: UpdateDisplay,
    ) -> None:
        """Renew the displays: in the documents, in earlier rows, and in this batch's."""
        for editor in editors.values():
            await editor.update_display(self._kernel_id, op.display_id, op.data, op.metadata)
        rows.displays[op.display_id] = op
        for row in rows.outputs:
            if row["display_id"] == op.display_id:
                row.update(data=op.data, metadata=op.metadata, updated_at=op.at)

    def _input_row(self, op: NewInput) -> dict[str, Any]:
        return {
            "id": op.id,
            "execution_id": op.execution_id,
            "kernel_id": self._kernel_id,
            "msg_id": op.msg_id,
            "prompt": op.prompt,
            "password": op.password,
            "status": "pending",
            "value": None,
            "answered_by_id": None,
            "answered_at": None,
            "created_at": op.at,
        }

    async def _flush(self, tx: Transaction, number: int, rows: _Rows) -> None:
        # Core statements, built once: a batch is small more often than not, and making and
        # unpacking ORM statements would be most of its time.
        if rows.executions:
            await tx.execute(insert(Execution), rows.executions)
        for change, values in self._changes(number, rows):
            await tx.write_with_others(change, values)
        await self._change_outputs(tx, rows)
        _join_texts(rows)
        if len(rows.outputs) == 1:
            only = parameters(_OUTPUTS, _only(rows.outputs[0]))
            await tx.write_with_others(_INSERT_OUTPUT, only)
        elif rows.outputs:
            await tx.write_now()  # what takes former outputs out of cells must not take these
            given = {name: [row[name] for row in rows.outputs] for name in _OUTPUT_COLUMNS}
            await (await tx.connection()).execute(_INSERT_OUTPUTS, given)
        await self._write_inputs(tx, rows)
        if rows.comms:
            comms = CommWriter(tx, self._kernel_id, self._retention)
            await comms.write(rows.comms)
            self.comm_records = comms.records

    def _changes(self, number: int, rows: _Rows) -> Iterator[tuple[Update, dict[str, Any]]]:
        """Yield the updates of the kernel and of executions, with their parameters."""
        kernel = {"id": self._kernel_id, "recorded_batch": number, **rows.kernel}
        yield _kernel_update(("recorded_batch", *rows.kernel)), parameters(_KERNELS, kernel)
        yield from _execution_changes(rows)

    async def _change_outputs(self, tx: Transaction, rows: _Rows) -> None:
        for (execution_id, comm_id), at in rows.clears.items():
            await tx.execute(
                update(Output)
                .where(
                    Output.execution_id == execution_id,
                    Output.partition_id.in_([execution_id or KEPT, KEPT]),
                    Output.kernel_id == self._kernel_id,
                    Output.comm_id == comm_id,
                    Output.cleared_at.is_(None),
                )
                .values(cleared_at=at, cell_id=None)
                .execution_options(synchronize_session=False)
            )
        for display_id in sorted(rows.displays):
            op = rows.displays[display_id]
            await tx.execute(
                update(Output)
                .where(Output.kernel_id == self._kernel_id, Output.display_id == display_id)
                .values(data=op.data, metadata_=op.metadata, updated_at=op.at)
                .execution_options(synchronize_session=False)
            )

    async def _write_inputs(self, tx: Transaction, rows: _Rows) -> None:
        # Earlier batches' questions first: this batch's own are cancelled where it collects them.
        for answer in rows.answers:
            await tx.execute(_answered(self._kernel_id, answer))
        for execution_id in rows.cancel_inputs:
            statement = update(InputRequest).where(
                InputRequest.kernel_id == self._kernel_id, InputRequest.status == "pending"
            )
            if execution_id is not None:
                statement = statement.where(InputRequest.execution_id == execution_id)
            await tx.execute(
                statement.values(status="cancelled").execution_options(synchronize_session=False)
            )
        if rows.inputs:
            await tx.execute(upsert(InputRequest).on_conflict_do_nothing(), [*rows.inputs.values()])


_KERNELS: Any = Kernel.__table__
_EXECUTIONS: Any = Execution.__table__
_OUTPUTS: Any = Output.__table__


def _is_one_write(operations: list[Operation]) -> bool:
    """Tell whether no row of theirs needs another's to be there."""
    outputs, executions = 0, set()
    for operation in operations:
        match operation:
            case KernelChange():
                continue
            case ExecutionChange(execution_id):
                executions.add(execution_id)
            case AppendOutput(execution_id, target=None):
                outputs += 1
                if execution_id is not None:
                    executions.add(execution_id)
            case _:
                return False
    return outputs <= 1 and len(executions) <= 1


def _join_texts(rows: _Rows) -> None:
    for row in rows.outputs:
        row["text"] = None if row["text"] is None else "".join(row["text"])


@lru_cache
def _kernel_update(names: tuple[str, ...]) -> Update:
    """Return the update of a kernel's columns."""
    return row_update(_KERNELS, names)


def _execution_changes(rows: _Rows) -> list[tuple[Update, dict[str, Any]]]:
    """Return the updates of executions, in order of id, with their parameters."""
    changes = []
    for execution_id in sorted(rows.changes.keys() | rows.output_bytes.keys()):
        values = rows.changes.get(execution_id, {})
        size_bytes = rows.output_bytes.get(execution_id, 0)
        if not values and not size_bytes:
            continue
        change = _execution_update(tuple(values), with_outputs=size_bytes > 0)
        given = {"id": execution_id, **values}
        if size_bytes:
            given["output_bytes"] = size_bytes
        changes.append((change, parameters(_EXECUTIONS, given)))
    return changes


@lru_cache
def _execution_update(names: tuple[str, ...], *, with_outputs: bool) -> Update:
    """Return the update of an execution's columns that leaves a finished one as it is.

    `output_bytes` is how many more there are.
    """
    table = _EXECUTIONS
    statement = row_update(table, names)
    if with_outputs:
        more = parameter(table, "output_bytes")
        statement = statement.values(output_bytes=table.c.output_bytes + more)
    if "status" in names:
        statement = statement.where(table.c.finished_at.is_(None))
        if "started_at" in names and "finished_at" not in names:
            # A retried or late "running" must not touch one that ended meanwhile.
            statement = statement.where(table.c.status == "queued")
    return statement


_OUTPUT_COLUMNS = tuple(column.name for column in _OUTPUTS.c if column.identity is None)
_INSERT_OUTPUT = row_insert(_OUTPUTS, _OUTPUT_COLUMNS)
_INSERT_OUTPUTS = rows_insert(_OUTPUTS, _OUTPUT_COLUMNS)


def _only(output: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of an output that is written alone."""
    return {column: output[column] for column in _OUTPUT_COLUMNS}


def _documents_showing(kernel_id: str, display_ids: set[str]) -> Select[uuid.UUID]:
    """The documents with a cell that shows one of a kernel's displays."""
    return (
        select(Cell.notebook_id)
        .join(Output, Output.cell_id == Cell.id)
        .where(Output.kernel_id == kernel_id, Output.display_id.in_(display_ids))
        .distinct()
    )


def _saved_here(operations: list[Operation], document_id: uuid.UUID) -> Callable[[], bool]:
    """Return what tells, after the commit, whether the document's file is the server's to save.

    It is not while a client is there that saves the notebook itself: that client would take a
    file that changes behind its back for a conflict.
    """
    targets = [
        target
        for operation in operations
        if (target := getattr(operation, "target", None)) is not None
        and target.document_id == document_id
    ]
    return lambda: not targets or not all(t.keeper is not None and t.keeper.here for t in targets)


def _editor(
    editors: dict[uuid.UUID, NotebookEditor], target: CellTarget | None
) -> NotebookEditor | None:
    return editors.get(target.document_id) if target else None


def _continues(last: dict[str, Any], op: AppendOutput, cell_id: uuid.UUID | None) -> bool:
    return (
        op.output["output_type"] == "stream"
        and last["output_type"] == "stream"
        and last["name"] == op.output["name"]
        and last["cell_id"] == cell_id
        and last["comm_id"] == op.comm_id
        and last["cleared_at"] is None
        and last["length"] < _STREAM_ROW
    )


async def _clear(rows: _Rows, editor: NotebookEditor | None, op: ClearOutputs) -> None:
    """Hide what the execution has said so far: earlier rows by an update, this batch's at once."""
    if editor and op.target and op.execution_id:
        await editor.clear_outputs(op.target.cell_id, op.execution_id)
    speaker = (op.execution_id, op.comm_id)
    rows.clears[speaker] = op.at
    for row in rows.outputs:
        if (row["execution_id"], row["comm_id"]) == speaker and row["cleared_at"] is None:
            row.update(cleared_at=op.at, cell_id=None)


def _hide(rows: _Rows, editor: NotebookEditor, cell_id: str) -> None:
    """Take this batch's outputs of former runs out of a cell that has begun a new one."""
    cell = editor.row(cell_id)
    for row in rows.outputs:
        if cell is not None and row["cell_id"] == cell.id:
            row["cell_id"] = None


def _answer(rows: _Rows, answer: AnswerInput) -> None:
    """Note an answer: in this batch's row if it is there, else in the table's."""
    for row in rows.inputs.values():
        if row["msg_id"] == answer.msg_id and row["status"] == "pending":
            row.update(
                status="answered",
                value=None if row["password"] else answer.value,
                answered_by_id=answer.actor_id,
                answered_at=answer.at,
            )
            return
    rows.answers.append(answer)


def _answered(kernel_id: str, answer: AnswerInput) -> UpdateBase:
    return (
        update(InputRequest)
        .where(
            InputRequest.kernel_id == kernel_id,
            InputRequest.msg_id == answer.msg_id,
            InputRequest.status == "pending",
        )
        .values(
            status="answered",
            value=case((InputRequest.password, None), else_=answer.value),
            answered_by_id=answer.actor_id,
            answered_at=answer.at,
        )
        .execution_options(synchronize_session=False)
    )


def _cancel_inputs(rows: _Rows, execution_id: uuid.UUID | None) -> None:
    for row in rows.inputs.values():
        if execution_id in (None, row["execution_id"]) and row["status"] == "pending":
            row["status"] = "cancelled"
    rows.cancel_inputs.append(execution_id)
