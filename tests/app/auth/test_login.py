"""What a browser sees: the login page, its cookies, and what they are good for."""

import stat
import uuid
from datetime import UTC, datetime

import httpx
import pytest
from sqlalchemy import func, select, update

from app.auth.identity import hash_token
from app.auth.pages import safe_next
from app.auth.throttle import LoginLimit
from models import Token, User
from tests.app.auth.conftest import log_in
from tests.conftest import TOKEN


def cookie(answer: httpx.Response, name: str) -> str:
    """The Set-Cookie header of a cookie whose name starts like this."""
    return next(h for h in answer.headers.get_list("set-cookie") if h.startswith(name))


async def test_a_page_leads_to_the_login_and_back(browser):
    page = await browser.get("/", params={"a": "b c", "token": "wrong"})
    assert page.status_code == 302
    assert page.headers["location"] == "/login?next=%2F%3Fa%3Db%2Bc"
    form = await browser.get(page.headers["location"])
    assert form.status_code == 200
    assert 'name="password"' in form.text
    assert "script" not in form.text
    assert "frame-ancestors 'self'" in form.headers["content-security-policy"]
    xsrf = cookie(form, "_xsrf")
    assert "HttpOnly" not in xsrf
    answer = await browser.post(
        page.headers["location"], data={"password": TOKEN, "_xsrf": browser.cookies["_xsrf"]}
    )
    assert (answer.status_code, answer.headers["location"]) == (302, "/?a=b+c")
    login = cookie(answer, "datastore-localhost-8888=")
    for part in ("HttpOnly", "SameSite=Lax", "Path=/", "Max-Age="):
        assert part in login
    assert "Secure" not in login
    assert TOKEN not in login
    home = await browser.get("/")
    assert home.status_code == 200
    assert "ada" in home.text
    assert (await browser.get("/login")).headers["location"] == "/"


async def test_programs_get_403_where_people_get_a_page(browser):
    answer = await browser.get("/api/kernels")
    assert answer.status_code == 403
    assert set(answer.json()) == {"message", "reason"}
    assert (await browser.get("/api")).status_code == 200


async def test_a_token_in_a_pages_url_logs_in(browser):
    answer = await browser.get("/", params={"token": TOKEN})
    assert answer.status_code == 200
    assert cookie(answer, "datastore-localhost-8888=")
    assert cookie(answer, "_xsrf=")
    assert (await browser.get("/api/kernels")).status_code == 200
    again = await browser.get("/", params={"token": TOKEN})
    assert "set-cookie" not in again.headers


async def test_a_token_for_the_api_sets_no_cookie(browser):
    answer = await browser.get("/api/kernels", params={"token": TOKEN})
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers


async def test_log_out(browser):
    await log_in(browser)
    answer = await browser.get("/logout")
    assert answer.status_code == 200
    assert "Successfully logged out" in answer.text
    assert "Max-Age=0" in cookie(answer, "datastore-")
    assert (await browser.get("/api/kernels")).status_code == 403


async def test_the_form_must_be_ours(browser):
    await browser.get("/login")
    for data in ({"password": TOKEN}, {"password": TOKEN, "_xsrf": "x"}):
        answer = await browser.post("/login", data=data)
        assert answer.status_code == 403
    data = {"password": TOKEN, "_xsrf": browser.cookies["_xsrf"]}
    answer = await browser.post("/login", data=data, headers={"Origin": "http://evil.example"})
    assert answer.status_code == 403
    assert (await browser.get("/api/kernels")).status_code == 403


async def test_too_long_a_form_is_refused(browser):
    answer = await browser.post("/login", content=b"password=" + b"x" * 100_000)
    assert answer.status_code == 413


