"""What a kernel's comms are doing, as far as messages tell: a part of the tracker's memory.

A client's message is recorded when the kernel takes it up (its `busy` with that parent), since
only then has it a place among what the kernel says. What a kernel says while it handles one, by a
widget's callback for instance, has that message as its parent and so leads to the comm.
"""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from app.recorder.messages import CommRequest, Message
from app.recorder.operations import CommEvent, Operation
from models.codec import encode_text

if TYPE_CHECKING:
    from app.recorder.tracker import Tracked

# Clients' messages remembered for what a kernel says because of them.
_REMEMBERED = 1_000
# So many of clients' messages may wait for a busy kernel.
_WAITING = 10_000
_OUTPUT = ("@jupyter-widgets/output", "OutputModel")


@dataclass(slots=True)
class TrackedComm:
    """A comm, and the execution that opened it."""

    comm_id: str
    opened_by: "Tracked | None"
    clear_pending: bool = False
    is_output: bool = False
    # The request whose outputs an Output widget takes for itself now.
    takes: str = ""


class TrackedComms:
    """A kernel's open comms and its clients' messages on them."""

    def __init__(self) -> None:
        self._open: dict[str, TrackedComm] = {}
        self._sent: dict[str, CommRequest] = {}
        self._causes: OrderedDict[str, TrackedComm] = OrderedDict()
        self._takers: dict[str, list[TrackedComm]] = {}

    @property
    def is_full(self) -> bool:
        """Tell whether too many messages of clients wait for the kernel to take them up."""
        return len(self._sent) >= _WAITING

    def cause(self, message: Message) -> TrackedComm | None:
        """Return the comm whose client's message made the kernel say this."""
        return self._causes.get(message.parent_id or "")

    def taker(self, message: Message) -> TrackedComm | None:
        """Return the Output widget, the innermost, that takes what the kernel says for itself.

        As in a front end that runs the cell itself: from when the widget's state names the request
        (`msg_id`) until it does no more, outputs are the widget's and no cell's.
        https://ipywidgets.readthedocs.io/en/stable/examples/Output%20Widget.html
        """
        takers = self._takers.get(message.parent_id or "")
        return takers[-1] if takers else None

    def said(
        self, message: Message, incarnation: int, tracked: "Tracked | None"
    ) -> list[Operation]:
        """Take note of the kernel's message on a comm."""
        comm_id = message.content.get("comm_id")
        if not comm_id:
            return []
        cause = self.cause(message)
        execution = tracked or (cause.opened_by if cause else None)
        comm = self._note(message.type, str(comm_id), execution)
        self._take(comm, message)
        msg_id = message.header.get("msg_id")
        return [
            CommEvent(
                message.type,
                str(comm_id),
                incarnation,
                execution.id if execution else None,
                message.content,
                message.metadata,
                message.buffers,
                message.received_at,
                size_bytes=message.size_bytes,
                msg_id=None if msg_id is None else str(msg_id),
            )
        ]

    def sent(self, request: CommRequest, incarnation: int) -> list[Operation]:
        """Take note of a client's message; opening and closing are recorded at once.

        So is what there is no room for until the kernel takes it up.
        """
        comm = self._note(request.msg_type, request.comm_id, None)
        msg_id = encode_text(request.msg_id)  # as in parents of messages
        self._causes[msg_id] = comm
        while len(self._causes) > _REMEMBERED:
            self._causes.popitem(last=False)
        if request.msg_type == "comm_msg" and not self.is_full:
            self._sent[msg_id] = request
            return []
        return [_client_event(request, incarnation, request.sent_at)]

    def taken_up(self, msg_id: str | None, incarnation: int, at: datetime) -> list[Operation]:
        """Return the record of a client's message that the kernel begins to handle."""
        request = self._sent.pop(msg_id or "", None)
        return [] if request is None else [_client_event(request, incarnation, at)]

    def forget(self) -> None:
        """The kernel's process has ended: nothing is open, nothing will be taken up."""
        self._open.clear()
        self._sent.clear()
        self._causes.clear()
        self._takers.clear()

    def _take(self, comm: TrackedComm, message: Message) -> None:
        """Note whose outputs an Output widget takes, as the kernel says what its state is."""
        data = message.content.get("data")
        state = data.get("state") if isinstance(data, dict) else None
        if not isinstance(state, dict):
            state = {}
        if message.type == "comm_open":
            comm.is_output = (state.get("_model_module"), state.get("_model_name")) == _OUTPUT
        msg_id = "" if message.type == "comm_close" else state.get("msg_id", comm.takes)
        if not comm.is_output or not isinstance(msg_id, str) or msg_id == comm.takes:
            return
        if comm.takes:
            former = self._takers[comm.takes]
            former.remove(comm)
            if not former:
                del self._takers[comm.takes]
        comm.takes = encode_text(msg_id)  # as in parents of messages
        if comm.takes:
            self._takers.setdefault(comm.takes, []).append(comm)

    def _note(self, msg_type: str, comm_id: str, execution: "Tracked | None") -> TrackedComm:
        comm = self._open.get(comm_id)
        if comm is None:
            comm = TrackedComm(comm_id, execution)
            if msg_type == "comm_open":
                self._open[comm_id] = comm
        if msg_type == "comm_close":
            self._open.pop(comm_id, None)
        return comm


def _client_event(request: CommRequest, incarnation: int, at: datetime) -> CommEvent:
    return CommEvent(
        request.msg_type,
        request.comm_id,
        incarnation,
        None,
        request.content,
        request.metadata,
        request.buffers,
        at,
        size_bytes=request.size_bytes,
        msg_id=request.msg_id,
        direction="client",
        actor_id=request.actor_id,
    )
