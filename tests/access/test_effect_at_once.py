"""What is open ends within a second when its right ends; log-ins, links, tokens and homes."""

import asyncio
import contextlib
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import websockets
from sqlalchemy import text

from app.auth.revocations import CLOSE_CODE
from app.collaboration.rooms import FORBIDDEN as ROOM_FORBIDDEN
from tests.access.world import FOLDER, NOTEBOOK, World
from tests.kernels import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def change(made: World, statement: str, **values) -> None:
    """Do something to the tables as any SQL client might."""
    async with made.database.transaction(as_server=True) as tx:
        await tx.execute(text(statement), values)


async def share(made: World, person: str, role: str, **more) -> str:
    answer = await made.ask(
        "olga", "POST", "/api/permissions", json={"user": person, "role": role, **more}
    )
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


@contextlib.asynccontextmanager
async def opened(made: World, person: str, path: str):
    await made.server.app.state.revocations.listening.wait()
    url = f"ws://{made.server.address}{path}"
    async with websockets.connect(url, additional_headers=made.headers(person)) as websocket:
        yield websocket


async def seconds_to_close(websocket) -> float:
    """Return how long it took until the server closed for lack of rights."""
    began = time.monotonic()
    async with asyncio.timeout(20):
        with contextlib.suppress(websockets.ConnectionClosed):
            async for _ in websocket:
                pass
        await websocket.wait_closed()
    assert websocket.close_code == CLOSE_CODE
    return time.monotonic() - began


# On a crowded machine the second is that of the server, not of the test.
SOON = 1.0 + 4.0


# What is open because it is shared; what is open for whoever has logged in. And a terminal.
ON_SHARED = {"channels", "comm", "room"}
ANYWAY = {"awareness", "events", "feed", "sse"}
# How each right ends, and what ends with it; the rest stays open.
ENDINGS: dict[str, set[str]] = {
    "permission": ON_SHARED,
    "narrower": {"channels", "comm"},
    "expiry": ON_SHARED,
    "group": ON_SHARED,
    "link": ON_SHARED,
    "server": {"terminal"},
    "token": ON_SHARED | ANYWAY | {"terminal"},
    "token expiry": ON_SHARED | ANYWAY | {"terminal"},
    "disabled": ON_SHARED | ANYWAY | {"terminal"},
}


async def asked(made: World, person: str, method: str, url: str, /, **body) -> dict:
    answer = await made.ask(person, method, url, json=body)
    assert answer.status_code < 300, answer.text
    return answer.json() if answer.content else {}


async def given(made: World, ending: str) -> tuple[str, list[tuple[str, str, str, dict]]]:
    """Make somebody who may run in Olga's folder and open terminals; return how that ends."""
    name = f"to-end-by-{ending.replace(' ', '-')}"
    user = await asked(made, "admin", "POST", "/api/users", name=name)
    token = await asked(made, "admin", "POST", "/api/tokens", user=name)
    made.tokens[name] = token["token"]
    server = {"user": name, "role": "runner", "resource": "server"}
    opens = await asked(made, "admin", "POST", "/api/permissions", **server)
    to = {"user": name}
    if ending == "group":
        await asked(made, "admin", "POST", "/api/groups", name=name)
        await asked(made, "admin", "PUT", f"/api/groups/{name}/members/{name}")
        to = {"group": name}
    runs = {**to, "role": "runner", "path": FOLDER}
    if ending == "link":
        link = await asked(made, "olga", "POST", "/api/share-links", role="runner", path=FOLDER)
        await asked(made, name, "POST", "/api/share-links/accept", code=link["code"])
        return name, [("olga", "DELETE", f"/api/share-links/{link['id']}", {})]
    permission = await asked(made, "olga", "POST", "/api/permissions", **runs)
    return name, {
        "permission": [("olga", "DELETE", f"/api/permissions/{permission['id']}", {})],
        "narrower": [("olga", "POST", "/api/permissions", {**runs, "role": "viewer"})],
        "group": [("admin", "DELETE", f"/api/groups/{name}/members/{name}", {})],
        "server": [("admin", "DELETE", f"/api/permissions/{opens['id']}", {})],
        "token": [(name, "DELETE", f"/api/tokens/{token['id']}", {})],
        "disabled": [("admin", "PATCH", f"/api/users/{user['id']}", {"disabled": True})],
    }.get(ending, [])


