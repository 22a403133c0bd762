"""`/password`: the page where people who log in by name change their password."""

from html import escape
from typing import Annotated

from fastapi import APIRouter, Request, Response

from app.auth.access import allow
from app.auth.cookies import XSRF_COOKIE, LoginCookies, has_xsrf
from app.auth.identity import Identity
from app.auth.pages import form_fields, html_page
from app.errors import BadRequestError, ForbiddenError, TooManyRequestsError
from app.people.routes import replace_own_password
from app.settings import Settings

router = APIRouter(include_in_schema=False)

_FIELD = """<label for="{id}">{label}</label>
<input id="{id}" name="{id}" type="password" autocomplete="{kind}-password" required>
"""


def _page(
    request: Request, identity: Identity, *, problem: str = "", status: int = 200
) -> Response:
    """The form, with the cookie that its answer must repeat."""
    settings: Settings = request.app.state.settings
    cookies: LoginCookies = request.app.state.cookies
    xsrf, set_cookies = cookies.xsrf(request)
    request.state.set_cookies = [*getattr(request.state, "set_cookies", ()), *set_cookies]
    wrong = f'<p class="wrong" role="alert">{escape(problem)}</p>' if problem else ""
    fields = "".join(
        _FIELD.format(id=field, label=label, kind="current" if field == "current" else "new")
        for field, label in (
            ("current", "Password until now"),
            ("password", "New password"),
            ("again", "New password again"),
        )
    )
    body = f"""<p>{escape(identity.display_name)}, this logs you out of all browsers.</p>
{wrong}
<form method="post" action="{escape(settings.base_url)}password">
<input type="hidden" name="{XSRF_COOKIE}" value="{escape(xsrf)}">
<input type="hidden" name="username" autocomplete="username" value="{escape(identity.name)}">
{fields}<button>Change the password</button>
</form>"""
    return html_page("Change your password", body, status=status)


def _require_password(request: Request, identity: Identity) -> None:
    if request.app.state.hub is not None:
        raise ForbiddenError("People log in at JupyterHub")
    if identity.scopes is not None:
        raise ForbiddenError("A token with scopes cannot change a password", reason="scopes")


@router.get("/password")
async def password_form(
    request: Request, identity: Annotated[Identity, allow("write", "api")]
) -> Response:
    """Show the form."""
    _require_password(request, identity)
    return _page(request, identity)


@router.post("/password")
async def change_password(
    request: Request, identity: Annotated[Identity, allow("write", "api", xsrf=False)]
) -> Response:
    """Change one's own password, which ends one's log-ins; the form again if something is wrong."""
    _require_password(request, identity)
    form = await form_fields(request)
    if not has_xsrf(request, form.get(XSRF_COOKIE)):
        problem = "This form was not sent from this page, or cookies are turned off. Try again."
        return _page(request, identity, problem=problem, status=403)
    password = form.get("password", "")
    if password != form.get("again"):
        problem = "The new password was not typed alike both times."
        return _page(request, identity, problem=problem, status=400)
    try:
        await replace_own_password(request, identity, form.get("current", ""), password)
    except (BadRequestError, ForbiddenError, TooManyRequestsError) as error:
        return _page(request, identity, problem=f"{error.message}.", status=error.status)
    settings: Settings = request.app.state.settings
    body = f"""<p>The new password holds from now on.</p>
<a class="button" href="{escape(settings.base_url)}login">Log in with it</a>"""
    return html_page("Password changed", body)
