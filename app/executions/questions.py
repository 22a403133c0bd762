"""`/questions`: a page on which whoever may execute answers what running code asks.

JupyterLab shows a question in the window that ran the cell alone. This page has the questions of
all, for another person, another window or a telephone; it needs no scripts.
"""

import uuid
from html import escape
from typing import Annotated
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse

from app.auth.access import allow
from app.auth.cookies import XSRF_COOKIE
from app.auth.identity import Identity
from app.auth.pages import html_page
from app.errors import BadRequestError, ConflictError
from app.executions.acting import answer
from app.executions.queries import executions
from app.web import isoformat
from models import Execution, InputRequest

router = APIRouter(include_in_schema=False)

_MAX_SHOWN = 100


@router.get("/questions")
async def list_questions(
    request: Request, _: Annotated[Identity, allow("read", "executions")]
) -> Response:
    """Return a page with a form for each question that waits for its answer, the oldest first."""
    if "token" in request.query_params:  # the browser has been logged in by it
        return RedirectResponse(request.url.path, 302)
    query = (
        executions()
        .order_by(None)
        .join(InputRequest, InputRequest.execution_id == Execution.id)
        .add_columns(InputRequest)
        .where(InputRequest.status == "pending")
        .order_by(InputRequest.created_at)
        .limit(_MAX_SHOWN)
    )
    async with request.app.state.database.read() as tx:
        rows = (await tx.execute(query)).all()
    base_url = request.app.state.settings.base_url
    # A program that sends its token in a header has no such cookie, and needs none.
    xsrf = request.cookies.get(XSRF_COOKIE, "")
    forms = "".join(_form(base_url, xsrf, *row) for row in rows)
    again = f'<p><a class="button" href="{escape(base_url)}questions">Look again</a></p>'
    return html_page("Questions", (forms or "<p>Nothing waits for an answer.</p>") + again)


def _form(
    base_url: str, xsrf: str, execution: Execution, actor: str | None, _: str, asked: InputRequest
) -> str:
    kind = "password" if asked.password else "text"
    place = escape(execution.path or f"kernel {execution.kernel_id}")
    who = f", run by {escape(actor)}" if actor else ""
    action = f"{base_url}questions/{execution.id}?{XSRF_COOKIE}={quote(xsrf, safe='')}"
    return f"""<form method="post" action="{escape(action)}">
<p>{place}{who}, since {isoformat(asked.created_at)[:19]}Z</p>
<input type="hidden" name="input_request_id" value="{asked.id}">
<label for="value-{asked.id}">{escape(asked.prompt) or "Input"}</label>
<input id="value-{asked.id}" name="value" type="{kind}" autocomplete="off" spellcheck="false">
<button>Answer</button>
</form>"""


@router.post("/questions/{execution_id}")
async def answer_question(
    execution_id: uuid.UUID,
    request: Request,
    identity: Annotated[Identity, allow("execute", "executions")],
) -> Response:
    """Answer a question and go back to the list; a page says when another was faster."""
    try:
        fields = parse_qs((await request.body()).decode(), keep_blank_values=True)
    except ValueError as error:
        raise BadRequestError("The form is not one of this page") from error
    value, wanted = fields.get("value"), fields.get("input_request_id")
    if value is None or wanted is None:
        raise BadRequestError("The form is not one of this page")
    base_url = request.app.state.settings.base_url
    try:
        await answer(request.app.state, identity, execution_id, value[0], wanted=wanted[0])
    except ConflictError as error:
        back = f'<a class="button" href="{escape(base_url)}questions">Back</a>'
        return html_page("Too late", f"<p>{escape(error.message)}.</p>{back}", status=409)
    return RedirectResponse(f"{base_url}questions", 303)
