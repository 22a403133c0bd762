"""Asking for executions: the rows first, then the kernel's queue.

Rows are committed before anything is sent, so that what runs is always on record; the cells they
belong to are marked in the same transaction. The policies say whether the asker may run them; that
a cell runs is the server's to write, since who may run it need not be one who may change it.
"""

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import Uuid, bindparam, select
from sqlalchemy.dialects.postgresql import insert
from starlette.datastructures import State

from app.auth.access import require
from app.auth.identity import Identity
from app.db.engine import AS_SERVER, Database, Transaction
from app.documents.editor import NotebookEditor
from app.documents.store import DocumentStore
from app.errors import BadRequestError, ConflictError, NotFoundError, UnprocessableError
from app.executions.queries import ExecutionRow, executions
from app.kernels.host import KernelHost, interrupt_executions
from app.kernels.queue import QueuedExecution
from app.kernels.running import RunningKernel
from app.recorder.operations import CellTarget
from app.recorder.tracker import source_hash
from app.web import object_field, text_field
from models import Document, Execution, IdempotencyKey, Session, User
from models.base import uuid7

_FLAGS = {"silent": False, "store_history": True, "stop_on_error": True, "allow_stdin": True}


@dataclass(frozen=True)
class Options:
    """The options of an execute_request, and what this server adds."""

    silent: bool = False
    store_history: bool = True
    stop_on_error: bool = True
    allow_stdin: bool = True
    user_expressions: dict[str, str] = field(default_factory=dict)
    cell_version: int | None = None
    idempotency_key: str | None = None

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> "Options":
        """Read the options of a request's body; BadRequestError for wrong types."""
        flags: dict[str, bool] = {}
        for name, default in _FLAGS.items():
            value = body.get(name, default)
            if not isinstance(value, bool):
                raise BadRequestError(f"{name} must be true or false")
            flags[name] = value
        expressions = object_field(body, "user_expressions")
        if not all(isinstance(value, str) for value in expressions.values()):
            raise BadRequestError("user_expressions must be an object of strings")
        version = body.get("cell_version")
        if version is not None and (not isinstance(version, int) or isinstance(version, bool)):
            raise BadRequestError("cell_version must be a whole number")
        key = text_field(body, "idempotency_key")
        if key is not None and not 0 < len(key) <= 255:
            raise BadRequestError("idempotency_key must have 1 to 255 characters")
        return cls(**flags, user_expressions=expressions, cell_version=version, idempotency_key=key)


@dataclass(frozen=True)
class _Piece:
    """One piece of code to run, with the cell it comes from."""

    code: str
    document: Document | None = None
    path: str | None = None
    cell_id: str | None = None
    cell_version: int | None = None


async def run_code(
    state: State, identity: Identity, kernel_id: str, body: dict[str, Any]
) -> ExecutionRow:
    """Queue `code`, or a notebook's cell, on a kernel; returns the committed execution.

    Raises NotFoundError for an unknown kernel, notebook or cell; ConflictError for a dead kernel
    or another `cell_version`; UnprocessableError for a used key with other contents.
    """
    options = Options.from_body(body)
    kernel: RunningKernel = state.kernels.get(kernel_id)
    code, cell_id = text_field(body, "code", any_text=True), text_field(body, "cell_id")
    path, document_id = text_field(body, "path"), text_field(body, "document_id")
    if code is None and cell_id is None:
        raise BadRequestError("Missing field in JSON data: code or cell_id")
    if cell_id is not None and path is None and document_id is None:
        raise BadRequestError("A cell needs its notebook: path or document_id")
    database: Database = state.database
    if options.idempotency_key is not None:
        earlier = await _earlier(database, identity, options.idempotency_key)
        if earlier is not None:
            return _same(earlier, kernel_id, code, cell_id)
    kernel.require_alive()
    if cell_id is None and options.idempotency_key is None:
        return await _run_alone(state, identity, kernel, _Piece(code or ""), options)
    document = None
    if cell_id is not None:
        document = await _notebook(state, identity, path=path, document_id=document_id)
    async with database.transaction() as tx:
        if document is not None and cell_id is not None:
            editor = await state.documents.edit(
                tx, document.id, origin="execution", actor_id=identity.id
            )
            piece = _cell(document, editor, cell_id, options, code)
        else:
            piece = _Piece(code or "")
        found = await _insert(tx, identity, kernel, [piece], options)
        if found and piece.cell_id and document is not None:
            await editor.queue_execution(piece.cell_id, found[0].execution.id)
    if not found:  # the same key was committed by another request in between
        assert options.idempotency_key is not None
        earlier = await _earlier(database, identity, options.idempotency_key)
        assert earlier is not None
        return _same(earlier, kernel_id, code, cell_id)
    await _let_send(state, kernel)
    return found[0]


async def _notebook(
    state: State, identity: Identity, *, path: str | None, document_id: str | None
) -> Document:
    """Return a notebook whose cells the asker may run; NotFoundError and ForbiddenError if not."""
    if document_id is None:
        await require(state.database, identity, "execute", "contents", path)
    else:
        await require(state.database, identity, "execute", "documents", document_id)
    documents: DocumentStore = state.documents
    return await documents.find(path=path, document_id=document_id)


