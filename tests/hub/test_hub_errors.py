"""What a real hub cannot be made to say, against a small one that says it."""

import asyncio
import json
import re
import urllib.parse
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import uvicorn
from jupyterhub.scopes import scope_definitions
from jupyterhub.services.service import Service
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from traitlets.config import Config

from app.auth.hub_service import HubEnvironmentError, HubService, actions_of
from app.db import asker
from app.main import create_app
from app.people import people
from app.settings import Settings
from tests.conftest import TOKEN

ACCESS = "access:services!service=ds"


@dataclass
class SmallHub:
    """Answers `GET /user` as told; counts the questions."""

    answers: dict[str, object] = field(default_factory=dict)
    asked: int = 0
    delay: float = 0

    async def user(self, request: Request) -> Response:
        self.asked += 1
        await asyncio.sleep(self.delay)
        token = request.headers["authorization"].removeprefix("token ")
        said = self.answers.get(token, 403)
        return Response(status_code=said) if isinstance(said, int) else JSONResponse(said)

    async def token(self, request: Request) -> Response:
        form = urllib.parse.parse_qs((await request.body()).decode())
        if form["code"] == ["right"] and form["code_verifier"][0]:
            return JSONResponse({"access_token": "ada"})
        return JSONResponse({"error": "invalid_grant"}, 400)


def person(name: str, **more) -> dict:
    return {"kind": "user", "name": name, "admin": False, "groups": [], "scopes": [ACCESS], **more}


@pytest.fixture
async def small_hub() -> AsyncIterator[tuple[SmallHub, str]]:
    made = SmallHub()
    routes = [
        Route("/user", made.user),
        Route("/oauth2/token", made.token, methods=["POST"]),
    ]
    config = uvicorn.Config(Starlette(routes=routes), port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(20):
        while not server.started:
            await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield made, f"http://127.0.0.1:{port}"
    server.should_exit = True
    await serving


@dataclass
class Site:
    http: httpx.AsyncClient
    hub: SmallHub
    app: object

    async def me(self, token: str) -> tuple[int, str | None]:
        answer = await self.http.get("api/me", headers={"Authorization": f"token {token}"})
        body = answer.json()
        return answer.status_code, body.get("identity", {}).get("username") or body["message"]


@pytest.fixture
async def site(request, small_hub, database_url, tmp_path) -> AsyncIterator[Site]:
    """A service of the small hub; `more` settings by the parameter of a test."""
    hub, url = small_hub
    environment = {
        "JUPYTERHUB_SERVICE_NAME": "ds",
        "JUPYTERHUB_API_TOKEN": "secret",
        "JUPYTERHUB_API_URL": url,
    }
    (tmp_path / "root").mkdir()
    settings = Settings(
        root_dir=tmp_path / "root",
        owner="ada",  # a name that the hub has too
        base_url="/services/ds/",
        hub_cache_seconds=0.3,
        hub_timeout_seconds=1,
        hub_activity_seconds=0,
        hub_grace_seconds=1,
        allow_remote_access=True,
        watch_files=False,
        **getattr(request, "param", {}),
    )
    app = create_app(
        settings,
        database_url=database_url,
        token=TOKEN,
        data_dir=tmp_path,
        hub=HubService.from_environment(environment),
    )
    async with app.router.lifespan_context(app):
        asker.act_for(None)
        transport = httpx.ASGITransport(app)
        base = "http://hub.example/services/ds/"
        async with httpx.AsyncClient(transport=transport, base_url=base) as http:
            yield Site(http, hub, app)


async def until(check) -> None:
    async with asyncio.timeout(20):
        while not await check():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "said", [500, 404, {"no": "name"}, {"name": "x"}, person("x", scopes=None), person("")]
)
async def test_an_answer_without_sense_is_503(site: Site, said) -> None:
    site.hub.answers["t"] = said
    status, message = await site.me("t")
    assert status == 503
    assert "JupyterHub" in message


async def test_a_hub_that_does_not_answer_in_time_is_503(site: Site) -> None:
    site.hub.answers["t"], site.hub.delay = person("x"), 2
    assert (await site.me("t"))[0] == 503
    # The server's own token needs no hub.
    assert (await site.me(TOKEN))[0] == 200


