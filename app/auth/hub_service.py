"""JupyterHub as seen by a service of it: what the environment says, and the questions to its API.

The protocol is that of the hub's own `HubOAuth`
(https://jupyterhub.readthedocs.io/en/stable/reference/services.html): a browser is sent to the
hub's authorization page, comes back with a code, and the code is exchanged for a token that stands
for the person; `GET /user` tells whose a token is and what it is good for.
"""

import asyncio
import hashlib
import json
import secrets
import ssl
from base64 import urlsafe_b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

import httpx

from app.errors import ForbiddenError, UnavailableError

CUSTOM_SCOPES = "custom:jupyter-datastore:"
# `admin` makes its person an admin; the others are the actions of our own tokens' scopes.
_CUSTOM_ACTIONS = frozenset({"read", "write", "execute", "share", "admin"})
CALLBACK = "oauth_callback"
_LONGEST_TOKEN = 512
_QUESTIONS_AT_ONCE = 16


class HubEnvironmentError(Exception):
    """The JUPYTERHUB_* variables do not go together."""


@dataclass(frozen=True)
class HubService:
    """What the hub tells a service of its own.

    `access_scopes`: a token needs one of them. `allowed_scopes` are those that the service may be
    given for a person, beyond these. URLs without a host are the browser's view of this host.
    """

    name: str
    api_token: str
    api_url: str
    prefix: str
    client_id: str
    callback_url: str
    hub_url: str
    access_scopes: frozenset[str]
    allowed_scopes: frozenset[str] = frozenset()
    service_url: str | None = None
    keyfile: str | None = None
    certfile: str | None = None
    client_ca: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "HubService | None":
        """Return what JUPYTERHUB_* says, or None when this is no service of a hub.

        A single-user server's environment, which a terminal there has too, names no service.
        HubEnvironmentError when something needed is missing or wrong.
        """
        say = environment.get
        name, token = say("JUPYTERHUB_SERVICE_NAME"), say("JUPYTERHUB_API_TOKEN")
        if not name:
            return None
        if not token:
            # Without it people would be asked for the server's own token, not sent to the hub.
            raise HubEnvironmentError(
                f"JUPYTERHUB_API_TOKEN is missing; the hub's service {name} needs it"
            )
        api_url = (say("JUPYTERHUB_API_URL") or "http://127.0.0.1:8081/hub/api").rstrip("/")
        prefix = _with_slashes(say("JUPYTERHUB_SERVICE_PREFIX") or f"/services/{name}/")
        callback_url = say("JUPYTERHUB_OAUTH_CALLBACK_URL") or prefix + CALLBACK
        if unquote(urlsplit(callback_url).path) != unquote(prefix) + CALLBACK:
            raise HubEnvironmentError(
                f"JUPYTERHUB_OAUTH_CALLBACK_URL must end in {prefix}{CALLBACK}, not {callback_url}"
            )
        base_url = _with_slashes(say("JUPYTERHUB_BASE_URL") or "/")
        return cls(
            name=name,
            api_token=token,
            api_url=api_url,
            prefix=prefix,
            client_id=say("JUPYTERHUB_CLIENT_ID") or f"service-{name}",
            callback_url=callback_url,
            hub_url=(say("JUPYTERHUB_HOST") or "").rstrip("/") + base_url + "hub/",
            access_scopes=_scopes(environment, "JUPYTERHUB_OAUTH_ACCESS_SCOPES")
            or _scopes(environment, "JUPYTERHUB_OAUTH_SCOPES")
            or frozenset({"access:services", f"access:services!service={name}"}),
            allowed_scopes=_scopes(environment, "JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES"),
            service_url=say("JUPYTERHUB_SERVICE_URL") or None,
            keyfile=say("JUPYTERHUB_SSL_KEYFILE") or None,
            certfile=say("JUPYTERHUB_SSL_CERTFILE") or None,
            client_ca=say("JUPYTERHUB_SSL_CLIENT_CA") or None,
        )

    @property
    def logout_url(self) -> str:
        """Where a browser logs out of the hub."""
        return f"{self.hub_url}logout"

    def authorize_url(self, state: str, verifier: str) -> str:
        """Return where a browser is sent to log in (RFC 6749, section 4.1; RFC 7636)."""
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "client_id": self.client_id,
            "redirect_uri": self.callback_url,
            "response_type": "code",
            "state": state,
            "code_challenge": urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        return f"{self.hub_url}api/oauth2/authorize?{urlencode(query)}"

    def may_enter(self, scopes: Collection[str]) -> bool:
        """Tell whether a token with these scopes of the hub is good for this service at all."""
        return not self.access_scopes.isdisjoint(scopes)

    def uses_custom_scopes(self, setting: bool | None) -> bool:
        """Tell whether custom scopes bound what a token may: the setting, else what is allowed."""
        if setting is not None:
            return setting
        return any(scope.startswith(CUSTOM_SCOPES) for scope in self.allowed_scopes)


