"""The websocket of one comm: what is recorded, then what comes, and what the client says.

Who follows is registered before the tables are read, and what was read is not sent again, so
nothing is missing or doubled in between. What ends a connection is in docs/api.md.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from fastapi import WebSocket

from app.auth.identity import Identity
from app.auth.revocations import CLOSE_CODE, CLOSE_REASON, Revocations, Watch
from app.comms.queries import messages_after, read_comm
from app.comms.schemas import frame_of, record_of, request_of
from app.db.engine import Database
from app.errors import BadRequestError, DomainError
from app.kernels.host import KernelHost
from app.recorder.followers import CommRecord, Follower
from app.recorder.waiters import Waiters
from models import Comm

log = logging.getLogger(__name__)

_PAGE = 200
_CLOSE_SECONDS = 5.0
# https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1 and its registry
_NORMAL, _GOING_AWAY, _BAD_FRAME, _INTERNAL, _LATER = 1000, 1001, 1007, 1011, 1013


class _EndedError(Exception):
    """The connection is over, with this close code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class CommChannel:
    """One client's connection to one comm."""

    def __init__(self, websocket: WebSocket, comm: Comm, identity: Identity, after: int) -> None:
        state = websocket.app.state
        self._websocket = websocket
        self._comm = comm
        self._identity = identity
        self._sent_through = after
        self._database: Database = state.database
        self._kernels: KernelHost = state.kernels
        self._waiters: Waiters = state.waiters
        self._revocations: Revocations = state.revocations

    async def run(self) -> None:
        """Serve the connection until either side or the comm ends it."""
        await self._websocket.accept()
        with (
            self._waiters.comms.follow(self._comm.id, self._comm.kernel_id) as follower,
            self._revocations.watch(
                self._identity, "execute", "comms", str(self._comm.id)
            ) as access,
        ):
            tasks = [
                asyncio.create_task(self._end_with(access)),
                asyncio.create_task(self._send(follower)),
                asyncio.create_task(self._receive()),
                asyncio.create_task(self._watch(follower)),
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                ends = await asyncio.gather(*tasks, return_exceptions=True)
        ended = next((end for end in ends if isinstance(end, _EndedError)), None)
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, _EndedError):
                log.error("comm %s", self._comm.id, exc_info=end)
                ended = ended or _EndedError(_INTERNAL, "the server failed")
        if ended is not None:
            # The client may be gone, or not read: then there is nobody to tell.
            with contextlib.suppress(RuntimeError, OSError, TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    # A reason has at most 123 bytes.
                    reason = ended.reason.encode("ascii", "replace")[:120].decode("ascii")
                    await self._websocket.close(ended.code, reason)

    # to the client

    async def _send(self, follower: Follower) -> None:
        async for frame in self._recorded():
            await self._send_frame(frame)
        while True:
            records = await follower.take()
            if not records:
                await self._watch(follower)
                raise _EndedError(_GOING_AWAY, "the server is shutting down")
            for record in records:
                if record.msg_type == "comm_close":
                    await self._close(record)
                if record.id > self._sent_through:
                    await self._send_frame(frame_of(record))
                    self._sent_through = record.id

    async def _send_frame(self, frame: str | bytes) -> None:
        if isinstance(frame, str):
            await self._websocket.send_text(frame)
        else:
            await self._websocket.send_bytes(frame)

    async def _recorded(self) -> AsyncIterator[str | bytes]:
        """Yield what the tables have after `after`.

        Where messages were dropped, a comm_open with the current state comes in their place.
        """
        while True:
            async with self._database.read() as tx:
                query = messages_after(self._comm.id, self._sent_through, _PAGE)
                page = [record_of(row) for row in (await tx.execute(query)).scalars()]
                # Read last: what was dropped while the page was read is noticed.
                row = await read_comm(tx, self._comm.id, with_data=False)
            if row.state == "closed":
                await self._close(_closing(row))
            if row.dropped_through > self._sent_through:
                yield await self._snapshot()
                continue
            for record in page:
                yield frame_of(record)
                self._sent_through = record.id
            if len(page) < _PAGE:
                return

    async def _snapshot(self) -> str | bytes:
        """Return a comm_open with the current state, in place of the messages dropped."""
        async with self._database.read() as tx:
            row = await read_comm(tx, self._comm.id)
        self._sent_through = row.dropped_through
        record = CommRecord(
            row.id,
            row.dropped_through,
            "comm_open",
            "kernel",
            None,
            row.data,
            row.metadata_,
            row.buffers,
            0,
        )
        return frame_of(record, snapshot=True, target_name=row.target_name)

    async def _close(self, record: CommRecord) -> None:
        await self._send_frame(frame_of(record, id=self._sent_through, reason=record.reason))
        raise _EndedError(_NORMAL, record.reason or "the comm was closed")

    async def _watch(self, follower: Follower) -> None:
        """End the connection of a client that does not keep up: it may come back."""
        await follower.cut_off.wait()
        raise _EndedError(_LATER, f"too slow: connect again with after={self._sent_through}")

    async def _end_with(self, access: Watch) -> None:
        await access.ended.wait()
        raise _EndedError(CLOSE_CODE, CLOSE_REASON)

    # from the client

    async def _receive(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                await self._take(message.get("text"), message.get("bytes"))
            except BadRequestError as error:
                raise _EndedError(_BAD_FRAME, error.message) from error
            except DomainError as error:
                raise _EndedError(_LATER, error.message) from error

    async def _take(self, text: str | None, data: bytes | None) -> None:
        message = request_of(text, data, self._comm.comm_id, self._identity.id)
        await self._kernels.get(self._comm.kernel_id).send_comm(message)


def _closing(row: Comm) -> CommRecord:
    return CommRecord(
        row.id, row.last_message_id, "comm_close", "kernel", None, {}, {}, [], 0, row.reason
    )
