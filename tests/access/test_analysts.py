"""An analyst's SQL login sees what its person sees, and cannot become another."""

import uuid

import psycopg
import pytest
from click.testing import CliRunner
from sqlalchemy import make_url

from app.cli import main


@pytest.fixture
def run(database_url):
    def invoke(*arguments: str, fails: bool = False) -> str:
        result = CliRunner().invoke(main, [*arguments, "--database-url", database_url])
        assert (result.exit_code != 0) == fails, result.output
        return result.output

    return invoke


def test_an_sql_login_sees_what_its_person_may(run, database_url) -> None:
    for name in ("ada", "bob"):
        assert run("user", "create", name).strip()
    with psycopg.connect(database_url, autocommit=True) as owner:
        for name in ("ada", "bob"):
            owner.execute(
                "INSERT INTO kernels (id, name, owner_id, connection_info) "
                "SELECT %(n)s, 'python3', id, '{\"key\": 1}' FROM users WHERE name = %(n)s",
                {"n": name},
            )
            owner.execute(
                "INSERT INTO executions (id, kernel_id, incarnation, actor_id, run_as_id, client, "
                "msg_id, code, source_hash) SELECT "
                "(left(datastore_id_at(now())::text, 14) || substr(id::text, 15))::uuid, "
                "%(n)s, 1, id, id, 'api', %(n)s, '1', '' FROM users WHERE name = %(n)s",
                {"n": name},
            )
        (bob,) = owner.execute("SELECT id FROM users WHERE name = 'bob'").fetchone()
    role = f"ada_{uuid.uuid4().hex[:12]}"
    said = dict(
        line.split() for line in run("user", "sql-role", "ada", "--role", role).splitlines()
    )
    assert said["role"] == role
    try:
        url = make_url(database_url).set(username=role, password=said["password"])
        with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as analyst:
            history = "SELECT actor FROM analytics.execution_history"
            assert analyst.execute(history).fetchall() == [("ada",)]
            # Whatever it sets, it is the same person; and it can set no other role.
            analyst.execute("SELECT set_config('datastore.user_id', %s, false)", [str(bob)])
            analyst.execute("SET default_transaction_read_only = off")
            assert analyst.execute(history).fetchall() == [("ada",)]
            for refused in (
                "SET ROLE datastore_request",
                "SELECT * FROM public.passwords",
                "SELECT * FROM public.tokens",
                "SELECT * FROM public.sql_roles",
                "SELECT connection_info FROM public.kernels",
                "UPDATE public.executions SET code = '2'",
                f"SELECT public.datastore_may('{bob}', 'read', 'kernels', 'bob')",
                f"SELECT public.datastore_scope('{bob}', 'read')",
                "CREATE TABLE public.mine (a int)",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    analyst.execute(refused)
            run("user", "create", "root", "--admin")
            run("user", "disable", "ada")
            assert analyst.execute(history).fetchall() == []
    finally:
        run("user", "sql-role", "ada", "--drop")


def test_commands_manage_people(run) -> None:
    run("user", "create", "ada", "--admin")
    run("user", "create", "bob", "--display-name", "Bob B.")
    assert "already" in run("user", "create", "bob", fails=True)
    assert "last admin" in run("user", "disable", "ada", fails=True)
    run("user", "rename", "bob", "rob")
    run("user", "disable", "rob")
    assert "rob" in run("user", "list")
    run("user", "enable", "rob")
    run("group", "create", "staff")
    run("group", "join", "staff", "rob")
    assert run("group", "list").split()[-2:] == ["staff", "rob"]
    assert run("token", "create", "rob", "--scope", "read", "--expires", "2999-01-01").strip()
    assert "not an action" in run("token", "create", "rob", "--scope", "fly", fails=True)
    listed = [line.split() for line in run("token", "list", "rob").splitlines()[1:]]
    for row in listed:
        run("token", "revoke", row[0])
    assert len(run("token", "list", "rob").splitlines()) == 1
    permission = run("grant", "add", "viewer", "--group", "staff", "--path", "home/bob").strip()
    assert "group staff" in run("grant", "list", "--user", "rob")
    assert "/home/bob" in run("grant", "list", "--path", "home/bob")
    run("grant", "revoke", permission)
    assert len(run("grant", "list").splitlines()) == 1
    assert "No such file" in run("grant", "add", "viewer", "--everyone", "--path", "x", fails=True)
    run("group", "leave", "staff", "rob")
    run("group", "delete", "staff")