def actions_of(scopes: Collection[str]) -> frozenset[str]:
    """Return the actions that a token's custom scopes name; `admin` is all of them."""
    named = {
        scope.removeprefix(CUSTOM_SCOPES) for scope in scopes if scope.startswith(CUSTOM_SCOPES)
    }
    return _CUSTOM_ACTIONS if "admin" in named else frozenset(named & _CUSTOM_ACTIONS)


def _with_slashes(path: str) -> str:
    inside = path.strip("/")
    return f"/{inside}/" if inside else "/"


def _scopes(environment: Mapping[str, str], name: str) -> frozenset[str]:
    text = environment.get(name)
    if not text:
        return frozenset()
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(scope, str) for scope in found):
        raise HubEnvironmentError(f"{name} must be a JSON list of scopes, not {text}")
    return frozenset(found)


@dataclass(frozen=True)
class HubPerson:
    """Whose a token is, as the hub says it; `groups` is None when it does not say."""

    name: str
    is_service: bool
    admin: bool
    groups: frozenset[str] | None
    scopes: frozenset[str]

    @property
    def hub_name(self) -> str:
        """Their name, apart from services', which may be the same: no user's has a slash."""
        return f"service/{self.name}" if self.is_service else self.name


class HubClient:
    """Asks the hub; UnavailableError (503) when it is away or makes no sense."""

    def __init__(self, service: HubService, *, timeout_seconds: float) -> None:
        self.service = service
        # The hub is a neighbour: no proxy of the environment is between.
        self._http = httpx.AsyncClient(
            timeout=timeout_seconds, trust_env=False, verify=_certificates(service)
        )
        self._slots = asyncio.Semaphore(_QUESTIONS_AT_ONCE)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def person_of(self, token: str) -> HubPerson | None:
        """Return whose a token is, None when the hub does not know it."""
        if not token.isascii() or not token.isprintable() or len(token) > _LONGEST_TOKEN:
            return None
        answer = await self._ask("GET", "user", token=token)
        if answer.status_code in (401, 403):
            return None
        if answer.status_code != 200:
            raise _senseless(answer)
        return _person(answer)

    async def token_for(self, code: str, verifier: str) -> str:
        """Exchange the code of a browser that came back; ForbiddenError for a wrong one."""
        form = {
            "client_id": self.service.client_id,
            "client_secret": self.service.api_token,
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": self.service.callback_url,
        }
        answer = await self._ask("POST", "oauth2/token", form=form)
        if 400 <= answer.status_code < 500:
            raise ForbiddenError("JupyterHub did not accept this log-in", reason="oauth")
        try:
            token = answer.json()["access_token"]
        except (ValueError, KeyError, TypeError):
            token = None
        if answer.status_code != 200 or not isinstance(token, str):
            raise _senseless(answer)
        return token

    async def report_activity(self, name: str, moment: datetime) -> bool:
        """Tell when a user was last active; return whether the service may tell that."""
        body = {"last_activity": moment.isoformat()}
        path = f"users/{quote(name, safe='')}/activity"
        answer = await self._ask("POST", path, token=self.service.api_token, body=body)
        if answer.status_code >= 500:
            raise _senseless(answer)
        return answer.status_code not in (401, 403)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        form: dict[str, str] | None = None,
        body: Any = None,
    ) -> httpx.Response:
        headers = {"Authorization": f"token {token}"} if token else {}
        url = f"{self.service.api_url}/{path}"
        try:
            async with self._slots:
                return await self._http.request(method, url, headers=headers, data=form, json=body)
        except httpx.HTTPError as error:
            raise UnavailableError(
                f"JupyterHub cannot be reached now: {error or type(error).__name__}",
                reason="try again",
            ) from error


def _person(answer: httpx.Response) -> HubPerson:
    try:
        model = answer.json()
        groups = model.get("groups")
        person = HubPerson(
            name=model["name"],
            is_service=model.get("kind") == "service",
            admin=model.get("admin") is True,
            groups=None if groups is None else frozenset(groups),
            scopes=frozenset(model["scopes"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _senseless(answer) from error
    if not isinstance(person.name, str) or not person.name:
        raise _senseless(answer)
    return person


def _senseless(answer: httpx.Response) -> UnavailableError:
    return UnavailableError(
        f"JupyterHub answered {answer.status_code}, which makes no sense here", reason="try again"
    )


def _certificates(service: HubService) -> ssl.SSLContext | bool:
    """The hub's internal TLS, where it has it."""
    if not service.client_ca and not service.certfile:
        return True
    context = ssl.create_default_context(cafile=service.client_ca)
    if service.certfile:
        context.load_cert_chain(service.certfile, service.keyfile)
    return context


def new_verifier() -> str:
    """Return a secret for one log-in (RFC 7636, section 4.1)."""
    return secrets.token_urlsafe(48)
