"""Adding, watching, comparing and removing replicas, on three real clusters."""

import json
import uuid

import psycopg
import pytest
from click.testing import CliRunner
from sqlalchemy import make_url

from app.cli import main
from app.db import migrations
from app.replication import replicas, status, subscriber
from app.replication.addresses import ReplicationError, without_password
from models.publication import PUBLISHED, WITHHELD
from tests.app.replication.clusters import (
    add_replica,
    differences,
    eventually,
    execute,
    make_history,
    new_database,
    one,
    status_of,
)
from tests.app.replication.conftest import Clusters


@pytest.fixture
def url(clusters: Clusters) -> str:
    """A migrated database with a little history and secrets, without replicas."""
    made = new_database(clusters.publisher, f"p_{uuid.uuid4().hex[:8]}", migrated=True)
    make_history(made, 20)
    user = one(made, "SELECT id FROM users")
    execute(
        made,
        "INSERT INTO tokens (id, user_id, name, prefix, hash) VALUES (%s, %s, 't', 'p', 'hash')",
        uuid.uuid4(),
        user,
    )
    execute(
        made,
        "INSERT INTO kernelspecs (id, name, spec, resources) VALUES (%s, 'python3',"
        """ '{"env": {"API_KEY": "the-api-key"}}', '{}')""",
        uuid.uuid4(),
    )
    yield made
    for replica in status.read(made, wait_seconds=0):
        replicas.remove(made, replica.replica.name, force=True)


@pytest.fixture
def target(clusters: Clusters) -> str:
    return new_database(clusters.first, f"r_{uuid.uuid4().hex[:8]}")


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_a_replica_from_add_to_remove(url: str, target: str):
    code, said = run("replica", "add", "--database-url", url, "--target", target)
    assert code == 0, said
    assert "replica_1 holds a copy of every published table." in said
    make_history(url, 5)
    assert differences(url, "replica_1") == {}
    assert one(target, "SELECT count(*) FROM executions") == 25
    assert migrations.current(target) == migrations.head()

    code, said = run("replica", "status", "--database-url", url)
    assert code == 0, said
    assert "following" in said
    code, said = run("replica", "check", "--database-url", url, "replica_1")
    assert code == 0, said
    assert said.count("equal") == len(PUBLISHED)

    # Again: it is there, nothing changes.
    code, said = run("replica", "add", "--database-url", url, "--target", target)
    assert code == 0, said
    assert one(target, "SELECT count(*) FROM executions") == 25

    code, said = run("replica", "remove", "--database-url", url, "replica_1")
    assert code == 0, said
    query = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"
    assert one(url, query) == 0
    assert subscriber_names(target) == []
    assert one(target, "SELECT count(*) FROM executions") == 25
    assert run("replica", "status", "--database-url", url) == (0, "There are no replicas.\n")


def subscriber_names(target: str) -> list[str]:
    with replicas.connect(target) as connection:
        return subscriber.subscriptions(connection)


def test_no_secret_is_on_a_replica(url: str, target: str):
    add_replica(url, target)
    make_history(url, 10)
    assert differences(url, "replica_1") == {}
    everything = ""
    for table in [*PUBLISHED, *WITHHELD]:
        rows = execute(target, f"SELECT to_jsonb(t) FROM {table} t")
        everything += json.dumps(rows, default=str)
        if table in WITHHELD:
            assert rows == [], table
    assert "x = 1" in everything
    for secret in ("the-signing-key", "the-api-key", "secret-", "typed", "Secret?"):
        assert secret not in everything, secret
    assert one(url, "SELECT count(*) FROM input_requests WHERE password") > 0


def test_triggers_and_constraints_stay_out_of_the_way_and_policies_hold(
    clusters: Clusters, url: str, target: str
):
    add_replica(url, target)
    # Rows refer to tables that are not published, and a finished execution is corrected by SQL
    # without its trigger: the replica takes both.
    execute(url, "SET session_replication_role = replica; UPDATE executions SET status = 'aborted'")
    assert differences(url, "replica_1") == {}
    assert one(target, "SELECT count(*) FROM executions WHERE status = 'aborted'") == 20
    # A login that is merely granted SELECT sees the rows of the person it stands for.
    role = f"analyst_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role}")
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        ada = connection.execute("SELECT id FROM users WHERE name = 'ada'").fetchone()[0]
        connection.execute(f"SET ROLE {role}")
        assert connection.execute("SELECT count(*) FROM executions").fetchone() == (0,)
        connection.execute("SELECT set_config('datastore.user_id', %s, false)", [str(ada)])
        assert connection.execute("SELECT count(*) FROM executions").fetchone() == (20,)
        connection.execute("RESET ROLE")
        connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_two_replicas_one_in_the_publishers_cluster(clusters: Clusters, url: str, target: str):
    add_replica(url, target, name="near")
    other = new_database(clusters.publisher, f"r_{uuid.uuid4().hex[:8]}")
    add_replica(url, other)
    make_history(url, 5)
    assert differences(url, "near") == differences(url, "replica_1") == {}
    with pytest.raises(ReplicationError, match="there are: near, replica_1"):
        replicas.remove(url, "nobody")
    replicas.remove(url, "replica_1")
    execute(clusters.publisher.url, f'DROP DATABASE "{other.split("/")[-1].split("?")[0]}"')


