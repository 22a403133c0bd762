"""The pages of JupyterLab and Jupyter Notebook, and the files that they load.

The files are public, as in Jupyter Server: they are what the wheels hold, the same for everyone.
"""

import asyncio
from typing import Annotated, Any
from urllib.parse import quote, unquote

from fastapi import APIRouter, Request, Response
from sqlalchemy import select
from starlette.responses import HTMLResponse, RedirectResponse

from app.auth.access import allow, may, public
from app.auth.addresses import path_below_base
from app.auth.identity import Identity
from app.contents.disk import Disk
from app.db.engine import Database
from app.errors import DomainError, NotFoundError
from app.lab.assets import Assets, is_immutable
from app.lab.page import Pages
from app.settings import Settings
from app.web import file_answer
from models import User

router = APIRouter(include_in_schema=False)

Reader = Annotated[Identity, allow("read", "config")]
FileReader = Annotated[Identity, allow("read", "contents")]
# The page is made anew each time; a browser's "back" must not bring one of another login.
_PAGE_HEADERS = {"Cache-Control": "no-store"}
_FOREVER = "public, max-age=31536000, immutable"
_NOTEBOOK_PAGES = {
    "edit": "edit.html",
    "consoles": "consoles.html",
    "terminals": "terminals.html",
}


@router.head("/static/{path:path}")
@router.get("/static/{path:path}")
@public
async def get_static(path: str, request: Request) -> Response:
    """Return a file of a front end or of Jupyter Server's own pages."""
    assets: Assets = request.app.state.lab_assets
    file = await asyncio.to_thread(assets.static_file, path)
    lasting = is_immutable(file)
    return await file_answer(request, file, cache_control=_FOREVER if lasting else "no-cache")


@router.head("/lab/extensions/{path:path}")
@router.get("/lab/extensions/{path:path}")
@public
async def get_extension(path: str, request: Request) -> Response:
    """Return a file of a prebuilt extension."""
    assets: Assets = request.app.state.lab_assets
    file = await asyncio.to_thread(assets.extension_file, path)
    lasting = is_immutable(file)
    return await file_answer(request, file, cache_control=_FOREVER if lasting else "no-cache")


@router.get("/lab")
@router.get("/doc")
async def lab(request: Request, identity: Reader) -> Response:
    """Return JupyterLab's page."""
    return await _lab(request, identity, "")


@router.get("/lab/{path:path}")
@router.get("/doc/{path:path}")
async def lab_at(path: str, request: Request, identity: Reader) -> Response:
    """Return JupyterLab's page on a workspace or path; it says itself that a page is none."""
    if path.startswith(("api/", "extensions/")):
        raise NotFoundError(f"There is nothing at lab/{path}")
    return await _lab(request, identity, path)


async def _own(request: Request, identity: Identity) -> dict[str, Any]:
    """What a page says to one person: where their files are, whether they may open terminals."""
    settings: Settings = request.app.state.settings
    database: Database = request.app.state.database
    query = select(User.home_path).where(User.id == identity.id)
    async with database.read(as_server=True) as tx:
        home = (await tx.execute(query)).scalar_one_or_none()
    own: dict[str, Any] = {"preferredPath": f"/{home or ''}"}
    if settings.terminals_enabled:
        own["terminalsAvailable"] = identity.is_within_scopes("write", "terminals") and await may(
            database, identity, "write", "terminals"
        )
    return own


async def _lab(request: Request, identity: Identity, path: str) -> Response:
    if request.app.state.lab_assets.lab is None:
        raise NotFoundError("JupyterLab is not installed beside this server")
    pages: Pages = request.app.state.lab_pages
    document = _first_part(request) == "doc"
    workspace, rest = "default", path.strip("/")
    if rest.startswith("workspaces/"):
        workspace, _, rest = rest.removeprefix("workspaces/").partition("/")
    tree, unknown = "", None
    if rest == "tree" or rest.startswith("tree/"):
        tree = rest.removeprefix("tree").strip("/")
    elif rest:
        unknown = request.scope["path"]
    page = await asyncio.to_thread(
        pages.lab,
        workspace=workspace,
        tree=tree,
        document=document,
        own=await _own(request, identity),
        unknown=unknown,
    )
    return HTMLResponse(page, headers=_PAGE_HEADERS)


@router.get("/tree")
async def notebook_root(request: Request, _: Reader) -> Response:
    """Return Jupyter Notebook's page of the root folder."""
    return await _tree(request, "")


@router.get("/tree/{path:path}")
async def notebook_tree(path: str, request: Request, _: FileReader) -> Response:
    """Return Jupyter Notebook's page of a folder, or the way to a file's."""
    return await _tree(request, path)


async def _tree(request: Request, path: str) -> Response:
    pages = _notebook(request)
    base_url = request.app.state.settings.base_url
    disk: Disk = request.app.state.disk
    path = path.strip("/")
    model = await disk.model(path, content=False)
    if model["type"] == "notebook":
        return RedirectResponse(f"{base_url}notebooks/{quote(path)}", 302)
    if model["type"] != "directory":
        return RedirectResponse(f"{base_url}files/{quote(path)}", 302)
    page = await asyncio.to_thread(pages.notebook, "tree.html", tree=path)
    return HTMLResponse(page, headers=_PAGE_HEADERS)


@router.get("/notebooks/{path:path}")
async def notebook_page(path: str, request: Request, _: FileReader) -> Response:
    """Return Jupyter Notebook's page of a notebook; a folder's is `/tree`."""
    pages = _notebook(request)
    disk: Disk = request.app.state.disk
    try:
        model = await disk.model(path.strip("/"), content=False)
    except DomainError:  # the page says that it is not there
        model = {"type": "notebook"}
    if model["type"] == "directory":
        base_url = request.app.state.settings.base_url
        return RedirectResponse(f"{base_url}tree/{quote(path)}", 302)
    page = await asyncio.to_thread(pages.notebook, "notebooks.html")
    return HTMLResponse(page, headers=_PAGE_HEADERS)


@router.get("/edit/{path:path}")
@router.get("/consoles/{path:path}")
@router.get("/terminals/{path:path}")
async def notebook_other(path: str, request: Request, _: Reader) -> Response:  # noqa: ARG001
    """Return Jupyter Notebook's page of a text file, a console or a terminal."""
    pages = _notebook(request)
    page = await asyncio.to_thread(pages.notebook, _NOTEBOOK_PAGES[_first_part(request)])
    return HTMLResponse(page, headers=_PAGE_HEADERS)


def _first_part(request: Request) -> str:
    prefix = unquote(request.app.state.settings.base_url.rstrip("/"))
    return path_below_base(request.scope["path"], prefix).partition("/")[0]


def _notebook(request: Request) -> Pages:
    pages: Pages = request.app.state.lab_pages
    if request.app.state.lab_assets.notebook is None:
        raise NotFoundError("Jupyter Notebook (the package `notebook`) is not installed here")
    return pages