async def test_wrong_tokens_are_slowed_down(browser):
    await browser.get("/login")
    data = {"password": "guess", "_xsrf": browser.cookies["_xsrf"]}
    statuses = [(await browser.post("/login", data=data)).status_code for _ in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    refused = await browser.post("/login", data={**data, "password": TOKEN})
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= 3
    assert (
        await browser.get("/api/kernels", headers={"Authorization": f"token {TOKEN}"})
    ).status_code == 200


def test_guessing_from_many_addresses_fills_no_memory():
    limit = LoginLimit()
    for number in range(10_500):
        limit.add_wrong(str(number))
    assert len(limit._clear_at) == 10_000
    assert limit.seconds_to_wait("10499") == 0


async def test_a_change_needs_the_xsrf_token(browser):
    xsrf = await log_in(browser)
    body = {"name": "no-such-kernel"}
    for refused in (
        await browser.post("/api/kernels", json=body),
        await browser.post("/api/kernels", json=body, headers={"X-XSRFToken": "guess"}),
        await browser.delete("/api/kernels/x"),
        await browser.patch("/api/sessions/x", params={"_xsrf": "guess"}),
    ):
        assert refused.status_code == 403
        assert refused.json()["reason"] == "XSRF"
    for taken in (
        await browser.post("/api/kernels", json=body, headers={"X-XSRFToken": xsrf}),
        await browser.post("/api/kernels", json=body, params={"_xsrf": xsrf}),
    ):
        assert taken.status_code == 400
    by_token = await browser.post(
        "/api/kernels", json=body, headers={"Authorization": f"token {TOKEN}"}
    )
    assert by_token.status_code == 400
    wrong = {"Authorization": "token wrong"}  # does not make the cookie a token
    assert (await browser.post("/api/kernels", json=body, headers=wrong)).status_code == 403


async def test_a_browser_that_lost_its_xsrf_cookie_is_given_another(browser):
    await log_in(browser)
    browser.cookies.delete("_xsrf")
    assert cookie(await browser.get("/api/kernels"), "_xsrf=")


async def test_a_tampered_cookie_is_nobody(browser):
    await log_in(browser)
    value = browser.cookies["datastore-localhost-8888"]
    middle = len(value) // 2  # the last character may have bits that say nothing
    other = "A" if value[middle] != "A" else "B"
    for bad in (value[:middle] + other + value[middle + 1 :], "x", value.partition(".")[2]):
        headers = {"Cookie": f"datastore-localhost-8888={bad}"}
        browser.cookies.clear()
        assert (await browser.get("/api/kernels", headers=headers)).status_code == 403


async def test_a_cookie_is_for_one_port_and_base_url(browsing):
    async with browsing(base_url="/x/") as browser:
        page = await browser.get("/x/", params={"token": TOKEN})
        assert cookie(page, "datastore-localhost-8888-x=")
        assert "Path=/x/" in cookie(page, "_xsrf=")
        other = await browser.get("http://localhost:9999/x/", params={"token": TOKEN})
        assert cookie(other, "datastore-localhost-9999-x=")


async def test_the_cookie_is_secure_where_the_connection_is(browsing):
    async with browsing(trust_xheaders=True) as browser:
        page = await browser.get("/login", headers={"X-Forwarded-Proto": "https"})
        assert "Secure" in cookie(page, "_xsrf=")
    async with browsing() as browser:
        page = await browser.get("/login", headers={"X-Forwarded-Proto": "https"})
        assert "Secure" not in cookie(page, "_xsrf=")
        browser.cookies.clear()
        page = await browser.get("https://localhost/login")
        assert "Secure" in cookie(page, "_xsrf=")


async def test_a_login_outlives_a_restart_but_not_its_token(browsing, tmp_path):
    async with browsing() as browser:
        await log_in(browser)
        kept = dict(browser.cookies)
    secret = tmp_path / "data" / "cookie_secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    async with browsing() as browser:
        browser.cookies.update(kept)
        assert (await browser.get("/api/kernels")).status_code == 200
    async with browsing(token="another-token") as browser:
        browser.cookies.update(kept)
        assert (await browser.get("/api/kernels")).status_code == 403
    secret.write_bytes(b"cut short")
    async with browsing() as browser:
        browser.cookies.update(kept)
        assert (await browser.get("/api/kernels")).status_code == 403
        assert len(secret.read_bytes()) == 32
    async with browsing(cookie_secret="a secret that many servers share") as browser:
        await log_in(browser)
        assert (await browser.get("/api/kernels")).status_code == 200


async def test_a_revoked_token_ends_its_logins(browser):
    async with browser.app.state.database.transaction() as tx:
        user = User(id=uuid.uuid4(), name="bob")
        tx.add(user)
        await tx.flush()
        tx.add(Token(user_id=user.id, name="t", prefix="bobs", hash=hash_token("bobs-token")))
    await log_in(browser, token="bobs-token")
    assert "bob" in (await browser.get("/")).text
    async with browser.app.state.database.transaction() as tx:
        await tx.execute(update(Token).values(revoked_at=datetime.now(UTC)))
    browser.app.state.authenticator._known.clear()  # a second has passed
    assert (await browser.get("/api/kernels")).status_code == 403
    async with browser.app.state.database.read() as tx:
        assert (await tx.execute(select(func.count()).select_from(Token))).scalar_one() == 1


BASE = "/a%40b/"


@pytest.mark.parametrize(
    "wanted",
    [
        "\\\\tree",
        "/a%40b/\\evil",
        "//host",
        "//host/a%40b/tree",
        "https://evil.example",
        "https:///a%40b/x",
        "///evil.example",
        "/absolute/not/below",
        "/a%40bad",
        "/\t/evil.example",
        "/a%40b/\nx",
        "javascript:alert(1)",
        "",
    ],
)
def test_only_paths_below_the_base_url_are_gone_to(wanted):
    assert safe_next(wanted, BASE) == BASE
    assert safe_next(wanted, "/") == "/" or wanted.startswith("/a")


@pytest.mark.parametrize("wanted", ["/a%40b/", "/a%40b", "/a%40b/tree//x", "/a%40b/x?y=//z"])
def test_a_path_below_the_base_url_is_gone_to(wanted):
    assert safe_next(wanted, BASE) == wanted
