"""The pages for people: `/login`, `/logout` and the server's first page.

As a service of JupyterHub, `/login` leads to the hub, `/oauth_callback` is where a browser comes
back from it, and `/logout` logs out of the hub too.
"""

import base64
import hashlib
import logging
import secrets
from html import escape
from pathlib import Path
from string import Template
from typing import Annotated, NamedTuple
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, FastAPI, Request, Response
from sqlalchemy import func, select
from starlette.responses import HTMLResponse, RedirectResponse

from app import __version__
from app.auth import audit
from app.auth.access import allow, identify, public
from app.auth.addresses import client_of, foreign_origin
from app.auth.cookies import XSRF_COOKIE, LoginCookies, has_xsrf
from app.auth.hub import LOGIN as HUB_LOGIN
from app.auth.hub import HubAuthenticator
from app.auth.hub_service import CALLBACK, HubClient, new_verifier
from app.auth.identity import Identity, TokenAuthenticator
from app.auth.passwords import end_login
from app.auth.passwords import log_in as log_in_by_name
from app.auth.throttle import LoginLimit
from app.db.engine import Database
from app.errors import ForbiddenError, LoginRequiredError, NotFoundError, TooLargeError
from app.settings import Settings
from models import User

log = logging.getLogger(__name__)
router = APIRouter(include_in_schema=False)

_HERE = Path(__file__).parent
_STYLE = (_HERE / "page.css").read_text("utf-8")
_PAGE = Template((_HERE / "page.html").read_text("utf-8"))
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_MAX_FORM_BYTES = 64 * 1024
# The pages run no scripts and send their form to this server only.
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'self'"
)


def html_page(title: str, body: str, *, status: int = 200) -> HTMLResponse:
    """Return a page without scripts; `body` is HTML."""
    html = _PAGE.substitute(title=escape(title), style=_STYLE, body=body)
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"}
    return HTMLResponse(html, status, headers)


def safe_next(wanted: str, base_url: str) -> str:
    """Return where to go after the login: `wanted` if it is a path below the base URL, else that.

    Browsers read two slashes, also when one leans back, as another host, and skip tabs.
    """
    plain = (
        wanted.startswith("/") and wanted.isprintable() and "\\" not in wanted and " " not in wanted
    )
    inside = f"{wanted.partition('?')[0]}/".startswith(base_url) and not wanted.startswith("//")
    return wanted if plain and inside else base_url


async def _login_page(
    request: Request, wanted: str, *, name: str = "", problem: str = "", status: int = 200
) -> HTMLResponse:
    """The form, with the cookie that its answer must repeat, and the name that was typed."""
    settings: Settings = request.app.state.settings
    cookies: LoginCookies = request.app.state.cookies
    xsrf, set_cookies = cookies.xsrf(request)
    request.state.set_cookies = set_cookies
    wrong = f'<p class="wrong" role="alert">{escape(problem)}</p>' if problem else ""
    by_name = await _is_for_several(request)
    words = _BY_NAME if by_name else _BY_TOKEN
    field = _NAME_FIELD.format(escape(name), "" if name else "autofocus ") if by_name else ""
    body = f"""<p>{words.asks}</p>
{wrong}
<form method="post" action="{escape(settings.base_url)}login?next={quote(wanted, safe="")}">
<input type="hidden" name="{XSRF_COOKIE}" value="{escape(xsrf)}">
{field}<label for="password">{words.secret}</label>
<input id="password" name="password" type="password" autocomplete="current-password" required
 {"" if by_name and not name else "autofocus "}spellcheck="false">
<button>Log in</button>
</form>
<p><br>{words.help.format(escape(settings.base_url))}</p>"""
    return html_page("Log in", body, status=status)


class _Words(NamedTuple):
    asks: str
    secret: str
    help: str
    wrong: str


_BY_TOKEN = _Words(
    "This server asks for its token.",
    "Token",
    "The token is in the URL that the server printed when it started; whoever runs the server\n"
    "can look it up in its log.",
    "This is not the token.",
)
_BY_NAME = _Words(
    "Log in with your name and password.",
    "Password, or token without a name",
    'Whoever runs the server can give you a new password; <a href="{}password">change it</a> once\n'
    "you are in.",
    "This is not the name and password of anybody here.",
)
_NAME_FIELD = """<label for="username">Name</label>
<input id="username" name="username" type="text" autocomplete="username" value="{}"
 {}autocapitalize="none" spellcheck="false">
"""


