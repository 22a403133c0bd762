"""HTTP of contents, as Jupyter Server answers it.

Notebooks go through their document, so that what is answered has the outputs of this moment;
everything else is what the disk says.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from app.auth.access import allow, require
from app.auth.identity import Identity
from app.contents import rows
from app.contents.actions import Actions
from app.contents.answers import dumps, location, model_answer
from app.contents.checkpoints import Checkpoints
from app.contents.disk import Disk
from app.contents.following import Following
from app.db.engine import Database
from app.documents.store import DocumentStore
from app.errors import BadRequestError, NotFoundError
from app.web import json_body, text_field

router = APIRouter()

_TYPES = ("directory", "file", "notebook")
_FORMATS = ("text", "base64")

Reader = Annotated[Identity, allow("read", "contents")]
Writer = Annotated[Identity, allow("write", "contents")]


@router.get("/api/contents/checkpoints")
@router.get("/api/contents/{path:anypath}/checkpoints")
async def list_checkpoints(request: Request, _: Reader, path: str = "") -> Response:
    """List a file's checkpoints."""
    checkpoints: Checkpoints = request.app.state.checkpoints
    return Response(dumps(await checkpoints.of(path)), media_type="application/json")


@router.post("/api/contents/{path:anypath}/checkpoints", status_code=201)
async def create_checkpoint(request: Request, _: Writer, path: str) -> Response:
    """Make a checkpoint of a file."""
    checkpoints: Checkpoints = request.app.state.checkpoints
    made = await checkpoints.create(path)
    headers = {"Location": location(request, path.strip("/"), "checkpoints", made["id"])}
    return Response(dumps(made), 201, headers, media_type="application/json")


@router.post("/api/contents/{path:anypath}/checkpoints/{checkpoint_id}", status_code=204)
async def restore_checkpoint(request: Request, _: Writer, path: str, checkpoint_id: str) -> None:
    """Put a checkpoint in its file's place."""
    checkpoints: Checkpoints = request.app.state.checkpoints
    await checkpoints.restore(path, checkpoint_id)


@router.delete("/api/contents/{path:anypath}/checkpoints/{checkpoint_id}", status_code=204)
async def delete_checkpoint(request: Request, _: Writer, path: str, checkpoint_id: str) -> None:
    """Remove a checkpoint."""
    checkpoints: Checkpoints = request.app.state.checkpoints
    await checkpoints.delete(path, checkpoint_id)


@router.post("/api/contents/{path:anypath}/trust", status_code=201)
async def trust(request: Request, identity: Writer, path: str) -> Response:
    """Trust a notebook."""
    actions: Actions = request.app.state.contents
    await actions.trust(path, actor_id=identity.id)
    return Response(status_code=201)


@router.get("/api/contents")
@router.get("/api/contents/{path:anypath}")
async def get_contents(  # noqa: PLR0917 (FastAPI passes them by name)
    request: Request,
    identity: Reader,
    path: str = "",
    type: Annotated[str | None, Query()] = None,  # noqa: A002 (Jupyter's name)
    format: Annotated[str | None, Query()] = None,  # noqa: A002 (Jupyter's name)
    content: Annotated[str, Query()] = "1",
    hash: Annotated[str, Query()] = "0",  # noqa: A002 (Jupyter's name)
) -> Response:
    """Answer the model of a file, folder or notebook."""
    disk: Disk = request.app.state.disk
    if type is not None and type not in _TYPES:
        type = "file"  # noqa: A001 (as Jupyter does)
    if format is not None and format not in _FORMATS:
        raise BadRequestError(f"Format {format!r} is invalid")
    with_content, with_hash = _flag("content", content), _flag("hash", hash)
    path = disk.normalized(path)
    if await disk.is_hidden(path):
        raise NotFoundError(f"file or directory {path!r} does not exist")
    if with_content and await disk.is_directory(path):
        if type not in (None, "directory"):
            raise BadRequestError(f"{path} is a directory, not a {type}", reason="bad type")
        following: Following = request.app.state.following
        model = await following.listing(path)
        await _leave_out_unseen(request, identity, model)
    elif with_content and (type == "notebook" or (type is None and path.endswith(".ipynb"))):
        model = await _notebook(request, identity, path, with_hash=with_hash)
    else:
        documents: DocumentStore = request.app.state.documents
        if with_content and await documents.type_at(path) == "file":
            await documents.follow(path, actor_id=identity.id)
            await documents.save_below(path)  # what is being typed is in the file then
        model = await disk.model(
            path, content=with_content, type=type, format=format, hash=with_hash
        )
    await _tell_what_is_writable(request, identity, model)
    return await model_answer(request, model, with_location=False)


