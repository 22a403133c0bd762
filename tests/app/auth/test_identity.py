import uuid
from datetime import UTC, datetime, timedelta
from typing import Annotated

import pytest
from fastapi import APIRouter, FastAPI
from sqlalchemy import update

from app.auth.access import allow, check_declarations, public
from app.auth.identity import Identity, TokenAuthenticator, ensure_owner, hash_token
from models import Token, User


@pytest.fixture
async def authenticator(database):
    async with database.transaction() as tx:
        owner = await ensure_owner(tx, "ada")
    return TokenAuthenticator(database, token="serve-token", owner=owner)


@pytest.fixture
async def token(database):
    """A token of another user, as a row."""
    user = User(id=uuid.uuid4(), name="bob", display_name="Bob B.")
    async with database.transaction() as tx:
        tx.add(user)
        await tx.flush()
        tx.add(Token(user_id=user.id, name="laptop", prefix="bobs", hash=hash_token("bobs-token")))
    return "bobs-token"


async def test_the_servers_token_is_the_owners(authenticator):
    owner = await authenticator.identify("serve-token")
    assert (owner.name, owner.display_name) == ("ada", "ada")


async def test_a_stored_token_is_its_users(authenticator, token):
    assert (await authenticator.identify(token)).display_name == "Bob B."
    for wrong in ("", "bobs", "bobs-token ", "\ud800"):
        assert await authenticator.identify(wrong) is None


PAST = datetime.now(UTC) - timedelta(seconds=1)


@pytest.mark.parametrize(
    "statement",
    [
        update(Token).values(revoked_at=PAST),
        update(Token).values(expires_at=PAST),
        update(User).values(disabled_at=PAST),
    ],
    ids=["revoked", "expired", "disabled"],
)
async def test_what_was_taken_away_is_void(database, authenticator, token, statement):
    async with database.transaction() as tx:
        await tx.execute(statement)
    assert await authenticator.identify(token) is None


async def test_the_owner_is_made_once(database):
    async with database.transaction() as tx:
        first = await ensure_owner(tx, "ada")
    async with database.transaction() as tx:
        assert await ensure_owner(tx, "ada") == first


def test_a_route_that_declares_nothing_stops_the_app():
    app = FastAPI()

    @app.get("/declared")
    async def declared(_: Annotated[Identity, allow("read", "api")]) -> None: ...

    @app.get("/public")
    @public
    async def open_to_all() -> None: ...

    check_declarations(app)

    @app.get("/forgotten")
    async def forgotten() -> None: ...

    with pytest.raises(RuntimeError, match="/forgotten declares neither"):
        check_declarations(app)


def test_a_route_of_an_included_router_is_checked_too():
    router = APIRouter()

    @router.get("/forgotten")
    async def forgotten() -> None: ...

    app = FastAPI()
    app.include_router(router, prefix="/base")
    with pytest.raises(RuntimeError, match="/forgotten declares neither"):
        check_declarations(app)
