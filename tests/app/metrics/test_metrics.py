import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import serving
from tests.kernels import run, start_kernel


def samples(text):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def read(client):
    response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return samples(response.text)


def count(found, handler, method="GET", status="200"):
    labels = {"handler": handler, "method": method, "status_code": status}
    key = ("http_request_duration_seconds_count", tuple(sorted(labels.items())))
    return found.get(key, 0)


async def test_requests_kernels_executions(client):
    kernel = await start_kernel(client)
    await run(client, kernel, "1")
    await client.get(f"/api/kernels/{kernel}")
    await client.get("/api/kernels/nope")
    for path in ("/no/such/route", "/nor/this"):
        assert (await client.get(path)).status_code == 404
    found = await read(client)
    assert count(found, "/api/kernels/{kernel_id}") == 1
    assert count(found, "/api/kernels/{kernel_id}", status="404") == 1
    assert count(found, "/api/kernels", "POST", "201") == 1
    assert count(found, "unknown", "any", "404") == 2
    assert found["kernel_currently_running_total", (("type", "python3"),)] == 1
    assert found["terminal_currently_running_total", ()] == 0
    assert found["datastore_executions", (("status", "ok"),)] == 1
    assert ("datastore_recorder_backlog", ()) in found
    assert ("datastore_database_connections_in_use", (("pool", "requests"),)) in found
    await client.delete(f"/api/kernels/{kernel}")
    found = await read(client)
    assert ("kernel_currently_running_total", (("type", "python3"),)) not in found
    assert count(found, "/metrics") == 1


async def test_who_may_read_them(client, settings, database_url, tmp_path):
    transport = httpx.ASGITransport(client.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8888") as nobody:
        # A page leads to the login, where there is one.
        assert (await nobody.get("/metrics")).status_code in (302, 403)
    settings.metrics_public = True
    async with serving(settings, database_url, tmp_path / "data2") as other:
        transport = httpx.ASGITransport(other.app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost:8888"
        ) as nobody:
            response = await nobody.get("/metrics")
            # Each application has its own figures.
            refused = [("/metrics", "GET", status) for status in ("302", "403")]
            assert not any(count(samples(response.text), *labels) for labels in refused)