@contextlib.asynccontextmanager
async def all_open(made: World, person: str):
    """Open one of each thing that stays open; yield tasks that end when the server ends it."""
    terminal = await asked(made, person, "POST", "/api/terminals")
    found = await asked(
        made,
        person,
        "PUT",
        f"/api/collaboration/session/{NOTEBOOK}",
        format="json",
        type="notebook",
    )
    room = f"json:notebook:{found['fileId']}?sessionId={found['sessionId']}"
    paths = {
        "channels": f"/api/kernels/{made.ids['kernel_id']}/channels",
        "comm": f"/api/comms/{made.ids['comm_id']}/channel",
        "room": f"/api/collaboration/room/{room}",
        "awareness": "/api/collaboration/room/JupyterLab:globalAwareness",
        "events": "/api/events/subscribe",
        "feed": "/api/datastore/feed",
        "terminal": f"/terminals/websocket/{terminal['name']}",
    }
    await made.server.app.state.revocations.listening.wait()
    address, headers = made.server.address, made.headers(person)
    is_open = asyncio.Event()

    async def sse() -> None:
        url = f"http://{address}/api/datastore/events?table=users"
        async with (
            httpx.AsyncClient(timeout=60) as client,
            client.stream("GET", url, headers=headers) as stream,
        ):
            async for _ in stream.aiter_lines():
                is_open.set()

    async def closed(websocket) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            async for _ in websocket:
                pass
        assert websocket.close_code in (CLOSE_CODE, ROOM_FORBIDDEN)

    async with contextlib.AsyncExitStack() as stack:
        ends = {"sse": asyncio.create_task(sse())}
        for kind, path in paths.items():
            connecting = websockets.connect(f"ws://{address}{path}", additional_headers=headers)
            ends[kind] = asyncio.create_task(closed(await stack.enter_async_context(connecting)))
        try:
            async with asyncio.timeout(20):
                await is_open.wait()
            yield ends
        finally:
            for task in ends.values():
                task.cancel()
            await asyncio.gather(*ends.values(), return_exceptions=True)


@pytest.mark.parametrize("ending", ENDINGS)
async def test_each_ending_ends_what_it_should_and_no_more(made: World, ending: str) -> None:
    person, how = await given(made, ending)
    async with all_open(made, person) as ends:
        if not how:
            table = "tokens" if ending == "token expiry" else "permissions"
            of = "user_id = :id AND expires_at IS NULL"
            of += " AND content_id IS NOT NULL" if table == "permissions" else ""
            (user,) = [
                u for u in await asked(made, "admin", "GET", "/api/users") if u["name"] == person
            ]
            soon = f"UPDATE {table} SET expires_at = clock_timestamp() + interval '1 s' WHERE {of}"
            await change(made, soon, id=user["id"])
        for who, method, path, body in how:
            await asked(made, who, method, path, **body)
        began = time.monotonic()
        should = [ends[kind] for kind in ENDINGS[ending]]
        async with asyncio.timeout(20):
            await asyncio.gather(*should)
        assert time.monotonic() - began < SOON + (0 if how else 1)
        assert {kind for kind, task in ends.items() if task.done()} == ENDINGS[ending]


async def test_a_revoked_permission_ends_channels(made: World) -> None:
    permission = await share(made, "stranger", "runner", path=NOTEBOOK)
    path = f"/api/kernels/{made.ids['kernel_id']}/channels"
    async with opened(made, "stranger", path) as websocket:
        answer = await made.ask("olga", "DELETE", f"/api/permissions/{permission}")
        assert answer.status_code == 204
        assert await seconds_to_close(websocket) < SOON
    refused = await made.ask("stranger", "GET", f"/api/kernels/{made.ids['kernel_id']}")
    assert refused.status_code == 404


async def test_an_expiry_ends_a_comm(made: World) -> None:
    expires_at = (datetime.now(UTC) + timedelta(seconds=4)).isoformat()
    await share(made, "stranger", "runner", path=NOTEBOOK, expires_at=expires_at)
    async with opened(made, "stranger", f"/api/comms/{made.ids['comm_id']}/channel") as websocket:
        assert await seconds_to_close(websocket) < 4 + SOON


async def test_leaving_a_group_ends_channels(made: World) -> None:
    await change(made, "UPDATE permissions SET actions = '{read,execute}' WHERE subject = 'group'")
    path = f"/api/kernels/{made.ids['kernel_id']}/channels"
    async with opened(made, "member", path) as websocket:
        gone = await made.ask("admin", "DELETE", "/api/groups/readers/members/member")
        assert gone.status_code == 204
        assert await seconds_to_close(websocket) < SOON


