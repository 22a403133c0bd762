"""`/lab/api/settings`: schemas from the wheels, and each person's settings over them, as rows."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from app.auth.access import allow
from app.auth.identity import Identity
from app.db.engine import Database
from app.errors import BadRequestError
from app.lab.setting_schemas import LOCALE_SCHEMA, Plugin, SettingSchemas, usable_locale
from app.web import ExactJSONResponse, isoformat, json_body
from models import LabSetting

router = APIRouter(include_in_schema=False)


@router.get("/lab/api/settings")
@router.get("/lab/api/settings/")
async def list_settings(
    request: Request, identity: Annotated[Identity, allow("read", "config")], ids_only: str = ""
) -> Response:
    """Return all plugins with their schemas and the person's settings, or their ids alone."""
    schemas: SettingSchemas = request.app.state.lab_schemas
    rows = await read_settings(request.app.state.database, identity)

    def answer() -> Response:
        plugins = schemas.plugins(locale_in(rows))
        if ids_only == "true":
            return ExactJSONResponse({"settings": [{"id": name} for name in plugins]})
        models = [_model(schemas, plugin, rows.get(name)) for name, plugin in plugins.items()]
        return ExactJSONResponse({"settings": models})

    return await asyncio.to_thread(answer)


@router.get("/lab/api/settings/{schema_id:path}")
async def get_settings(
    schema_id: str, request: Request, identity: Annotated[Identity, allow("read", "config")]
) -> Response:
    """Return one plugin; 404 when no plugin has this id."""
    schemas: SettingSchemas = request.app.state.lab_schemas
    rows = await read_settings(request.app.state.database, identity)

    def answer() -> Response:
        plugin = schemas.plugin(schema_id, locale_in(rows))
        return ExactJSONResponse(_model(schemas, plugin, rows.get(schema_id)))

    return await asyncio.to_thread(answer)


@router.put("/lab/api/settings/{schema_id:path}", status_code=204)
async def set_settings(
    schema_id: str, request: Request, identity: Annotated[Identity, allow("write", "config")]
) -> None:
    """Replace the person's settings of a plugin; 400 for what its schema forbids."""
    raw = (await json_body(request)).get("raw")
    if not isinstance(raw, str):
        raise BadRequestError("Invalid format for JSON payload. Must be in the form {'raw': ...}")
    schemas: SettingSchemas = request.app.state.lab_schemas
    settings = await asyncio.to_thread(schemas.parse, schema_id, raw)
    async with request.app.state.database.transaction() as tx:
        statement = insert(LabSetting).values(
            user_id=identity.id,
            schema_id=schema_id,
            raw=raw,
            settings=settings,
            last_modified=func.now(),
        )
        changed = ("raw", "settings", "last_modified")
        await tx.execute(
            statement.on_conflict_do_update(
                index_elements=["user_id", "schema_id"],
                set_={name: statement.excluded[name] for name in changed},
            )
        )


async def read_settings(database: Database, identity: Identity) -> dict[str, LabSetting]:
    """Return a person's settings by plugin."""
    query = select(LabSetting).where(LabSetting.user_id == identity.id)
    async with database.read() as tx:
        return {row.schema_id: row for row in (await tx.execute(query)).scalars()}


def locale_in(rows: dict[str, LabSetting]) -> str:
    """Return the locale that a person has set, else this machine's."""
    row = rows.get(LOCALE_SCHEMA)
    return usable_locale(row.settings.get("locale") if row else None)


def _model(schemas: SettingSchemas, plugin: Plugin, row: LabSetting | None) -> dict[str, Any]:
    """Return a plugin as the front end takes it; settings that no longer fit are left out."""
    if row is None:
        return plugin
    model = plugin | {
        "created": isoformat(row.created_at),
        "last_modified": isoformat(row.last_modified),
    }
    if schemas.fits(plugin, row.settings):
        model |= {"raw": row.raw, "settings": row.settings}
    return model
