"""When documents are saved: soon after a change, not too often, and again when it failed.

Nothing here knows what saving is.
"""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

# A save that takes long is done less often: it may use about this share of the time.
_DELAY_FACTOR = 3
_INTERVAL_FACTOR = 10
_RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class _Pending:
    """A document that waits to be saved."""

    def __init__(self) -> None:
        self.first = self.last = time.monotonic()
        self.task: asyncio.Task[None] | None = None
        self.hurried = asyncio.Event()


class Saver:
    """Calls `save` for documents that were touched, debounced, one at a time for each."""

    def __init__(
        self,
        save: Callable[[uuid.UUID], Awaitable[None]],
        *,
        delay_seconds: float,
        interval_seconds: float,
    ) -> None:
        self._save = save
        self._delay = delay_seconds
        self._interval = interval_seconds
        self._pending: dict[uuid.UUID, _Pending] = {}
        self._durations: dict[uuid.UUID, float] = {}
        self._closed = False

    def touch(self, document_id: uuid.UUID) -> None:
        """Have a document saved soon."""
        pending = self._pending.get(document_id)
        if pending is not None:
            pending.last = time.monotonic()
            return
        pending = self._pending[document_id] = _Pending()
        if not self._closed:
            pending.task = asyncio.create_task(self._run(document_id, pending))

    def hurry(self, document_id: uuid.UUID) -> None:
        """Have a document whose save failed tried again now: the reason may have gone."""
        if (pending := self._pending.get(document_id)) is not None:
            pending.hurried.set()

    def duration(self, document_id: uuid.UUID, seconds: float) -> None:
        """Note how long a save took."""
        self._durations[document_id] = seconds

    async def close(self) -> None:
        """Save what waits, once, and end; what cannot be saved now is logged."""
        self._closed = True
        while self._pending:
            document_id, pending = next(iter(self._pending.items()))
            if pending.task is not None:
                pending.task.cancel()
                await asyncio.gather(pending.task, return_exceptions=True)
            del self._pending[document_id]
            try:
                await self._save(document_id)
            except Exception:
                log.exception("document %s is not saved; the next start tries again", document_id)

    async def _run(self, document_id: uuid.UUID, pending: _Pending) -> None:
        failures = 0
        while True:
            await self._wait(document_id, pending, failures)
            seen, started = pending.last, time.monotonic()
            try:
                # A save that has begun ends, so that `close` never leaves half of one.
                await _finish(asyncio.ensure_future(self._save(document_id)))
            except Exception as error:  # noqa: BLE001 (whatever it is, it is tried again)
                failures += 1
                log.warning("document %s is not saved yet: %s", document_id, error)
                continue
            failures = 0
            self._durations[document_id] = time.monotonic() - started
            if pending.last == seen:
                if self._pending.get(document_id) is pending:
                    del self._pending[document_id]
                return
            pending.first = pending.last

    async def _wait(self, document_id: uuid.UUID, pending: _Pending, failures: int) -> None:
        if failures:
            seconds = _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS)) - 1]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(pending.hurried.wait(), seconds)
            pending.hurried.clear()
            return
        duration = self._durations.get(document_id, 0.0)
        delay = max(self._delay, _DELAY_FACTOR * duration)
        interval = max(self._interval, _INTERVAL_FACTOR * duration)
        while True:
            until = min(pending.last + delay, pending.first + interval)
            rest = until - time.monotonic()
            if rest <= 0:
                return
            await asyncio.sleep(rest)


async def _finish(task: "asyncio.Future[None]") -> None:
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