async def test_a_disabled_user_loses_everything(made: World) -> None:
    async with opened(made, "editor", "/api/events/subscribe") as websocket:
        body = {"disabled": True}
        answer = await made.ask("admin", "PATCH", "/api/users/editor", json=body)
        assert answer.status_code == 200
        assert await seconds_to_close(websocket) < SOON
    assert (await made.ask("editor", "GET", "/api/me")).status_code == 403
    again = await made.ask("admin", "PATCH", "/api/users/editor", json={"disabled": False})
    assert again.json()["disabled_at"] is None
    assert (await made.ask("editor", "GET", "/api/me")).status_code == 200


async def test_a_revoked_token_ends_its_terminal_and_no_other(made: World) -> None:
    answer = await made.ask("olga", "POST", "/api/tokens", json={"name": "laptop"})
    made.tokens["laptop"] = answer.json()["token"]
    path = "/terminals/websocket/olgas"
    async with opened(made, "laptop", path) as ended, opened(made, "olga", path) as other:
        gone = await made.ask("olga", "DELETE", f"/api/tokens/{answer.json()['id']}")
        assert gone.status_code == 204
        assert await seconds_to_close(ended) < SOON
        await other.send('["stdin", "x"]')
        async with asyncio.timeout(20):
            await other.recv()


async def test_a_token_that_ends_while_it_waits_is_told_nothing(made: World) -> None:
    token = await asked(made, "olga", "POST", "/api/tokens", name="waits")
    made.tokens["waits"] = token["token"]
    url = f"/api/kernels/{made.ids['kernel_id']}/execute"
    record = await asked(made, "olga", "POST", url, code="input('?'); print('secret')")
    path = f"/api/executions/{record['id']}"
    async with httpx.AsyncClient(base_url=f"http://{made.server.address}", timeout=60) as client:
        wait = client.get(f"{path}?wait=50", headers=made.headers("waits"))
        waiting = asyncio.create_task(wait)
        await asyncio.sleep(1.1)  # it is by time that a wait is long
        await asked(made, "olga", "DELETE", f"/api/tokens/{token['id']}")

        async def answered() -> bool:
            said = await made.ask("olga", "POST", f"{path}/input", json={"value": "x"})
            return said.status_code == 201

        await until(answered)
        ended = await waiting
    assert (ended.status_code, "secret" in ended.text) == (403, False)


async def test_contents_say_who_may_write_to_them(made: World) -> None:
    """JupyterLab opens read-only what is not `writable`."""
    for person, writable in (("viewer", False), ("runner", False), ("owner", True), ("olga", True)):
        for path in (NOTEBOOK, f"{FOLDER}/text.txt", FOLDER):
            model = await asked(made, person, "GET", f"/api/contents/{path}")
            assert model["writable"] is writable, (person, path)
        assert {entry["writable"] for entry in model["content"]} == {writable}
    home = await asked(made, "viewer", "GET", "/api/contents/home")
    assert home["writable"] is False
    assert {e["name"]: e["writable"] for e in home["content"]} == {"olga": False, "viewer": True}
    token = await asked(made, "admin", "POST", "/api/tokens", scopes=["read"])
    made.tokens["reads"] = token["token"]
    assert (await asked(made, "reads", "GET", f"/api/contents/{FOLDER}"))["writable"] is False


async def test_jupyterlab_begins_where_ones_files_are(made: World) -> None:
    for person, home, terminals in (
        ("viewer", "/home/viewer", "false"),
        ("olga", "/home/olga", "true"),
        ("admin", "/", "true"),
    ):
        page = (await made.ask(person, "GET", "/lab")).text
        assert f'"preferredPath": "{home}"' in page
        assert f'"terminalsAvailable": {terminals}' in page


async def test_scopes_restrict_a_token(made: World) -> None:
    body = {"name": "reader", "scopes": ["read", "write:tokens"]}
    answer = await made.ask("olga", "POST", "/api/tokens", json=body)
    made.tokens["scoped"] = answer.json()["token"]
    me = await made.ask("scoped", "GET", '/api/me?permissions={"contents":["read","write"]}')
    assert me.json()["permissions"]["contents"] == ["read"]
    assert (await made.ask("scoped", "GET", f"/api/contents/{FOLDER}")).status_code == 200
    refused = await made.ask("scoped", "DELETE", f"/api/contents/{FOLDER}/text.txt")
    assert refused.status_code == 403
    wider = await made.ask("scoped", "POST", "/api/tokens", json={"name": "wider"})
    assert wider.status_code == 403
    same = await made.ask("scoped", "POST", "/api/tokens", json={"scopes": ["read"]})
    assert same.status_code == 201