async def _is_for_several(request: Request) -> bool:
    """Tell whether there are users beside the owner: then people log in by name."""
    database: Database = request.app.state.database
    query = select(func.count()).select_from(select(User.id).limit(2).subquery())
    async with database.read(as_server=True) as tx:
        return bool((await tx.execute(query)).scalar_one() > 1)


@router.get("/login")
@public
async def login_form(request: Request) -> Response:
    """Show the form, or go on at once if the browser has logged in (or brings a token)."""
    settings: Settings = request.app.state.settings
    wanted = safe_next(request.query_params.get("next", settings.base_url), settings.base_url)
    if await identify(request) is not None:
        return RedirectResponse(wanted, 302)
    if (hub := _hub(request)) is not None:
        return _go_to_hub(request, hub, wanted)
    return await _login_page(request, wanted)


@router.post("/login")
@public
async def log_in(request: Request) -> Response:
    """Set the login cookie for a right token, or name and password; 401 with the form if wrong.

    Under a hub nobody logs in here.
    """
    state = request.app.state
    if _hub(request) is not None:
        raise ForbiddenError("People log in at JupyterHub")
    settings: Settings = state.settings
    authenticator: TokenAuthenticator = state.authenticator
    limit: LoginLimit = state.login_limit
    form = await form_fields(request)
    wanted = request.query_params.get("next") or form.get("next") or settings.base_url
    wanted = safe_next(wanted, settings.base_url)
    if foreign_origin(request, settings) or not has_xsrf(request, form.get(XSRF_COOKIE)):
        problem = "This form was not sent from this page, or cookies are turned off. Try again."
        return await _login_page(request, wanted, problem=problem, status=403)
    address = client_of(request, settings)
    if seconds := limit.seconds_to_wait(address):
        problem = f"Too many wrong log-ins. Try again in {seconds} seconds."
        name = form.get("username", "").strip()
        page = await _login_page(request, wanted, name=name, problem=problem, status=429)
        page.headers["Retry-After"] = str(seconds)
        return page
    name, place = form.get("username", "").strip(), address or "a unix socket"
    if name and "\x00" not in name:
        made = await log_in_by_name(state.database, name, form.get("password", ""), place)
        login = str(made.id) if made else None
    else:
        login = await authenticator.login_of(form.get("password", "").strip())
    shown = ascii(name)[1:-1][:100]
    if login is None:
        limit.add_wrong(address)
        log.warning("a wrong log-in%s, from %s", f" as {shown}" if name else "", place)
        await audit.record(state.database, "login_failed", None, name=shown, place=place)
        words = _BY_NAME if name else _BY_TOKEN
        return await _login_page(request, wanted, name=name, problem=words.wrong, status=401)
    identity = await authenticator.identify_login(login)
    await audit.record(state.database, "login", identity, place=place)
    cookies: LoginCookies = state.cookies
    request.state.set_cookies = cookies.log_in(request, login)
    return RedirectResponse(wanted, 302)


async def form_fields(request: Request) -> dict[str, str]:
    """Return the fields of a posted form, each once; TooLargeError when it is too long."""
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > _MAX_FORM_BYTES:
            raise TooLargeError("The form is too long")
    fields = parse_qs(raw.decode("utf-8", "replace"), keep_blank_values=True)
    return {name: values[0] for name, values in fields.items()}


@router.get("/logout")
@public
async def log_out(request: Request) -> Response:
    """Forget the login in this browser."""
    settings: Settings = request.app.state.settings
    cookies: LoginCookies = request.app.state.cookies
    login, hub = cookies.session(request), _hub(request)
    request.state.set_cookies = cookies.log_out(request)
    if login and login.startswith(HUB_LOGIN):
        authenticator = request.app.state.authenticator
        if isinstance(authenticator, HubAuthenticator):
            await authenticator.end(login.removeprefix(HUB_LOGIN))
    elif login:
        await end_login(request.app.state.database, login)
    if hub is not None:
        return RedirectResponse(hub.service.logout_url, 302)
    body = f"""<p>Successfully logged out of this browser. Kernels go on running.</p>
<a class="button" href="{escape(settings.base_url)}login">Log in again</a>"""
    return html_page("Logged out", body)


