"""Merging what another program did to a file with what happened to its document meanwhile.

Both go back to the file as it was last read or written here, of which `Base` keeps hashes: of
the notebook's own fields, and for each cell of its text, its metadata and its outputs. A part that
only one side changed is that side's; where both changed it differently, the document's cell stays
and the disk's is put after it, marked in its metadata (`datastore.conflict`). Where the texts that
hashes stand for are known (`Texts`), both sides' lines are merged instead if they can be.
"""

import copy
import hashlib
import json
import uuid
from collections.abc import Collection, Sequence
from typing import Any, TypedDict

from app.documents import values
from app.documents.text_merge import changed_lines, merge_apart

_OUTPUTS = ("outputs", "execution_count")
_TEXT = ("source", "cell_type")
CONFLICT = "datastore"
_REMEMBERED = 20
# About 4 MB.
_KNOWN_CELLS = 10_000


class Base(TypedDict):
    """Hashes of a file's parts, as `documents.disk_base` keeps them.

    `cells` has [id, text, metadata and the rest, outputs] in order; `nbformat` is the file's
    major format. `pending` is what is about to be written, with the file's hash: a server that
    dies in between finds its own file again. `older` says of earlier files, the latest first, what
    cells were before: their parts, None for cells that there were not. `version` is the document's
    version that has what the file has, if any has, and `versions` those of the earlier files.
    """

    meta: str
    cells: list[list[str]]
    nbformat: int
    pending: "dict[str, Any] | None"
    older: list[dict[str, list[str] | None]]
    version: int | None
    versions: list[int | None]


# By cell, what its text was in the last files, the latest first, by the hash that bases have of it.
Texts = dict[str, dict[str, str]]


class KnownParts:
    """The hashes of cells that were the same when they were last asked for, by their stamps.

    Most saves change few cells, and hashing 10 MB takes as long as writing them. For any thread.
    """

    def __init__(self) -> None:
        self._parts: dict[int, tuple[str, ...]] = {}

    def of(self, cell: dict[str, Any], stamp: int) -> tuple[str, ...]:
        """Return a cell's hashes, as `_parts` does."""
        found = self._parts.pop(stamp, None) or _parts(cell)
        self._parts[stamp] = found  # the last one now
        return found

    def forget_oldest(self) -> None:
        """Keep no more than is worth its memory."""
        for stamp in list(self._parts)[:-_KNOWN_CELLS]:
            self._parts.pop(stamp, None)


def base_of(
    notebook: dict[str, Any],
    nbformat: int = 4,
    *,
    stamps: Sequence[int] = (),
    known: KnownParts | None = None,
) -> Base:
    """Return the base for a notebook whose cells have ids; with their stamps from what is known."""
    cells = notebook["cells"]
    if known is not None and len(stamps) == len(cells):
        parts = [known.of(cell, stamp) for cell, stamp in zip(cells, stamps, strict=True)]
        known.forget_oldest()
    else:
        parts = [_parts(cell) for cell in cells]
    return {
        "meta": _hash(_meta(notebook)),
        "cells": [[cell["id"], *found] for cell, found in zip(cells, parts, strict=True)],
        "nbformat": nbformat,
        "pending": None,
        "older": [],
        "version": None,
        "versions": [],
    }


def remember(new: Base, old: Base | None) -> Base:
    """Return a base that knows what the file was before, and before that, within limits."""
    if not old or "cells" not in old:
        return new
    before = {entry[0]: entry[1:] for entry in old["cells"]}
    now = {entry[0]: entry[1:] for entry in new["cells"]}
    changed = {
        cell_id: before.get(cell_id)
        for cell_id in before.keys() | now.keys()
        if before.get(cell_id) != now.get(cell_id)
    }
    older, versions = old.get("older", []), _versions(old)
    if changed:
        older, versions = [changed, *older], [old.get("version"), *versions]
    return {**new, "older": older[:_REMEMBERED], "versions": versions[:_REMEMBERED]}


def _versions(base: Base) -> list[int | None]:
    """Return the versions of the earlier files; bases did not always keep them."""
    return base.get("versions") or [None] * len(base.get("older", []))


