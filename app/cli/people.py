"""`jupyter-datastore user|group|token|grant`: people and what they may, in the database itself.

A server that runs on the database takes each change up at once. Whoever can reach the database may
do all of this; over HTTP the same is for admins (docs/permissions.md).
"""

import asyncio
import getpass
import os
import secrets
import sys
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any

import click
from sqlalchemy import func, select

from app.auth.passwords import set_password
from app.cli.db import require_url
from app.db import asker, migrations
from app.db.engine import Database, Transaction
from app.errors import DomainError
from app.people import people
from app.people.sql_roles import create_sql_role, drop_sql_role
from models import Content, Group, GroupMember, Permission, ShareLink, Token, User


def _in_transaction(work: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Make a command of a function of a transaction; adds the options that name the database."""

    @click.option("--database-url", envvar="DATASTORE_DATABASE_URL", help="An external PostgreSQL.")
    @click.option(
        "--data-dir",
        envvar="DATASTORE_DATA_DIR",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where the embedded PostgreSQL of a running server keeps its data.",
    )
    @wraps(work)
    def command(*, database_url: str | None, data_dir: Path | None, **options: Any) -> None:
        url = require_url(database_url, data_dir)
        try:
            migrations.require_current(url)
            asyncio.run(_run(url, lambda tx: work(tx, **options)))
        except (DomainError, migrations.SchemaBehindError) as error:
            raise click.ClickException(str(error)) from error

    return command


async def _run(url: str, work: Callable[[Transaction], Awaitable[None]]) -> None:
    asker.act_for(asker.Server.ITSELF)
    database = Database(url, pool_size=1)
    try:
        async with database.transaction() as tx:
            # The audit has no person for what is done here; it says which command of whose it was.
            name = f"{click.get_current_context().command_path} by {_account()}"
            await tx.execute(select(func.set_config("application_name", name, True)))
            await work(tx)
    finally:
        await database.close()


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name
        return str(os.getuid())


def _table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Print rows in columns."""
    shown = [[("" if cell is None else str(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[n]) for row in shown) for n in range(len(shown[0]))]
    for row in shown:
        click.echo("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())


_expires = click.option(
    "--expires",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]),
    help="When it ends, in this machine's time zone.",
)


def _local(moment: datetime | None) -> datetime | None:
    return moment.astimezone() if moment else None


# user


@click.group()
def user() -> None:
    """Users: create, list, rename, disable; their passwords and SQL log-ins."""


@user.command("create")
@click.argument("name")
@click.option("--display-name", help="What others are shown.")
@click.option("--admin", is_flag=True, help="They may everything.")
@click.option("--no-home", is_flag=True, help="Without a home folder.")
@click.option("--password", is_flag=True, help="Ask for a password, or read it from a pipe.")
@_in_transaction
async def create_user(
    tx: Transaction,
    name: str,
    display_name: str | None,
    *,
    admin: bool,
    no_home: bool,
    password: bool,
) -> None:
    """Make a user, and print a token for them, which is shown once."""
    made = await people.create_user(
        tx, name, display_name=display_name, admin=admin, home=not no_home
    )
    if password:
        await set_password(tx, made.id, _read_password())
    _, secret = await people.create_token(tx, made, "first")
    click.echo(secret)


def _read_password() -> str:
    if sys.stdin.isatty():
        typed: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
        return typed
    return sys.stdin.readline().rstrip("\n")


@user.command("list")
@_in_transaction
async def list_users(tx: Transaction) -> None:
    """List users."""
    query = select(User, Content.path).outerjoin(Content, Content.id == User.home_id)
    rows = (await tx.execute(query.order_by(User.name))).all()
    _table(
        ("name", "admin", "home", "disabled"),
        (
            (u.name, "yes" if u.admin else "", home, u.disabled_at and f"{u.disabled_at:%F %R}")
            for u, home in rows
        ),
    )


@user.command("rename")
@click.argument("name")
@click.argument("new_name")
@_in_transaction
async def rename_user(tx: Transaction, name: str, new_name: str) -> None:
    """Give a user another name."""
    await people.rename(tx, await people.find_user(tx, name), new_name)


@user.command("link")
@click.argument("name")
@click.argument("hub_name")
@_in_transaction
async def link_user(tx: Transaction, name: str, hub_name: str) -> None:
    """Say that a user is this one of JupyterHub's; an empty HUB_NAME says that they are none."""
    await people.link(tx, await people.find_user(tx, name), hub_name or None)


@user.command("disable")
@click.argument("name")
@_in_transaction
async def disable_user(tx: Transaction, name: str) -> None:
    """End a user's access, at once."""
    await people.set_disabled(tx, await people.find_user(tx, name), disabled=True)


@user.command("enable")
@click.argument("name")
@_in_transaction
async def enable_user(tx: Transaction, name: str) -> None:
    """Give a disabled user their access back."""
    await people.set_disabled(tx, await people.find_user(tx, name), disabled=False)


@user.command("admin")
@click.argument("name")
@click.option("--yes/--no", "admin", default=True, help="Make them an admin, or not one.")
@_in_transaction
async def make_admin(tx: Transaction, name: str, *, admin: bool) -> None:
    """Make a user an admin, or not one any longer."""
    await people.set_admin(tx, await people.find_user(tx, name), admin=admin)


@user.command("password")
@click.argument("name")
@_in_transaction
async def change_password(tx: Transaction, name: str) -> None:
    """Set a user's password (asked for, or read from a pipe); ends their log-ins."""
    found = await people.find_user(tx, name)
    await set_password(tx, found.id, _read_password())


@user.command("sql-role")
@click.argument("name")
@click.option("--role", help="The role's name.  [default: the database's and the user's names]")
@click.option("--drop", is_flag=True, help="Remove it again.")
@_in_transaction
async def sql_role(tx: Transaction, name: str, role: str | None, *, drop: bool) -> None:
    """Make a PostgreSQL login that sees, read-only, what a person may see; print it."""
    found = await people.find_user(tx, name)
    if drop:
        await drop_sql_role(tx, found, role)
        return
    password = secrets.token_urlsafe(24)
    click.echo(f"role      {await create_sql_role(tx, found, role, password)}")
    click.echo(f"password  {password}")


# group


@click.group()
def group() -> None:
    """Groups: create, list, rename, delete; who is in them."""


@group.command("create")
@click.argument("name")
@_in_transaction
async def create_group(tx: Transaction, name: str) -> None:
    """Make a group."""
    await people.create_group(tx, name)


@group.command("list")
@_in_transaction
async def list_groups(tx: Transaction) -> None:
    """List groups and who is in them."""
    members = func.string_agg(User.name, ", ")
    query = (
        select(Group.name, members)
        .outerjoin(GroupMember, GroupMember.group_id == Group.id)
        .outerjoin(User, User.id == GroupMember.user_id)
        .group_by(Group.name)
        .order_by(Group.name)
    )
    _table(("name", "members"), (await tx.execute(query)).all())


@group.command("rename")
@click.argument("name")
@click.argument("new_name")
@_in_transaction
async def rename_group(tx: Transaction, name: str, new_name: str) -> None:
    """Give a group another name."""
    await people.rename(tx, await people.find_group(tx, name), new_name)


@group.command("delete")
@click.argument("name")
@_in_transaction
async def delete_group(tx: Transaction, name: str) -> None:
    """Remove a group, with what it was granted."""
    await tx.delete(await people.find_group(tx, name))


@group.command("join")
@click.argument("name")
@click.argument("user_name")
@_in_transaction
async def join_group(tx: Transaction, name: str, user_name: str) -> None:
    """Put a user into a group."""
    found = await people.find_group(tx, name)
    await people.join(tx, found, await people.find_user(tx, user_name))


@group.command("leave")
@click.argument("name")
@click.argument("user_name")
@_in_transaction
async def leave_group(tx: Transaction, name: str, user_name: str) -> None:
    """Take a user out of a group."""
    found = await people.find_group(tx, name)
    await people.leave(tx, found, await people.find_user(tx, user_name))


# token


@click.group()
def token() -> None:
    """Tokens: create, list, revoke."""


@token.command("create")
@click.argument("user_name")
@click.option("--name", default="token", show_default=True, help="What it is for.")
@click.option("--scope", "scopes", multiple=True, help="read, execute:kernels, ...; else all.")
@_expires
@_in_transaction
async def create_token(
    tx: Transaction, user_name: str, name: str, scopes: tuple[str, ...], expires: datetime | None
) -> None:
    """Make a token and print it; it is shown once."""
    found = await people.find_user(tx, user_name)
    _, secret = await people.create_token(
        tx, found, name, scopes=scopes or None, expires_at=_local(expires)
    )
    click.echo(secret)


@token.command("list")
@click.argument("user_name", required=False)
@_in_transaction
async def list_tokens(tx: Transaction, user_name: str | None) -> None:
    """List tokens and log-ins that are not revoked."""
    query = (
        select(Token, User.name)
        .join(User, User.id == Token.user_id)
        .where(Token.revoked_at.is_(None))
        .order_by(User.name, Token.created_at)
    )
    if user_name is not None:
        query = query.where(User.name == user_name)
    _table(
        ("id", "user", "kind", "name", "begins", "scopes", "expires", "used"),
        (
            (
                t.id,
                name,
                t.kind,
                t.name,
                t.prefix,
                " ".join(t.scopes) if t.scopes is not None else "all",
                t.expires_at and f"{t.expires_at:%F %R}",
                t.last_used_at and f"{t.last_used_at:%F %R}",
            )
            for t, name in (await tx.execute(query)).all()
        ),
    )


@token.command("revoke")
@click.argument("token_id", type=click.UUID)
@_in_transaction
async def revoke_token(tx: Transaction, token_id: Any) -> None:
    """Make a token void, at once."""
    if await tx.get(Token, token_id) is None:
        raise click.ClickException(f"There is no token {token_id}")
    await people.revoke_token(tx, token_id)


# grant


@click.group()
def grant() -> None:
    """Permissions: give, list, take back."""


@grant.command("add")
@click.argument("role", type=click.Choice(list(people.ROLES)))
@click.option("--user", "user_name", help="To whom.")
@click.option("--group", "group_name", help="To which group.")
@click.option("--everyone", is_flag=True, help="To everyone who has logged in.")
@click.option("--path", help="On a file, or a folder and what is under it.")
@click.option("--kernel", "kernel_id", help="On a kernel.")
@click.option("--server", is_flag=True, help="On the server: terminals are `runner`.")
@_expires
@_in_transaction
async def add_grant(
    tx: Transaction,
    *,
    role: str,
    user_name: str | None,
    group_name: str | None,
    path: str | None,
    kernel_id: str | None,
    expires: datetime | None,
    everyone: bool,
    server: bool,
) -> None:
    """Give somebody a role on something; print the permission's id."""
    if (user_name is not None) + (group_name is not None) + everyone != 1:
        raise click.UsageError("Name one of --user, --group and --everyone")
    if (path is not None) + (kernel_id is not None) + server != 1:
        raise click.UsageError("Name one of --path, --kernel and --server")
    made = await people.grant(
        tx,
        target=await people.target_of(tx, path=path, kernel_id=kernel_id),
        actions=list(people.ROLES[role]),
        user=await people.find_user(tx, user_name) if user_name is not None else None,
        group=await people.find_group(tx, group_name) if group_name is not None else None,
        expires_at=_local(expires),
    )
    click.echo(made.id)


@grant.command("list")
@click.option("--user", "user_name", help="Only what this user was given, by name or by group.")
@click.option("--path", help="Only on this path, and on the folders it is in.")
@_in_transaction
async def list_grants(tx: Transaction, user_name: str | None, path: str | None) -> None:
    """List permissions."""
    query = (
        select(Permission, User.name, Group.name, Content.path)
        .outerjoin(User, User.id == Permission.user_id)
        .outerjoin(Group, Group.id == Permission.group_id)
        .outerjoin(Content, Content.id == Permission.content_id)
        .order_by(Permission.created_at)
    )
    if user_name is not None:
        found = await people.find_user(tx, user_name)
        query = query.where(people.is_given_to(found.id))
    if path is not None:
        query = query.where(Content.path.in_(people.above(path.strip("/"))))
    _table(
        ("id", "to", "role", "on", "expires"),
        (
            (
                p.id,
                user_name or (group_name and f"group {group_name}") or "everyone",
                people.role_of(p.actions) or " ".join(p.actions),
                (p.kernel_id and f"kernel {p.kernel_id}") or ("server" if on is None else f"/{on}"),
                p.expires_at and f"{p.expires_at:%F %R}",
            )
            for p, user_name, group_name, on in (await tx.execute(query)).all()
        ),
    )


@grant.command("revoke")
@click.argument("permission_id", type=click.UUID)
@_in_transaction
async def revoke_grant(tx: Transaction, permission_id: Any) -> None:
    """Take a permission, or a link, back, at once."""
    if (found := await tx.get(Permission, permission_id)) is not None:
        await tx.delete(found)
    elif (link := await tx.get(ShareLink, permission_id)) is not None:
        await people.revoke_link(tx, link)
    else:
        raise click.ClickException(f"There is no permission {permission_id}")
