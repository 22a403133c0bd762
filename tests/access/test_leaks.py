"""The leak matrix: every route, websocket, table and view, for every kind of person.

The tables below say who may do what. A route or a table that is not in them fails the test, and so
does an answer that tells a thing one may not see from one that is not there.
"""

import json
import re
import uuid
from dataclasses import dataclass, field
from itertools import product
from typing import Any
from unittest.mock import Mock

import pytest
import websockets
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.auth.access import declarations
from app.db import asker
from app.executions import queries
from app.executions.queries import Wanted, newest_executions
from models import Base
from tests.access.world import (
    EVERYONE,
    FOLDER,
    KINDS,
    NOBODIES,
    NOTEBOOK,
    READERS,
    RUNNERS,
    SHARERS,
    WRITERS,
    World,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADMIN = {"admin"}
OLGA = {"olga"}
# Who may do it to Olga's kernel without her kernel being shared: herself.
OWNERS = OLGA | ADMIN
ON_SERVER = OLGA | ADMIN  # Olga may read and execute on the server
PUBLIC = set(KINDS)
TEXT = f"{FOLDER}/text.txt"


@dataclass
class Case:
    """Who is let through; everybody else gets 403, and 404 if `seen_by` does not have them.

    `denied_only` are not asked when they are allowed, since that would end what others need.
    """

    allowed: set[str]
    seen_by: set[str] | None = None  # None: the route names nothing that could be invisible
    path: str = ""
    body: Any = None
    denied_only: bool = False
    also: dict[str, str] = field(default_factory=dict)


def kind(allowed: set[str], **more: Any) -> Case:
    """A case of a route that names no single thing."""
    return Case(allowed, None, **more)


def file(allowed: set[str], path: str = TEXT, **more: Any) -> Case:
    return Case(allowed, READERS, path=path, **more)


def kernel(allowed: set[str], **more: Any) -> Case:
    return Case(allowed, READERS, **more)


NONE = {"denied_only": True}
ROUTES: dict[str, Case] = {
    "GET /api": kind(PUBLIC),
    "GET /login": kind(PUBLIC),
    "POST /login": kind(PUBLIC, denied_only=True),
    "GET /logout": kind(PUBLIC),
    "GET /oauth_callback": kind(PUBLIC),
    "GET /password": kind(EVERYONE),
    "POST /password": kind(EVERYONE, **NONE),
    "GET /": kind(EVERYONE),
    "POST /api/security/csp-report": kind(EVERYONE),
    "GET /api/status": kind(EVERYONE),
    "POST /api/status/refresh": kind(ADMIN),
    "POST /api/shutdown": kind(ADMIN, **NONE),
    "GET /metrics": kind(ON_SERVER),
    "GET /api/spec.yaml": kind(EVERYONE),
    "GET /api/me": kind(EVERYONE),
    "PATCH /api/me": kind(EVERYONE),
    "POST /api/me/password": kind(EVERYONE, body={}, also={"allowed": "403 or more"}),
    "GET /api/resolvePath": kind(EVERYONE, path="?path=x"),
    # people
    "GET /api/users": kind(EVERYONE),
    "POST /api/users": kind(ADMIN, body={}),
    "PATCH /api/users/{user_id}": kind(ADMIN, body={}),
    "GET /api/groups": kind(EVERYONE),
    "POST /api/groups": kind(ADMIN, body={}),
    "PATCH /api/groups/{group_id}": kind(ADMIN, body={}),
    "DELETE /api/groups/{group_id}": kind(ADMIN, **NONE),
    "PUT /api/groups/{group_id}/members/{user_id}": kind(ADMIN, **NONE),
    "DELETE /api/groups/{group_id}/members/{user_id}": kind(ADMIN, **NONE),
    "GET /api/tokens": kind(EVERYONE),
    "POST /api/tokens": kind(EVERYONE, body={"scopes": ["read"]}),
    "DELETE /api/tokens/{token_id}": Case(OLGA | ADMIN, OLGA | ADMIN, **NONE),
    "GET /api/audit": kind(ADMIN),
    "GET /api/permissions": kind(EVERYONE),
    "POST /api/permissions": Case(
        SHARERS, READERS, body={"path": TEXT, "role": "viewer", "everyone": "no"}
    ),
    "DELETE /api/permissions/{permission_id}": Case(SHARERS, SHARERS | {"member"}, **NONE),
    "GET /api/share-links": kind(EVERYONE),
    "POST /api/share-links": Case(SHARERS, READERS, body={"path": TEXT, "role": "viewer"}),
    "POST /api/share-links/accept": kind(EVERYONE, body={}),
    "DELETE /api/share-links/{link_id}": Case(OLGA | ADMIN, OLGA | ADMIN, **NONE),
    # contents
    "GET /api/contents": kind(EVERYONE),
    "POST /api/contents": kind(ADMIN, **NONE),
    "PUT /api/contents": kind(ADMIN, **NONE),
    "PATCH /api/contents": kind(ADMIN, **NONE),
    "DELETE /api/contents": kind(ADMIN, **NONE),
    "POST /api/contents/refresh": file(WRITERS, body={"path": TEXT}),
    "GET /api/contents/{path}": file(READERS),
    "PUT /api/contents/{path}": file(
        WRITERS, body={"type": "file", "format": "text", "content": "shared"}
    ),
    "POST /api/contents/{path}": file(WRITERS, FOLDER, body={"type": "file"}),
    "PATCH /api/contents/{path}": file(WRITERS, body={"path": TEXT}),
    "DELETE /api/contents/{path}": file(WRITERS, **NONE),
    "GET /api/contents/checkpoints": kind(EVERYONE),
    "GET /api/contents/{path}/checkpoints": file(READERS),
    "POST /api/contents/{path}/checkpoints": file(WRITERS),
    "POST /api/contents/{path}/checkpoints/{checkpoint_id}": file(WRITERS),
    "DELETE /api/contents/{path}/checkpoints/{checkpoint_id}": file(WRITERS, **NONE),
    "POST /api/contents/{path}/trust": file(WRITERS, NOTEBOOK),
    "GET /files/{path}": file(READERS),
    "HEAD /files/{path}": file(READERS),
    "GET /view/{path}": file(READERS),
    "GET /api/nbconvert": kind(EVERYONE),
    "GET /nbconvert/{format}/{path}": file(READERS, NOTEBOOK),
    "POST /nbconvert/{format}": kind(EVERYONE, body={}),
    "GET /api/documents/{document_id}/cells": kernel(READERS),
    "POST /api/documents/{document_id}/cells": kernel(WRITERS, body={"type": "none"}),
    "PATCH /api/documents/{document_id}/cells/{cell_id}": kernel(WRITERS, body={}, **NONE),
    "DELETE /api/documents/{document_id}/cells/{cell_id}": kernel(WRITERS, **NONE),
    "POST /api/documents/{document_id}/cells/{cell_id}/move": kernel(WRITERS, body={}, **NONE),
    "GET /api/documents/{document_id}/undo": kernel(READERS),
    "POST /api/documents/{document_id}/undo": kernel(WRITERS, body={"steps": 0}),
    "POST /api/documents/{document_id}/redo": kernel(WRITERS, body={"steps": 0}),
    "GET /api/documents/{document_id}/history": kernel(READERS),
    "GET /api/documents/{document_id}/content": kernel(READERS),
    "GET /api/documents/{document_id}/versions": kernel(READERS),
    "POST /api/documents/{document_id}/versions": kernel(WRITERS, body={"name": ""}),
    "DELETE /api/documents/{document_id}/versions/{name}": kernel(WRITERS, **NONE),
    "POST /api/documents/{document_id}/overwrite": kernel(WRITERS),
    "POST /api/documents/{document_id}/restore": kernel(WRITERS, body={}),
    "PUT /api/collaboration/session/{path}": file(
        READERS, NOTEBOOK, body={"format": "json", "type": "notebook"}
    ),
    "WEBSOCKET /api/collaboration/room/{room_name}": kind(EVERYONE),  # asks for itself
    "GET /api/collaboration/timeline/{path}": file(READERS, NOTEBOOK),
    "PUT /api/collaboration/undo_redo/{room_name}": kind(EVERYONE, **NONE),
    "GET /api/collaboration/fork/{document_id}": kernel(READERS),
    "PUT /api/collaboration/fork/{document_id}": kernel(WRITERS, body={"title": "a fork"}),
    "DELETE /api/collaboration/fork/{fork_id}": kind(EVERYONE, **NONE),
    # kernels and what runs
    "GET /api/kernelspecs": kind(EVERYONE),
    "GET /api/kernelspecs/{name}": kind(EVERYONE),
    "GET /kernelspecs/{name}/{path}": kind(EVERYONE, path="logo-64x64.png"),
    "HEAD /kernelspecs/{name}/{path}": kind(EVERYONE, path="logo-64x64.png"),
    "POST /api/kernelspecs/refresh": kind(ADMIN),
    "GET /api/kernels": kind(EVERYONE),
    "POST /api/kernels": kind(EVERYONE, body={"env": 1}),
    "POST /api/kernels/refresh": kind(EVERYONE),
    "GET /api/kernels/{kernel_id}": kernel(READERS),
    "DELETE /api/kernels/{kernel_id}": kernel(OWNERS, **NONE),
    "POST /api/kernels/{kernel_id}/interrupt": kernel(RUNNERS),
    "POST /api/kernels/{kernel_id}/restart": kernel(RUNNERS, **NONE),
    "POST /api/kernels/{kernel_id}/execute": kernel(RUNNERS, body={"code": "1", "silent": True}),
    "WEBSOCKET /api/kernels/{kernel_id}/channels": kernel(RUNNERS),
    **{
        f"POST /api/kernels/{{kernel_id}}/{name}": kernel(RUNNERS, body={"code": 1, "command": 1})
        for name in ("complete", "inspect", "is_complete", "debug")
    },
    "POST /api/kernels/{kernel_id}/history": kernel(RUNNERS, body={"n": "x"}),
    "POST /api/kernels/{kernel_id}/kernel_info": kernel(RUNNERS),
    "POST /api/kernels/{kernel_id}/comm_info": kernel(RUNNERS, body={"target_name": 1}),
    "GET /api/kernels/{kernel_id}/comms": kernel(READERS),
    "POST /api/kernels/{kernel_id}/comms": kernel(RUNNERS, body={}),
    "GET /api/comms/{comm_id}": kernel(READERS),
    "DELETE /api/comms/{comm_id}": kernel(RUNNERS, **NONE),
    "GET /api/comms/{comm_id}/messages": kernel(READERS),
    "POST /api/comms/{comm_id}/messages": kernel(RUNNERS, body={"data": 1}),
    "WEBSOCKET /api/comms/{comm_id}/channel": kernel(RUNNERS),
    "GET /api/sessions": kind(EVERYONE),
    "POST /api/sessions": Case(
        RUNNERS, READERS, body={"path": NOTEBOOK, "type": "notebook", "kernel": {}}
    ),
    "POST /api/sessions/refresh": kind(EVERYONE),
    "GET /api/sessions/{session_id}": kernel(READERS),
    "PATCH /api/sessions/{session_id}": kernel(OWNERS, body={}),
    "DELETE /api/sessions/{session_id}": kernel(OWNERS, **NONE),
    "POST /api/sessions/{session_id}/run": kernel(RUNNERS, body={"cells": []}),
    "GET /api/executions": kind(EVERYONE),
    "GET /api/executions/{execution_id}": kernel(READERS),
    "GET /api/executions/{execution_id}/outputs": kernel(READERS),
    "DELETE /api/executions/{execution_id}": kernel(RUNNERS),  # it has finished: 409
    "POST /api/executions/{execution_id}/input": kernel(RUNNERS, body={"value": "x"}),
    # the feed: what it shows of whose records is asked of its tables
    "GET /api/datastore/tables": kind(EVERYONE),
    "GET /api/datastore/tables/{table}": kind(EVERYONE),
    "GET /api/datastore/events": kind(EVERYONE, path="?table=kernels", denied_only=True),
    "WEBSOCKET /api/datastore/feed": kind(EVERYONE),
    # one's own
    "GET /api/config/{section_name}": kind(EVERYONE),
    "PUT /api/config/{section_name}": kind(EVERYONE, **NONE),
    "PATCH /api/config/{section_name}": kind(EVERYONE, **NONE),
    "POST /api/events": kind(EVERYONE, body={}),
    "WEBSOCKET /api/events/subscribe": kind(EVERYONE),
    "GET /api/terminals": kind(EVERYONE),
    "POST /api/terminals": kind(ON_SERVER, body={"name": "-"}),
    "GET /api/terminals/{terminal_id}": Case(OLGA, OLGA),
    "DELETE /api/terminals/{terminal_id}": Case(OWNERS, OLGA, **NONE),
    "WEBSOCKET /terminals/websocket/{terminal_id}": Case(OLGA, OLGA),
    # JupyterLab's executors, and its pages
    "GET /api/kernels/{kernel_id}/execute": kernel(READERS),
    "GET /api/kernels/{kernel_id}/requests/{execution_id}": kernel(READERS),
    "DELETE /api/kernels/{kernel_id}/requests/{execution_id}": kernel(RUNNERS),
    "POST /api/kernels/{kernel_id}/input": kernel(RUNNERS, body={"input": "x"}),
    "GET /questions": kind(EVERYONE),
    "POST /questions/{execution_id}": kernel(RUNNERS, body={}),
    "GET /static/{path}": kind(PUBLIC),
    "HEAD /static/{path}": kind(PUBLIC),
    "GET /lab/extensions/{path}": kind(PUBLIC),
    "HEAD /lab/extensions/{path}": kind(PUBLIC),
    "GET /lab": kind(EVERYONE),
    "GET /lab/{path}": kind(EVERYONE, path="tree/x"),
    "GET /doc": kind(EVERYONE),
    "GET /doc/{path}": kind(EVERYONE, path="tree/x"),
    "GET /tree": kind(EVERYONE),
    "GET /tree/{path}": file(READERS),
    "GET /notebooks/{path}": file(READERS, NOTEBOOK),
    "GET /edit/{path}": kind(EVERYONE, path="x"),
    "GET /consoles/{path}": kind(EVERYONE, path="x"),
    "GET /terminals/{path}": kind(EVERYONE, path="x"),
    "GET /lab/api/settings": kind(EVERYONE),
    "GET /lab/api/settings/": kind(EVERYONE),
    "GET /lab/api/settings/{schema_id}": kind(EVERYONE),
    "PUT /lab/api/settings/{schema_id}": kind(EVERYONE, **NONE),
    "GET /lab/api/workspaces": kind(EVERYONE),
    "GET /lab/api/workspaces/": kind(EVERYONE),
    "GET /lab/api/workspaces/{name}": kind(EVERYONE),
    "PUT /lab/api/workspaces/{name}": kind(EVERYONE, **NONE),
    "DELETE /lab/api/workspaces/{name}": kind(EVERYONE, **NONE),
    "GET /lab/api/translations": kind(EVERYONE),
    "GET /lab/api/translations/": kind(EVERYONE),
    "GET /lab/api/translations/{locale}": kind(EVERYONE),
    "GET /lab/api/themes/{path}": kind(
        EVERYONE, path="@jupyterlab/theme-light-extension/index.css"
    ),
    "GET /lab/api/licenses": kind(EVERYONE),
    "GET /lab/api/licenses/": kind(EVERYONE),
    "GET /lab/api/extensions": kind(EVERYONE),
    "POST /lab/api/extensions": kind(set()),
    "GET /lab/api/plugins": kind(EVERYONE),
    "GET /lab/api/listings/{path}": kind(EVERYONE, path="x"),
    "GET /lab/api/build": kind(EVERYONE),
    "GET /lab/api/news": kind(EVERYONE),
    "GET /lab/api/update": kind(EVERYONE),
    "GET /lsp/status": kind(EVERYONE),
}

ABSENT = {
    "path": f"{FOLDER}/none.txt",
    "terminal_id": "none",
    "kernel_id": str(uuid.UUID(int=1)),
    "session_id": str(uuid.UUID(int=1)),
    "execution_id": str(uuid.UUID(int=1)),
    "document_id": str(uuid.UUID(int=1)),
    "comm_id": str(uuid.UUID(int=1)),
    "token_id": str(uuid.UUID(int=1)),
    "permission_id": str(uuid.UUID(int=1)),
    "link_id": str(uuid.UUID(int=1)),
}
OTHERS = {
    "schema_id": "@jupyterlab/apputils-extension:themes",
    "locale": "default",
    "user_id": "stranger",
    "cell_id": "none",
    "room_name": "none",
    "fork_id": "none",
    "group_id": "readers",
    "name": "python3",
    "section_name": "notebook",
    "table": "kernels",
    "format": "python",
}


async def test_every_route_is_in_the_table(made: World) -> None:
    known = {
        f"{method} {re.sub(r':[a-z]+}', '}', path)}"
        for method, path, *_ in declarations(made.server.app)
    }
    assert known == set(ROUTES)


def url_of(case: Case, route: str, values: dict[str, str]) -> str:
    path = route.partition(" ")[2]
    url = re.sub(r"{(\w+)}", lambda match: values[match[1]], path)
    return url + case.path if case.path.startswith("?") else url


async def status_of(made: World, person: str, route: str, case: Case, values: dict) -> tuple:
    """Return the status of an answer, its text and its headers."""
    method, url = route.partition(" ")[0], url_of(case, route, values)
    if method == "WEBSOCKET":
        address = f"ws://{made.server.address}{url}"
        try:
            async with websockets.connect(address, additional_headers=made.headers(person)):
                return 101, "", {}
        except websockets.InvalidStatus as error:
            response = error.response
            return response.status_code, response.body.decode(), _told(response.headers.raw_items())
    answer = await made.ask(person, method, url, json=case.body)
    return answer.status_code, answer.text, _told(answer.headers.multi_items())


def _told(headers: Any) -> dict[str, str]:
    """Return the headers that may tell something; a length is its text's, which is compared."""
    names = {name.lower(): value for name, value in headers}
    return {
        name: re.sub("_xsrf=[0-9a-f]+", "_xsrf=*", value)  # made anew for each page
        for name, value in names.items()
        if name not in ("date", "content-length")
    }


async def test_routes(made: World) -> None:
    """Each route lets through whom the table says, and tells nobody else what there is."""
    wrong = []
    for route, case in ROUTES.items():
        values = {**OTHERS, **made.ids, "path": case.path}
        for person in KINDS:
            if person in case.allowed and (case.denied_only or case.allowed == PUBLIC):
                continue
            status, said, headers = await status_of(made, person, route, case, values)
            if person in case.allowed:
                fine = status not in (403, 404) and status < 500
                if route == "POST /api/me/password":
                    fine = (status in (400, 403) and "not the password" in said) or status == 400
            elif person in NOBODIES:
                fine = status == 403 or (status == 302 and "/login" in said) or status == 302
            elif case.seen_by is None or person in case.seen_by:
                fine = status == 403
            else:
                fine = status == 404
                absent = {**values, **{k: v for k, v in ABSENT.items() if f"{{{k}}}" in route}}
                body = case.body
                if isinstance(body, dict) and "path" in body and "{path}" not in route:
                    body = {**body, "path": ABSENT["path"]}
                other = Case(case.allowed, path=case.path, body=body)
                nothing = await status_of(made, person, route, other, absent)
                hidden = [*made.ids.values(), case.path or "\0", *_paths(case.body)]
                if _without(said, hidden) != _without(nothing[1], ABSENT.values()):
                    wrong.append((route, person, "told from nothing", said, nothing[1]))
                if headers != nothing[2]:
                    differing = set(headers.items()) ^ set(nothing[2].items())
                    wrong.append((route, person, "told by headers", differing))
                fine = fine and nothing[0] == status
            if not fine:
                wrong.append((route, person, status, said[:200]))
    assert wrong == []
    assert {"denied", "execute_as"} <= await _events(made)


def _paths(body: Any) -> list[str]:
    return [body["path"]] if isinstance(body, dict) and "path" in body else []


def _without(said: str, names: Any) -> str:
    for name in sorted(names, key=len, reverse=True):
        said = said.replace(name, "*")
    return said


# Requests that name a thing elsewhere than in their path; `{}` is the thing, or one that is not.
# A stranger asks, who has a kernel and a file.
NAMED: tuple[tuple[str, str, str, Any], ...] = (
    (
        "kernel_id",
        "POST",
        "/api/permissions",
        {"kernel_id": "{}", "role": "viewer", "user": "olga"},
    ),
    ("path", "POST", "/api/permissions", {"path": "{}", "role": "viewer", "user": "olga"}),
    ("kernel_id", "POST", "/api/share-links", {"kernel_id": "{}", "role": "viewer"}),
    ("path", "POST", "/api/share-links", {"path": "{}", "role": "viewer"}),
    ("kernel_id", "GET", "/api/permissions?kernel_id={}", None),
    ("path", "GET", "/api/permissions?path={}", None),
    ("kernel_id", "GET", "/api/executions?kernel_id={}", None),
    ("document_id", "GET", "/api/executions?document_id={}", None),
    ("session_id", "GET", "/api/executions?session_id={}", None),
    ("path", "GET", "/api/executions?path={}", None),
    ("kernel_id", "GET", "/api/datastore/tables/outputs?kernel_id={}", None),
    ("execution_id", "GET", "/api/datastore/tables/outputs?execution_id={}", None),
    ("document_id", "GET", "/api/datastore/tables/cells?notebook_id={}", None),
    ("path", "GET", "/api/datastore/tables/contents?path={}", None),
    ("path", "GET", "/api/datastore/tables/contents?path_prefix={}", None),
    (
        "kernel_id",
        "POST",
        "/api/sessions",
        {"path": "home/stranger/a.txt", "type": "file", "kernel": {"id": "{}"}},
    ),
    (
        "path",
        "POST",
        "/api/sessions",
        {"path": "{}", "type": "notebook", "kernel": {"name": "python3"}},
    ),
    (
        "document_id",
        "POST",
        "/api/kernels/{own}/execute",
        {"document_id": "{}", "cell_id": "x", "code": "1"},
    ),
    ("path", "POST", "/api/kernels/{own}/execute", {"path": "{}", "cell_id": "x", "code": "1"}),
    ("path", "POST", "/api/contents/home/stranger", {"copy_from": "{}"}),
    ("path", "PATCH", "/api/contents/home/stranger/a.txt", {"path": "{}"}),
    ("path", "POST", "/api/contents/refresh", {"path": "{}"}),
    ("path", "GET", "/api/resolvePath?path={}", None),
    ("path", "GET", "/api/resolvePath?path={}&kernel={own}", None),
)


async def test_what_is_named_elsewhere_is_told_from_nothing_nowhere(made: World) -> None:
    """Status, body and headers are those of a thing that is not there."""
    file_model = {"type": "file", "format": "text", "content": "mine"}
    put = await made.ask("stranger", "PUT", "/api/contents/home/stranger/a.txt", json=file_model)
    assert put.status_code == 201, put.text
    kernel = await made.ask("stranger", "POST", "/api/kernels", json={"name": "python3"})
    assert kernel.status_code == 201, kernel.text
    wrong = []
    for name, method, path, body in NAMED:
        said = []
        for thing in ({**made.ids, "path": TEXT}[name], ABSENT[name]):
            url = path.replace("{own}", kernel.json()["id"]).replace("{}", thing)
            sent = None if body is None else json.loads(json.dumps(body).replace("{}", thing))
            answer = await made.ask("stranger", method, url, json=sent)
            text_said = re.sub(r'"cursor": ?"[^"]*"', "", _without(answer.text, [thing]))
            said.append((answer.status_code, text_said, _told(answer.headers.multi_items())))
        if said[0] != said[1] or said[0][0] >= 500:
            wrong.append((method, path, *said))
    gone = await made.ask("stranger", "DELETE", f"/api/kernels/{kernel.json()['id']}")
    assert gone.status_code == 204
    assert wrong == []


async def test_listings_show_what_one_may_see(made: World) -> None:
    """No listing has a thing of Olga's for who may not see it, and has it for who may."""
    wrong = []
    for person in sorted(EVERYONE):
        for path, secret, seen in (
            ("/api/kernels", made.ids["kernel_id"], READERS),
            ("/api/sessions", made.ids["session_id"], READERS),
            ("/api/executions", made.ids["execution_id"], READERS),
            ("/api/terminals", "olgas", OLGA | ADMIN),
            ("/api/tokens", made.ids["token_id"], OLGA | ADMIN),
            ("/api/share-links", made.ids["link_id"], OLGA | ADMIN),
            ("/api/contents/home", '"olga"', READERS),
            ("/api/contents", '"home"', EVERYONE),
            ("/api/contents/home/olga", "private.txt", OLGA | ADMIN),
            (f"/api/contents/{FOLDER}", "text.txt", READERS),
            ("/api/groups", '"member"', {"member", "admin"}),
        ):
            said = (await made.ask(person, "GET", path)).text
            if (secret in said) != (person in seen):
                wrong.append((path, person, said[:300]))
    assert wrong == []


# Which rows of Olga's to look for, and who sees them.
OF_KERNEL = "WHERE kernel_id = '{kernel_id}'"
OF_EXECUTION = "WHERE execution_id = '{execution_id}'"
BY_OLGA = "WHERE actor_id = (SELECT id FROM users WHERE name = 'olga')"
OF_DOCUMENT = "WHERE document_id = '{document_id}'"
NOBODY: set[str] = set()
TABLES: dict[str, tuple[str, set[str]]] = {
    "users": ("WHERE name = 'olga'", EVERYONE),
    "passwords": ("", NOBODY),
    "sql_roles": ("", NOBODY),
    "groups": ("", EVERYONE),
    "group_members": ("", {"member", "admin"}),
    "tokens": ("WHERE id = '{token_id}'", OLGA | ADMIN),
    "permissions": ("WHERE id = '{permission_id}'", SHARERS | {"member"}),
    "share_links": ("WHERE id = '{link_id}'", OLGA | ADMIN),
    "audit": ("", ADMIN),
    "server_status": ("", ON_SERVER),
    "kernelspecs": ("", EVERYONE),
    "kernels": ("WHERE id = '{kernel_id}'", READERS),
    "sessions": ("WHERE id = '{session_id}'", READERS),
    "contents": (f"WHERE path = '{NOTEBOOK}'", READERS),
    "checkpoints": ("", READERS),
    "documents": ("WHERE id = '{document_id}'", READERS),
    "document_updates": (OF_DOCUMENT, READERS),
    "document_snapshots": (OF_DOCUMENT, READERS),
    "document_versions": (OF_DOCUMENT, READERS),
    "document_forks": (OF_DOCUMENT, READERS),
    "text_contents": ("WHERE id = '{document_id}'", READERS),
    "collaboration_session": ("", set()),
    "notebooks": ("WHERE id = '{document_id}'", READERS),
    "cells": ("WHERE notebook_id = '{document_id}'", READERS),
    "executions": ("WHERE id = '{execution_id}'", READERS),
    "outputs": (OF_EXECUTION, READERS),
    "changes": ("", NOBODY),
    "feed_epoch": ("", NOBODY),
    "feed_marks": ("", NOBODY),
    "presence": ("", NOBODY),
    "replicas": ("", NOBODY),
    "idempotency_keys": ("", OLGA),
    "input_requests": (OF_EXECUTION, READERS),
    "comms": (OF_KERNEL, READERS),
    "comm_messages": ("", READERS),
    "terminals": ("", OLGA | ADMIN),
    "config_sections": ("", OLGA),
    "lab_settings": ("", OLGA),
    "lab_workspaces": ("", OLGA),
    "execution_history": (OF_EXECUTION, READERS),
    "analytics.execution_history": (OF_EXECUTION, READERS),
    "analytics.errors": ("", NOBODY),  # none of Olga's failed
    "analytics.failed_tries": ("", NOBODY),
    "analytics.cell_order": (OF_EXECUTION, READERS),
    "analytics.stale_outputs": ("", NOBODY),
    "analytics.run_comparison": ("", NOBODY),
    "analytics.kernel_hours": (OF_KERNEL, READERS),
    "analytics.activity_by_hour": ("WHERE actor = 'olga'", OLGA | ADMIN),
    "analytics.activity_by_day": ("WHERE actor = 'olga'", OLGA | ADMIN),
    "analytics.group_activity_by_day": ("", NOBODY),
    "analytics.cells_by_day": ("WHERE actor = 'olga'", OLGA | ADMIN),
    "analytics.errors_by_day": ("", NOBODY),
    "analytics.rollup_hours": (BY_OLGA, OLGA | ADMIN),
    "analytics.rollup_days": (BY_OLGA, OLGA | ADMIN),
    "analytics.rollup_cells": (BY_OLGA, OLGA | ADMIN),
    "analytics.rollup_errors": ("", NOBODY),
    "analytics.rollup_kernels": (OF_KERNEL, READERS),
    "analytics.rollup_pending": ("", NOBODY),
}
# Of these Olga has no rows here; they are made for the test.
MADE = (
    "INSERT INTO lab_settings (user_id, schema_id, raw, settings) "
    "SELECT id, 'a:b', '{{}}', '{{}}' FROM users WHERE name = 'olga' ON CONFLICT DO NOTHING",
    "INSERT INTO lab_workspaces (user_id, name, data, metadata) "
    "SELECT id, 'default', '{{}}', '{{}}' FROM users WHERE name = 'olga' ON CONFLICT DO NOTHING",
    "INSERT INTO document_snapshots (document_id, version, state) "
    "VALUES ('{document_id}', 1, '') ON CONFLICT DO NOTHING",
    "INSERT INTO document_versions (id, document_id, version, name, state) "
    "VALUES (gen_random_uuid(), '{document_id}', 1, 'named', '') ON CONFLICT DO NOTHING",
    "INSERT INTO document_forks (id, document_id, title, description, synchronize, state) "
    "VALUES (gen_random_uuid(), '{document_id}', '', '', false, '')",
    "INSERT INTO text_contents (id, text) VALUES ('{document_id}', '') ON CONFLICT DO NOTHING",
    "INSERT INTO input_requests (id, execution_id, kernel_id, msg_id, prompt, password) "
    "VALUES (gen_random_uuid(), '{execution_id}', '{kernel_id}', 'm', '?', false)",
    "SELECT analytics.roll_up(100000)",
)
LIVING = EVERYONE | {None}


async def test_executions_are_found_by_the_ways_in_which_they_are_visible(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the policy is asked row by row or rows are looked for: the same are listed."""
    monkeypatch.setattr(queries, "_WINDOW", 0)
    looked_for = Mock(wraps=queries._visible_ids)
    monkeypatch.setattr(queries, "_visible_ids", looked_for)
    wanted = [Wanted(), Wanted(status="ok"), Wanted(actor="olga"), Wanted(actor="nobody")]
    seen = set()
    for person in (*made.users, None):
        with asker.acting_for(made.users.get(person)):
            for what, before, limit, many in product(wanted, (None, 3), (1, 1000), (0, 2000)):
                monkeypatch.setattr(queries, "_MANY_DOCUMENTS", many)
                read, found = [
                    await newest_executions(
                        made.database, what, everything=everything, before_seq=before, limit=limit
                    )
                    for everything in (True, False)
                ]
                ids = [row.execution.id for row in found]
                assert ids == [row.execution.id for row in read], (person, what, before, limit)
                seen.add((person, bool(ids)))
    assert seen >= {("olga", True), ("stranger", False)}
    assert looked_for.call_count > 0


async def test_every_table_is_in_the_table(made: World) -> None:
    query = """SELECT CASE nspname WHEN 'public' THEN '' ELSE nspname || '.' END || relname,
               relkind::text, relrowsecurity, reloptions::text
               FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
               WHERE nspname IN ('public', 'analytics') AND relkind IN ('r', 'p', 'v', 'm', 'f')
               AND relname <> 'alembic_version'"""
    async with made.database.read(as_server=True) as tx:
        found = (await tx.execute(text(query))).all()
    assert {row[0] for row in found} == set(TABLES)
    assert set(Base.metadata.tables) <= set(TABLES)
    for name, relkind, secured, options in found:
        if relkind in ("r", "p"):
            assert secured, name
        else:
            assert "security_invoker=true" in (options or ""), name


async def test_tables(made: World) -> None:
    """Each table shows Olga's rows to whom it should, whatever a query forgets to filter."""
    async with made.database.transaction(as_server=True) as tx:
        for statement in MADE:
            await tx.execute(text(statement.format(**made.ids)))
    people: dict[str | None, Any] = {k: made.users.get(k) for k in (*made.users, None)}
    wrong = []
    for person, user_id in people.items():
        for table, (where, seen) in TABLES.items():
            query = text(f"SELECT count(*) FROM {table} {where.format(**made.ids)}")
            with asker.acting_for(user_id):
                try:
                    async with made.database.read() as tx:
                        count = (await tx.execute(query)).scalar_one()
                except DBAPIError as error:
                    count = 0 if "permission denied" in str(error.orig) else -1
            if (count > 0) != (person in seen) or count < 0:
                wrong.append((table, person, count))
    assert wrong == []


def execution(*, document: str = "null", actor: str = "{me}", status: str = "queued") -> str:
    return (
        "INSERT INTO executions (id, kernel_id, document_id, actor_id, status, incarnation, "
        "run_as_id, client, msg_id, code, source_hash) VALUES (datastore_id_at(now()), "
        f"'{{kernel_id}}', {document}, '{actor}', '{status}', 1, '{{olga}}', 'api', 'x', '1', '')"
    )


# What the role of requests may try: by table and kind of statement, each with who is let. `{me}` is
# who tries. An error that is not about rights means that somebody was let.
CHANGES: dict[str, list[tuple[str, set[str]]]] = {
    "documents LOCK": [
        ("SELECT FROM documents WHERE id = '{document_id}' FOR NO KEY UPDATE", RUNNERS)
    ],
    "documents UPDATE": [
        ("UPDATE documents SET version = version WHERE id = '{document_id}'", WRITERS),
        ("UPDATE documents SET saved_version = 0 WHERE id = '{document_id}'", NOBODY),
    ],
    "document_updates INSERT": [
        (
            "INSERT INTO document_updates (document_id, version, update, actor_id, origin) "
            "VALUES ('{document_id}', 999, '', '{me}', 'x')",
            WRITERS,
        ),
        (
            "INSERT INTO document_updates (document_id, version, update, actor_id, origin) "
            "VALUES ('{document_id}', 999, '', '{olga}', 'x')",
            OLGA,
        ),
    ],
    "document_snapshots INSERT": [
        ("INSERT INTO document_snapshots VALUES ('{document_id}', 999, '')", WRITERS)
    ],
    "document_snapshots DELETE": [
        ("DELETE FROM document_snapshots WHERE document_id = '{document_id}'", WRITERS)
    ],
    "document_versions INSERT": [
        (
            "INSERT INTO document_versions (id, document_id, version, name, state, actor_id) "
            "VALUES (gen_random_uuid(), '{document_id}', 1, 'x', '', '{me}')",
            WRITERS,
        )
    ],
    "document_versions DELETE": [
        ("DELETE FROM document_versions WHERE document_id = '{document_id}'", WRITERS)
    ],
    "notebooks INSERT": [
        (
            "INSERT INTO notebooks (id, nbformat, nbformat_minor, metadata) "
            "VALUES ('{document_id}', 4, 5, '{{}}')",
            WRITERS,
        )
    ],
    "notebooks UPDATE": [("UPDATE notebooks SET nbformat = 4 WHERE id = '{document_id}'", WRITERS)],
    "text_contents INSERT": [
        ("INSERT INTO text_contents (id, text) VALUES ('{document_id}', '')", WRITERS)
    ],
    "text_contents UPDATE": [
        ("UPDATE text_contents SET text = '' WHERE id = '{document_id}'", WRITERS)
    ],
    "cells INSERT": [
        (
            "INSERT INTO cells (id, notebook_id, cell_id, position, cell_type, source, metadata) "
            "VALUES (gen_random_uuid(), '{document_id}', 'x', 9, 'code', 'x', '{{}}')",
            WRITERS,
        )
    ],
    "cells UPDATE": [
        ("UPDATE cells SET source = 'x' WHERE notebook_id = '{document_id}'", WRITERS),
        (
            "UPDATE cells SET execution_state = 'running' WHERE notebook_id = '{document_id}'",
            WRITERS,
        ),
    ],
    "cells DELETE": [("DELETE FROM cells WHERE notebook_id = '{document_id}'", WRITERS)],
    "outputs INSERT": [
        (
            "INSERT INTO outputs (cell_id, output_type, size_bytes) SELECT id, 'stream', 0 "
            "FROM cells WHERE notebook_id = '{document_id}' LIMIT 1",
            WRITERS,
        ),
        (
            "INSERT INTO outputs (execution_id, output_type, size_bytes) "
            "VALUES ('{execution_id}', 'stream', 0)",
            NOBODY,
        ),
    ],
    "kernels INSERT": [
        ("INSERT INTO kernels (id, name, owner_id) VALUES ('x', 'x', '{olga}')", OLGA)
    ],
    "sessions INSERT": [
        (
            "INSERT INTO sessions (id, path, type, kernel_id, owner_id) "
            "VALUES ('x', 'x', 'file', '{kernel_id}', '{me}')",
            OWNERS,
        )
    ],
    "sessions UPDATE": [
        ("UPDATE sessions SET name = name WHERE id = '{session_id}'", OWNERS),
        ("UPDATE sessions SET owner_id = '{me}' WHERE id = '{session_id}'", NOBODY),
    ],
    "executions INSERT": [
        (execution(), RUNNERS),
        (execution(document="'{document_id}'"), RUNNERS),
        (execution(actor="{olga}"), OLGA),
        (execution(status="running"), NOBODY),
    ],
    "idempotency_keys INSERT": [
        ("INSERT INTO idempotency_keys VALUES ('{olga}', 'x', '{execution_id}')", OLGA)
    ],
    "input_requests UPDATE": [
        ("UPDATE input_requests SET answered_by_id = '{me}'", RUNNERS),
        ("UPDATE input_requests SET answered_by_id = '{olga}'", OLGA),
        ("UPDATE input_requests SET prompt = 'x'", NOBODY),
    ],
    "terminals INSERT": [
        (
            "INSERT INTO terminals (id, name, owner_id, cwd) "
            "VALUES (gen_random_uuid(), 'x', '{olga}', '')",
            OLGA,
        )
    ],
    "users UPDATE": [
        ("UPDATE users SET color = 'red' WHERE id = '{olga}'", OLGA),
        ("UPDATE users SET admin = true", NOBODY),
    ],
    "config_sections INSERT": [
        ("INSERT INTO config_sections (user_id, name, data) VALUES ('{olga}', 'x', '{{}}')", OLGA)
    ],
    "config_sections UPDATE": [("UPDATE config_sections SET data = '{{}}'", OLGA)],
    "config_sections DELETE": [("DELETE FROM config_sections", OLGA)],
    "lab_settings INSERT": [
        (
            "INSERT INTO lab_settings (user_id, schema_id, raw, settings) "
            "VALUES ('{olga}', 'x', '', '{{}}')",
            OLGA,
        )
    ],
    "lab_settings UPDATE": [("UPDATE lab_settings SET raw = ''", OLGA)],
    "lab_settings DELETE": [("DELETE FROM lab_settings", OLGA)],
    "lab_workspaces INSERT": [
        (
            "INSERT INTO lab_workspaces (user_id, name, data, metadata) "
            "VALUES ('{olga}', 'x', '{{}}', '{{}}')",
            OLGA,
        )
    ],
    "lab_workspaces UPDATE": [("UPDATE lab_workspaces SET data = '{{}}'", OLGA)],
    "lab_workspaces DELETE": [("DELETE FROM lab_workspaces", OLGA)],
}


async def test_every_way_to_change_a_table_is_in_the_table(made: World) -> None:
    """What is not in it, the role of requests may not try at all."""
    query = """SELECT relname || ' ' || verb FROM pg_class,
               unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) verb
               WHERE relnamespace IN ('public'::regnamespace, 'analytics'::regnamespace)
               AND relkind IN ('r', 'p', 'v') AND CASE WHEN verb IN ('DELETE', 'TRUNCATE')
               THEN has_table_privilege('datastore_request', oid, verb)
               ELSE has_any_column_privilege('datastore_request', oid, verb) END"""
    async with made.database.read(as_server=True) as tx:
        found = set((await tx.execute(text(query))).scalars())
    assert found == {key for key in CHANGES if not key.endswith("LOCK")}


async def test_rows_are_changed_by_who_may_only(made: World) -> None:
    """What a route would forget to ask is refused by the tables."""
    async with made.database.transaction(as_server=True) as tx:
        for statement in MADE:
            await tx.execute(text(statement.format(**made.ids)))
    nobody = uuid.UUID(int=0)
    wrong = []
    for person in [*made.users, None]:
        me = made.users[person] if person else nobody
        for statement, allowed in (case for cases in CHANGES.values() for case in cases):
            query = text(statement.format(**made.ids, me=me, olga=made.users["olga"]))
            said = ""
            with asker.acting_for(made.users[person] if person else None):
                try:
                    async with made.database.transaction() as tx:
                        let = (await tx.execute(query)).rowcount > 0
                        await tx.rollback()
                except DBAPIError as error:
                    said = str(error.orig)
                    let = "permission denied" not in said and "row-level security" not in said
            if let != (person in allowed):
                wrong.append((statement, person, said))
    assert wrong == []


async def test_the_audit_stays_as_it_is(made: World) -> None:
    """Not even the server's own role changes or deletes an entry."""
    for statement in ("UPDATE audit SET event = 'x'", "DELETE FROM audit", "TRUNCATE audit"):
        with pytest.raises(DBAPIError, match=r"only be added to|permission denied"):
            async with made.database.transaction(as_server=True) as tx:
                await tx.execute(text(statement))
    assert {"grant", "revoke", "create_link"} <= await _events(made)


async def _events(made: World) -> set[str]:
    query = text("SELECT DISTINCT event FROM audit")
    async with made.database.read(as_server=True) as tx:
        return set((await tx.execute(query)).scalars())
