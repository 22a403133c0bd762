import json

import httpx
import pytest

FIELDS = ["name", "display_name", "initials", "avatar_url", "color"]
IDENTITY = {
    "username": "ada",
    "name": "ada",
    "display_name": "ada",
    "initials": None,
    "avatar_url": None,
    "color": None,
}


async def test_identity_and_permissions(client):
    answer = (await client.get("/api/me")).json()
    assert answer == {"identity": IDENTITY, "permissions": {"updatable_fields": FIELDS}}
    asked = {"contents": ["read", "write", "dance"], "nothing": ["read"], "kernels": []}
    answer = (await client.get("/api/me", params={"permissions": json.dumps(asked)})).json()
    assert answer["permissions"] == {
        "contents": ["read", "write"],
        "nothing": [],
        "kernels": [],
        "updatable_fields": FIELDS,
    }


@pytest.mark.parametrize("asked", ["{", "[]", '"x"', '{"a": "read"}', '{"a": [1]}', "[" * 100000])
async def test_bad_permissions(client, asked):
    path = "/api/me?permissions=" + asked if len(asked) < 60000 else "/api/me?permissions=["
    assert (await client.get(path)).status_code == 400


async def test_changing_oneself(client, settings):
    settings.identity_updatable_fields = ["color"]
    response = await client.patch("/api/me", json={"color": "#ff0000"})
    assert response.status_code == 200
    assert response.json() == {"status": "success", "identity": {**IDENTITY, "color": "#ff0000"}}
    assert (await client.get("/api/me")).json()["identity"]["color"] == "#ff0000"
    for bad in (
        {},
        {"initials": "AL"},
        {"username": "eve"},
        {"color": 1},
        {"color": "a\x00"},
        {"color": "\ud800"},
        {"color": "x" * 5000},
    ):
        refused = await client.patch("/api/me", content=json.dumps(bad))
        assert refused.status_code == 400, bad
    settings.identity_updatable_fields = ["name", "display_name", "initials", "avatar_url"]
    changes = {"name": "Ada Lovelace", "display_name": "Ada", "initials": "AL", "avatar_url": "/a"}
    response = await client.patch("/api/me", json=changes)
    wanted = {"username": "ada", "color": "#ff0000", **changes}
    assert response.json()["identity"] == wanted


async def test_anonymous(client):
    transport = httpx.ASGITransport(client.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as nobody:
        for method in ("GET", "PATCH"):
            assert (await nobody.request(method, "/api/me")).status_code == 403
