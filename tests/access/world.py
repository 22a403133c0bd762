"""One server with one of each kind of person, and things of one of them, Olga, to be shared."""

import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from sqlalchemy import select

from app.db import asker
from app.db.engine import Database
from app.people import people
from app.settings import Settings
from models import Comm, Content, Document, Terminal, User
from tests.conftest import TOKEN
from tests.kernels import until, write_notebook
from tests.live import LiveServer, live

# What each may do to the folder that Olga shares. Beside them: the admin, and Olga herself.
SHARED_WITH = {
    "viewer": "viewer",
    "runner": "runner",
    "editor": "editor",
    "owner": "owner",
    "member": None,  # by way of a group: a viewer
    "expired": "owner",
    "revoked": "owner",
    "disabled": "owner",
    "stranger": None,
}
KINDS = ("anonymous", "void token", "admin", "olga", *SHARED_WITH)
READERS = {"viewer", "runner", "editor", "owner", "member", "olga", "admin"}
RUNNERS = {"runner", "editor", "owner", "olga", "admin"}
WRITERS = {"editor", "owner", "olga", "admin"}
SHARERS = {"owner", "olga", "admin"}
# Whoever is nobody: no token, a revoked one, a disabled user.
NOBODIES = {"anonymous", "void token", "disabled"}
EVERYONE = set(KINDS) - NOBODIES

FOLDER = "home/olga/shared"
NOTEBOOK = f"{FOLDER}/n.ipynb"
_CODE = "from ipykernel.comm import Comm; c = Comm(target_name='t', data={'a': 1}); print('secret')"


@dataclass
class World:
    """The server, people's tokens and ids, and the ids of Olga's things by a parameter's name."""

    server: LiveServer
    database: Database
    tokens: dict[str, str | None]
    users: dict[str, uuid.UUID]
    ids: dict[str, str] = field(default_factory=dict)

    def headers(self, person: str) -> dict[str, str]:
        token = self.tokens[person]
        return {"Authorization": f"token {token}"} if token else {}

    async def ask(self, person: str, method: str, path: str, **more) -> httpx.Response:
        # One client, whose own token is left out, and no cookies of whoever asked before.
        client = self.server.http
        client.headers.pop("Authorization", None)
        client.cookies.clear()
        return await client.request(method, path, headers=self.headers(person), **more)


@contextlib.asynccontextmanager
async def world(root_dir: Path, database_url: str, data_dir: Path) -> AsyncIterator[World]:
    settings = Settings(root_dir=root_dir, owner="admin", kernel_poll_seconds=0.2)
    async with live(settings, database_url, data_dir) as server:
        database: Database = server.app.state.database
        with asker.acting_for(asker.Server.ITSELF):
            made = await _people(server, database)
            await _things(made, root_dir)
        yield made


async def _people(server: LiveServer, database: Database) -> World:
    tokens: dict[str, str | None] = {"anonymous": None, "void token": "no-such", "admin": TOKEN}
    users, ids = {}, {}
    async with database.transaction() as tx:
        users["admin"] = (await people.find_user(tx, "admin")).id
        for name in ("olga", *SHARED_WITH):
            user = await people.create_user(tx, name)
            users[name] = user.id
            token, tokens[name] = await people.create_token(tx, user, "test")
            if name == "olga":
                ids["token_id"] = str(token.id)
        olga = await people.find_user(tx, "olga")
        void, tokens["void token"] = await people.create_token(tx, olga, "void")
        await people.revoke_token(tx, void.id)
        group = await people.create_group(tx, "readers")
        await people.join(tx, group, await people.find_user(tx, "member"))
        await people.grant(
            tx, target=await people.target_of(tx), actions=["read", "execute"], user=olga
        )
    await server.app.state.homes.make()
    return World(server, database, tokens, users, ids)


async def _things(made: World, root_dir: Path) -> None:
    """Olga's shared folder and private file, and what runs for her."""
    (root_dir / FOLDER).mkdir(parents=True)
    (cell,) = write_notebook(root_dir / NOTEBOOK, _CODE)
    (root_dir / FOLDER / "text.txt").write_text("shared")
    (root_dir / "home/olga/private.txt").write_text("private")
    for folder in ("home/olga", FOLDER):
        assert (await made.ask("olga", "GET", f"/api/contents/{folder}")).status_code == 200
    database = made.database
    async with database.transaction() as tx:
        target = await people.target_of(tx, path=FOLDER)
        for name, role in SHARED_WITH.items():
            if role is not None:
                user = await people.find_user(tx, name)
                granted = await people.grant(
                    tx, target=target, actions=list(people.ROLES[role]), user=user
                )
                if name == "expired":
                    granted.expires_at = datetime.now(UTC) - timedelta(seconds=1)
                if name == "revoked":
                    await tx.flush()
                    await tx.delete(granted)
        group = await people.find_group(tx, "readers")
        granted = await people.grant(tx, target=target, actions=["read"], group=group)
        made.ids["permission_id"] = str(granted.id)
        disabled = await people.find_user(tx, "disabled")
        await people.set_disabled(tx, disabled, disabled=True)
    session = await made.ask(
        "olga", "POST", "/api/sessions", json={"path": NOTEBOOK, "type": "notebook", "kernel": {}}
    )
    assert session.status_code == 201, session.text
    kernel_id = session.json()["kernel"]["id"]
    made.ids |= {"session_id": session.json()["id"], "kernel_id": kernel_id}
    asked = await made.ask(
        "olga",
        "POST",
        f"/api/kernels/{kernel_id}/execute",
        json={"cell_id": cell, "path": NOTEBOOK, "idempotency_key": "k"},
    )
    assert asked.status_code == 202, asked.text
    made.ids["execution_id"] = asked.json()["id"]
    waited = await made.ask("olga", "GET", f"/api/executions/{asked.json()['id']}?wait=60")
    assert waited.json()["status"] == "ok", waited.text
    terminal = await made.ask("olga", "POST", "/api/terminals", json={"name": "olgas"})
    assert terminal.status_code == 200, terminal.text
    checkpoint = await made.ask("olga", "POST", f"/api/contents/{FOLDER}/text.txt/checkpoints")
    assert checkpoint.status_code == 201, checkpoint.text
    config = await made.ask("olga", "PUT", "/api/config/notebook", json={"a": 1})
    assert config.status_code == 204
    assert (await made.ask("olga", "GET", "/api/kernelspecs")).status_code == 200
    link = await made.ask(
        "olga", "POST", "/api/share-links", json={"path": FOLDER, "role": "viewer"}
    )
    assert link.status_code == 201, link.text
    made.ids |= {
        "terminal_id": "olgas",
        "checkpoint_id": checkpoint.json()["id"],
        "link_id": link.json()["id"],
    }

    async def comm_id() -> str | None:
        async with database.read(as_server=True) as tx:
            found = (await tx.execute(select(Comm.id).where(Comm.kernel_id == kernel_id))).first()
            return str(found[0]) if found else None

    made.ids["comm_id"] = await until(comm_id)
    async with database.read(as_server=True) as tx:
        made.ids["document_id"] = str(
            (
                await tx.execute(
                    select(Document.id)
                    .join(Content, Content.id == Document.content_id)
                    .where(Content.path == NOTEBOOK)
                )
            ).scalar_one()
        )
        assert (await tx.execute(select(Terminal.owner_id))).scalar_one() == made.users["olga"]
        assert (await tx.execute(select(User.id).where(User.name == "olga"))).scalar_one()
