"""What one kernel is doing, as far as its messages tell: the recorder's memory.

The tracker sees each item once, in order, and answers with operations. It knows which execution a
message belongs to, numbers outputs, and decides when an execution is over: when both the reply
(shell) and `idle` (iopub) have been seen, since either may come first.
"""

import hashlib
import json
import re
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.recorder.announced import Announced, Answered
from app.recorder.messages import CONTROL_REQUESTS, CommRequest, Message, Unreadable
from app.recorder.operations import (
    AnswerInput,
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
    QueueCell,
    UpdateDisplay,
)
from app.recorder.tracked_comms import TrackedComm, TrackedComms
from models.base import uuid7
from models.codec import encode_text

# Finished executions remembered for outputs that come late (threads, background tasks).
_REMEMBERED = 10_000
# A piece of a stream; longer texts become several rows, each small enough to read alone.
_STREAM_PIECE = 4 * 1024 * 1024
# The types whose values nbformat takes as any JSON.
_JSON_TYPE = re.compile(r"application/(?:.+\+)?json")
# Columns of an execution that reached the kernel past this server: one INSERT takes both kinds.
_UNKNOWN: dict[str, Any] = {
    "session_id": None,
    "document_id": None,
    "path": None,
    "cell_id": None,
    "cell_version": None,
    "actor_id": None,
    "silent": False,
    "store_history": True,
    "stop_on_error": True,
    "allow_stdin": True,
    "user_expressions": {},
}
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
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Expected:
    """An execution that this server is about to send.

    It takes its turn among the items: what ended the kernel before it was asked for, and is not
    recorded yet, must not end it too.
    """

    execution_id: uuid.UUID
    msg_id: str
    target: CellTarget | None


@dataclass(frozen=True, slots=True)
class Concluded:
    """The kernel has gone on to later requests: what it has not said of this one never comes."""

    execution_id: uuid.UUID
    at: datetime


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


Item = (
    Message
    | Unreadable
    | Announced
    | Answered
    | Expected
    | Concluded
    | Ended
    | KernelEvent
    | CommRequest
)


