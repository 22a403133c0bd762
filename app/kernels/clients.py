"""The front ends of one kernel: what they are sent, and what they ask.

A client is a `session_id`, whether or not its websocket is open: while it is away its messages are
kept, within bounds, and a websocket that comes with the same id goes on where the last one ended.
What does not fit is dropped and said; the tables have it all the same.
"""

import asyncio
import json
import logging
import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from jupyter_client.session import Session

from app.auth.identity import Identity
from app.errors import ConflictError
from app.kernels.channels import Channels, Key
from app.kernels.queue import ExecutionQueue
from app.kernels.wire import IgnoredError, Incoming, Outgoing, made
from app.recorder.announced import Announced, Answered
from app.recorder.messages import CommRequest
from app.recorder.operations import Keeper
from app.recorder.recorder import Recorder
from app.settings import Settings
from models.base import uuid7
from models.codec import decode_text, encode_text

log = logging.getLogger(__name__)

# Clients whose websocket is closed, of one kernel; most never come back.
_AWAY = 8
# Requests whose reply is awaited; some message types have none.
_ASKED = 10_000
_COMM_TYPES = {"comm_open", "comm_msg", "comm_close"}
_NO_REPLY = {*_COMM_TYPES, "input_reply"}


@dataclass(eq=False)
class Client:
    """One front end, and the messages that it has not been sent yet."""

    identity: Identity
    session_id: str | None
    attached: bool = True
    queue: deque[Outgoing] = field(default_factory=deque)
    queued_bytes: int = 0
    dropped: int = 0
    dropped_parent: bytes = b"{}"
    keeper: Keeper = field(default_factory=Keeper)
    ending: tuple[int, str] = (1000, "")
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _waiter: asyncio.Future[None] | None = None

    def is_same_session(self, other: "Client") -> bool:
        """Tell whether both are of one person's session."""
        return self.session_id is not None and (self.identity.id, self.session_id) == (
            other.identity.id,
            other.session_id,
        )

    def put(self, message: Outgoing, *, limit_bytes: int) -> bool:
        """Queue a message; False when the queue is over the limit now."""
        self.queue.append(message)
        self.queued_bytes += message.size_bytes
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        return self.queued_bytes <= limit_bytes or len(self.queue) == 1

    def sent(self, message: Outgoing) -> None:
        """Take the first message out, unless it has been dropped meanwhile."""
        if self.queue and self.queue[0] is message:
            self.queue.popleft()
            self.queued_bytes -= message.size_bytes

    def trim(self, limit_bytes: int) -> None:
        """Drop the oldest messages until the others fit."""
        while self.queued_bytes > limit_bytes:
            gone = self.queue[0]
            self.sent(gone)
            self.dropped += 1
            self.dropped_parent = gone.parts[1]

    def succeed(self, old: "Client") -> None:
        """Go on where an earlier websocket of the same session ended."""
        self.queue, old.queue = old.queue, deque()
        self.queued_bytes, old.queued_bytes = old.queued_bytes, 0
        self.dropped, self.dropped_parent = old.dropped, old.dropped_parent
        self.keeper, old.keeper = old.keeper, Keeper()
        self.keeper.here = True

    async def wait(self) -> None:
        """Wait until there is a message."""
        if not self.queue:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def end(self, code: int, reason: str) -> None:
        """Have the websocket closed."""
        self.ending = code, reason
        self.ended.set()


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of a client, until its reply; `header` is as it was sent."""

    client: Client
    is_execution: bool
    header: bytes


class Clients:
    """All front ends of one kernel, over restarts."""

    def __init__(
        self, kernel_id: str, recorder: Recorder, queue: ExecutionQueue, settings: Settings
    ) -> None:
        self.kernel_id = kernel_id
        self._recorder = recorder
        self._queue = queue
        self._queue_limit = settings.channel_queue_bytes
        self._away_limit = settings.channel_buffer_bytes
        self._here: dict[Client, None] = {}
        self._away: OrderedDict[tuple[uuid.UUID, str], Client] = OrderedDict()
        self._closed = False
        self._asked: OrderedDict[Key, Asked] = OrderedDict()
        self._channels: Channels | None = None
        self._settled = asyncio.Event()  # connected, or dead
        self._session = Session()
        self._questions: OrderedDict[str, tuple[dict[str, Any], Client | None]] = OrderedDict()

    @property
    def count(self) -> int:
        """How many websockets are open."""
        return len(self._here)

    # coming and going

    def attach(self, identity: Identity, session_id: str | None) -> Client:
        """Return the client of a new websocket, with what is kept for its session.

        A session id is no secret: it counts together with the person.
        """
        client = Client(identity, session_id)
        old = self._away.pop((identity.id, session_id), None) if session_id is not None else None
        if old is None:
            old = next((other for other in self._here if client.is_same_session(other)), None)
            if old is not None:
                # Its connection was lost, and this side has not noticed yet.
                old.end(1000, "another connection of the same session has been opened")
                self._here.pop(old)
                old.attached = False
        if old is not None:
            self._replace(old, client)
        self._here[client] = None
        return client

    def _replace(self, old: Client, client: Client) -> None:
        client.succeed(old)
        for key, asked in self._asked.items():
            if asked.client is old:
                self._asked[key] = replace(asked, client=client)
        for msg_id, (header, asking) in self._questions.items():
            if asking is old:
                self._questions[msg_id] = (header, client)
        if client.dropped:
            self._tell_dropped(client)

    def detach(self, client: Client) -> None:
        """Note that a client's websocket is closed; its messages are kept if it can come back."""
        if not client.attached:
            return
        client.attached = client.keeper.here = False
        self._here.pop(client, None)
        if client.session_id is None or self._away_limit <= 0 or self._closed:
            client.queue.clear()
            client.queued_bytes = 0
            return
        client.trim(self._away_limit)
        self._away[client.identity.id, client.session_id] = client
        while len(self._away) > _AWAY:
            self._away.popitem(last=False)

    def _tell_dropped(self, client: Client) -> None:
        text = (
            f"{client.dropped} messages were not kept for this client while it was away or did not "
            "read. All outputs are recorded by the server.\n"
        )
        notice = made(
            self._session,
            "stream",
            {"name": "stderr", "text": text},
            channel="iopub",
            parent=client.dropped_parent,
        )
        client.queue.appendleft(notice)
        client.queued_bytes += notice.size_bytes
        client.dropped = 0

    def close(self, code: int, reason: str) -> None:
        """Have all websockets closed and keep nothing."""
        self._closed = True
        for client in self._here:
            client.end(code, reason)
        self._away.clear()

    # from the kernel

    def publish(self, message: Outgoing) -> None:
        """Pass an iopub message on to every client."""
        for client in list(self._here):
            self._give(client, message)
        for client in self._away.values():
            self._give(client, message)

    def deliver(self, key: Key | None, message: Outgoing) -> None:
        """Pass a reply or question on to the client whose message has this key."""
        asked = self._asked.get(key) if key is not None else None
        if message.channel == "stdin":
            self._note_question(message, asked)
        elif asked is not None and key is not None:
            del self._asked[key]
        if asked is not None:
            self._give(asked.client, message)

    def _give(self, client: Client, message: Outgoing) -> None:
        if client.attached:
            if not client.put(message, limit_bytes=self._queue_limit):
                log.warning("kernel %s: a client reads too slowly", self.kernel_id)
                client.end(1013, "messages came faster than this client read them")
                self.detach(client)
        elif client.session_id is not None:
            client.put(message, limit_bytes=self._away_limit)
            client.trim(self._away_limit)

    def status(self, state: str) -> None:
        """Tell all clients of a state that the kernel cannot report itself."""
        self.publish(made(self._session, "status", {"execution_state": state}, channel="iopub"))

    # to the kernel

    def connect(self, channels: Channels) -> None:
        """Begin to pass on: the kernel is ready."""
        self._channels = channels
        self._settled.set()

    def disconnect(self) -> None:
        """Let messages wait: the sockets are about to be closed."""
        self._channels = None
        self._settled.clear()

    def end_requests(self) -> None:
        """Answer the executions that the ended process never will, so that nobody waits for it."""
        asked, self._asked = self._asked, OrderedDict()
        self._questions.clear()
        for request in asked.values():
            if not request.is_execution:
                continue
            for channel, msg_type, content in (
                ("shell", "execute_reply", {"status": "aborted"}),
                ("iopub", "status", {"execution_state": "idle"}),
            ):
                message = made(
                    self._session, msg_type, content, channel=channel, parent=request.header
                )
                self._give(request.client, message)

    def give_up(self) -> None:
        """Let nobody wait any more: the kernel is dead."""
        self._settled.set()

    async def take(self, client: Client, message: Incoming) -> None:
        """Send a client's message to the kernel; waits while the kernel starts.

        Raises IgnoredError for what it cannot be sent.
        """
        await self._settled.wait()
        channels = self._channels
        if channels is None:
            raise IgnoredError("the kernel is dead")
        if message.type == "input_reply":
            self._answer(client, message)
        elif message.type == "execute_request":
            self._announce(client, message, channels)
        elif message.type in _COMM_TYPES and message.channel == "shell":
            self._note_comm(client, message)
        if message.type not in _NO_REPLY:
            is_execution = message.type == "execute_request"
            self._asked[message.key] = Asked(client, is_execution, message.parts[0])
            if len(self._asked) > _ASKED:
                self._asked.popitem(last=False)
        try:
            await channels.forward(message.channel, message.parts)
        except ConflictError as error:
            raise IgnoredError(error.message) from error

    def is_asked(self, msg_id: str) -> bool:
        """Tell whether a client's execution with this message id is with the kernel."""
        return any(key[1] == msg_id and asked.is_execution for key, asked in self._asked.items())

    def _announce(self, client: Client, message: Incoming, channels: Channels) -> None:
        cell_id = message.read(2).get("cellId")
        announced = Announced(
            id=uuid7(),
            msg_id=message.msg_id,
            actor_id=client.identity.id,
            content=message.read(3),
            cell_id=cell_id if isinstance(cell_id, str) else None,
            at=datetime.now(UTC),
            keeper=client.keeper,
        )
        self._recorder.put(announced)
        self._queue.follow(announced.id, announced.msg_id, channels)

    def _note_comm(self, client: Client, message: Incoming) -> None:
        """Have what a client says on a comm recorded, as what others say over HTTP is."""
        content = message.read(3)
        if not content.get("comm_id"):
            return
        self._recorder.put(
            CommRequest(
                msg_id=decode_text(message.msg_id),
                msg_type=message.type,
                content=content,
                metadata=message.read(2),
                buffers=message.parts[4:],
                actor_id=client.identity.id,
                size_bytes=sum(map(len, message.parts[2:])),
                sent_at=datetime.now(UTC),
            )
        )

    # questions

    def _note_question(self, message: Outgoing, asked: Asked | None) -> None:
        """Remember what running code asks, at once: the client that is told may answer at once."""
        header = json.loads(message.parts[0])
        if header.get("msg_type") == "input_request":
            msg_id = encode_text(str(header.get("msg_id")))
            self._questions[msg_id] = (header, asked.client if asked else None)

    def claim(self, msg_id: str) -> dict[str, Any] | None:
        """Return the header of a question that nobody has answered, and take it."""
        found = self._questions.pop(msg_id, None) if self._channels is not None else None
        return found[0] if found else None

    def unclaim(self, msg_id: str, header: dict[str, Any]) -> None:
        """Put a question back: it was not answered after all."""
        self._questions[msg_id] = (header, None)

    def _answer(self, client: Client, message: Incoming) -> None:
        """Record a client's answer; IgnoredError when its question is answered or nobody's.

        Without a parent header it is the answer to the last question that the client was asked.
        """
        wanted = message.read(1).get("msg_id")
        if isinstance(wanted, str):
            msg_id = encode_text(wanted) if encode_text(wanted) in self._questions else None
        else:
            own = [key for key, (_, asked) in self._questions.items() if asked is client]
            msg_id = own[-1] if own else None
        if msg_id is None:
            raise IgnoredError("no question waits for this answer")
        value = message.read(3).get("value")
        del self._questions[msg_id]
        self._recorder.put(
            Answered(msg_id, client.identity.id, str(value or ""), datetime.now(UTC))
        )
