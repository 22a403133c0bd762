"""Users and groups of JupyterHub as rows here: made at first sight, kept as the hub has them.

The hub decides who of its people is an admin and which of its groups they are in, again each time
it is asked. Groups that were made here are left alone, and so are users whose name merely is the
same: a row is the hub's person's only by its `hub_name`.
"""

import uuid
from datetime import timedelta

from sqlalchemy import any_, delete, exists, func, select
from sqlalchemy.exc import IntegrityError

from app.auth.hub_service import HubPerson
from app.contents import rows
from app.db.engine import Database, Transaction
from app.errors import ConflictError
from app.people import people
from app.people.homes import Homes
from models import Group, GroupMember, Token, User


class HubPeople:
    """Stores what the hub says of people and their tokens."""

    def __init__(self, database: Database, homes: Homes, *, fresh_seconds: float) -> None:
        self._database = database
        self._homes = homes
        self._fresh_seconds = fresh_seconds

    async def take_in(
        self, person: HubPerson, digest: bytes, scopes: list[str] | None
    ) -> tuple[User, Token]:
        """Bring the rows up to what the hub says of a token now; return user and token.

        Commits. A user that is disabled here stays so, and a token that was revoked here too.
        """
        try:
            user, row, is_new = await self._store(person, digest, scopes)
        except IntegrityError:  # another process saw the same person or token first
            user, row, is_new = await self._store(person, digest, scopes)
        if is_new:
            await self._homes.make()
        return user, row

    async def _store(
        self, person: HubPerson, digest: bytes, scopes: list[str] | None
    ) -> tuple[User, Token, bool]:
        async with self._database.transaction(as_server=True) as tx:
            query = select(Token).where(Token.hash == digest, Token.kind == "hub")
            row = (await tx.execute(query.with_for_update(key_share=True))).scalar_one_or_none()
            user, is_new = await _user_of(tx, person, row)
            row = _confirm(tx, row, user, digest=digest, person=person, scopes=scopes)
            await tx.flush()
            await self._set_admin(tx, user, admin=person.admin)
            if person.groups is not None:
                await _set_groups(tx, user, person.groups)
            await tx.flush()
            await tx.refresh(row)
        return user, row, is_new

    async def _set_admin(self, tx: Transaction, user: User, *, admin: bool) -> None:
        """An admin is whom the hub calls so, or who has a fresh token with that custom scope."""
        if not admin:
            fresh_since = func.now() - timedelta(seconds=self._fresh_seconds)
            query = select(
                exists().where(
                    Token.user_id == user.id,
                    Token.kind == "hub",
                    Token.revoked_at.is_(None),
                    Token.expires_at.is_(None),
                    Token.checked_at > fresh_since,
                    any_(Token.scopes) == "admin",
                )
            )
            admin = bool((await tx.execute(query)).scalar_one())
        if user.admin != admin:
            user.admin = admin


async def _user_of(tx: Transaction, person: HubPerson, row: Token | None) -> tuple[User, bool]:
    """Return the row of a hub's person, locked, and whether it was made now."""
    by_name = select(User).where(User.hub_name == person.hub_name).with_for_update(key_share=True)
    user = (await tx.execute(by_name)).scalar_one_or_none()
    if user is not None:
        return user, False
    if row is not None:
        # The hub has renamed whose token this is.
        renamed = (
            await tx.execute(
                select(User).where(User.id == row.user_id).with_for_update(key_share=True)
            )
        ).scalar_one()
        renamed.name = await _free_name(tx, User, person.name, but=renamed.id)
        renamed.hub_name = person.hub_name
        return renamed, False
    await rows.lock(tx)
    user = (await tx.execute(by_name)).scalar_one_or_none()
    if user is not None:
        return user, False
    name = await _free_name(tx, User, person.name)
    user = await people.create_user(tx, name, home=not person.is_service, hub_name=person.hub_name)
    return user, True


async def _free_name(
    tx: Transaction, table: type[User] | type[Group], name: str, *, but: uuid.UUID | None = None
) -> str:
    """Return a name that nobody else has here: the hub's, or that with `@hub` behind."""
    for wanted in (name, f"{name}@hub", *(f"{name}@hub-{n}" for n in range(2, 100))):
        taken = select(table.id).where(table.name == wanted, table.id.is_distinct_from(but))
        if (await tx.execute(taken)).first() is None:
            return wanted
    raise ConflictError(f"There is no free name for {name!a}")


def _confirm(
    tx: Transaction,
    row: Token | None,
    user: User,
    *,
    digest: bytes,
    person: HubPerson,
    scopes: list[str] | None,
) -> Token:
    """Say in a token's row that the hub has confirmed it now, and what it is good for."""
    if row is None:
        row = Token(
            id=uuid.uuid4(),
            user_id=user.id,
            kind="hub",
            name=f"JupyterHub: {person.hub_name}",
            prefix="",
            hash=digest,
        )
        tx.add(row)
    # What does not change is not written: writing these wakes all servers.
    if row.user_id != user.id:
        row.user_id = user.id
    if row.scopes != scopes:
        row.scopes = scopes
    if row.expires_at is not None:
        row.expires_at = None
    row.checked_at = row.last_used_at = func.now()
    return row


async def _set_groups(tx: Transaction, user: User, wanted: frozenset[str]) -> None:
    """Put a user into the hub's groups that they are in there, and out of its others."""
    query = (
        select(Group)
        .join(GroupMember, GroupMember.group_id == Group.id)
        .where(GroupMember.user_id == user.id, Group.hub_name.is_not(None))
    )
    now_in = {group.hub_name or "": group for group in (await tx.execute(query)).scalars()}
    for name in sorted(wanted - now_in.keys()):
        group = await _group(tx, name)
        await people.join(tx, group, user)
    for name in sorted(now_in.keys() - wanted):
        group = now_in[name]
        await tx.execute(
            delete(GroupMember).where(
                GroupMember.group_id == group.id, GroupMember.user_id == user.id
            ),
            execution_options={"synchronize_session": False},
        )


async def _group(tx: Transaction, hub_name: str) -> Group:
    """Return the row of a group of the hub's, made if absent."""
    query = select(Group).where(Group.hub_name == hub_name)
    group = (await tx.execute(query)).scalar_one_or_none()
    if group is None:
        await rows.lock(tx)
        group = (await tx.execute(query)).scalar_one_or_none()
    if group is None:
        name = await _free_name(tx, Group, hub_name)
        group = await people.create_group(tx, name, hub_name=hub_name)
    return group
