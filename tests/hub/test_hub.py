"""The server as a service of a real JupyterHub, managed and external, with a real browser."""

import json
import os
import re
from pathlib import Path

import httpx
import psycopg
import pytest
import websockets
from playwright.sync_api import BrowserContext, Page, expect
from websockets.sync.client import connect

from tests.hub.conftest import PASSWORD, Hub, wait_until
from tests.kernels import write_notebook


def picture(page: Page, name: str) -> None:
    if folder := os.environ.get("DATASTORE_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{folder}/hub-{name}.png")


def log_in(hub: Hub, window: BrowserContext, name: str, service: str) -> Page:
    """Open a service in a new window, and log in at the hub, to which that leads."""
    page = window.new_page()
    page.goto(f"{hub.url}/services/{service}/")
    expect(page).to_have_url(re.compile(r"/base/hub/login"))
    page.locator("input[name=username]").fill(name)
    page.locator("input[name=password]").fill(PASSWORD)
    picture(page, "login")
    page.locator("input[type=submit], button[type=submit]").first.click()
    page.wait_for_url(re.compile(f"/services/{service}/"))
    return page


def call(page: Page, method: str, path: str, body=None) -> tuple[int, dict]:
    """Ask the server as a page of its own does: by cookie, with the header that repeats `_xsrf`."""
    place = re.search(r"http://[^/]+/base/services/\w+/", page.url)[0]
    cookies = {cookie["name"]: cookie["value"] for cookie in page.context.cookies(place)}
    answer = page.context.request.fetch(
        place + path,
        method=method,
        headers={"X-XSRFToken": cookies.get("_xsrf", "")},
        data=None if body is None else json.dumps(body),
    )
    return answer.status, json.loads(answer.text() or "{}")


def query(hub: Hub, sql: str, *values) -> list[tuple]:
    with psycopg.connect(hub.given["environment"]["DATASTORE_DATABASE_URL"]) as connection:
        return connection.execute(sql, values).fetchall()


def run_notebook(client: httpx.Client, path: str) -> httpx.Response:
    body = {"path": path, "type": "notebook", "name": "", "kernel": {"name": "python3"}}
    session = client.post("/api/sessions", json=body)
    if session.status_code != 201:
        return session
    return client.post(f"/api/sessions/{session.json()['id']}/run", json={"cells": "all"})


def test_a_person_logs_in_shares_revokes_and_logs_out(hub: Hub, window: BrowserContext) -> None:
    page = log_in(hub, window, "ada", "managed")
    page.locator("#jp-main-dock-panel").wait_for()
    page.locator("#jupyterlab-splash").wait_for(state="detached")
    picture(page, "first-page")
    status, me = call(page, "GET", "api/me")
    assert (status, me["identity"]["username"]) == (200, "ada")
    # A home of her own, and the hub's group.
    assert hub.root.joinpath("home/ada").is_dir()
    listed = call(page, "GET", "api/contents")[1]["content"]
    assert [entry["name"] for entry in listed] == ["home"]
    groups = query(
        hub,
        "SELECT g.hub_name FROM groups g JOIN group_members m ON m.group_id = g.id"
        " JOIN users u ON u.id = m.user_id WHERE u.hub_name = 'ada'",
    )
    assert groups == [("physics",)]
    # Bob, by his token of the hub, does not see her notebook until she shares it.
    write_notebook(hub.root / "home/ada/n.ipynb", "print(6 * 7)")
    bob = hub.client("managed", hub.token("bob"), "Bearer")
    path = "/api/contents/home/ada/n.ipynb"
    assert call(page, "GET", path[1:])[0] == 200
    assert bob.get(path).status_code == 404
    share = {"path": "home/ada/n.ipynb", "group": "physics", "role": "runner"}
    status, permission = call(page, "POST", "api/permissions", share)
    assert status == 201, permission
    ran = run_notebook(bob, "home/ada/n.ipynb")
    assert ran.status_code == 202, ran.text

    def result():
        cell = bob.get(path).json()["content"]["cells"][0]
        return "".join(out["text"] for out in cell["outputs"]) == "42\n"

    wait_until(result)
    assert call(page, "GET", path[1:])[1]["content"]["cells"][0]["outputs"][0]["text"] == "42\n"
    page.goto(f"{hub.url}/services/managed/lab/workspaces/hub/tree/home/ada/n.ipynb")
    expect(page.locator(".jp-Notebook .jp-OutputArea")).to_contain_text("42", timeout=30_000)
    page.locator("#jupyterlab-splash").wait_for(state="detached")
    picture(page, "notebook")
    actors = "SELECT DISTINCT u.hub_name FROM executions e JOIN users u ON u.id = e.actor_id"
    assert query(hub, actors) == [("bob",)]
    # Cem is in another group of the hub's.
    assert hub.client("managed", hub.token("cem")).get(path).status_code == 404
    assert call(page, "DELETE", f"api/permissions/{permission['id']}")[0] == 204
    assert bob.get(path).status_code == 404
    # Logging out here logs out of the hub.
    page.goto(f"{hub.url}/services/managed/logout")
    page.wait_for_url(re.compile("/base/hub/"))
    picture(page, "logged-out")
    page.goto(f"{hub.url}/services/managed/")
    expect(page).to_have_url(re.compile(r"/base/hub/login"))


