"""What notebooks and text files in memory have in common: a Yjs document at a stored version.

Nothing here reads or writes the database.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pycrdt import Doc, Map

# How `documents.save_error` begins when the file is what another program left, and no document.
UNREADABLE = "Another program changed the file, and it cannot be read now: "
_TOLD = "datastore"


@dataclass(frozen=True, slots=True)
class Stored:
    """An update as it was appended to `document_updates`."""

    version: int
    update: bytes


def tell_problem(state: Map[Any], message: str | None) -> None:
    """Say in a document's `state` why what is done to it is not in its file; None: it is."""
    told = None
    if message is not None:
        told = {"problem": message, "unreadable": message.startswith(UNREADABLE)}
    if told == state.get(_TOLD):
        return
    if told is None:
        del state[_TOLD]
    else:
        state[_TOLD] = told


class MergeState:
    """A document, brought up to `version`, with what was done to it since (`updates`).

    `stored` are the updates that the current transaction appended, or learned of. The map `state`
    is what JupyterLab keeps of a file beside its content: `path`, `dirty`, `hash`.
    """

    def __init__(self, document_id: uuid.UUID) -> None:
        self.document_id = document_id
        self.doc: Doc[Any] = Doc()
        self.state = self.doc.get("state", type=Map)
        self.version = 0
        self.path = ""
        self.updates: list[bytes] = []
        self.stored: list[Stored] = []
        # What was stored since the last snapshot, and that snapshot's size.
        self.updates_since_snapshot = 0
        self.bytes_since_snapshot = 0
        self.snapshot_bytes = 0
        self._whole: tuple[int, bytes] | None = None

    def keep_whole(self, state: bytes) -> None:
        """Keep the whole state at this version for whoever asks for it next."""
        self._whole = self.version, state

    def forget_whole(self) -> None:
        """Keep it no longer."""
        self._whole = None

    def whole_state(self) -> bytes:
        """Return the document's whole state, as one update."""
        kept, self._whole = self._whole, None
        if kept is not None and kept[0] == self.version and not self.updates:
            return kept[1]
        return self.doc.get_update()

    @contextmanager
    def edit(self) -> Iterator[None]:
        """One Yjs transaction; within another one, a part of that."""
        with self.doc.transaction():
            yield

    def content(self) -> Any:
        """Return the document as JSON has it: a notebook with all ids, or a text."""
        raise NotImplementedError

    def tell_saved(self, path: str, file_hash: str) -> None:
        """Say what file holds the document now, if a room was ever opened on it."""
        if "dirty" not in self.state:
            return
        with self.edit():
            # Also when it is False: front ends set it themselves, and wait to be told.
            self.state["dirty"] = False
            if self.state.get("path") != path:
                self.state["path"] = path
            if self.state.get("hash") != file_hash:
                self.state["hash"] = file_hash

    def tell_problem(self, message: str | None) -> None:
        """Say why the file does not get what is done here; None: it does."""
        if "dirty" in self.state:
            with self.edit():
                tell_problem(self.state, message)

    def tell_opened(self, path: str, file_hash: str | None) -> None:
        """Say what file the document is of, for the first room that is opened on it."""
        with self.edit():
            if "dirty" not in self.state:
                self.state["dirty"] = False
            if self.state.get("path") != path:
                self.state["path"] = path
            if file_hash is not None and "hash" not in self.state:
                self.state["hash"] = file_hash
