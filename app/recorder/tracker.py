"""What one kernel is doing, as far as its messages tell: the recorder's memory.

The tracker sees each item once, in order, and answers with operations. It knows which execution a
message belongs to, numbers outputs, and decides when an execution is over: when both the reply
(shell) and `idle` (iopub) have been seen, since either may come first.
"""

import hashlib
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.recorder.messages import CONTROL_REQUESTS, CommRequest, Message, Unreadable
from app.recorder.operations import (
    AppendOutput,
    BeginCell,
    CancelInputs,
    CellTarget,
    ClearOutputs,
    CloseComms,
    EndCell,
    ExecutionChange,
    KernelChange,
    NewExecution,
    NewInput,
    Operation,
    UpdateDisplay,
)
from app.recorder.tracked_comms import TrackedComm, TrackedComms

# Finished executions remembered for outputs that come late (threads, background tasks).
_REMEMBERED = 10_000
# A piece of a stream; longer texts become several rows, each small enough to read alone.
_STREAM_PIECE = 4 * 1024 * 1024
_KERNEL_STATES = {"starting", "idle", "busy", "restarting", "autorestarting", "dead"}


@dataclass(slots=True)
class Tracked:
    """An execution whose messages are expected."""

    id: uuid.UUID
    target: CellTarget | None
    is_ours: bool
    started: bool = False
    finished: bool = False
    idle_seen: bool = False
    reply: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    execution_count: int | None = None
    next_seq: int = 1
    output_bytes: int = 0
    clear_pending: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """An execution ended otherwise than by its reply: aborted, cancelled or interrupted."""

    execution_id: uuid.UUID
    status: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class KernelEvent:
    """A turn in the kernel's life that its process could not report.

    `values` are new column values of its row. With `ended` every unfinished execution is
    interrupted with that reason, its questions are void and its comms closed.
    """

    values: dict[str, Any]
    at: datetime
    ended: str | None = None


Item = Message | Unreadable | Ended | KernelEvent | CommRequest


