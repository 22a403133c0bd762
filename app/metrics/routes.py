"""`/metrics` in Prometheus's text format."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.auth.access import allow, public
from app.auth.identity import Identity
from app.metrics.metrics import Metrics


def make_router(*, for_everyone: bool) -> APIRouter:
    """Return the route, for who may read the server, or for everyone."""
    router = APIRouter()

    async def collect(request: Request) -> Response:
        metrics: Metrics = request.app.state.metrics
        text = await metrics.collect(request.app.state.database, request.app.state.kernels)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    @public
    async def public_metrics(request: Request) -> Response:
        """Return the server's figures for Prometheus."""
        return await collect(request)

    async def metrics(
        request: Request, _: Annotated[Identity, allow("read", "server")]
    ) -> Response:
        """Return the server's figures for Prometheus."""
        return await collect(request)

    router.get("/metrics")(public_metrics if for_everyone else metrics)
    return router
