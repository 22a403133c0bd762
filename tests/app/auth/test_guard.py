"""Origins, hosts and headers; websockets included."""

import re
from urllib.parse import unquote

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from app.auth.addresses import answers_to_any_host
from app.settings import Settings
from tests.app.auth.conftest import listening, log_in
from tests.conftest import TOKEN

EVIL = "http://evil.example"
BY_TOKEN = {"Authorization": f"token {TOKEN}"}


async def who(address: str, **headers: str) -> str | int:
    """Open the websocket and return the name it says, or the status of the refusal."""
    path = headers.pop("path", "/api/who")
    plain = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        async with connect(f"ws://{address}{path}", additional_headers=plain) as socket:
            return str(await socket.recv())
    except InvalidStatus as error:
        return error.response.status_code


async def test_websockets_ask_who_and_from_where(make_app):
    async with (
        listening(make_app()) as address,
        httpx.AsyncClient(base_url=f"http://{address}") as b,
    ):
        await log_in(b)
        cookies = "; ".join(f"{name}={value}" for name, value in b.cookies.items())
        own, other_port = f"http://{address}", "http://localhost:1"
        assert await who(address) == 403
        assert await who(address, Cookie=cookies) == "ada"
        assert await who(address, Cookie=cookies, Origin=own) == "ada"
        assert await who(address, Cookie=cookies, Origin=EVIL) == 403
        assert await who(address, Cookie=cookies, Origin=other_port) == 403
        assert await who(address, Cookie=cookies, Origin="null") == 403
        assert await who(address, Origin=EVIL, **BY_TOKEN) == "ada"
        assert await who(address, path=f"/api/who?token={TOKEN}") == "ada"
        assert await who(address, path="/api/who?token=wrong") == 403
        assert await who(address.replace("localhost", "127.0.0.1"), Cookie=cookies) == 403
        assert await who(address, path="/api/%00", **BY_TOKEN) in (403, 404)


@pytest.mark.parametrize(
    ("settings", "allowed", "refused"),
    [
        ({"allow_origin": "https://a.example"}, "https://A.example", "https://a.example.evil"),
        ({"allow_origin_pat": r"https://\w+\.example"}, "https://a.example", "https://a.exampled"),
        ({"allow_origin": "*"}, EVIL, None),
    ],
    ids=["named", "pattern", "any"],
)
async def test_allowed_origins(make_app, settings, allowed, refused):
    app = make_app(allow_credentials=True, **settings)
    async with listening(app) as address, httpx.AsyncClient(base_url=f"http://{address}") as b:
        xsrf = await log_in(b)
        cookies = "; ".join(f"{name}={value}" for name, value in b.cookies.items())
        assert await who(address, Cookie=cookies, Origin=allowed) == "ada"
        answer = await b.get("/api/kernels", headers={"Origin": allowed})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] in (allowed.lower(), allowed, "*")
        assert answer.headers["access-control-allow-credentials"] == "true"
        if refused:
            assert await who(address, Cookie=cookies, Origin=refused) == 403
            headers = {"Origin": refused, "X-XSRFToken": xsrf}
            answer = await b.post("/api/kernels", headers=headers)
            assert answer.status_code == 403
            assert answer.headers.get("access-control-allow-origin") != refused