async def test_a_link_gives_what_it_says_until_it_is_revoked(made: World) -> None:
    body = {"path": f"{FOLDER}/text.txt", "role": "viewer"}
    link = (await made.ask("olga", "POST", "/api/share-links", json=body)).json()
    path = f"/api/contents/{FOLDER}/text.txt"
    assert (await made.ask("revoked", "GET", path)).status_code == 404
    wrong = await made.ask("revoked", "POST", "/api/share-links/accept", json={"code": "x"})
    assert wrong.status_code == 404
    code = {"code": link["code"]}
    accepted = await made.ask("revoked", "POST", "/api/share-links/accept", json=code)
    assert accepted.status_code == 200
    assert accepted.json()["role"] == "viewer"
    assert (await made.ask("revoked", "GET", path)).json()["content"] == "shared"
    assert (await made.ask("revoked", "PUT", path, json={"content": "x"})).status_code == 403
    mine = (await made.ask("revoked", "GET", "/api/permissions")).json()
    assert [p["path"] for p in mine["permissions"]] == [f"{FOLDER}/text.txt"]
    who = (await made.ask("olga", "GET", f"/api/permissions?path={FOLDER}/text.txt")).json()
    assert who["owner"] == "olga"
    assert ("revoked", "viewer") in {(p["user"], p["role"]) for p in who["permissions"]}
    gone = await made.ask("olga", "DELETE", f"/api/share-links/{link['id']}")
    assert gone.status_code == 204
    assert (await made.ask("revoked", "GET", path)).status_code == 404
    again = await made.ask("revoked", "POST", "/api/share-links/accept", json=code)
    assert again.status_code == 404


async def test_nobody_gives_more_than_they_have(made: World) -> None:
    only = {"user": "stranger", "actions": ["read", "share"], "path": NOTEBOOK}
    assert (await made.ask("olga", "POST", "/api/permissions", json=only)).status_code == 201
    more = {"user": "expired", "role": "runner", "path": NOTEBOOK}
    refused = await made.ask("stranger", "POST", "/api/permissions", json=more)
    assert refused.status_code == 403
    same = {"user": "expired", "role": "viewer", "path": NOTEBOOK}
    granted = await made.ask("stranger", "POST", "/api/permissions", json=same)
    assert granted.status_code == 201
    gone = await made.ask("expired", "DELETE", f"/api/permissions/{granted.json()['id']}")
    assert gone.status_code == 204  # one's own may be given back


async def test_a_home_is_ones_own(made: World) -> None:
    """A permission on a folder above homes does not reach into them; they cannot be moved."""
    body = {"user": "stranger", "role": "owner", "path": ""}
    above = await made.ask("admin", "POST", "/api/permissions", json=body)
    assert above.status_code == 201
    answer = await made.ask("stranger", "GET", "/api/contents/home/olga/private.txt")
    assert answer.status_code == 404
    for path in ("home", "home/olga", "home/stranger"):
        gone = await made.ask("stranger", "DELETE", f"/api/contents/{path}")
        assert gone.status_code in (403, 404), path
    own = {"type": "file", "format": "text", "content": "mine"}
    put = await made.ask("stranger", "PUT", "/api/contents/home/stranger/a.txt", json=own)
    assert put.status_code == 201, put.text
    assert (await made.ask("stranger", "PUT", "/api/contents/b.txt", json=own)).status_code == 201
    assert (await made.ask("viewer", "GET", "/api/contents/b.txt")).status_code == 404
    await made.ask("admin", "DELETE", f"/api/permissions/{above.json()['id']}")


