"""The rows of files and folders: finding, recording, moving, marking and removing them.

No disk and no documents here: callers say what is there. Those who move or remove rows, or record
what they saw in a folder, hold `lock` and look at the disk after they have it, so that nobody
records what another has just renamed. All functions flush; none commits.
"""

import uuid
from collections.abc import Collection, Iterable
from datetime import timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Row,
    Select,
    Text,
    and_,
    any_,
    case,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import aliased

from app.db.engine import Transaction
from models import Content, Document, Session

if TYPE_CHECKING:  # the disk's own imports are most of what a command would take to start
    from app.contents.listing import Entry

# Any number, the same in all servers of a database.
_LOCK = 7366470211
# How long a vanished file that was never opened is remembered, for it to turn up elsewhere.
_REMEMBERED = timedelta(minutes=1)
_SEEN = ("type", "mimetype", "writable", "size", "created", "last_modified")
_seen = itemgetter(*_SEEN)


async def lock(tx: Transaction, *, wait_seconds: int | None = None) -> None:
    """Hold the right to say which files there are until the transaction ends.

    With a limit to the waiting, PostgreSQL's error is 55P03 (lock_not_available).
    """
    if wait_seconds is not None:
        await tx.execute(select(func.set_config("lock_timeout", f"{wait_seconds}s", True)))
    await tx.execute(select(func.pg_advisory_xact_lock(_LOCK)))


def below(path: str) -> ColumnElement[bool]:
    """What is in a folder, at any depth."""
    if not path:
        return Content.path != ""
    return Content.path.startswith(f"{path}/", autoescape=True)


def at_or_below(path: str) -> ColumnElement[bool]:
    """A file, or a folder and what is in it."""
    return or_(Content.path == path, below(path))


def children(paths: Collection[str]) -> Select[*tuple[Any, ...]]:
    """The entries of folders as they were last recorded."""
    folder = aliased(Content)
    return (
        select(
            Content.path,
            Content.type,
            Content.mimetype,
            Content.writable,
            Content.size,
            Content.created,
            Content.last_modified,
            Content.file_key,
            Content.missing_since,
        )
        .join(folder, Content.parent_id == folder.id)
        .where(folder.path == _any(paths))
    )


def visible_paths(paths: Collection[str]) -> Select[str]:
    """Those of some paths whose row the asker may see."""
    return select(Content.path).where(Content.path == _any(paths))


def scope(user_id: uuid.UUID, action: str) -> Select[list[str] | None]:
    """Where somebody may do an action, for `is_in_scope`; to be asked by the server itself."""
    return select(func.datastore_scope(user_id, action, type_=ARRAY(Text)))


def is_in_scope(path: str, scope: Collection[str] | None) -> bool:
    """What `datastore_in_scope` says: the first entry that the path begins with decides."""
    place = f"{path}/"
    entry = next((entry for entry in scope or () if place.startswith(entry[1:])), "-")
    return entry.startswith("+")


def known_folders() -> Select[*tuple[Any, ...]]:
    """The folders that were ever listed."""
    child = aliased(Content)
    return (
        select(Content.path)
        .where(
            Content.type == "directory",
            Content.missing_since.is_(None),
            exists().where(child.parent_id == Content.id),
        )
        .order_by(Content.path)
    )


def documents_in(folders: Collection[str]) -> Select[*tuple[Any, ...]]:
    """The documents of the files in folders, with what was last known of the files."""
    folder = aliased(Content)
    return (
        select(Document.id, Content.path, Document.disk_hash, Document.save_error)
        .join(Content, Content.id == Document.content_id)
        .join(folder, Content.parent_id == folder.id)
        .where(folder.path == _any(folders), Content.missing_since.is_(None))
        .order_by(Content.path)
    )


def is_as_recorded(entry: "Entry", row: Row[Any]) -> bool:
    """Tell whether a row of `children` says what an entry says."""
    return (
        row.missing_since is None and row.file_key == entry.key and row[1:7] == _seen(entry.model)
    )


def storable(path: str) -> bool:
    """Tell whether PostgreSQL can hold a path: names that are no UTF-8 have no row."""
    if path.isascii():
        return True
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


async def folder_id(tx: Transaction, path: str) -> uuid.UUID:
    """Return the id of a folder's row, made if absent, with those of the folders above it."""
    query = select(Content.id, Content.parent_id, Content.missing_since)
    row = (await tx.execute(query.where(Content.path == path))).one_or_none()
    if row and row.missing_since is None and (not path or row.parent_id):
        known: uuid.UUID = row.id
        return known
    head, _, name = path.rpartition("/")
    parent = await folder_id(tx, head) if path else None
    values = {"path": path, "name": name, "type": "directory", "parent_id": parent}
    made = (
        insert(Content)
        .values(**values)
        .on_conflict_do_update(
            index_elements=["path"],
            set_={"type": "directory", "parent_id": parent, "missing_since": None},
        )
        .returning(Content.id)
    )
    made_id: uuid.UUID = (await tx.execute(made)).scalar_one()
    return made_id