def test_the_hubs_log_out_ends_pages_and_what_is_open(hub: Hub, window: BrowserContext) -> None:
    page = log_in(hub, window, "bob", "managed")
    cookies = "; ".join(f"{c['name']}={c['value']}" for c in window.cookies(page.url))
    address = hub.url.replace("http:", "ws:") + "/services/managed/api/events/subscribe"
    with connect(address, additional_headers={"Cookie": cookies}, proxy=None) as websocket:
        other = window.new_page()
        other.goto(f"{hub.url}/hub/logout")
        with pytest.raises(websockets.ConnectionClosed) as ended:
            websocket.recv(timeout=20)
        assert ended.value.rcvd.code == 1008
    assert call(page, "GET", "api/me")[0] == 403


def test_tokens_of_the_hub_and_what_they_are_good_for(hub: Hub) -> None:
    for scheme in ("token", "Bearer"):
        me = hub.client("managed", hub.token("cem"), scheme).get("/api/me").json()
        assert me["identity"]["username"] == "cem"
    # A token whose scopes do not let it in, one of nobody's, a service's.
    narrow = hub.client("managed", hub.token("cem", "read:users:name!user=cem"))
    assert narrow.get("/api/me").status_code == 403
    assert hub.client("managed", "no-such-token").get("/api/me").status_code == 403
    machine = hub.client("managed", hub.given["machine_token"])
    assert machine.get("/api/me").json()["identity"]["username"] == "machine"
    assert query(hub, "SELECT home_id FROM users WHERE hub_name = 'service/machine'") == [(None,)]
    # The hub's admins are admins.
    assert hub.client("managed", hub.token("root")).get("/api/audit").status_code == 200
    assert machine.get("/api/audit").status_code == 403


def test_custom_scopes_bound_what_a_token_may(hub: Hub) -> None:
    reader = hub.client("external", hub.token("bob"))
    assert reader.get("/api/contents/home/bob").status_code == 200
    refused = reader.put("/api/contents/home/bob/x.txt", json={"type": "file", "format": "text"})
    assert (refused.status_code, refused.json()["reason"]) == (403, "scopes")
    # `admin` makes one; who has none of these scopes is not let in.
    assert hub.client("external", hub.token("ada")).get("/api/audit").status_code == 200
    assert hub.client("external", hub.token("cem")).get("/api/me").status_code == 403


def test_an_external_service_logs_people_in(hub: Hub, window: BrowserContext) -> None:
    page = log_in(hub, window, "bob", "external")
    assert call(page, "GET", "api/me")[1]["identity"]["username"] == "bob"
    body = {"type": "file", "format": "text", "content": ""}
    assert call(page, "PUT", "api/contents/home/bob/y.txt", body)[0] == 403


