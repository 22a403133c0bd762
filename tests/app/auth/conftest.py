"""The application on a real port, and a browser: a client with cookies and no token."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Annotated

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, WebSocket

from app.auth.access import allow
from app.auth.identity import Identity
from app.main import create_app
from app.settings import Settings
from tests.conftest import TOKEN


@asynccontextmanager
async def listening(app: FastAPI, **options) -> AsyncIterator[str]:
    """Serve an application on a free port of this process; yields its address."""
    config = uvicorn.Config(app, port=0, log_config=None, proxy_headers=False, **options)
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # the test run keeps its own
    running = asyncio.create_task(server.serve())
    async with asyncio.timeout(30):
        while not server.started:
            assert not running.done(), running
            await asyncio.sleep(0.01)
    try:
        yield f"localhost:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


@pytest.fixture
def make_app(root_dir, database_url, tmp_path) -> Callable[..., FastAPI]:
    """The application with these settings, and a websocket that says who opened it."""

    def make(token: str = TOKEN, **settings) -> FastAPI:
        defaults = {"default_url": "/", "kernel_poll_seconds": 0.2}
        made = Settings(root_dir=root_dir, owner="ada", **{**defaults, **settings})
        app = create_app(made, database_url=database_url, token=token, data_dir=tmp_path / "data")

        @app.websocket(f"{made.base_url}api/who")
        async def who(
            websocket: WebSocket, identity: Annotated[Identity, allow("read", "api")]
        ) -> None:
            await websocket.accept()
            await websocket.send_text(identity.name)
            await websocket.close()

        return app

    return make


@pytest.fixture
def browsing(make_app) -> Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]:
    """A browser on the application with these settings."""

    @asynccontextmanager
    async def browse(**options) -> AsyncIterator[httpx.AsyncClient]:
        app = make_app(**options)
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost:8888", timeout=60
            ) as client:
                client.app = app  # type: ignore[attr-defined]
                yield client

    return browse


@pytest.fixture
async def browser(browsing) -> AsyncIterator[httpx.AsyncClient]:
    async with browsing() as client:
        yield client


async def log_in(browser: httpx.AsyncClient, base_url: str = "/", token: str = TOKEN) -> str:
    """Log in through the form and return the value of `_xsrf`."""
    page = await browser.get(f"{base_url}login")
    assert page.status_code == 200
    xsrf = browser.cookies["_xsrf"]
    answer = await browser.post(f"{base_url}login", data={"password": token, "_xsrf": xsrf})
    assert answer.status_code == 302, answer.text
    return xsrf
