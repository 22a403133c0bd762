"""The shapes of documents: cells that are edited one by one, undo, history and named versions."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict


class DocumentCell(TypedDict):
    """A cell of a notebook, with the version of its source."""

    id: str
    type: Literal["code", "markdown", "raw"]
    source: str
    version: int
    metadata: dict[str, Any]
    execution_count: int | None
    execution_state: str
    execution_id: str | None


class DocumentCells(TypedDict):
    """A notebook's cells in its order."""

    document_id: str
    path: str | None
    version: int
    cells: list[DocumentCell]


class EditedCell(DocumentCell):
    """A cell after an edit, with its place and the document's version."""

    document_id: str
    document_version: int
    position: int


class CellPlace(TypedDict):
    """A place among the cells: `index`, or `before` or `after` another cell; one of them."""

    index: NotRequired[int]
    before: NotRequired[str]
    after: NotRequired[str]


class InsertCell(CellPlace):
    """A cell to insert, at the end unless a place is given."""

    id: NotRequired[str]
    type: NotRequired[Literal["code", "markdown", "raw"]]
    source: NotRequired[str]
    metadata: NotRequired[dict[str, Any]]
    attachments: NotRequired[dict[str, Any]]


class Splice(TypedDict):
    """A change of a text, in characters: at `offset` so many deleted, a text inserted."""

    offset: int
    delete: NotRequired[int]
    insert: NotRequired[str]


class ChangeCell(TypedDict):
    """What to change of a cell; a text is compared with `base`, or refused unless at `version`."""

    source: NotRequired[str]
    splices: NotRequired[list[Splice]]
    base: NotRequired[str]
    version: NotRequired[int]
    type: NotRequired[Literal["code", "markdown", "raw"]]
    metadata: NotRequired[dict[str, Any]]
    attachments: NotRequired[dict[str, Any] | None]
    outputs: NotRequired[list[dict[str, Any]]]


class UndoSteps(TypedDict):
    """How many steps the asker can undo and redo."""

    undo: int
    redo: int


class TakenBack(UndoSteps):
    """What an undo or redo did (`done`: 0 or 1), and what is possible after it."""

    done: int
    version: int


class TakeBack(TypedDict):
    """How many steps to undo or redo (1)."""

    steps: NotRequired[int]


class Overwritten(TypedDict):
    """Where what a file had is kept, null when nothing had to be overwritten."""

    kept: str | None


class DocumentChange(TypedDict):
    """A change of a document: who, when, and what it did to which cell."""

    version: int
    at: str
    user: str | None
    origin: str
    edits: int
    undoes: list[int] | None
    size_bytes: int
    cells: dict[str, list[str]]


class DocumentHistory(TypedDict):
    """A document's changes, the latest first."""

    document_id: str
    version: int
    compacted_version: int
    changes: list[DocumentChange]


class DocumentContent(TypedDict):
    """A document as it was at a version: a notebook, or a text."""

    document_id: str
    version: int
    content: dict[str, Any] | str


class NamedVersion(TypedDict):
    """A version of a document that somebody named."""

    name: str
    version: int
    user: str | None
    at: str


class NamedVersions(TypedDict):
    """A document's named versions, the latest first."""

    versions: list[NamedVersion]


class NameVersion(TypedDict):
    """A name for a version: that of `version`, of the time `at`, or else the present one."""

    name: str
    version: NotRequired[int]
    at: NotRequired[str]


class VersionName(TypedDict):
    """A version's name."""

    name: str
    version: int


class Restore(TypedDict):
    """Which version to restore: one of its number, a time and its name."""

    version: NotRequired[int]
    at: NotRequired[str]
    name: NotRequired[str]


class Restored(TypedDict):
    """The version that was restored, and the version that it is now."""

    restored: int
    version: int