def wanted_texts(base: Base | None, disk: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Return whose texts a merge of cells that a file changed would like to know.

    By cell, the hashes of what its text was in the files that this one may go back to, the latest
    first, and a version of the document that has it. A file with a change that was saved, in
    another cell, goes back to no file from before that.
    """
    if base is None:
        return {}
    now = {entry[0]: entry[1] for entry in base["cells"]}
    found = {cell["id"]: _parts(cell)[0] for cell in disk["cells"]}
    changed = {key for key, text in found.items() if key in now and text != now[key]}
    wanted: dict[str, dict[str, int]] = {cell_id: {} for cell_id in changed}

    def note(version: int | None) -> None:
        for cell_id in changed & now.keys():
            if version is not None:
                wanted[cell_id].setdefault(now[cell_id], version)

    note(base.get("version"))
    for before, version in zip(base.get("older", []), _versions(base), strict=False):
        if any(
            key not in changed and key in now and found.get(key) == now[key] != (parts or [""])[0]
            for key, parts in before.items()
        ):
            break
        for key, parts in before.items():
            if parts is None:
                now.pop(key, None)
            else:
                now[key] = parts[0]
        note(version)
    return wanted


def text_hash(kind: str, source: str) -> str:
    """Return the hash that bases have of a cell's text."""
    return _hash({"source": source, "cell_type": kind})


def nearest(base: Base | None, disk: dict[str, Any]) -> Base | None:
    """Return the base, or an earlier one that a file goes back to: others may have read that.

    That is one whose texts the file has more of, if it has changed some: a file that is exactly
    what it was before was put there on purpose.
    """
    if base is None or not base.get("older"):
        return base
    texts = {cell["id"]: _parts(cell)[0] for cell in disk["cells"]}
    cells = {entry[0]: entry[1:] for entry in base["cells"]}
    best, found = _score(cells, texts), base
    for changed in base["older"]:
        for cell_id, parts in changed.items():
            if parts is None:
                cells.pop(cell_id, None)
            else:
                cells[cell_id] = parts
        score = _score(cells, texts)
        is_same = score == len(texts) == len(cells)
        if score > best and not is_same:
            best = score
            found = {**base, "cells": [[key, *parts] for key, parts in cells.items()]}
        elif is_same:
            return base
    return found


def _score(cells: dict[str, list[str]], texts: dict[str, str]) -> int:
    return sum(cell_id in cells and cells[cell_id][0] == text for cell_id, text in texts.items())


def merge(  # noqa: C901 (the cases of a three-way merge, side by side)
    base: Base | None,
    document: dict[str, Any],
    disk: dict[str, Any],
    running: Collection[str] = (),
    texts: Texts | None = None,
) -> dict[str, Any]:
    """Return the notebook that has both sides' changes; cells of both have ids.

    `texts` are former texts of cells that the disk changed, as far as they are known. `running`
    are cells whose outputs are the server's, whatever the file says.
    """
    old = {entry[0]: tuple(entry[1:]) for entry in base["cells"]} if base else {}
    ours = {cell["id"]: cell for cell in document["cells"]}
    theirs = {cell["id"]: cell for cell in disk["cells"]}
    kept: dict[str, dict[str, Any]] = {}
    extra: dict[str, dict[str, Any]] = {}
    for cell_id in ours.keys() | theirs.keys():
        mine, other = ours.get(cell_id), theirs.get(cell_id)
        if mine is not None and other is not None:
            kept[cell_id], conflict = _merge_cell(
                old.get(cell_id),
                mine,
                other,
                running=cell_id in running,
                texts=(texts or {}).get(cell_id, {}),
            )
            if conflict:
                extra[cell_id] = _marked(other, "changed", cell_id)
        elif mine is not None:
            if cell_id not in old or cell_id in running or _parts(mine) != old[cell_id]:
                kept[cell_id] = mine
        elif other is not None:
            if cell_id not in old:
                kept[cell_id] = other
            elif _parts(other) != old[cell_id]:
                kept[cell_id] = _marked(other, "deleted", cell_id)
    order = _order([entry[0] for entry in base["cells"]] if base else [], list(ours), list(theirs))
    cells = []
    for cell_id in order:
        if cell_id in kept:
            cells.append(kept[cell_id])
            if cell_id in extra:
                cells.append(extra[cell_id])
    return {**_merge_meta(base, document, disk), "cells": cells}


def _merge_cell(
    old: tuple[str, ...] | None,
    mine: dict[str, Any],
    other: dict[str, Any],
    *,
    running: bool,
    texts: dict[str, str],
) -> tuple[dict[str, Any], bool]:
    """Return the merged cell, and whether the other side's version is to be kept beside it."""
    if (text := _merged_text(old, mine, other, texts)) is not None:
        mine, other = {**mine, "source": text}, {**other, "source": text}
    my_parts, other_parts = _parts(mine), _parts(other)
    if my_parts == other_parts:
        return mine, False
    merged: dict[str, Any] = {"id": mine["id"]}
    trusted = mine.get("metadata", {}).get("trusted")
    for number, names in enumerate((_TEXT, None, _OUTPUTS)):
        before = old[number] if old else None
        if (
            my_parts[number] == other_parts[number]
            or other_parts[number] == before
            or (number == 2 and running)
        ):
            source = mine
        elif my_parts[number] == before:
            source = other
            if number == 2:
                trusted = None  # that was of other outputs
        else:
            return mine, True
        merged.update(_part(source, names))
    if "metadata" in merged:
        merged["metadata"] = _with_trust(merged["metadata"], trusted)
    if merged["cell_type"] == "code":
        merged.setdefault("outputs", [])
        merged.setdefault("execution_count", None)
    else:
        for name in _OUTPUTS:
            merged.pop(name, None)
    return merged, False


def _merged_text(
    old: tuple[str, ...] | None,
    mine: dict[str, Any],
    other: dict[str, Any],
    texts: dict[str, str],
) -> str | None:
    """Return the text with both sides' lines, if it can be told; else None.

    The other side may go back to an earlier text than the base's: one that it is nearer to, when
    what it changed there and what was changed here since are different lines. Else it would have
    taken back just those lines, and changed others of that cell.
    """
    if old is None or old[0] not in texts or mine["cell_type"] != other["cell_type"]:
        return None
    base, text, now = texts[old[0]], other["source"], mine["source"]
    if text == now or text in texts.values():
        return None  # what it was before was put there on purpose
    nearest, distance = base, changed_lines(base, text)
    lines = set(filter(str.strip, text.split("\n")))
    for earlier in list(texts.values())[list(texts).index(old[0]) + 1 :]:
        found = changed_lines(earlier, text)
        if (
            found < distance
            and lines.intersection(earlier.split("\n"))  # or the whole text is another
            and merge_apart(earlier, base, text) is not None
        ):
            nearest, distance = earlier, found
    if nearest == now:
        return None
    return merge_apart(nearest, now, text)


def _merge_meta(
    base: Base | None, document: dict[str, Any], disk: dict[str, Any]
) -> dict[str, Any]:
    mine, other = _meta(document), _meta(disk)
    my_hash, other_hash = _hash(mine), _hash(other)
    before = base["meta"] if base else None
    if other_hash in (my_hash, before):
        return mine
    if my_hash == before:
        return other
    merged = {**other, **mine}
    metadata = {**other.get("metadata", {}), **mine.get("metadata", {})}
    lost = {
        key: value
        for key, value in other.get("metadata", {}).items()
        if not values.same(metadata[key], value)
    }
    if lost:
        own = metadata.get(CONFLICT)
        metadata[CONFLICT] = {**(own if isinstance(own, dict) else {}), "conflict": lost}
    return {**merged, "metadata": metadata}


def _order(base: list[str], ours: list[str], theirs: list[str]) -> list[str]:
    """Return all ids, in the order of the side that changed it, the others after a neighbour."""
    common = set(ours) & set(theirs)
    mine = [cell_id for cell_id in ours if cell_id in common]
    before = [cell_id for cell_id in base if cell_id in common]
    order, other = (theirs, ours) if mine == before else (ours, theirs)
    order = list(order)
    present = set(order)
    previous = None
    for cell_id in other:
        if cell_id not in present:
            place = 0 if previous is None else order.index(previous) + 1
            order.insert(place, cell_id)
            present.add(cell_id)
        previous = cell_id
    return order


def _marked(cell: dict[str, Any], what: str, cell_id: str) -> dict[str, Any]:
    """Return the disk's version of a cell, as an additional cell that says so."""
    marked = copy.deepcopy(cell)
    marked["id"] = str(uuid.uuid4())
    own = marked["metadata"].get(CONFLICT)
    conflict = {"cell_id": cell_id, "document": what, "from": "disk"}
    marked["metadata"][CONFLICT] = {**(own if isinstance(own, dict) else {}), "conflict": conflict}
    return marked


def _meta(notebook: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in notebook.items() if key != "cells"}


def _part(cell: dict[str, Any], names: Collection[str] | None) -> dict[str, Any]:
    if names is None:
        return {key: cell[key] for key in cell.keys() - {"id", *_TEXT, *_OUTPUTS}}
    return {key: cell[key] for key in names if key in cell}


def _with_trust(metadata: dict[str, Any], trusted: Any) -> dict[str, Any]:
    """Return a cell's metadata with this for `trusted`, which no file has."""
    if trusted == metadata.get("trusted"):
        return metadata
    plain = {key: value for key, value in metadata.items() if key != "trusted"}
    return plain if trusted is None else {**plain, "trusted": trusted}


def _parts(cell: dict[str, Any]) -> tuple[str, ...]:
    if "trusted" in cell.get("metadata", {}):
        cell = {**cell, "metadata": _with_trust(cell["metadata"], None)}
    return tuple(_hash(_part(cell, names)) for names in (_TEXT, None, _OUTPUTS))


def _hash(value: Any) -> str:
    """Return a hash of what a document can tell apart."""
    text = json.dumps(values.shown(value), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
