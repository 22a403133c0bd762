"""A small client of the feed, made from docs/feed.md: what it holds, and in what order it came."""

import asyncio
import json
from collections import defaultdict
from typing import Any

from tests.conftest import TOKEN


class Follower:
    """The state of one client's subscriptions; survives reconnections, resumes with its cursor."""

    def __init__(self, connect, subscriptions: dict[str, dict[str, Any]]) -> None:
        self._connect = connect  # returns a websocket to be entered
        self.subscriptions = subscriptions
        self.records: dict[str, dict[str, Any]] = defaultdict(dict)
        self.complete: set[str] = set()
        self.cursor: str | None = None
        self.messages: list[dict[str, Any]] = []
        self.changed = asyncio.Event()
        self.on_change = lambda name, op, record_id, record: None
        self._partial: list[dict[str, Any]] = []
        self.socket = None

    async def run(self) -> None:
        """Follow one connection until it ends."""
        self._partial = []
        async with self._connect() as self.socket:
            for name, wanted in self.subscriptions.items():
                resume = {"cursor": self.cursor} if name in self.complete and self.cursor else {}
                message = {"type": "subscribe", "id": name, **wanted, **resume}
                await self.socket.send(json.dumps(message))
            async for text in self.socket:
                self.take(json.loads(text))

    def take(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        match message["type"]:
            case "must_refetch":
                self.complete.discard(message["id"])
            case "snapshot":
                name = message["id"]
                if message["first"]:
                    # What is not in the snapshot is gone; told apart once it is complete.
                    self._unseen = set(self.records[name])
                for record in message["records"]:
                    self._set(name, record)
                    self._unseen.discard(self._id(message["table"], record))
                if not message["more"]:
                    for record_id in self._unseen:
                        self._drop(name, record_id)
                    self.complete.add(name)
                    self.cursor = message["cursor"]
            case "changes":
                self._partial.append(message)
                if not message["more"]:
                    for part in self._partial:
                        self._apply(part)
                    self._partial = []
                    self.cursor = message["cursor"]
            case "heartbeat":
                self.cursor = message.get("cursor") or self.cursor
        self.changed.set()

    @staticmethod
    def _id(table: str, record: dict[str, Any]) -> str:
        if table in ("config_sections", "lab_workspaces"):
            return f"{record['user_id']}/{record['name']}"
        if table == "lab_settings":
            return f"{record['user_id']}/{record['schema_id']}"
        if table == "group_members":
            return f"{record['group_id']}/{record['user_id']}"
        return str(record["id"])

    def _apply(self, message: dict[str, Any]) -> None:
        for transaction in message["transactions"]:
            for change in transaction["changes"]:
                for name in change["subs"]:
                    if change["op"] == "upsert":
                        self._set(name, change["record"], change["table"])
                        if hasattr(self, "_unseen"):
                            self._unseen.discard(change["id"])
                    else:
                        self._drop(name, change["id"])

    def _set(self, name: str, record: dict[str, Any], table: str | None = None) -> None:
        key = self._id(table or self.subscriptions[name]["table"], record)
        self.records[name][key] = record
        self.on_change(name, "upsert", key, record)

    def _drop(self, name: str, record_id: str) -> None:
        if self.records[name].pop(record_id, None) is not None:
            self.on_change(name, "delete", record_id, None)

    async def until(self, check, seconds: float = 20):
        """Wait until `check` is true of what the client holds; return what it returned."""
        async with asyncio.timeout(seconds):
            while not (found := check()):
                self.changed.clear()
                await self.changed.wait()
        return found

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]


class following:  # noqa: N801 (used as a function)
    """Run a follower in the background while the block runs; it is complete when entered."""

    def __init__(
        self, server, subscriptions: dict[str, dict[str, Any]], *, token: str = TOKEN
    ) -> None:
        self.follower = Follower(
            lambda: server.connect("/api/datastore/feed", token=token), subscriptions
        )

    async def __aenter__(self) -> Follower:
        self._task = asyncio.create_task(self.follower.run())
        await self.follower.until(
            lambda: self.follower.complete >= set(self.follower.subscriptions)
        )
        return self.follower

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
