"""`/lab/api/workspaces`: how each person's windows are laid out, as rows."""

from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Request, Response
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from app.auth.access import allow
from app.auth.identity import Identity
from app.errors import BadRequestError, NotFoundError
from app.web import ExactJSONResponse, isoformat, json_body, object_field, storable
from models import LabWorkspace

router = APIRouter(include_in_schema=False)

_MAX_NAME = 1000


@router.get("/lab/api/workspaces")
@router.get("/lab/api/workspaces/")
async def list_workspaces(
    request: Request, identity: Annotated[Identity, allow("read", "config")]
) -> Response:
    """Return the person's workspaces, by id."""
    query = (
        select(LabWorkspace).where(LabWorkspace.user_id == identity.id).order_by(LabWorkspace.name)
    )
    async with request.app.state.database.read() as tx:
        models = [_model(row) for row in (await tx.execute(query)).scalars()]
    ids = [model["metadata"]["id"] for model in models]
    return ExactJSONResponse({"workspaces": {"ids": ids, "values": models}})


@router.get("/lab/api/workspaces/{name:path}")
async def get_workspace(
    name: str, request: Request, identity: Annotated[Identity, allow("read", "config")]
) -> Response:
    """Return a workspace; one that was never saved is empty."""
    name = _name(name)
    async with request.app.state.database.read() as tx:
        row = await tx.get(LabWorkspace, (identity.id, name))
    empty = {"data": {}, "metadata": {"id": f"/{name}"}}
    return ExactJSONResponse(_model(row) if row else empty)


@router.put("/lab/api/workspaces/{name:path}", status_code=204)
async def save_workspace(
    name: str, request: Request, identity: Annotated[Identity, allow("write", "config")]
) -> None:
    """Store a workspace; 400 when what it says of its id is another one."""
    name = _name(name)
    body = await json_body(request)
    data, metadata = object_field(body, "data"), object_field(body, "metadata")
    said = metadata.get("id")
    if not isinstance(said, str) or unquote(said).removeprefix("/") != name:
        raise BadRequestError(f"Workspace metadata ID mismatch: expected {name!r} got {said!r}")
    async with request.app.state.database.transaction() as tx:
        statement = insert(LabWorkspace.__table__).values(  # type: ignore[arg-type]
            user_id=identity.id,
            name=name,
            data=data,
            metadata=metadata,
            last_modified=func.now(),
        )
        changed = ("data", "metadata", "last_modified")
        await tx.execute(
            statement.on_conflict_do_update(
                index_elements=["user_id", "name"],
                set_={column: statement.excluded[column] for column in changed},
            )
        )


@router.delete("/lab/api/workspaces/{name:path}", status_code=204)
async def delete_workspace(
    name: str, request: Request, identity: Annotated[Identity, allow("write", "config")]
) -> None:
    """Forget a workspace; 404 when there is none."""
    name = _name(name)
    mine = (LabWorkspace.user_id == identity.id, LabWorkspace.name == name)
    async with request.app.state.database.transaction() as tx:
        deleted = await tx.execute(delete(LabWorkspace).where(*mine).returning(LabWorkspace.name))
        if deleted.scalar_one_or_none() is None:
            raise NotFoundError(f"Workspace {name!r} not found")


def _name(given: str) -> str:
    name = storable(given, "workspace").removeprefix("/")
    if not name or len(name) > _MAX_NAME:
        raise BadRequestError("A workspace needs a name of at most 1000 characters")
    return name


def _model(row: LabWorkspace) -> dict[str, Any]:
    metadata = row.meta | {
        "created": isoformat(row.created_at),
        "last_modified": isoformat(row.last_modified),
    }
    return {"data": row.data, "metadata": metadata}