async def _run_alone(
    state: State, identity: Identity, kernel: RunningKernel, piece: _Piece, options: Options
) -> ExecutionRow:
    """Insert the execution of code that belongs to no cell, as one write."""
    run_as = identity.name
    if kernel.owner_id != identity.id:
        async with state.database.read() as tx:
            run_as = await _name_of(tx, kernel.owner_id, identity)
    values = _values(identity, kernel, piece, options)
    queued = [_queued(values)]
    given = values | _of_session(kernel, values)
    (added,) = await state.database.write_alone(
        _INSERT_IN_SESSION, given, on_finish=partial(_hand_over, kernel, queued)
    )
    await _let_send(state, kernel)
    return ExecutionRow(Execution(**values | added), identity.name, run_as)


def _hand_over(kernel: RunningKernel, queued: list[QueuedExecution], committed: bool) -> None:
    """Have executions sent.

    What failed, on the way there or at the commit, may have been done all the same.
    """
    if committed:
        kernel.submit(queued)
    else:
        kernel.withdraw(queued)


async def run_cells(
    state: State,
    identity: Identity,
    session: Session,
    cells: str | list[str],
    options: Options,
) -> list[ExecutionRow]:
    """Queue a notebook's code cells ("all", or those given, in the given order) at once."""

    def choose(editor: NotebookEditor) -> list[str]:
        if cells != "all":
            return list(cells)
        return [cell_id for cell_id in editor.cell_ids() if _is_runnable(editor, cell_id)]

    host: KernelHost = state.kernels
    host.get(session.kernel_id).require_alive()
    await require(state.database, identity, "execute", "contents", session.path)
    document = await state.documents.open_notebook(session.path, actor_id=identity.id)
    return await run_chosen(
        state, identity, session.kernel_id, document, choose, options=options, session_id=session.id
    )


async def run_chosen(
    state: State,
    identity: Identity,
    kernel_id: str,
    document: Document,
    choose: Callable[[NotebookEditor], list[str]],
    *,
    options: Options,
    session_id: str | None = None,
) -> list[ExecutionRow]:
    """Queue the cells that `choose` picks while the document is locked, at once and in order.

    Raises what `choose` raises; NotFoundError and BadRequestError for what is no code cell.
    """
    kernel: RunningKernel = state.kernels.get(kernel_id)
    kernel.require_alive()
    async with state.database.transaction() as tx:
        editor = await state.documents.edit(
            tx, document.id, origin="execution", actor_id=identity.id
        )
        pieces = [_cell(document, editor, cell_id, options) for cell_id in choose(editor)]
        found = await _insert(tx, identity, kernel, pieces, options, session_id=session_id)
        for piece, row in zip(pieces, found, strict=True):
            assert piece.cell_id is not None
            await editor.queue_execution(piece.cell_id, row.execution.id)
    await _let_send(state, kernel)
    return found


async def _let_send(state: State, kernel: RunningKernel) -> None:
    """Have the kernel sent what was committed before an answer is made, which takes its time.

    What was committed while the kernel was being shut down is interrupted: nobody else would.
    """
    await asyncio.sleep(0)
    if not kernel.stopped:
        return
    reason = kernel.reason or "the kernel was shut down"
    async with state.database.transaction(as_server=True) as tx:
        await interrupt_executions(tx, state.documents, {kernel.id: datetime.now(UTC)}, reason)


def _is_runnable(editor: NotebookEditor, cell_id: str) -> bool:
    row = editor.row(cell_id)
    return row is not None and row.cell_type == "code" and bool(row.source.strip())


def _cell(
    document: Document,
    editor: NotebookEditor,
    cell_id: str,
    options: Options,
    code: str | None = None,
) -> _Piece:
    """Return what to run of a cell: its source as it is now, unless `code` is given."""
    row = editor.row(cell_id)
    if row is None:
        raise NotFoundError(f"Cell does not exist: {cell_id}")
    if row.cell_type != "code":
        raise BadRequestError(f"Cell {cell_id} is not a code cell")
    if options.cell_version is not None and options.cell_version != row.version:
        raise ConflictError(
            "The cell has changed",
            reason=f"it has version {row.version}, not {options.cell_version}",
        )
    source = row.source if code is None else code
    return _Piece(source, document, editor.path, cell_id, row.version)


# Built once: making a statement anew costs more than running it.
# The session of a kernel, that of the document if it has several.
_SESSION_ID = (
    select(Session.id)
    .where(Session.kernel_id == bindparam("of_kernel_id"), Session.ended_at.is_(None))
    .order_by((Session.document_id == bindparam("of_document_id", type_=Uuid)).desc().nulls_last())
    .limit(1)
)
_EXECUTIONS: Any = Execution.__table__
# What the database adds to what is given; all else is NULL.
_ADDED = [c for c in _EXECUTIONS.c if c.server_default is not None or c.identity is not None]
_RETURNED = [_EXECUTIONS.c.id, _EXECUTIONS.c.session_id, *_ADDED]
_INSERT = insert(_EXECUTIONS).returning(*_RETURNED)
_INSERT_IN_SESSION = _INSERT.values(session_id=_SESSION_ID.scalar_subquery())
# Of one row. The policies have looked at it before PostgreSQL comes to RETURNING.
_INSERT_AND_GO_ON = _INSERT_IN_SESSION.returning(AS_SERVER.label("role"))
_KEYS: Any = IdempotencyKey.__table__
_INSERT_KEY = insert(_KEYS).on_conflict_do_nothing().returning(_KEYS.c.execution_id)