async def test_the_word_of_the_hub_holds_for_a_while(site: Site) -> None:
    site.hub.answers["t"] = person("x")
    answers = await asyncio.gather(*(site.me("t") for _ in range(8)))
    assert set(answers) == {(200, "x")}
    assert site.hub.asked == 1
    site.hub.answers["t"] = 500

    async def is_too_old() -> bool:
        return (await site.me("t"))[0] == 503

    await until(is_too_old)
    site.hub.answers["t"] = 403

    async def is_refused() -> bool:
        return (await site.me("t"))[0] == 403

    await until(is_refused)
    asked = site.hub.asked
    assert (await site.me("t"))[0] == 403
    assert site.hub.asked == asked  # a wrong token is not a question each time
    site.hub.answers["t"] = person("x")

    async def is_good_again() -> bool:
        return (await site.me("t"))[0] == 200

    await until(is_good_again)


async def test_a_name_is_not_a_person(site: Site) -> None:
    """The hub's `ada` is not the owner here, who has that name, until somebody says so."""
    site.hub.answers["t"] = person("ada")
    assert await site.me("t") == (200, "ada@hub")
    headers = {"Authorization": "token t"}
    assert (await site.http.get("api/audit", headers=headers)).status_code == 403
    with asker.acting_for(asker.Server.ITSELF):
        async with site.app.state.database.transaction() as tx:
            await people.link(tx, await people.find_user(tx, "ada@hub"), None)
            await people.link(tx, await people.find_user(tx, "ada"), "ada")

    async def is_linked() -> bool:
        return await site.me("t") == (200, "ada")

    await until(is_linked)


async def test_a_token_that_was_revoked_here_stays_so(site: Site) -> None:
    site.hub.answers["t"] = person("x")
    headers = {"Authorization": "token t"}
    assert (await site.me("t"))[0] == 200
    # One of ours would outlast the hub's.
    made = await site.http.post("api/tokens", headers=headers, json={"name": "mine"})
    assert (made.status_code, made.json()["reason"]) == (403, "hub")
    tokens = (await site.http.get("api/tokens", headers=headers)).json()
    assert [(t["kind"], t["name"]) for t in tokens] == [("hub", "JupyterHub: x")]
    gone = await site.http.delete(f"api/tokens/{tokens[0]['id']}", headers=headers)
    assert gone.status_code == 204

    async def is_refused() -> bool:
        return (await site.me("t"))[0] == 403

    await until(is_refused)
    asked = site.hub.asked
    await asyncio.sleep(0.35)  # beyond the cache's age: the hub would say yes
    assert (await site.me("t"))[0] == 403
    assert site.hub.asked == asked


async def test_what_is_open_outlasts_a_hub_that_is_away_for_a_while(site: Site) -> None:
    site.hub.answers["t"] = person("x")
    identity = await site.app.state.authenticator.identify("t")
    with site.app.state.revocations.watch(identity, "read", "api") as watch:
        asked = site.hub.asked
        await until(lambda: asyncio.sleep(0, site.hub.asked > asked + 2))  # confirmed meanwhile
        site.hub.answers["t"] = 500
        asked = site.hub.asked
        await until(lambda: asyncio.sleep(0, site.hub.asked > asked + 1))
        assert not watch.ended.is_set()
        async with asyncio.timeout(20):
            await watch.ended.wait()
    site.hub.answers["t"] = person("x")

    async def is_good_again() -> bool:
        return (await site.me("t"))[0] == 200

    await until(is_good_again)


@pytest.mark.parametrize("site", [{"hub_custom_scopes": True}], indirect=True)
async def test_what_needs_a_scope_that_is_taken_away_ends(site: Site) -> None:
    scopes = [ACCESS, *(f"custom:jupyter-datastore:{action}" for action in ("read", "execute"))]
    site.hub.answers["t"] = person("x", scopes=scopes)
    identity = await site.app.state.authenticator.identify("t")
    revocations = site.app.state.revocations
    with (
        revocations.watch(identity, "execute", "api") as running,
        revocations.watch(identity, "read", "api") as reading,
    ):
        site.hub.answers["t"] = person("x", scopes=scopes[:-1])
        async with asyncio.timeout(20):
            await running.ended.wait()
        assert not reading.ended.is_set()
        site.hub.answers["t"] = person("x")  # none of them is left
        async with asyncio.timeout(20):
            await reading.ended.wait()
    assert (await site.me("t"))[0] == 403


