"""`/api/config/{section_name}` as Jupyter Server answers it, over rows of each user."""

import asyncio
import re
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Request, Response
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from app.auth.access import allow
from app.auth.identity import Identity
from app.config.files import SectionFiles, read_section, updated
from app.db.engine import Transaction
from app.errors import NotFoundError
from app.web import ExactJSONResponse, json_body
from models import ConfigSection

router = APIRouter()

_NAME = re.compile(r"\w{1,100}")


async def _files(name: str) -> SectionFiles:
    if not _NAME.fullmatch(name):
        raise NotFoundError(f"No such config section: {name!r}")
    return await asyncio.to_thread(read_section, name)


async def _row(tx: Transaction, identity: Identity, name: str) -> ConfigSection | None:
    return await tx.get(ConfigSection, (identity.id, name))


@router.get("/api/config/{section_name}")
async def get_section(
    section_name: str, request: Request, identity: Annotated[Identity, allow("read", "config")]
) -> Response:
    """Return a section: what the config folders hold, and the user's own changes on top."""
    files = await _files(section_name)
    async with request.app.state.database.read() as tx:
        row = await _row(tx, identity, section_name)
    return ExactJSONResponse(files.merged(row.data if row else None))


@router.put("/api/config/{section_name}", status_code=204)
async def set_section(
    section_name: str, request: Request, identity: Annotated[Identity, allow("write", "config")]
) -> None:
    """Replace the user's part of a section."""
    files = await _files(section_name)
    data = files.to_store(await json_body(request))
    async with request.app.state.database.transaction() as tx:
        statement = insert(ConfigSection).values(
            user_id=identity.id, name=section_name, data=data, updated_at=datetime.now(UTC)
        )
        await tx.execute(
            statement.on_conflict_do_update(
                index_elements=["user_id", "name"],
                set_={"data": statement.excluded.data, "updated_at": statement.excluded.updated_at},
            )
        )


@router.patch("/api/config/{section_name}")
async def update_section(
    section_name: str, request: Request, identity: Annotated[Identity, allow("write", "config")]
) -> Response:
    """Change the user's part of a section deeply, null deleting a key; answer that part."""
    files = await _files(section_name)
    changes = await json_body(request)
    async with request.app.state.database.transaction() as tx:
        seeded = insert(ConfigSection).values(
            user_id=identity.id, name=section_name, data=files.to_store(files.users(None))
        )
        await tx.execute(seeded.on_conflict_do_nothing())
        # Locked: two windows that change different keys at once must both be heeded.
        query = (
            select(ConfigSection)
            .where(ConfigSection.user_id == identity.id, ConfigSection.name == section_name)
            .with_for_update()
        )
        row = (await tx.execute(query)).scalar_one()
        section = updated(files.users(row.data), changes)
        row.data = files.to_store(section)
        row.updated_at = datetime.now(UTC)
    return ExactJSONResponse(section)
