"""This process's events: validated by jupyter_events, passed on to each subscriber in order.

Events tell what is done here and now and are not kept; what happened is in the tables.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import jupyter_server
from jupyter_events import EventLogger
from jupyter_events.schema_registry import SchemaRegistryException

from app.errors import BadRequestError

log = logging.getLogger(__name__)

CONTENTS = "https://events.jupyter.org/jupyter_server/contents_service/v1"
KERNELS = "https://events.jupyter.org/jupyter_server/kernel_actions/v1"

# Events that may wait for one subscriber before it is disconnected.
_WAITING = 1_000


class Subscription:
    """What one subscriber has yet to be sent; `overflowed` when it was too slow."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_WAITING)
        self.overflowed = asyncio.Event()

    def put(self, event: dict[str, Any]) -> None:
        """Take an event; returns at once."""
        try:
            self.events.put_nowait(event)
        except asyncio.QueueFull:
            self.overflowed.set()


class Events:
    """Publishes events of registered schemas to subscribers."""

    def __init__(self) -> None:
        self.logger = EventLogger()
        folder = Path(jupyter_server.__file__).parent / "event_schemas"
        for schema in sorted(folder.glob("*/*.yaml")):
            self.logger.register_event_schema(schema)
        self._subscriptions: set[Subscription] = set()

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Yield a subscription to all events for as long as the context lasts."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def publish(
        self, schema_id: str, version: str, data: Any, timestamp: datetime | None = None
    ) -> None:
        """Publish a client's event; BadRequestError when it is not as a registered schema says."""
        try:
            schema = self.logger.schemas.get(schema_id)
        except (KeyError, SchemaRegistryException) as error:
            raise BadRequestError(f"The event schema {schema_id!r} is not registered") from error
        if str(schema.version) != version:
            raise BadRequestError(
                f"Unregistered version: {version!r}≠{schema.version!r} for `{schema_id}`"
            )
        try:
            schema.validate(data)
            self.logger.emit(schema_id=schema_id, data=data, timestamp_override=timestamp)
        except Exception as error:
            # jsonschema's message; all that goes wrong here is the sent event's fault.
            raise BadRequestError(str(getattr(error, "message", error))) from error
        self._pass_on(schema_id, data)

    def tell(self, schema_id: str, data: dict[str, Any]) -> None:
        """Publish what this server did; never fails, costs nothing when nobody listens."""
        if not self._subscriptions and not self.logger.handlers:
            return
        try:
            self.logger.emit(schema_id=schema_id, data=data)
            self._pass_on(schema_id, data)
        except Exception:
            log.exception("event %s %r", schema_id, data)

    def _pass_on(self, schema_id: str, data: dict[str, Any]) -> None:
        event = {**data, "schema_id": schema_id}
        for subscription in self._subscriptions:
            subscription.put(event)