async def record(tx: Transaction, folder: str, entries: "Iterable[Entry]") -> None:
    """Write what was seen of entries of a folder."""
    parent = await folder_id(tx, folder)
    values = [
        {
            "path": entry.model["path"],
            "name": entry.model["name"],
            "parent_id": parent,
            "file_key": entry.key,
            **{name: entry.model[name] for name in _SEEN},
        }
        for entry in sorted(entries, key=lambda entry: entry.model["path"])
        if storable(entry.model["path"])
    ]
    if not values:
        return
    table = Content.__table__
    statement = insert(table)  # type: ignore[arg-type]
    new = statement.excluded
    unchanged = and_(
        table.c.size.is_not_distinct_from(new.size),
        table.c.last_modified.is_not_distinct_from(new.last_modified),
    )
    names = ("name", "parent_id", "file_key", *_SEEN)
    await tx.execute(
        statement.on_conflict_do_update(
            index_elements=["path"],
            set_={
                **{name: new[name] for name in names},
                "missing_since": None,
                "hash": case((unchanged, table.c.hash)),
                "hash_algorithm": case((unchanged, table.c.hash_algorithm)),
            },
        ),
        values,
    )


async def mark_missing(tx: Transaction, files: Collection[str], folders: Collection[str]) -> None:
    """Mark files, and folders with all that is in them, as vanished."""
    places: list[ColumnElement[bool]] = [at_or_below(path) for path in folders]
    if files:
        places.append(Content.path == _any(files))
    for place in places:
        await tx.execute(
            update(Content)
            .where(place, Content.missing_since.is_(None))
            .values(missing_since=func.now()),
            execution_options={"synchronize_session": False},
        )


async def forget_vanished(tx: Transaction) -> None:
    """Remove what vanished a while ago and was never opened."""
    await tx.execute(
        delete(Content).where(
            Content.missing_since < func.now() - _REMEMBERED,
            ~exists().where(Document.content_id == Content.id),
        ),
        execution_options={"synchronize_session": False},
    )


async def may_have_moved(
    tx: Transaction, keys: Collection[str], paths: Collection[str]
) -> list[Row[Any]]:
    """Return rows that have one of some file keys, or one of some paths.

    Beside them, all vanished notebooks whose content's hash is known.
    """
    query = select(
        Content.path,
        Content.type,
        Content.size,
        Content.last_modified,
        Content.file_key,
        Content.missing_since,
        Content.hash,
    ).where(
        or_(
            Content.file_key == _any(keys),
            Content.path == _any(paths),
            and_(Content.missing_since.is_not(None), Content.hash.is_not(None)),
        )
    )
    found: Any = (await tx.execute(query.order_by(Content.path))).all()
    return list(found)


async def children_keys(tx: Transaction, path: str) -> dict[str, str]:
    """Return the file keys of a folder's entries by name, also of those that vanished."""
    folder = aliased(Content)
    query = (
        select(Content.name, Content.file_key)
        .join(folder, Content.parent_id == folder.id)
        .where(folder.path == path, Content.file_key.is_not(None))
    )
    return {row.name: row.file_key for row in await tx.execute(query)}


async def move(tx: Transaction, old: str, new: str) -> None:
    """Let a file's or folder's rows, and the sessions of its path, follow a rename.

    Rows that are already at a new path stay, the moved ones then stay where they were.
    """
    since = (
        await tx.execute(select(Content.missing_since).where(Content.path == old))
    ).scalar_one_or_none()
    gone = delete(Content).where(at_or_below(new), Content.missing_since.is_not(None))
    await tx.execute(gone, execution_options={"synchronize_session": False})
    head, _, name = new.rpartition("/")
    parent = await folder_id(tx, head)
    target = literal(new) + func.substr(Content.path, len(old) + 1)
    other = aliased(Content)
    is_it = Content.path == old
    returned = Content.missing_since == since if since is not None else literal(False)
    await tx.execute(
        update(Content)
        .where(at_or_below(old), ~exists().where(other.path == target))
        .values(
            path=target,
            name=case((is_it, name), else_=Content.name),
            parent_id=case((is_it, parent), else_=Content.parent_id),
            missing_since=case((returned, None), else_=Content.missing_since),
        ),
        execution_options={"synchronize_session": False},
    )
    await _move_sessions(tx, old, new)


async def _move_sessions(tx: Transaction, old: str, new: str) -> None:
    """Give living sessions the new path, and its name if they had the old one's."""
    is_it = Session.path == old
    names = old.rpartition("/")[2], new.rpartition("/")[2]
    await tx.execute(
        update(Session)
        .where(
            Session.ended_at.is_(None),
            or_(is_it, Session.path.startswith(f"{old}/", autoescape=True)),
        )
        .values(
            path=literal(new) + func.substr(Session.path, len(old) + 1),
            name=case((and_(is_it, Session.name == names[0]), names[1]), else_=Session.name),
        ),
        execution_options={"synchronize_session": False},
    )


async def remove(tx: Transaction, path: str) -> None:
    """Remove a file's or folder's rows, with the documents; executions stay."""
    await tx.execute(
        delete(Content).where(at_or_below(path)), execution_options={"synchronize_session": False}
    )


def document_ids(path: str) -> Select[Any]:
    """The documents of a file or of the files in a folder, in order of id."""
    return (
        select(Document.id)
        .join(Content, Content.id == Document.content_id)
        .where(at_or_below(path))
        .order_by(Document.id)
    )


def unsaved_documents(path: str) -> Select[Any]:
    """The documents of a file or a folder's files whose file is behind."""
    return document_ids(path).where(Document.saved_version < Document.version)


def _any(values: Collection[str]) -> ColumnElement[Any]:
    return any_(literal(list(values), ARRAY(Text)))
