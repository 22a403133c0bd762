"""Requests to the server: addresses, errors, and what is tried again."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from jupyter_datastore_client.backoff import Backoff
from jupyter_datastore_client.errors import ApiError

Json = Any


def path_of(template: str, **names: str) -> str:
    """Return a path with its names filled in; only `path` may contain slashes."""
    filled = {
        name: quote(value, safe="/" if name == "path" else "") for name, value in names.items()
    }
    return template.format(**filled)


class Http:
    """Sends requests; raises ApiError for what the server refuses."""

    def __init__(
        self, base_url: str, headers: Mapping[str, str], transport: httpx.AsyncBaseTransport | None
    ) -> None:
        self._client = httpx.AsyncClient(
            base_url=base_url, headers=dict(headers), transport=transport, timeout=60
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def send(
        self,
        operation: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Json = None,
        timeout_seconds: float = 60,
        **names: str,
    ) -> httpx.Response:
        """Send what `operation` (`"GET /api/kernels/{kernel_id}"`) says; return the answer."""
        method, template = operation.split(" ")
        parameters = {name: value for name, value in (query or {}).items() if value is not None}
        response = await self._client.request(
            method,
            path_of(template, **names),
            params=parameters,
            json=body,
            timeout=timeout_seconds,
        )
        if response.is_error:
            raise _api_error(response)
        return response

    async def call(self, operation: str, **options: Any) -> Json:
        """Send a request; return what its answer's JSON says, None when there is none."""
        response = await self.send(operation, **options)
        return response.json() if response.content else None

    async def call_surely(
        self, operation: str, *, within_seconds: float | None = None, **options: Any
    ) -> Json:
        """Send a request that may be repeated until there is an answer that is not a failure.

        Tried again: no connection, and 502 to 504 (the server or its database is coming back).
        After `within_seconds` (never, if None) the failure is raised.
        """
        backoff = Backoff()
        deadline = None if within_seconds is None else time.monotonic() + within_seconds
        while True:
            try:
                return await self.call(operation, **options)
            except httpx.TransportError:
                if _is_over(deadline):
                    raise
            except ApiError as error:
                if error.status not in (502, 503, 504) or _is_over(deadline):
                    raise
            await asyncio.sleep(backoff.pause())


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def _api_error(response: httpx.Response) -> ApiError:
    try:
        body = response.json()
        return ApiError(response.status_code, body["message"], body.get("reason"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ApiError(response.status_code, response.reason_phrase)