async def test_a_second_user_logs_in_by_name_without_a_restart(made: World) -> None:
    body = {"name": "zoe", "password": "correct horse"}
    answer = await made.ask("admin", "POST", "/api/users", json=body)
    assert answer.status_code == 201
    assert answer.json()["home"] == "home/zoe"
    browser = made.server.http
    browser.cookies.clear()
    browser.headers.pop("Authorization", None)
    page = await browser.get("/login")
    assert 'name="username"' in page.text
    form = {"username": "zoe", "_xsrf": browser.cookies["_xsrf"]}
    wrong = await browser.post("/login", data={**form, "password": "wrong horse"})
    assert wrong.status_code == 401
    right = await browser.post("/login", data={**form, "password": "correct horse"})
    assert right.status_code == 302, right.text
    assert (await browser.get("/api/me")).json()["identity"]["username"] == "zoe"
    listed = (await browser.get("/api/contents/home")).json()["content"]
    assert [entry["name"] for entry in listed] == ["zoe"]
    cookies = dict(browser.cookies)
    assert (await browser.get("/logout")).status_code == 200
    for name, value in cookies.items():  # a kept cookie is void: the login has ended
        browser.cookies.set(name, value)

    async def is_out() -> bool:
        return (await browser.get("/api/me")).status_code == 403

    await until(is_out)
    browser.cookies.clear()


async def test_people_change_their_password_on_a_page(made: World) -> None:
    await asked(made, "admin", "POST", "/api/users", name="yan", password="the first one")
    browser = made.server.http
    browser.cookies.clear()
    browser.headers.pop("Authorization", None)

    async def log_in(password: str, status: int) -> None:
        browser.cookies.clear()
        await browser.get("/login")
        form = {"username": "yan", "password": password, "_xsrf": browser.cookies["_xsrf"]}
        answer = await browser.post("/login", data=form)
        assert answer.status_code == status
        assert status == 302 or 'value="yan"' in answer.text  # to be typed once

    asks = await browser.get("/password")
    assert asks.headers["location"] == "/login?next=%2Fpassword"
    await log_in("the first one", 302)
    assert "Change your password" in (await browser.get("/password")).text
    right = {"current": "the first one", "password": "the second one", "again": "the second one"}
    xsrf = {"_xsrf": browser.cookies["_xsrf"]}
    for wrong, status, says in (
        ({**xsrf, **right, "current": "another"}, 403, "not the password"),
        ({**xsrf, **right, "again": "another"}, 400, "not typed alike"),
        ({**xsrf, **right, "password": "short", "again": "short"}, 400, "8 to 1024"),
        (right, 403, "not sent from this page"),
    ):
        answer = await browser.post("/password", data=wrong)
        assert (answer.status_code, says in answer.text) == (status, True), answer.text
    done = await browser.post("/password", data={**xsrf, **right})
    assert done.status_code == 200
    assert "Password changed" in done.text
    assert (await browser.get("/api/me")).status_code == 403  # logged out, here too
    await log_in("the first one", 401)
    await log_in("the second one", 302)
    # Who found a window open cannot guess for long, by neither way.
    form = {"_xsrf": browser.cookies["_xsrf"], **right}
    answers = [(await browser.post("/password", data=form)).status_code for _ in range(20)]
    assert set(answers) == {403, 429}
    headers = {"X-XSRFToken": browser.cookies["_xsrf"]}
    body = {"current": "the second one", "password": "the third one"}
    answer = await browser.post("/api/me/password", json=body, headers=headers)
    assert (answer.status_code, "Try again in" in answer.json()["message"]) == (429, True)
    browser.cookies.clear()
    said = await asked(made, "admin", "GET", "/api/audit")
    assert [e["event"] for e in said if e["actor"] == "yan"][:3] == [
        "login",
        "end_login",
        "set_password",
    ]


async def test_running_anothers_cell_acts_as_its_owner(made: World) -> None:
    kernel_id = made.ids["kernel_id"]
    body = {"code": "input('name? ')"}
    asked = await made.ask("runner", "POST", f"/api/kernels/{kernel_id}/execute", json=body)
    assert asked.status_code == 202, asked.text
    record = asked.json()
    assert (record["actor"], record["run_as"]) == ("runner", "olga")
    path = f"/api/executions/{record['id']}"

    async def asks() -> bool:
        return bool((await made.ask("olga", "GET", path)).json()["input_request"])

    await until(asks)
    # It is no document's: the viewer of the notebook does not see it, and so cannot answer.
    refused = await made.ask("viewer", "POST", f"{path}/input", json={"value": "v"})
    assert refused.status_code == 404
    answered = await made.ask("runner", "POST", f"{path}/input", json={"value": "r"})
    assert answered.status_code == 201
    ended = (await made.ask("runner", "GET", f"{path}?wait=30")).json()
    assert ended["status"] == "ok"
    entries = (await made.ask("admin", "GET", "/api/audit?limit=1000")).json()
    assert any(
        e["event"] == "execute_as" and (e["actor"], e["detail"]["run_as"]) == ("runner", "olga")
        for e in entries
    )