@dataclass
class Tracker:
    """State of one kernel's executions; `plan` must be called once per item, in order."""

    kernel_id: str
    owner_id: uuid.UUID
    incarnation: int = 1
    comms: TrackedComms = field(default_factory=TrackedComms)
    _by_msg_id: OrderedDict[str, Tracked] = field(default_factory=OrderedDict)
    _by_id: dict[uuid.UUID, str] = field(default_factory=dict)
    _forgotten: set[int] = field(default_factory=set)

    def awaits(self, execution_id: uuid.UUID) -> bool:
        """Tell whether the execution is queued or running here."""
        tracked = self._tracked(execution_id)
        return tracked is not None and not tracked.finished

    def plan(self, item: Item) -> list[Operation]:  # noqa: PLR0911 (one case an item)
        """Return what the item means for the tables."""
        match item:
            case Message():
                return self._message(item)
            case Unreadable():
                return [_unreadable(item)]
            case Expected(execution_id, msg_id, target):
                self._remember(msg_id, Tracked(execution_id, target, is_ours=True))
                return []
            case Announced():
                return self._announced(item)
            case Answered(msg_id, actor_id, value, at):
                return [AnswerInput(msg_id, actor_id, value, at)]
            case Ended():
                tracked = self._tracked(item.execution_id)
                return self._end(tracked, item.status, item.reason, item.at) if tracked else []
            case Concluded():
                tracked = self._tracked(item.execution_id)
                return self._conclude(tracked, item.at) if tracked else []
            case KernelEvent():
                return self._kernel_event(item)
            case CommRequest():
                return self.comms.sent(item, self.incarnation)

    def _announced(self, item: Announced) -> list[Operation]:
        """Return the execution of a client of this server; none for an id that was used before.

        Messages of two requests with one id cannot be told apart.
        """
        if item.msg_id in self._by_msg_id or hash(item.msg_id) in self._forgotten:
            return []
        target = item.place.target if item.place else None
        self._remember(item.msg_id, Tracked(item.id, target, is_ours=True))
        operations: list[Operation] = [self._new(item.values())]
        if target:
            operations.append(QueueCell(item.id, target))
        return operations

    def _new(self, values: dict[str, Any]) -> NewExecution:
        """Return a new execution with all columns that one of a client may have."""
        own = {
            "kernel_id": self.kernel_id,
            "incarnation": self.incarnation,
            "run_as_id": self.owner_id,
            "source_hash": source_hash(values["code"]),
        }
        return NewExecution({**_UNKNOWN, **values, **own})

    def _tracked(self, execution_id: uuid.UUID) -> Tracked | None:
        return self._by_msg_id.get(self._by_id.get(execution_id, ""))

    def _remember(self, msg_id: str, tracked: Tracked) -> None:
        self._by_msg_id[msg_id] = tracked
        self._by_id[tracked.id] = msg_id
        while len(self._by_msg_id) > _REMEMBERED:
            oldest = next(iter(self._by_msg_id))
            if not self._by_msg_id[oldest].finished:
                break
            self._by_id.pop(self._by_msg_id.pop(oldest).id, None)
            self._forgotten.add(hash(oldest))

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
        if not isinstance(state, str) or state not in _KERNEL_STATES:
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
        tracked = Tracked(uuid7(), None, is_ours=False)
        msg_id = message.parent_id or str(tracked.id)
        self._remember(msg_id, tracked)
        values = {
            "id": tracked.id,
            "client": message.parent_username or "kernel client",
            "msg_id": msg_id,
            "code": code,
            "queued_at": message.received_at,
        }
        return tracked, self._new(values)

    def _start(self, tracked: Tracked, at: datetime) -> list[Operation]:
        if tracked.started or tracked.finished:
            return []
        tracked.started = True
        # The kernel may have been restarted since it was asked for.
        change = {"status": "running", "started_at": at, "incarnation": self.incarnation}
        operations: list[Operation] = [ExecutionChange(tracked.id, change)]
        if tracked.target:
            operations.append(BeginCell(tracked.id, tracked.target))
        return operations

    # shell

    def _on_execute_reply(self, message: Message, tracked: Tracked | None) -> list[Operation]:
        if tracked is None or message.channel != "shell":
            return []
        tracked.reply = message.content
        if message.content.get("status") == "aborted":
            reason = "an earlier execution failed"
            return self._end(tracked, "aborted", reason, message.received_at)
        return self._finish_if_over(tracked, message.received_at)

    def _finish_if_over(self, tracked: Tracked, at: datetime) -> list[Operation]:
        """End an execution whose last word has been said.

        Of another client's execution only iopub is seen: idle ends it, an error message tells how.
        Where there is a reply, it decides.
        """
        reply_due = tracked.is_ours and tracked.reply is None
        if tracked.finished or not tracked.idle_seen or reply_due:
            return []
        reply = tracked.reply or {}
        error = tracked.error if reply.get("status") != "ok" else None
        if reply.get("status") == "error":
            error = reply
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

    def _conclude(self, tracked: Tracked, at: datetime) -> list[Operation]:
        """End an execution with what is known of it.

        ipykernel sends no reply when its own machinery fails or is interrupted.
        """
        tracked.idle_seen = True
        if tracked.reply is None and tracked.error is None:
            return self._end(tracked, "interrupted", "the kernel ended it without a reply", at)
        tracked.reply = tracked.reply or {}
        return self._finish_if_over(tracked, at)

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
        operations: list[Operation] = [ExecutionChange(tracked.id, change)]
        if tracked.asked:
            operations.append(CancelInputs(tracked.id))
        if tracked.target:
            operations.append(EndCell(tracked.id, tracked.target, tracked.execution_count))
        return operations

    # iopub: outputs

    def _on_stream(self, message: Message, tracked: Tracked | None) -> list[Operation]:
        text = message.content.get("text")
        if not isinstance(text, str):
            return self._append(message, tracked, _unknown(message), None, message.size_bytes)
        name = encode_text(str(message.content.get("name", "stdout")))
        operations: list[Operation] = []
        for start in range(0, len(text), _STREAM_PIECE):
            piece = text[start : start + _STREAM_PIECE]
            output = {"output_type": "stream", "name": name, "text": piece}
            operations += self._append(message, tracked, output, None, _utf8_length(piece))
        return operations

    def _on_display_data(self, message: Message, tracked: Tracked | None) -> list[Operation]:
        content = message.content
        if not isinstance(content.get("data"), dict):
            return self._append(message, tracked, _unknown(message), None, message.size_bytes)
        output: dict[str, Any] = {
            "output_type": message.type,
            "data": _mimebundle(content["data"]),
            "metadata": _object(content.get("metadata")),
        }
        if message.type == "execute_result":
            output["execution_count"] = _integer(content.get("execution_count"))
        return self._append(message, tracked, output, _display_id(content), message.size_bytes)

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

    def _speaker(self, message: Message, tracked: Tracked | None) -> Tracked | TrackedComm | None:
        """Return whose output it is: an Output widget's, an execution's, or a comm's callbacks'."""
        return self.comms.taker(message) or tracked or self.comms.cause(message)

    def _append(
        self,
        message: Message,
        tracked: Tracked | None,
        output: dict[str, Any],
        display_id: str | None,
        size_bytes: int,
    ) -> list[Operation]:
        at = message.received_at
        speaker = self._speaker(message, tracked)
        if speaker is None:
            return [AppendOutput(None, 0, None, output, display_id, size_bytes, at)]
        operations: list[Operation] = []
        if speaker.clear_pending:
            speaker.clear_pending = False
            operations.append(_clear(speaker, at))
        comm_id = target = None
        if isinstance(speaker, TrackedComm):
            comm_id, tracked = speaker.comm_id, speaker.opened_by
        elif output["output_type"] != "unknown":
            # A notebook has no place for what is no output of nbformat.
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
        speaker = self._speaker(message, tracked)
        if speaker is None:
            return []
        speaker.clear_pending = bool(message.content.get("wait"))
        return [] if speaker.clear_pending else [_clear(speaker, message.received_at)]

    def _on_update_display_data(self, message: Message, tracked: Tracked | None) -> list[Operation]:
        content = message.content
        if not isinstance(content.get("data"), dict):
            return self._append(message, tracked, _unknown(message), None, message.size_bytes)
        display_id = _display_id(content)
        if display_id is None:
            return []
        data, metadata = _mimebundle(content["data"]), _object(content.get("metadata"))
        return [UpdateDisplay(display_id, data, metadata, message.received_at)]

    # stdin and comms

    def _on_input_request(self, message: Message, tracked: Tracked | None) -> list[Operation]:
        if tracked is None:
            return []
        tracked.asked = True
        return [
            # Code asks one question at a time: the one before is void, for example because its
            # interrupt was caught.
            CancelInputs(tracked.id),
            NewInput(
                uuid.uuid4(),
                tracked.id,
                encode_text(str(message.header["msg_id"])),
                str(message.content.get("prompt", "")),
                bool(message.content.get("password")),
                message.received_at,
            ),
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
    """Return a count that nbformat and a `bigint` column take, else None."""
    return value if type(value) is int and 0 <= value < 2**63 else None


def _mimebundle(data: dict[str, Any]) -> dict[str, Any]:
    """Return a mimebundle that nbformat takes: what should be text and is not, as JSON text.

    A notebook file with anything else would not be valid.
    """
    return {
        mimetype: value
        if isinstance(value, str) or _JSON_TYPE.fullmatch(mimetype) or _is_lines(value)
        else json.dumps(value)
        for mimetype, value in data.items()
    }


def _is_lines(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(line, str) for line in value)


def _display_id(content: dict[str, Any]) -> str | None:
    display_id = _object(content.get("transient")).get("display_id")
    return None if display_id is None else encode_text(str(display_id))


def _unknown(message: Message) -> dict[str, Any]:
    """Return an output that keeps a message which is not what the messaging spec has."""
    extra = {"channel": message.channel, "msg_type": message.type, "content": message.content}
    return unknown_output(extra)


def unknown_output(extra: dict[str, Any]) -> dict[str, Any]:
    """Return an output of no type of nbformat's; who reads it is told that in `output_type`."""
    return {"output_type": "unknown", "extra": {"output_type": "unknown", **extra}}


def _utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _unreadable(item: Unreadable) -> AppendOutput:
    output = unknown_output({"channel": item.channel, "reason": item.reason, "frames": item.frames})
    return AppendOutput(None, 0, None, output, None, 0, item.received_at)