def _hub(request: Request) -> HubClient | None:
    """The hub that this server is a service of, if any."""
    hub: HubClient | None = request.app.state.hub
    return hub


def _go_to_hub(request: Request, hub: HubClient, wanted: str) -> Response:
    """Send a browser to log in at the hub, from where it comes back to `oauth_callback`."""
    cookies: LoginCookies = request.app.state.cookies
    flow = {"state": secrets.token_urlsafe(24), "next": wanted, "verifier": new_verifier()}
    request.state.set_cookies = cookies.begin_flow(request, flow)
    address = hub.service.authorize_url(flow["state"], flow["verifier"])
    return RedirectResponse(address, 302, {"Cache-Control": "no-store"})


@router.get(f"/{CALLBACK}")
@public
async def come_back_from_hub(request: Request) -> Response:
    """Log a browser in that comes back from the hub, if it is this one that was sent there."""
    state = request.app.state
    settings: Settings = state.settings
    cookies: LoginCookies = state.cookies
    authenticator, hub = state.authenticator, _hub(request)
    if hub is None or not isinstance(authenticator, HubAuthenticator):
        raise NotFoundError("Not Found")
    query = request.query_params
    flow = cookies.flow(request, query.get("state", ""))
    if flow is None:
        if await identify(request) is not None:  # another tab was quicker
            return RedirectResponse(settings.base_url, 302)
        return _not_in(settings, "This log-in was not begun in this browser, or too long ago.")
    request.state.set_cookies = cookies.end_flows(request)
    if problem := query.get("error_description") or query.get("error"):
        return _not_in(settings, f"JupyterHub says: {problem[:500]}")
    try:
        token = await hub.token_for(query.get("code", ""), flow["verifier"])
    except ForbiddenError as error:
        return _not_in(settings, f"{error.message}.")
    identity = await authenticator.identify_by_hub(token)
    place = client_of(request, settings) or "a unix socket"
    if identity is None:
        await audit.record(state.database, "login_failed", None, name="", place=place)
        return _not_in(settings, "You may not use this server.")
    await audit.record(state.database, "login", identity, place=place)
    request.state.set_cookies += cookies.log_in(request, HUB_LOGIN + token)
    return RedirectResponse(safe_next(flow["next"], settings.base_url), 302)


def _not_in(settings: Settings, problem: str) -> HTMLResponse:
    """A page for somebody whom the hub's log-in did not bring in."""
    body = f"""<p class="wrong" role="alert">{escape(problem)}</p>
<a class="button" href="{escape(settings.base_url)}login">Log in with JupyterHub</a>"""
    return html_page("Not logged in", body, status=403)


@router.get("/")
async def first_page(
    request: Request, identity: Annotated[Identity, allow("read", "api")]
) -> Response:
    """Go to the front end; without one, say what this server is."""
    settings: Settings = request.app.state.settings
    if request.app.state.front_end is not None:
        return RedirectResponse(settings.base_url + request.app.state.front_end, 302)
    rows = {
        "Version": __version__,
        "Logged in as": identity.display_name,
    }
    if identity.admin:
        rows["Files"] = str(settings.root_dir)
    listed = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in rows.items())
    body = f"""<dl>{listed}</dl>
<p>Run a notebook here with <code>jupyter-datastore run NOTEBOOK</code>, or point a Jupyter client
at this address.</p>
<a class="button" href="{escape(settings.base_url)}logout">Log out</a>"""
    return html_page("This server is running", body)


@router.post("/api/security/csp-report", status_code=204)
async def report_violation(
    request: Request,
    _: Annotated[Identity, allow("write", "csp", xsrf=False)],
) -> None:
    """Log what a browser says that a Content-Security-Policy has blocked."""
    log.warning("Content-Security-Policy: %.2000r", await request.body())


def add_to(app: FastAPI, *, prefix: str) -> None:
    """Give an application the pages, and the way to the login."""
    app.state.login_limit = LoginLimit()
    app.include_router(router, prefix=prefix)
    app.add_exception_handler(LoginRequiredError, _login_required)


async def _login_required(_: Request, error: Exception) -> Response:
    assert isinstance(error, LoginRequiredError)
    return RedirectResponse(error.location, 302)
