"""`/lab/api/...` about the installation: translations, themes, licences, extensions, build."""

import asyncio
import mimetypes
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response

from app.auth.access import allow
from app.auth.identity import Identity
from app.errors import ForbiddenError
from app.lab.assets import Assets, theme_css
from app.lab.installed import installed_extensions, language_pack, language_packs, licences
from app.lab.settings_routes import locale_in, read_settings
from app.web import ExactJSONResponse, file_answer

router = APIRouter(include_in_schema=False)

Reader = Annotated[Identity, allow("read", "config")]
_READ_ONLY = "Extensions are installed with pip, beside this server"


@router.get("/lab/api/translations")
@router.get("/lab/api/translations/")
async def list_languages(request: Request, identity: Reader) -> dict[str, Any]:
    """Return the languages that are installed."""
    rows = await read_settings(request.app.state.database, identity)
    return await asyncio.to_thread(language_packs, locale_in(rows))


@router.get("/lab/api/translations/{locale}")
async def get_language(locale: str, _: Reader) -> Response:
    """Return the texts of a language."""
    return ExactJSONResponse(await asyncio.to_thread(language_pack, locale))


@router.get("/lab/api/themes/{path:path}")
async def get_theme(path: str, request: Request, _: Reader) -> Response:
    """Return a file of a theme; in stylesheets, addresses are made absolute."""
    assets: Assets = request.app.state.lab_assets
    file = await asyncio.to_thread(assets.theme_file, path)
    if file.suffix != ".css":
        return await file_answer(request, file, cache_control="no-cache")
    folder = quote(f"lab/api/themes/{path.rpartition('/')[0]}")
    css = await asyncio.to_thread(theme_css, file, request.app.state.settings.base_url + folder)
    return Response(css, media_type="text/css", headers={"Cache-Control": "no-cache"})


@router.get("/lab/api/licenses")
@router.get("/lab/api/licenses/")
async def get_licences(
    request: Request,
    _: Reader,
    *,
    form: Annotated[str, Query(alias="format")] = "json",
    bundles: str = ".*",
    full_text: Literal["true", "false", "1", "0"] = "true",
    download: Literal["true", "false", "1", "0"] = "0",
) -> Response:
    """Return the licences of the code that browsers run, as json, csv or markdown."""
    full = full_text in ("true", "1")
    report, media_type = await asyncio.to_thread(
        licences, request.app.state.lab_assets, form=form, bundles=bundles, full_text=full
    )
    headers = {}
    if download in ("true", "1"):
        name = f"jupyterlab-licenses{mimetypes.guess_extension(media_type) or ''}"
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return Response(report, media_type=media_type, headers=headers)


@router.get("/lab/api/extensions")
async def list_extensions(request: Request, _: Reader) -> Response:
    """Return the prebuilt extensions that are installed."""
    found = await asyncio.to_thread(installed_extensions, request.app.state.lab_assets)
    return ExactJSONResponse(found)


@router.post("/lab/api/extensions")
async def change_extensions(_: Annotated[Identity, allow("write", "config")]) -> Response:
    """Refuse: what a browser may install would run for everybody."""
    raise ForbiddenError(_READ_ONLY)


@router.get("/lab/api/plugins")
async def list_plugin_locks(_: Reader) -> dict[str, Any]:
    """Say that plugins cannot be turned on and off from the browser."""
    return {"lockRules": [], "allLocked": True}


@router.get("/lab/api/listings/{path:path}")
async def get_listings(path: str, _: Reader) -> dict[str, Any]:  # noqa: ARG001 (one answer for all)
    """Return the lists of blocked and allowed extensions: none."""
    return {
        "blocked_extensions_uris": [],
        "allowed_extensions_uris": [],
        "blocked_extensions": [],
        "allowed_extensions": [],
    }


@router.get("/lab/api/build")
async def get_build_status(_: Reader) -> dict[str, str]:
    """Say that the front end is built: it comes so in its wheel."""
    return {"status": "stable", "message": ""}


@router.get("/lab/api/news")
async def get_news(_: Reader) -> dict[str, Any]:
    """Return no news: this server fetches nothing from elsewhere."""
    return {"news": []}


@router.get("/lab/api/update")
async def get_update(_: Reader) -> dict[str, Any]:
    """Return no update: packages are updated where they are installed."""
    return {"notification": None}


@router.get("/lsp/status")
async def get_language_servers(_: Reader) -> dict[str, Any]:
    """Return the language servers that run: none."""
    return {"version": 2, "sessions": {}, "specs": {}}
