"""`/kernelspecs/{name}/{path}`: the logos and scripts in a kernelspec's folder."""

import asyncio
import mimetypes
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request, Response
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

from app.auth.access import allow
from app.auth.identity import Identity
from app.errors import NotFoundError
from app.web import file_answer

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
    return await file_answer(request, file, media_type=media_type, headers=headers)


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
