"""What Prometheus is told of this process; each application has its own registry.

Names are jupyter_server's where it has the same figure, so that its dashboards work.
"""

import asyncio
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from sqlalchemy import func, select
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.db.engine import Database
from app.kernels.host import KernelHost
from app.web import route_template
from models import Execution, Kernel, Terminal

# Counting a large table may take this part of the time, at most: 1/50.
_REST_FACTOR = 50.0
_REST_SECONDS = 5.0


class Metrics:
    """The figures of one application."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._requests = Histogram(
            "http_request_duration_seconds",
            "Time from a request's arrival to the end of its answer",
            ["method", "handler", "status_code"],
            registry=registry,
        )
        self._kernels = Gauge(
            "kernel_currently_running_total",
            "Kernels that this process hosts, by kernelspec",
            ["type"],
            registry=registry,
        )
        self._terminals = Gauge(
            "terminal_currently_running_total",
            "Terminals that this process hosts",
            registry=registry,
        )
        self._executions = Gauge(
            "datastore_executions",
            "Executions in the database, by status",
            ["status"],
            registry=registry,
        )
        self._backlog = Gauge(
            "datastore_recorder_backlog",
            "Kernel messages of this process that wait to be recorded",
            registry=registry,
        )
        self._connections = Gauge(
            "datastore_database_connections_in_use",
            "Connections to the database that are in use, by pool",
            ["pool"],
            registry=registry,
        )
        self._failures = Counter(
            "datastore_metrics_database_failures",
            "Collections in which the database did not answer",
            registry=registry,
        )
        self._counting = asyncio.Lock()
        self._count_again_at = 0.0

    def observe(self, method: str, template: str, status: int, seconds: float) -> None:
        """Take note of a request that was answered."""
        self._requests.labels(method, template, str(status)).observe(seconds)

    async def collect(self, database: Database, host: KernelHost) -> bytes:
        """Return all figures in Prometheus's text format."""
        self._backlog.set(host.backlog())
        for pool, in_use in database.connections_in_use().items():
            self._connections.labels(pool).set(in_use)
        async with self._counting:
            try:
                await self._count(database, host)
            except Exception:  # noqa: BLE001 (the other figures tell what is wrong)
                self._failures.inc()
        return generate_latest(self._registry)

    async def _count(self, database: Database, host: KernelHost) -> None:
        kernels = (
            select(Kernel.name, func.count())
            .where(
                Kernel.server_id == host.server_id,
                Kernel.ended_at.is_(None),
                Kernel.execution_state != "dead",
            )
            .group_by(Kernel.name)
        )
        terminals = (
            select(func.count())
            .select_from(Terminal)
            .where(Terminal.server_id == host.server_id, Terminal.ended_at.is_(None))
        )
        executions = select(Execution.status, func.count()).group_by(Execution.status)
        async with database.read(as_server=True) as tx:
            found = (await tx.execute(kernels)).all()
            self._kernels.clear()
            for name, count in found:
                self._kernels.labels(name).set(count)
            self._terminals.set((await tx.execute(terminals)).scalar_one())
            if time.monotonic() < self._count_again_at:
                return
            began = time.monotonic()
            counts = (await tx.execute(executions)).all()
            self._executions.clear()
            for status, count in counts:
                self._executions.labels(status).set(count)
            took = time.monotonic() - began
            self._count_again_at = time.monotonic() + max(_REST_SECONDS, took * _REST_FACTOR)


class MeasureRequests:
    """ASGI middleware that measures requests by method, path template and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and measure it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        began = time.perf_counter()

        async def watching(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watching)
        finally:
            # Paths that are no route's would be without number.
            template = route_template(scope) or "unknown"
            method = scope["method"] if template != "unknown" else "any"
            self._metrics.observe(method, template, status, time.perf_counter() - began)