async def test_a_log_in_comes_back_to_its_browser_only(site: Site) -> None:
    site.hub.answers["ada"] = person("x")
    begun = await site.http.get("login", params={"next": "/services/ds/view/a?b"})
    assert begun.status_code == 302
    address = urllib.parse.urlsplit(begun.headers["location"])
    query = dict(urllib.parse.parse_qsl(address.query))
    assert address.path == "/hub/api/oauth2/authorize"
    assert query["client_id"] == "service-ds"
    assert query["redirect_uri"] == "/services/ds/oauth_callback"
    back = {"code": "right", "state": query["state"]}
    # Another browser, another state, a wrong code.
    other = httpx.AsyncClient(transport=httpx.ASGITransport(site.app), base_url=site.http.base_url)
    assert (await other.get("oauth_callback", params=back)).status_code == 403
    for wrong in ({"state": query["state"][:-1] + "_"}, {"state": ""}):
        answer = await site.http.get("oauth_callback", params={**back, **wrong})
        assert answer.status_code == 403
    answer = await site.http.get("oauth_callback", params={**back, "code": "wrong"})
    assert (answer.status_code, "did not accept" in answer.text) == (403, True)
    # Each log-in is for once.
    assert (await site.http.get("oauth_callback", params=back)).status_code == 403
    begun = await site.http.get("login", params={"next": "/services/ds/view/a?b"})
    state = dict(urllib.parse.parse_qsl(begun.headers["location"].partition("?")[2]))["state"]
    done = await site.http.get("oauth_callback", params={"code": "right", "state": state})
    assert (done.status_code, done.headers["location"]) == (302, "/services/ds/view/a?b")
    assert (await site.http.get("api/me")).json()["identity"]["username"] == "x"


async def test_what_the_hub_says_of_a_failed_log_in_is_text(site: Site) -> None:
    begun = await site.http.get("login")
    state = dict(urllib.parse.parse_qsl(begun.headers["location"].partition("?")[2]))["state"]
    back = {"state": state, "error": "access_denied", "error_description": "<b>no</b>"}
    answer = await site.http.get("oauth_callback", params=back)
    assert answer.status_code == 403
    assert "&lt;b&gt;no" in answer.text


async def test_nobody_logs_in_past_the_hub(site: Site) -> None:
    form = {"username": "ada", "password": TOKEN}
    assert (await site.http.post("login", data=form)).status_code == 403


def loaded(source: str) -> Config:
    config = Config()
    exec(compile(source, "config", "exec"), {"c": config, "get_config": lambda: config})
    return config


DOCKER = Path(__file__).parents[2] / "docker/hub/jupyterhub_config.py"
NEEDED = {"DATASTORE_HUB_API_TOKEN": "token", "HUB_PASSWORD": "password"}


@pytest.mark.parametrize("missing", NEEDED)
def test_dockers_hub_does_not_start_without(missing: str, monkeypatch) -> None:
    for name, value in NEEDED.items():
        monkeypatch.setenv(name, "" if name == missing else value)
    with pytest.raises(SystemExit, match=missing):
        loaded(DOCKER.read_text())


def test_the_documented_configurations_are_ones_of_a_hub(monkeypatch) -> None:
    for name, value in NEEDED.items():
        monkeypatch.setenv(name, value)
    root = Path(__file__).parents[2]
    blocks = re.findall(
        r"```python\n(.*?)```", (root / "docs/jupyterhub.md").read_text(), re.DOTALL
    )
    for source in ("\n".join(blocks), DOCKER.read_text()):
        config = loaded(source)
        (service,) = config.JupyterHub.services
        assert set(service) <= set(Service.class_trait_names())
        scopes = [scope for role in config.JupyterHub.load_roles for scope in role["scopes"]]
        asked = {scope.partition("!")[0] for scope in scopes}
        custom = set(config.JupyterHub.get("custom_scopes", {}))
        assert asked <= set(scope_definitions) | custom


def test_the_environment_of_a_single_user_server_is_not_ours() -> None:
    theirs = {"JUPYTERHUB_API_TOKEN": "t", "JUPYTERHUB_SERVICE_PREFIX": "/user/ada/"}
    assert HubService.from_environment(theirs) is None
    service = {"JUPYTERHUB_API_TOKEN": "t", "JUPYTERHUB_SERVICE_NAME": "ds"}
    for wrong in (
        {"JUPYTERHUB_API_TOKEN": ""},
        {"JUPYTERHUB_OAUTH_CALLBACK_URL": "/services/ds/elsewhere"},
        {"JUPYTERHUB_OAUTH_ACCESS_SCOPES": "not JSON"},
    ):
        with pytest.raises(HubEnvironmentError, match=next(iter(wrong))):
            HubService.from_environment({**service, **wrong})
    allowed = json.dumps(["custom:jupyter-datastore:read"])
    made = HubService.from_environment(
        {**service, "JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES": allowed}
    )
    assert made is not None
    assert made.uses_custom_scopes(None)
    assert not made.uses_custom_scopes(False)
    assert actions_of(["custom:jupyter-datastore:read", "custom:other:write"]) == {"read"}