@dataclass
class Tracker:
    """State of one kernel's executions; `plan` must be called once per item, in order."""

    kernel_id: str
    owner_id: uuid.UUID
    incarnation: int = 1
    comms: TrackedComms = field(default_factory=TrackedComms)
    _by_msg_id: OrderedDict[str, Tracked] = field(default_factory=OrderedDict)
    _by_id: dict[uuid.UUID, str] = field(default_factory=dict)

    def expect(self, execution_id: uuid.UUID, msg_id: str, target: CellTarget | None) -> None:
        """Announce an execution that this server is about to send."""
        self._remember(msg_id, Tracked(execution_id, target, is_ours=True))

    def unfinished(self) -> list[uuid.UUID]:
        """Return the ids of executions that are queued or running, oldest first."""
        return [tracked.id for tracked in self._by_msg_id.values() if not tracked.finished]

    def running(self, execution_id: uuid.UUID) -> bool:
        """Tell whether the kernel has begun with the execution and has not ended it."""
        tracked = self._by_msg_id.get(self._by_id.get(execution_id, ""))
        return tracked is not None and tracked.started and not tracked.finished

    def plan(self, item: Item) -> list[Operation]:
        """Return what the item means for the tables."""
        match item:
            case Message():
                return self._message(item)
            case Unreadable():
                return [_unreadable(item)]
            case Ended():
                tracked = self._by_msg_id.get(self._by_id.get(item.execution_id, ""))
                return self._end(tracked, item.status, item.reason, item.at) if tracked else []
            case KernelEvent():
                return self._kernel_event(item)
            case CommRequest():
                return self.comms.sent(item, self.incarnation)

    def _remember(self, msg_id: str, tracked: Tracked) -> None:
        self._by_msg_id[msg_id] = tracked
        self._by_id[tracked.id] = msg_id
        while len(self._by_msg_id) > _REMEMBERED:
            oldest = next(iter(self._by_msg_id))
            if not self._by_msg_id[oldest].finished:
                break
            self._by_id.pop(self._by_msg_id.pop(oldest).id, None)

    def _message(self, message: Message) -> list[Operation]:
        tracked = self._by_msg_id.get(message.parent_id or "")
        handle = getattr(self, f"_on_{message.type}", None)
        if handle is None:
            return []
        operations: list[Operation] = handle(message, tracked)
        return operations

    # iopub: state

    def _on_status(self, message: Message, tracked: Tracked | None) -> list[Operation]:
        state = message.content.get("execution_state")
        if state not in _KERNEL_STATES:
            return []
        values: dict[str, Any] = {"last_activity": message.received_at}
        # Threads and the control channel report busy and idle too; the shell's is the kernel's.
        if message.parent_type not in CONTROL_REQUESTS:
            values["execution_state"] = state
        operations: list[Operation] = [KernelChange(values)]
        if tracked is None:
            return operations + self.comms.taken_up(
                message.parent_id, self.incarnation, message.received_at
            )
        if state == "busy":
            return operations + self._start(tracked, message.received_at)
        if state == "idle" and tracked.started:
            tracked.idle_seen = True
            return operations + self._finish_if_over(tracked, message.received_at)
        return operations

    def _on_execute_input(self, message: Message, tracked: Tracked | None) -> list[Operation]:
        operations: list[Operation] = []
        if tracked is None:
            tracked, new = self._foreign(message)
            operations.append(new)
        operations += self._start(tracked, message.received_at)
        count = _integer(message.content.get("execution_count"))
        if count is not None:
            tracked.execution_count = count
            operations.append(ExecutionChange(tracked.id, {"execution_count": count}))
        return operations

    def _foreign(self, message: Message) -> tuple[Tracked, NewExecution]:
        """Return a new execution for a request that reached the kernel past this server."""
        code = str(message.content.get("code", ""))
        tracked = Tracked(uuid.uuid4(), None, is_ours=False)
        msg_id = message.parent_id or str(tracked.id)
        self._remember(msg_id, tracked)
        values = {
            "id": tracked.id,
            "kernel_id": self.kernel_id,
            "incarnation": self.incarnation,
            "run_as_id": self.owner_id,
            "client": message.parent_username or "kernel client",
            "msg_id": msg_id,
            "code": code,
            "source_hash": source_hash(code),
            "queued_at": message.received_at,
        }
        return tracked, NewExecution(values)

    def _start(self, tracked: Tracked, at: datetime) -> list[Operation]:
        if tracked.started or tracked.finished:
            return []
        tracked.started = True
        operations: list[Operation] = [
            ExecutionChange(tracked.id, {"status": "running", "started_at": at})
        ]
        if tracked.target:
            operations.append(BeginCell(tracked.id, tracked.target))
        return operations

    # shell

    def _on_execute_reply(self, message: Message, tracked: Tracked | None) -> list[Operation]:
        if tracked is None:
            return []
        tracked.reply = message.content
        if message.content.get("status") == "aborted":
            reason = "an earlier execution failed"
            return self._end(tracked, "aborted", reason, message.received_at)
        return self._finish_if_over(tracked, message.received_at)

    def _finish_if_over(self, tracked: Tracked, at: datetime) -> list[Operation]:
        """End an execution whose last word has been said.

        Of another client's execution only iopub is seen: idle ends it, an error message tells how.
        """
        if tracked.finished or not tracked.idle_seen or (tracked.is_ours and not tracked.reply):
            return []
        reply = tracked.reply or {}
        error = reply if reply.get("status") == "error" else tracked.error
        values: dict[str, Any] = {}
        if error:
            traceback = error.get("traceback")
            values = {
                "ename": str(error.get("ename", "")),
                "evalue": str(error.get("evalue", "")),
                "traceback": traceback if isinstance(traceback, list) else [],
            }
        count = _integer(reply.get("execution_count"))
        if count is not None:
            tracked.execution_count = count
        extras = {key: reply[key] for key in ("user_expressions", "payload") if reply.get(key)}
        if extras:
            values["reply"] = extras
        return self._end(tracked, "error" if error else "ok", None, at, values)

    def _end(
        self,
        tracked: Tracked,
        status: str,
        reason: str | None,
        at: datetime,
        values: dict[str, Any] | None = None,
    ) -> list[Operation]:
        if tracked.finished:
            return []
        tracked.finished = True
        change = {"status": status, "reason": reason, "finished_at": at, **(values or {})}
        if tracked.execution_count is not None:
            change["execution_count"] = tracked.execution_count
        operations: list[Operation] = [
            ExecutionChange(tracked.id, change),
            CancelInputs(tracked.id),
        ]
        if tracked.target:
            operations.append(EndCell(tracked.id, tracked.target, tracked.execution_count))
        return operations

    # iopub: outputs

    def _on_stream(self, message: Message, tracked: Tracked | None) -> list[Operation]:
        text = message.content.get("text")
        if not isinstance(text, str) or not text:
            return []
        name = str(message.content.get("name", "stdout"))
        operations: list[Operation] = []
        for start in range(0, len(text), _STREAM_PIECE):
            piece = text[start : start + _STREAM_PIECE]
            output = {"output_type": "stream", "name": name, "text": piece}
            operations += self._append(message, tracked, output, None, _utf8_length(piece))
        return operations

    def _on_display_data(self, message: Message, tracked: Tracked | None) -> list[Operation]:
        content = message.content
        output: dict[str, Any] = {
            "output_type": message.type,
            "data": _object(content.get("data")),
            "metadata": _object(content.get("metadata")),
        }
        if message.type == "execute_result":
            output["execution_count"] = _integer(content.get("execution_count"))
        display_id = _object(content.get("transient")).get("display_id")
        return self._append(
            message,
            tracked,
            output,
            str(display_id) if display_id is not None else None,
            message.size_bytes,
        )

    _on_execute_result = _on_display_data

    def _on_error(self, message: Message, tracked: Tracked | None) -> list[Operation]:
        content = message.content
        traceback = content.get("traceback")
        output = {
            "output_type": "error",
            "ename": str(content.get("ename", "")),
            "evalue": str(content.get("evalue", "")),
            "traceback": [str(line) for line in traceback] if isinstance(traceback, list) else [],
        }
        if tracked:
            tracked.error = output
        return self._append(message, tracked, output, None, message.size_bytes)

    def _append(
        self,
        message: Message,
        tracked: Tracked | None,
        output: dict[str, Any],
        display_id: str | None,
        size_bytes: int,
    ) -> list[Operation]:
        at = message.received_at
        speaker: Tracked | TrackedComm | None = tracked or self.comms.cause(message)
        if speaker is None:
            return [AppendOutput(None, 0, None, output, display_id, size_bytes, at)]
        operations: list[Operation] = []
        if speaker.clear_pending:
            speaker.clear_pending = False
            operations.append(_clear(speaker, at))
        comm_id = target = None
        if isinstance(speaker, TrackedComm):
            comm_id, tracked = speaker.comm_id, speaker.opened_by
        else:
            target = speaker.target
        execution_id, seq = None, 0
        if tracked is not None:
            execution_id, seq = tracked.id, tracked.next_seq
            tracked.next_seq += 1
        operations.append(
            AppendOutput(execution_id, seq, target, output, display_id, size_bytes, at, comm_id)
        )
        return operations

    def _on_clear_output(self, message: Message, tracked: Tracked | None) -> list[Operation]:
        speaker: Tracked | TrackedComm | None = tracked or self.comms.cause(message)
        if speaker is None:
            return []
        speaker.clear_pending = bool(message.content.get("wait"))
        return [] if speaker.clear_pending else [_clear(speaker, message.received_at)]

    def _on_update_display_data(self, message: Message, _: Tracked | None) -> list[Operation]:
        content = message.content
        display_id = _object(content.get("transient")).get("display_id")
        if display_id is None:
            return []
        data, metadata = _object(content.get("data")), _object(content.get("metadata"))
        return [UpdateDisplay(str(display_id), data, metadata, message.received_at)]

    # stdin and comms

    def _on_input_request(self, message: Message, tracked: Tracked | None) -> list[Operation]:
        if tracked is None:
            return []
        return [
            NewInput(
                uuid.uuid4(),
                tracked.id,
                str(message.header["msg_id"]),
                str(message.content.get("prompt", "")),
                bool(message.content.get("password")),
                message.received_at,
            )
        ]

    def _on_comm_msg(self, message: Message, tracked: Tracked | None) -> list[Operation]:
        return self.comms.said(message, self.incarnation, tracked)

    _on_comm_open = _on_comm_msg
    _on_comm_close = _on_comm_msg

    # the kernel's life

    def _kernel_event(self, event: KernelEvent) -> list[Operation]:
        operations: list[Operation] = []
        if event.ended is not None:
            for tracked in list(self._by_msg_id.values()):
                operations += self._end(tracked, "interrupted", event.ended, event.at)
            self.comms.forget()
            operations += [CancelInputs(), CloseComms(event.at, event.ended)]
        self.incarnation = event.values.get("incarnation", self.incarnation)
        operations.append(KernelChange({**event.values, "last_activity": event.at}))
        return operations


def _clear(speaker: Tracked | TrackedComm, at: datetime) -> ClearOutputs:
    """Return the clearing of what an execution, or a comm's callbacks, have said so far."""
    if isinstance(speaker, Tracked):
        return ClearOutputs(speaker.id, speaker.target, at)
    execution = speaker.opened_by
    return ClearOutputs(execution.id if execution else None, None, at, speaker.comm_id)


def source_hash(code: str) -> str:
    """Return the SHA-256 of source text, in hexadecimal."""
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _unreadable(item: Unreadable) -> AppendOutput:
    output = {
        "output_type": "unknown",
        "extra": {"channel": item.channel, "reason": item.reason, "frames": item.frames},
    }
    return AppendOutput(None, 0, None, output, None, 0, item.received_at)
