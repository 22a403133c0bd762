"""An execution as it goes over the wire (docs/api.md)."""

from datetime import datetime
from typing import Any

from app.executions.queries import ExecutionRow
from app.web import isoformat
from models import InputRequest

_COLUMNS = (
    "seq",
    "kernel_id",
    "incarnation",
    "session_id",
    "path",
    "cell_id",
    "cell_version",
    "client",
    "msg_id",
    "idempotency_key",
    "code",
    "source_hash",
    "silent",
    "store_history",
    "stop_on_error",
    "allow_stdin",
    "user_expressions",
    "status",
    "reason",
    "execution_count",
    "ename",
    "evalue",
    "traceback",
    "reply",
    "output_bytes",
)


def execution_model(found: ExecutionRow, asking: InputRequest | None = None) -> dict[str, Any]:
    """Return an execution's record; `asking` is its pending input request."""
    row = found.execution
    model: dict[str, Any] = {name: getattr(row, name) for name in _COLUMNS}
    return {
        "id": str(row.id),
        "document_id": str(row.document_id) if row.document_id else None,
        "actor": found.actor,
        "run_as": found.run_as,
        "queued_at": isoformat(row.queued_at),
        "started_at": _time(row.started_at),
        "finished_at": _time(row.finished_at),
        "input_request": _input_model(asking),
        **model,
    }


def _input_model(asking: InputRequest | None) -> dict[str, Any] | None:
    if asking is None:
        return None
    return {
        "id": str(asking.id),
        "prompt": asking.prompt,
        "password": asking.password,
        "created_at": isoformat(asking.created_at),
    }


def _time(value: datetime | None) -> str | None:
    return isoformat(value) if value else None
