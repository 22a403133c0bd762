"""`/api/spec.yaml`: the OpenAPI document of this server."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, FastAPI, Request, Response

from app.auth.access import allow
from app.auth.identity import Identity
from app.spec.document import as_yaml, openapi_document

router = APIRouter()


@router.get("/api/spec.yaml")
async def get_spec(request: Request, _: Annotated[Identity, allow("read", "api")]) -> Response:
    """Return the OpenAPI document of this server's API."""
    app: FastAPI = request.app
    base_url = app.state.settings.base_url
    # The routes stay as they are: it is made once, which takes a quarter of a second.
    text: str | None = getattr(app.state, "spec", None)
    if text is None:
        text = await asyncio.to_thread(lambda: as_yaml(openapi_document(app, base_url=base_url)))
        app.state.spec = text
    return Response(text, media_type="text/x-yaml")