async def test_other_sites_cannot_use_the_cookie(browser):
    await log_in(browser)
    for headers in (
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
        {"Referer": f"{EVIL}/page"},
    ):
        answer = await browser.get("/api/kernels", headers=headers)
        assert answer.status_code == 403, headers
        assert "access-control-allow-origin" not in answer.headers
        assert (await browser.get("/api/kernels", headers={**headers, **BY_TOKEN})).is_success
    for headers in (
        {"Origin": "http://localhost:8888"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Referer": EVIL},
        {"Referer": "http://localhost:8888/lab"},
    ):
        assert (await browser.get("/api/kernels", headers=headers)).is_success, headers


async def test_a_token_may_come_from_anywhere(client):
    answer = await client.get("/api/kernels", headers={"Origin": EVIL})
    assert answer.headers["access-control-allow-origin"] == EVIL
    assert "Origin" in answer.headers["vary"]


async def test_preflights_are_answered_without_a_token(browsing):
    async with browsing(allow_origin="https://a.example") as browser:
        answer = await browser.options("/api/kernels", headers={"Origin": "https://a.example"})
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        assert "x-xsrftoken" in answer.headers["access-control-allow-headers"]
        assert "PATCH" in answer.headers["access-control-allow-methods"]
    async with browsing() as browser:
        answer = await browser.options("/api/kernels", headers={"Origin": EVIL})
        assert "access-control-allow-origin" not in answer.headers


async def test_a_local_server_answers_to_local_names_only(browser):
    for host in ("localhost", "LOCALHOST:8888", "127.0.0.1:1", "127.9.9.9", "[::1]:8888"):
        assert (await browser.get("/api", headers={"Host": host})).status_code == 200, host
    for host in (
        "evil.example",
        "evil.example:8888",
        "localhost.evil.example",
        "192.168.1.5",
        "127.0.0.1.evil.example",
        "[2001:db8::1]",
        "localhost:8888@evil.example",
    ):
        answer = await browser.get("/api", headers={"Host": host})
        assert answer.status_code == 403, host
        assert "allow_remote_access" in answer.json()["message"]


def test_who_answers_to_any_host(tmp_path):
    assert not answers_to_any_host(Settings(host="localhost"))
    assert not answers_to_any_host(Settings(host="127.0.0.2"))
    for host in ("", "0.0.0.0", "::", "192.0.2.1"):
        assert answers_to_any_host(Settings(host=host)), host
        assert not answers_to_any_host(Settings(host=host, allow_remote_access=False))
    assert answers_to_any_host(Settings(sock=tmp_path / "s"))
    assert answers_to_any_host(Settings(allow_remote_access=True))


async def test_named_hosts_are_local(browsing):
    async with browsing(local_hostnames=["my-laptop"]) as browser:
        assert (await browser.get("/api", headers={"Host": "my-laptop:8888"})).is_success
        assert not (await browser.get("/api", headers={"Host": "other:8888"})).is_success


async def test_headers_as_jupyter_has_them(client):
    policy = "frame-ancestors 'self'; report-uri /api/security/csp-report"
    for path in ("/api", "/api/kernels", "/api/nothing"):
        answer = await client.get(path)
        assert answer.headers["content-security-policy"] == f"{policy}; default-src 'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
    answer = await client.get("/files/a.html")
    assert answer.headers["content-security-policy"] == f"{policy}; sandbox allow-scripts"
    too_long = await client.post("/api/kernels", headers={"Content-Length": str(2**40)})
    assert (too_long.status_code, too_long.headers["x-content-type-options"]) == (413, "nosniff")
    report = await client.post("/api/security/csp-report", content=b'{"csp-report": {}}')
    assert report.status_code == 204
    del client.headers["Authorization"]
    client.cookies.clear()  # the token in a page's address logs in
    assert (await client.post("/api/security/csp-report")).status_code == 403


async def test_nul_is_refused_everywhere(client):
    assert (await client.get("/api/contents/a%00b")).status_code == 404
    assert (await client.get("/api/kernels/%00")).status_code == 404
    assert (await client.get("/api/executions?path=%00")).status_code == 400


async def test_nothing_outside_the_root_is_reached(client, root_dir):
    outside = root_dir.parent / "outside.txt"
    outside.write_text("secret")
    (root_dir / "etc").mkdir()
    body = {"type": "file", "format": "text", "content": "changed"}
    for path in (
        "../outside.txt",
        "..%2foutside.txt",
        "%2e%2e/outside.txt",
        "a/../../outside.txt",
        "..%5coutside.txt",
        "/%2fetc/passwd",
        "a/..%2f..%2foutside.txt",
        "....//outside.txt",
    ):
        url = client.base_url.copy_with(raw_path=f"/api/contents/{path}".encode())
        answer = await client.get(url)
        assert answer.status_code in (400, 404), path
        assert "secret" not in answer.text
        await client.put(url, json=body)
        await client.delete(url)
        assert outside.read_text() == "secret", path


# --- behind a proxy


def proxy_to(upstream: str) -> FastAPI:
    """A reverse proxy as nginx is by default: the path as it came, the Host header its own."""
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def forward(path: str, request: Request) -> Response:
        headers = dict(request.headers) | {
            "host": upstream,
            "x-forwarded-host": request.headers["host"],
            "x-forwarded-proto": "https",
        }
        url = httpx.URL(f"http://{upstream}").copy_with(
            raw_path=request.scope["raw_path"] + b"?" + request.scope["query_string"]
        )
        async with httpx.AsyncClient() as client:
            answer = await client.request(
                request.method, url, headers=headers, content=await request.body()
            )
        made = Response(answer.content, answer.status_code)
        made.raw_headers = [pair for pair in answer.headers.raw if pair[0] != b"content-length"]
        made.headers["content-length"] = str(len(answer.content))
        return made

    return app


async def test_behind_a_proxy_with_a_base_url(make_app, root_dir):
    base = "/user/a%40b/"
    app = make_app(base_url=base, trust_xheaders=True, local_hostnames=["hub.example"])
    async with (
        listening(app) as upstream,
        listening(proxy_to(upstream)) as address,
        httpx.AsyncClient(base_url=f"http://{address}", timeout=60) as browser,
    ):
        browser.headers["Host"] = "hub.example"
        own = {"Origin": "https://hub.example"}
        page = await browser.get(base)
        assert page.status_code == 302
        assert page.headers["location"].startswith(f"{base}login?next=")
        form = await browser.get(page.headers["location"])
        links = re.findall(r'(?:href|action)="(/[^"]*)"', form.text)
        assert links
        assert all(link.startswith(base) for link in links)
        cookie_headers = [h for h in form.headers.get_list("set-cookie") if h.startswith("_xsrf")]
        assert "Secure" in cookie_headers[0]
        xsrf = cookie_headers[0].partition("=")[2].partition(";")[0]
        answer = await browser.post(
            page.headers["location"],
            data={"password": TOKEN, "_xsrf": xsrf},
            headers={**own, "Cookie": f"_xsrf={xsrf}"},
        )
        assert (answer.status_code, answer.headers["location"]) == (302, base)
        login = answer.headers["set-cookie"].partition(";")[0]
        assert login.startswith("datastore-hub-example-user-a-40b=")
        cookies = {"Cookie": f"{login}; _xsrf={xsrf}"}
        browser.headers.update({**cookies, **own, "X-XSRFToken": xsrf})
        slash = await browser.get(f"{base}api/kernels/")
        assert slash.status_code == 307
        assert slash.headers["location"].startswith("/user/a")
        body = {"type": "file", "format": "text", "content": "x"}
        made = await browser.put(f"{base}api/contents/a b.txt", json=body)
        assert made.status_code == 201
        assert unquote(made.headers["location"]) == unquote(f"{base}api/contents/a b.txt")
        assert (await browser.get(f"{base}api/contents/a%20b.txt")).status_code == 200
        kernel = await browser.post(f"{base}api/kernels")
        assert kernel.headers["location"] == f"{base}api/kernels/{kernel.json()['id']}"
        answer = await browser.delete(kernel.headers["location"], headers={"Origin": EVIL})
        assert answer.status_code == 403
        assert (await browser.delete(kernel.headers["location"])).status_code == 204


async def test_forwarded_headers_are_not_believed_unasked(browser):
    await log_in(browser)
    headers = {"Origin": EVIL, "X-Forwarded-Host": "evil.example"}
    assert (await browser.get("/api/kernels", headers=headers)).status_code == 403