def test_what_changes_at_the_hub_changes_here(hub: Hub) -> None:
    """Joining and leaving groups, renaming, becoming an admin, ending a token, being disabled."""
    hub.ask("POST", "users/dora")
    hub.ask("POST", "groups/physics/users", json={"users": ["dora"]})
    dora = hub.client("managed", hub.token("dora"))
    assert dora.get("/api/me").status_code == 403  # no role of hers lets her in
    hub.ask("PATCH", "users/dora", json={"admin": True})
    dora = hub.client("managed", hub.token("dora"))
    assert dora.get("/api/audit").status_code == 200
    [(user_id,)] = query(hub, "SELECT id FROM users WHERE hub_name = 'dora'")

    def groups() -> set[str]:
        dora.get("/api/me")
        rows = query(
            hub,
            "SELECT g.name FROM groups g JOIN group_members m ON m.group_id = g.id"
            " WHERE m.user_id = %s",
            user_id,
        )
        return {name for (name,) in rows}

    assert groups() == {"physics"}
    # A group that was made here is left alone.
    assert dora.post("/api/groups", json={"name": "ours"}).status_code == 201
    assert dora.put("/api/groups/ours/members/dora").status_code == 204
    hub.ask("DELETE", "groups/physics/users", json={"users": ["dora"]})
    hub.ask("POST", "groups/art/users", json={"users": ["dora"]})
    wait_until(lambda: groups() == {"ours", "art"})
    hub.ask("PATCH", "users/dora", json={"name": "dorothea"})
    wait_until(lambda: dora.get("/api/me").json()["identity"]["username"] == "dorothea")
    assert query(hub, "SELECT id FROM users WHERE hub_name = 'dorothea'") == [(user_id,)]
    # Disabled here, whatever the hub says.
    root = hub.client("managed", hub.token("root"))
    assert root.patch("/api/users/dorothea", json={"disabled": True}).status_code == 200
    assert dora.get("/api/me").status_code == 403
    assert root.patch("/api/users/dorothea", json={"disabled": False}).status_code == 200
    assert dora.get("/api/me").status_code == 200
    hub.ask("DELETE", "users/dorothea")
    wait_until(lambda: dora.get("/api/me").status_code == 403)


def test_the_hub_is_told_who_was_active(hub: Hub) -> None:
    before = hub.ask("GET", "users/cem").json()["last_activity"]
    client = hub.client("managed", hub.token("cem"))
    client.get("/api/me")
    service = hub.given["managed_port"]
    direct = httpx.Client(base_url=f"http://127.0.0.1:{service}/base/services/managed")
    headers = dict(client.headers)

    def is_told():
        # Asked within the cache's age, so that nothing but the report moves it.
        direct.get("/api/me", headers=headers)
        now = hub.ask("GET", "users/cem").json()["last_activity"]
        return now is not None and now != before

    wait_until(is_told)
    assert "users:activity" in hub.external.log_path.read_text()  # its role lacks that


def test_no_kernel_inherits_the_services_secret(hub: Hub) -> None:
    client = hub.client("managed", hub.token("cem"))
    kernel = client.post("/api/kernels", json={"name": "python3", "path": "home/cem"}).json()["id"]
    code = "import os; print(sorted(n for n in os.environ if 'HUB' in n and 'API' in n))"
    ran = client.post(f"/api/kernels/{kernel}/execute", json={"code": code}).json()

    def text():
        outputs = client.get(f"/api/executions/{ran['id']}/outputs").json()["outputs"]
        return "".join(out.get("text", "") for out in outputs)

    assert wait_until(text) == "[]\n"
    # Nor does a log have the server's own token.
    log = hub.hub.log_path.read_text()
    assert "as JupyterHub's service managed" in log
    assert "token=" not in log
    assert client.delete(f"/api/kernels/{kernel}").status_code == 204


def test_a_hub_that_is_away_logs_nobody_out(hub: Hub) -> None:
    """503 while it is away, and all is well when it is back; what is open stays open."""
    headers = {"Authorization": f"token {hub.token('ada')}"}
    address = f"127.0.0.1:{hub.given['external_port']}/base/services/external"
    with connect(
        f"ws://{address}/api/events/subscribe", additional_headers=headers, proxy=None
    ) as websocket:
        hub.hub.stop()
        wait_until(
            lambda: httpx.get(f"http://{address}/api/me", headers=headers).status_code == 503
        )
        said = httpx.get(f"http://{address}/api/me", headers=headers).json()
        assert "JupyterHub cannot be reached" in said["message"]
        websocket.ping().wait(5)
        hub.start()
        answer = wait_until(
            lambda: (
                (got := httpx.get(f"http://{address}/api/me", headers=headers)).is_success and got
            )
        )
        assert answer.json()["identity"]["username"] == "ada"
        websocket.ping().wait(5)