async def _tell_what_is_writable(
    request: Request, identity: Identity, model: dict[str, Any]
) -> None:
    """Say `writable` only of what the asker may write to: front ends open the rest read-only."""
    may_write = identity.is_within_scopes("write", "contents")
    if may_write and identity.admin:
        return
    scope: list[str] | None = []
    if may_write:
        async with request.app.state.database.read(as_server=True) as tx:
            scope = (await tx.execute(rows.scope(identity.id, "write"))).scalar_one()
    listed = model["content"] if model["type"] == "directory" else None
    for entry in [model, *(listed or [])]:
        entry["writable"] = entry["writable"] and rows.is_in_scope(entry["path"], scope)


async def _leave_out_unseen(request: Request, identity: Identity, model: dict[str, Any]) -> None:
    """Take out of a folder's model what the asker may not see."""
    if identity.admin:
        return
    paths = [entry["path"] for entry in model["content"]]
    # What no table can hold has no permission either.
    storable = [path for path in paths if rows.storable(path)]
    query = rows.visible_paths(storable)
    async with request.app.state.database.read() as tx:
        seen = set((await tx.execute(query)).scalars())
    model["content"] = [entry for entry in model["content"] if entry["path"] in seen]


async def _notebook(
    request: Request, identity: Identity, path: str, *, with_hash: bool
) -> dict[str, Any]:
    disk: Disk = request.app.state.disk
    documents: DocumentStore = request.app.state.documents
    try:
        document = await documents.open_notebook(path, actor_id=identity.id)
    except BadRequestError:
        # With cells of an unknown type it is no document, but Jupyter can read it and says why.
        return await disk.model(path, type="notebook", hash=with_hash)
    notebook = await documents.notebook(document.id)
    if not await disk.exists(path):
        # Deleted by another program while it had unsaved changes: it is written again.
        await documents.save_now(document.id)
    model = await disk.model(path, content=False, type="notebook", hash=with_hash)
    content, message = await disk.for_client(path, notebook)
    model.update(content=content, format="json")
    if message:
        model["message"] = message
    return model


@router.post("/api/contents/refresh")
async def refresh_or_create(
    request: Request,
    identity: Annotated[Identity, allow("write", "contents", looks_at_path=False)],
) -> Response:
    """Bring what other programs did to files into the tables, and answer what that was.

    In a folder named `refresh`, Jupyter's way to make something (a body with `type`, `ext` or
    `copy_from`) still works.
    """
    body = await json_body(request)
    if body.keys() & {"type", "ext", "copy_from"}:
        await require(request.app.state.database, identity, "write", "contents", "refresh")
        return await _create(request, identity, "refresh", body)
    following: Following = request.app.state.following
    path = text_field(body, "path") or ""
    await require(request.app.state.database, identity, "write", "subtree", path)
    found = await following.refresh(path)
    return Response(dumps(found.as_json()), media_type="application/json")


@router.post("/api/contents", status_code=201)
@router.post("/api/contents/{path:anypath}", status_code=201)
async def post_contents(request: Request, identity: Writer, path: str = "") -> Response:
    """Make an untitled file, notebook or folder in a folder, or a copy; the server names it."""
    return await _create(request, identity, path, await json_body(request))


async def _create(
    request: Request, identity: Identity, path: str, body: dict[str, Any]
) -> Response:
    actions: Actions = request.app.state.contents
    if source := text_field(body, "copy_from"):
        await require(request.app.state.database, identity, "read", "contents", source)
    return await model_answer(request, await actions.create(path, body), status=201)


@router.put("/api/contents")
@router.put("/api/contents/{path:anypath}")
async def put_contents(request: Request, identity: Writer, path: str = "") -> Response:
    """Save a notebook, a file (whole or in chunks) or make a folder; answer its model."""
    actions: Actions = request.app.state.contents
    model, new = await actions.save(path, await json_body(request), actor_id=identity.id)
    return await model_answer(request, model, status=201 if new else 200)


@router.patch("/api/contents")
@router.patch("/api/contents/{path:anypath}")
async def patch_contents(request: Request, identity: Writer, path: str = "") -> Response:
    """Rename or move a file or folder; answer its model."""
    actions: Actions = request.app.state.contents
    if not (await request.body()).strip():
        raise BadRequestError("JSON body missing")
    new = text_field(await json_body(request), "path")
    new = path if new is None else new
    database: Database = request.app.state.database
    await require(database, identity, "write", "subtree", path)
    await require(database, identity, "write", "contents", new)
    return await model_answer(request, await actions.rename(path, new))


@router.delete("/api/contents", status_code=204)
@router.delete("/api/contents/{path:anypath}", status_code=204)
async def delete_contents(request: Request, identity: Writer, path: str = "") -> None:
    """Delete a file or folder, or send it to the trash."""
    await require(request.app.state.database, identity, "write", "subtree", path)
    actions: Actions = request.app.state.contents
    await actions.delete(path)


def _flag(name: str, value: str) -> bool:
    if value not in ("0", "1"):
        raise BadRequestError(f"{name.capitalize()} {value!r} is invalid")
    return value == "1"