def test_what_cannot_be_a_replica_is_refused_and_leaves_nothing(
    clusters: Clusters, url: str, target: str
):
    with pytest.raises(ReplicationError, match="own database"):
        replicas.add(url, url)
    with pytest.raises(ReplicationError, match="Cannot connect"):
        replicas.add(url, "postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(ReplicationError, match="Not the URL"):
        replicas.add(url, "sqlite:///x")
    with pytest.raises(ReplicationError, match="cannot be a replica's name"):
        replicas.add(url, target, name="No Name")
    with pytest.raises(ReplicationError, match="--publisher-url"):
        replicas.add(url, target, publisher_url="postgresql://nobody@127.0.0.1:1/none")
    server = new_database(clusters.first, f"s_{uuid.uuid4().hex[:8]}", migrated=True)
    make_history(server, 1)
    with pytest.raises(ReplicationError, match="--copy-again"):
        replicas.add(url, server)
    user = one(server, "SELECT id FROM users")
    execute(
        server,
        "INSERT INTO tokens (id, user_id, name, prefix, hash) VALUES (%s, %s, 't', 'p', 'h')",
        uuid.uuid4(),
        user,
    )
    with pytest.raises(ReplicationError, match="a server's own database"):
        replicas.add(url, server, copy_again=True)
    assert one(server, "SELECT count(*) FROM executions") == 1
    foreign = new_database(clusters.first, f"f_{uuid.uuid4().hex[:8]}")
    execute(foreign, "CREATE TABLE something (x int)")
    with pytest.raises(ReplicationError, match="not a datastore's"):
        replicas.add(url, foreign)
    assert one(url, "SELECT count(*) FROM replicas") == 0
    query = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"
    assert one(url, query) == 0
    add_replica(url, target)


def test_a_server_does_not_start_on_a_replica(url: str, target: str):
    add_replica(url, target)
    migrations.require_no_replica(url)
    with pytest.raises(migrations.SchemaBehindError, match="is a replica"):
        migrations.require_no_replica(target)
    code, said = run("serve", "--no-browser", "--port", "0", "--database-url", target)
    assert code == 1
    assert "is a replica" in said


def test_roll_ups_arrive_with_their_sums(url: str, target: str):
    add_replica(url, target)
    for _ in range(2):
        make_history(url, 10)
        execute(url, "SELECT analytics.roll_up(1000)")
        assert differences(url, "replica_1") == {}
        query = "SELECT sum(executions), sum(ok), sum(failed) FROM analytics.rollup_days"
        assert execute(target, query) == execute(url, query)
    assert one(target, "SELECT sum(executions) FROM analytics.rollup_hours") == 40
    assert one(target, "SELECT count(*) FROM analytics.rollup_pending") == 0


def test_what_somebody_wrote_on_a_replica_is_found(url: str, target: str):
    add_replica(url, target)
    eventually(lambda: one(target, "SELECT count(*) FROM executions") == 20)
    execute(
        target,
        "SET session_replication_role = replica;"
        " UPDATE executions SET code = 'other' WHERE seq IN (SELECT seq FROM executions LIMIT 2);"
        " DELETE FROM outputs WHERE id IN (SELECT id FROM outputs LIMIT 3);",
    )
    assert differences(url, "replica_1") == {"executions": 2, "outputs": 3}
    code, said = run("replica", "check", "--database-url", url, "replica_1")
    assert code == 1
    assert "2 rows differ" in said
    assert "--copy-again" in said
    # An update of a row that is not there is left out, and counted by PostgreSQL 18.
    execute(url, "UPDATE outputs SET cleared_at = now()")
    eventually(
        lambda: status_of(url, "replica_1").subscription.conflicts.get("confl_update_missing") == 3
    )
    code, said = run("replica", "status", "--database-url", url)
    assert code == 1
    assert "confl_update_missing" in said
    # A row that is there already stops it, until the row is gone.
    row = uuid.uuid4()
    insert = "INSERT INTO kernelspecs (id, name, resources) VALUES (%s, %s, '{}')"
    execute(target, insert, row, "written here")
    execute(url, insert, row, "from the publisher")
    eventually(
        lambda: status_of(url, "replica_1", 0).subscription.conflicts.get("confl_insert_exists")
    )
    stopped = status_of(url, "replica_1", 0.5)
    assert stopped.seconds is None
    assert any("confl_insert_exists" in said for said in stopped.advice)
    execute(target, "DELETE FROM kernelspecs WHERE id = %s", row)
    assert status_of(url, "replica_1", 30).word == "following"
    # Copied again, it is equal.
    add_replica(url, target, copy_again=True)
    assert differences(url, "replica_1") == {}


def test_a_replica_has_the_publishers_partitions(url: str, target: str):
    add_replica(url, target)
    execute(url, "SELECT datastore_make_next_partition('executions', 'month')")
    state = status_of(url, "replica_1")
    assert len(state.lacking) == 2
    assert "replica maintain" in state.advice[-1]
    made = set(state.lacking)
    code, said = run("replica", "maintain", "--database-url", url)
    assert code == 0, said
    assert all(name in said for name in made)
    assert not status_of(url, "replica_1").lacking
    # A period that is over here, and kept there for a while.
    for name in sorted(made, reverse=True):
        execute(url, f"DROP TABLE partitions.{name}")
    code, said = run("replica", "maintain", "--database-url", url, "--keep")
    assert "dropped nothing" in said
    bounds = one(
        target,
        "SELECT low_bound FROM datastore_partitions() WHERE name = %s",
        next(name for name in made if name.startswith("executions")),
    )
    execute(
        target,
        "SET session_replication_role = replica; INSERT INTO executions (id, kernel_id,"
        " incarnation, run_as_id, client, msg_id, code, source_hash)"
        " SELECT %s::uuid, kernel_id, 1, run_as_id, client, 'm', code, source_hash"
        " FROM executions LIMIT 1".replace("%s", f"'{bounds}'"),
    )
    assert differences(url, "replica_1") == {}
    code, said = run("replica", "maintain", "--database-url", url)
    assert code == 0, said
    assert one(target, "SELECT count(*) FROM executions") == 20


def test_passwords_are_not_kept(url: str):
    assert without_password("postgresql+psycopg://u:secret@h:1/db?password=also&x=1") == (
        "postgresql://u@h:1/db?x=1"
    )


def test_an_sql_login_sees_on_the_replica_what_its_person_may(url: str, target: str):
    """The row that says whose a login is comes from the publisher; the login is of each cluster."""
    publisher, replica = ("--database-url", url), ("--database-url", target)
    assert run("user", "create", "grace", *publisher)[0] == 0
    execute(
        url,
        "INSERT INTO kernels (id, name, owner_id, connection_info)"
        " SELECT 'graces', 'python3', id, '{\"key\": 1}' FROM users WHERE name = 'grace'",
    )
    execute(
        url,
        "INSERT INTO executions (id, kernel_id, incarnation, actor_id, run_as_id, client, msg_id,"
        " code, source_hash) SELECT (left(datastore_id_at(now())::text, 14) ||"
        " substr(id::text, 15))::uuid, 'graces', 1, id, id, 'api', 'm', '1', ''"
        " FROM users WHERE name = 'grace'",
    )
    made = add_replica(url, target)
    role = f"grace_{uuid.uuid4().hex[:8]}"
    login = ("user", "sql-role", "grace", "--role", role)
    code, said = run(*login, *replica)
    assert code != 0
    assert "make it there first" in said
    assert run(*login, *publisher)[0] == 0
    eventually(lambda: one(target, "SELECT count(*) FROM sql_roles") == 1)
    code, said = run(*login, *replica)
    assert code == 0, said
    password = dict(line.split() for line in said.splitlines())["password"]
    reach = make_url(target).set(username=role, password=password)
    with psycopg.connect(
        reach.render_as_string(hide_password=False).replace("postgresql+psycopg", "postgresql"),
        autocommit=True,
    ) as analyst:

        def sees() -> int:
            query = "SELECT count(*) FROM analytics.execution_history"
            return analyst.execute(query).fetchone()[0]

        everything = one(target, "SELECT count(*) FROM executions")
        assert everything > 20
        assert sees() == 1
        analyst.execute("SET default_transaction_read_only = off")
        for refused in (
            "SELECT connection_info FROM public.kernels",
            "SELECT * FROM public.sql_roles",
            "UPDATE public.executions SET code = '2'",
            "SET ROLE datastore_request",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                analyst.execute(refused)
        # What is granted and taken away at the publisher holds here too.
        execute(
            url,
            "INSERT INTO permissions (id, subject, user_id, resource, kernel_id, actions)"
            " SELECT gen_random_uuid(), 'user', u.id, 'kernels', k.id, '{read}' FROM users u,"
            " kernels k WHERE u.name = 'grace' AND k.id <> 'graces'",
        )
        eventually(lambda: sees() == everything)
        execute(url, "DELETE FROM permissions")
        eventually(lambda: sees() == 1)
        execute(url, "UPDATE users SET disabled_at = now() WHERE name = 'grace'")
        eventually(lambda: sees() == 0)
    assert differences(url, made.name) == {}
    assert run("user", "sql-role", "grace", "--drop", *replica)[0] == 0
    assert one(target, "SELECT count(*) FROM sql_roles") == 1
    assert run("user", "sql-role", "grace", "--drop", *publisher)[0] == 0
    eventually(lambda: one(target, "SELECT count(*) FROM sql_roles") == 0)
