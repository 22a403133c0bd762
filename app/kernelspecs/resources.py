"""`/kernelspecs/{name}/{path}`: the logos and scripts in a kernelspec's folder."""

import asyncio
import mimetypes
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

from app.auth.access import allow
from app.auth.identity import Identity
from app.errors import NotFoundError

router = APIRouter()

_MONTH_SECONDS = 30 * 24 * 60 * 60


@router.head("/kernelspecs/{name}/{path:path}")
@router.get("/kernelspecs/{name}/{path:path}")
async def get_resource(
    name: str, path: str, request: Request, _: Annotated[Identity, allow("read", "kernelspecs")]
) -> Response:
    """Return a file of a kernelspec's folder; 404 for what is not in it."""
    manager: KernelSpecManager = request.app.state.kernels.specs
    file = await asyncio.to_thread(_find, manager, name, path)
    headers = {
        # As in Jupyter, logos are kept for a month; the rest is asked for again.
        "Cache-Control": f"max-age={_MONTH_SECONDS}"
        if file.suffix.lower() == ".png"
        else "no-cache",
        # An SVG opened by itself must not run scripts as this server's page.
        "Content-Security-Policy": "frame-ancestors 'self'; sandbox",
        "X-Content-Type-Options": "nosniff",
    }
    media_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    stat = await asyncio.to_thread(file.stat)
    answer = FileResponse(file, headers=headers, media_type=media_type, stat_result=stat)
    if _is_known(request, answer):
        kept = ("etag", "last-modified", "cache-control")
        return Response(status_code=304, headers={k: answer.headers[k] for k in kept})
    return answer


def _find(manager: KernelSpecManager, name: str, path: str) -> Path:
    """Return the file, which links may not lead out of the folder."""
    missing = NotFoundError(f"Kernel spec {name} has no {path!r}")
    try:
        folder = Path(manager.get_kernel_spec(name).resource_dir).resolve()
        file = (folder / path).resolve()
        is_there = file.is_relative_to(folder) and file.is_file()
    except NoSuchKernel:
        raise NotFoundError(f"Kernel spec {name} not found") from None
    except (OSError, ValueError, RuntimeError):  # NUL, too long, a loop of links
        raise missing from None
    if not is_there:
        raise missing
    return file


def _is_known(request: Request, answer: Response) -> bool:
    """Tell whether the client has this file already (RFC 9110, section 13.2.2)."""
    if (tags := request.headers.get("if-none-match")) is not None:
        known = {tag.strip().removeprefix("W/") for tag in tags.split(",")}
        return "*" in known or answer.headers["etag"].removeprefix("W/") in known
    if (since := request.headers.get("if-modified-since")) is None:
        return False
    try:
        return parsedate_to_datetime(answer.headers["last-modified"]) <= parsedate_to_datetime(
            since
        )
    except (TypeError, ValueError):
        return False
