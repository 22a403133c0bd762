"""Snapshot + changes = fresh snapshot, after every action of the API; and a kernel's order.

One client follows every table from the start. After each action it must come to hold what a plain
read of each table gives then, without ever having been told to fetch again.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from app.changes.tables import TABLES
from app.settings import Settings
from tests.feed import Follower, following
from tests.live import LiveServer, live

NOTEBOOK = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {},
    "cells": [
        {
            "id": "one",
            "cell_type": "code",
            "source": "print('hello')\n1 + 1",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
        },
        {"id": "two", "cell_type": "markdown", "source": "# text", "metadata": {}},
    ],
}
COMM = """
from ipykernel.comm import Comm
c = Comm(target_name="t", data={"a": 1})
c.send({"b": 2})
"""


async def fresh(http: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    """Every table as a plain read has it."""
    found = {}
    for name in TABLES:
        answer = await http.get(f"/api/datastore/tables/{name}", params={"limit": 10_000})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert page["next"] is None
        found[name] = {Follower._id(name, record): record for record in page["records"]}
    return found


async def agree(follower: Follower, http: httpx.AsyncClient, action: str) -> None:
    """Wait until the client holds what a fresh read gives."""
    differing: list[str] = []
    try:
        async with asyncio.timeout(30):
            while True:
                table = await fresh(http)
                differing = [n for n in TABLES if follower.records[n] != table[n]]
                if not differing:
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"after {action}: {differing} differ") from None


class Api:
    """The API's actions, with what earlier ones made."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.made: dict[str, Any] = {}

    async def ask(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        answer = await self.http.request(method, path, json=body)
        assert answer.status_code == status, f"{method} {path}: {answer.text}"
        return answer.json() if answer.content else None

    async def finish(self, execution: dict[str, Any]) -> dict[str, Any]:
        return await self.ask("GET", f"/api/executions/{execution['id']}?wait=60")

    async def execute(self, body: dict[str, Any]) -> dict[str, Any]:
        path = f"/api/kernels/{self.made['kernel']}/execute"
        return await self.ask("POST", path, body, 202)

    # one method an action, in this order

    async def list_kernelspecs(self) -> None:
        await self.ask("GET", "/api/kernelspecs")

    async def save_notebook(self) -> None:
        body = {"type": "notebook", "content": NOTEBOOK}
        await self.ask("PUT", "/api/contents/a.ipynb", body, 201)

    async def open_notebook(self) -> None:
        await self.ask("GET", "/api/contents/a.ipynb")

    async def make_folder(self) -> None:
        await self.ask("PUT", "/api/contents/d", {"type": "directory"}, 201)

    async def new_file(self) -> None:
        await self.ask("POST", "/api/contents/d", {"type": "file", "ext": ".txt"}, 201)

    async def copy(self) -> None:
        await self.ask("POST", "/api/contents/d", {"copy_from": "a.ipynb"}, 201)

    async def list_folder(self) -> None:
        await self.ask("GET", "/api/contents/d")

    async def checkpoint(self) -> None:
        made = await self.ask("POST", "/api/contents/a.ipynb/checkpoints", None, 201)
        self.made["checkpoint"] = made["id"]

    async def start_session(self) -> None:
        body = {"path": "a.ipynb", "name": "a", "type": "notebook", "kernel": {"name": "python3"}}
        made = await self.ask("POST", "/api/sessions", body, 201)
        self.made.update(session=made["id"], kernel=made["kernel"]["id"])

    async def run_cells(self) -> None:
        path = f"/api/sessions/{self.made['session']}/run"
        for execution in (await self.ask("POST", path, {"cells": "all"}, 202))["executions"]:
            await self.finish(execution)

    async def execute_code(self) -> None:
        await self.finish(await self.execute({"code": "1/0"}))

    async def execute_much(self) -> None:
        code = "import sys\nfor i in range(300):\n  print(i); print(i, file=sys.stderr)"
        await self.finish(await self.execute({"code": code}))

    async def answer_input(self) -> None:
        execution = await self.execute({"code": "print(input('name? '))"})
        path = f"/api/executions/{execution['id']}"
        async with asyncio.timeout(30):
            while not (await self.ask("GET", path))["input_request"]:
                await asyncio.sleep(0.05)
        await self.ask("POST", f"{path}/input", {"value": "ada"}, 201)
        await self.finish(execution)

    async def cancel(self) -> None:
        first = await self.execute({"code": "import time; time.sleep(30)"})
        second = await self.execute({"code": "2"})
        await self.ask("DELETE", f"/api/executions/{second['id']}", None, 204)
        async with asyncio.timeout(30):
            while (await self.ask("GET", f"/api/executions/{first['id']}"))["status"] == "queued":
                await asyncio.sleep(0.05)
        await self.ask("DELETE", f"/api/executions/{first['id']}", None, 204)
        await self.finish(first)

    async def use_comm(self) -> None:
        await self.finish(await self.execute({"code": COMM}))
        comms = await self.ask("GET", f"/api/kernels/{self.made['kernel']}/comms")
        self.made["comm"] = comms[0]["id"]
        path = f"/api/comms/{comms[0]['id']}"
        await self.ask("POST", f"{path}/messages", {"data": {"x": 1}}, 202)

    async def close_comm(self) -> None:
        await self.ask("DELETE", f"/api/comms/{self.made['comm']}", None, 204)

    async def interrupt_kernel(self) -> None:
        await self.ask("POST", f"/api/kernels/{self.made['kernel']}/interrupt", None, 204)

    async def restart_kernel(self) -> None:
        await self.ask("POST", f"/api/kernels/{self.made['kernel']}/restart")

    async def patch_session(self) -> None:
        await self.ask("PATCH", f"/api/sessions/{self.made['session']}", {"name": "renamed"})

    async def rename(self) -> None:
        await self.ask("PATCH", "/api/contents/a.ipynb", {"path": "d/b.ipynb"})

    async def rename_folder(self) -> None:
        await self.ask("PATCH", "/api/contents/d", {"path": "e"})

    async def terminal(self) -> None:
        made = await self.ask("POST", "/api/terminals")
        await self.ask("DELETE", f"/api/terminals/{made['name']}", None, 204)

    async def patch_config(self) -> None:
        await self.ask("PATCH", "/api/config/notebook", {"a": {"b": 1}})

    async def patch_me(self) -> None:
        await self.http.patch("/api/me", json={"display_name": "Ada L."})

    async def people(self) -> None:
        user = await self.ask("POST", "/api/users", {"name": "bob"}, 201)
        group = await self.ask("POST", "/api/groups", {"name": "lab"}, 201)
        path = f"/api/groups/{group['id']}/members/{user['id']}"
        await self.ask("PUT", path, None, 204)
        # Others' memberships are theirs; one's own is told.
        me = (await self.ask("GET", "/api/me"))["identity"]["username"]
        users = (await self.ask("GET", "/api/datastore/tables/users"))["records"]
        (mine,) = [found["id"] for found in users if found["name"] == me]
        await self.ask("PUT", f"/api/groups/{group['id']}/members/{mine}", None, 204)

    async def edit_text(self) -> None:
        body = {"type": "file", "format": "text", "content": "one"}
        await self.ask("PUT", "/api/contents/t.txt", body, 201)
        path = "/api/collaboration/session/t.txt"
        opened = await self.ask("PUT", path, {"format": "text", "type": "file"}, 201)
        self.made["text"] = opened["fileId"]
        await self.ask("PUT", "/api/contents/t.txt", {**body, "content": "one two"})

    async def name_version(self) -> None:
        path = f"/api/documents/{self.made['text']}/versions"
        await self.ask("POST", path, {"name": "first"}, 201)
        await self.ask("POST", path, {"name": "second"}, 201)
        await self.ask("DELETE", f"{path}/first", None, 204)

    async def fork(self) -> None:
        path = f"/api/collaboration/fork/text:file:{self.made['text']}"
        await self.ask("PUT", path, {"title": "kept"}, 201)
        made = await self.ask("PUT", path, {"title": "dropped"}, 201)
        await self.ask("DELETE", f"/api/collaboration/fork/{made['fork_roomid']}")

    async def lab_workspace(self) -> None:
        for name in ("mine", "other"):
            body = {"data": {"a": 1}, "metadata": {"id": name}}
            await self.ask("PUT", f"/lab/api/workspaces/{name}", body, 204)
        await self.ask("DELETE", "/lab/api/workspaces/other", None, 204)

    async def lab_setting(self) -> None:
        path = "/lab/api/settings/@jupyterlab/apputils-extension:themes"
        await self.ask("PUT", path, {"raw": '{"theme": "JupyterLab Dark"}'}, 204)
        await self.ask("PUT", path, {"raw": "{}"}, 204)

    async def refresh(self) -> None:
        for what in ("kernelspecs", "status", "kernels", "sessions"):
            await self.ask("POST", f"/api/{what}/refresh")

    async def delete_session(self) -> None:
        await self.ask("DELETE", f"/api/sessions/{self.made['session']}", None, 204)

    async def start_and_delete_kernel(self) -> None:
        made = await self.ask("POST", "/api/kernels", {}, 201)
        await self.ask("DELETE", f"/api/kernels/{made['id']}", None, 204)

    async def delete_contents(self) -> None:
        await self.ask("DELETE", "/api/contents/e", None, 204)


def actions(api: Api) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
    names = list(vars(Api))
    return [
        (name, getattr(api, name))
        for name in names[names.index("list_kernelspecs") :]
        if not name.startswith("_")
    ]


async def test_after_every_action_a_client_holds_what_a_fresh_read_gives(
    settings: Settings, database_url: str, tmp_path: Path
):
    settings.watch_files = False
    settings.delete_to_trash = False
    settings.always_delete_dir = True
    async with live(settings, database_url, tmp_path / "data") as server:
        everything = {name: {"table": name} for name in TABLES}
        async with following(server, everything) as follower:
            await agree(follower, server.http, "connecting")
            api = Api(server.http)
            done = actions(api)
            assert len(done) == 34
            for name, action in done:
                await action()
                await agree(follower, server.http, name)
            assert not follower.of_type("must_refetch")
            assert not follower.of_type("lagging")
            touched = {
                change["table"]
                for message in follower.of_type("changes")
                for transaction in message["transactions"]
                for change in transaction["changes"]
            }
            # All that the API can change was changed.
            assert touched >= set(TABLES) - {"presence", "server_status"}
            check_order(follower)


def check_order(follower: Follower) -> None:
    """What one kernel said came in the order in which it said it."""
    outputs: list[int] = []
    messages: list[int] = []
    ended: set[str] = set()
    for message in follower.of_type("changes"):
        finished: set[str] = set()
        for transaction in message["transactions"]:
            for change in transaction["changes"]:
                if change["op"] != "upsert":
                    continue
                record = change["record"]
                if change["table"] == "outputs" and change["changed"] is None:
                    outputs.append(record["id"])
                    assert record["execution_id"] not in ended, "an output after the end"
                elif change["table"] == "comm_messages" and change["changed"] is None:
                    messages.append(record["id"])
                elif change["table"] == "executions" and record["finished_at"]:
                    finished.add(record["id"])
        ended |= finished
    assert len(outputs) > 5
    assert outputs == sorted(outputs)
    assert messages == sorted(messages)


async def test_a_second_client_sees_a_run_as_it_happens(
    settings: Settings, database_url: str, tmp_path: Path
):
    """A kernel's output reaches another client while the code still runs."""
    async with live(settings, database_url, tmp_path / "data") as server:
        assert isinstance(server, LiveServer)
        kernel = (await server.http.post("/api/kernels", json={})).json()["id"]
        where = {"where": {"kernel_id": kernel}}
        async with following(
            server,
            {"o": {"table": "outputs", **where}, "e": {"table": "executions", **where}},
        ) as follower:
            code = "print('first', flush=True)\nprint(input())"
            body = json.dumps({"code": code})
            await server.http.post(f"/api/kernels/{kernel}/execute", content=body)
            (output,) = await follower.until(lambda: list(follower.records["o"].values()))
            assert output["text"] == "first\n"
            (execution,) = follower.records["e"].values()
            assert execution["status"] == "running"