async def _insert(
    tx: Transaction,
    identity: Identity,
    kernel: RunningKernel,
    pieces: list[_Piece],
    options: Options,
    *,
    session_id: str | None = None,
) -> list[ExecutionRow]:
    """Insert executions and hand them to the kernel's queue once they are committed.

    Without a session it is the kernel's. Returns nothing when the idempotency key was taken
    meanwhile; else the transaction goes on as the server, whose the cells are to mark.
    """
    if not pieces:
        return []
    rows = [_values(identity, kernel, piece, options) for piece in pieces]
    statement = _INSERT_IN_SESSION if session_id is None else _INSERT
    if goes_on := session_id is None and len(rows) == 1:
        statement = _INSERT_AND_GO_ON
    in_session = {} if session_id is None else {"session_id": session_id}
    run_as = await _name_of(tx, kernel.owner_id, identity)
    connection = await tx.connection()
    if options.idempotency_key is not None:
        (row,) = rows
        key = {
            "actor_id": identity.id,
            "key": options.idempotency_key,
            "execution_id": row["id"],
        }
        # Waits for another transaction that is inserting the same key.
        if (await connection.execute(_INSERT_KEY, key)).first() is None:
            return []
    values = {row["id"]: row for row in rows}
    tx.on_finish(partial(_hand_over, kernel, [_queued(row) for row in rows]))
    given = [row | (in_session or _of_session(kernel, row)) for row in rows]
    inserted = (await connection.execute(statement, given)).mappings().all()
    if not goes_on:
        await tx.go_on_as_server()
    added = [{column.name: row[column.name] for column in _RETURNED} for row in inserted]
    made = sorted(
        (Execution(**values[row["id"]] | row) for row in added),
        key=lambda execution: execution.seq,
    )
    return [ExecutionRow(execution, identity.name, run_as) for execution in made]


def _of_session(kernel: RunningKernel, values: dict[str, Any]) -> dict[str, Any]:
    """Return what the kernel's session is looked for with."""
    return {"of_kernel_id": kernel.id, "of_document_id": values["document_id"]}


async def _name_of(tx: Transaction, user_id: uuid.UUID, identity: Identity) -> str:
    if user_id == identity.id:
        return identity.name
    return (await tx.execute(select(User.name).where(User.id == user_id))).scalar_one()


def _values(
    identity: Identity,
    kernel: RunningKernel,
    piece: _Piece,
    options: Options,
) -> dict[str, Any]:
    execution_id = uuid7()
    return {
        "id": execution_id,
        "kernel_id": kernel.id,
        "incarnation": kernel.incarnation,
        "document_id": piece.document.id if piece.document else None,
        "path": piece.path,
        "cell_id": piece.cell_id,
        "cell_version": piece.cell_version,
        "actor_id": identity.id,
        "run_as_id": kernel.owner_id,
        "client": "api",
        "msg_id": str(execution_id),
        "idempotency_key": options.idempotency_key,
        "code": piece.code,
        "source_hash": source_hash(piece.code),
        "silent": options.silent,
        "store_history": options.store_history,
        "stop_on_error": options.stop_on_error,
        "allow_stdin": options.allow_stdin,
        "user_expressions": options.user_expressions,
    }


_CONTENT = ("code", "silent", "store_history", "user_expressions", "allow_stdin", "stop_on_error")


def _queued(values: dict[str, Any]) -> QueuedExecution:
    """Return what is sent for an execution with these values."""
    document_id, cell_id = values["document_id"], values["cell_id"]
    return QueuedExecution(
        values["id"],
        values["msg_id"],
        {name: values[name] for name in _CONTENT},
        None if document_id is None or cell_id is None else CellTarget(document_id, cell_id),
        {"cellId": cell_id} if cell_id else {},
    )


async def _earlier(database: Database, identity: Identity, key: str) -> ExecutionRow | None:
    query = (
        executions()
        .join(IdempotencyKey, IdempotencyKey.execution_id == Execution.id)
        .where(IdempotencyKey.actor_id == identity.id, IdempotencyKey.key == key)
    )
    async with database.read() as tx:
        found = (await tx.execute(query)).one_or_none()
    return ExecutionRow._make(found) if found else None


def _same(
    earlier: ExecutionRow, kernel_id: str, code: str | None, cell_id: str | None
) -> ExecutionRow:
    row = earlier.execution
    other_code = code is not None and row.code != code
    if row.kernel_id != kernel_id or row.cell_id != cell_id or other_code:
        raise UnprocessableError(
            "The idempotency key was used for another execution", reason=str(row.id)
        )
    return earlier
