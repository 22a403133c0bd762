"""Replicas over TCP between clusters of different owners, with roles that have little."""

import os
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from app.db import migrations
from app.db.embedded import EmbeddedPostgres, binaries
from app.replication import replicas
from app.replication.addresses import ReplicationError
from tests.app.replication.clusters import (
    add_replica,
    cluster,
    differences,
    eventually,
    execute,
    make_history,
    one,
)

DOCKER = Path(__file__).parents[3] / "docker"
HBA = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_script(postgres: EmbeddedPostgres, name: str, **environment: str) -> None:
    """Run a script of docker/postgres as its image does: psql finds the server by the socket."""
    parameters = psycopg.conninfo.conninfo_to_dict(postgres.url)
    subprocess.run(
        ["sh", str(DOCKER / "postgres" / name)],
        env={
            "PATH": f"{binaries(18)}:{os.environ['PATH']}",
            "PGHOST": str(parameters["host"]),
            "PGPORT": str(parameters["port"]),
            "POSTGRES_USER": "datastore",
            "POSTGRES_DB": "datastore",
            **environment,
        },
        check=True,
    )


@pytest.fixture(scope="module")
def network(place: Path) -> Iterator[dict[str, EmbeddedPostgres]]:
    """Two clusters that listen on ports, with passwords, as in docker/compose.yaml."""
    hba = place / "pg_hba.conf"
    hba.write_text(HBA)
    hba.chmod(0o644)
    with ExitStack() as stack:
        made = {}
        for name in ("postgres", "replica"):
            settings = {
                "listen_addresses": "127.0.0.1",
                "port": str(free_port()),
                "hba_file": str(hba),
            }
            made[name] = stack.enter_context(cluster(place / name, **settings))
        migrations.upgrade(made["postgres"].url)
        make_history(made["postgres"].url, 10)
        run_script(made["postgres"], "replication.sh", REPLICATION_PASSWORD="for-replicas")
        run_script(made["replica"], "reader.sh", READER_PASSWORD="for-dashboards")
        yield made


def over_tcp(postgres: EmbeddedPostgres, user: str, password: str, database: str) -> str:
    port = psycopg.conninfo.conninfo_to_dict(postgres.url)["port"]
    return f"postgresql://{user}:{password}@127.0.0.1:{port}/{database}"


def test_roles_that_have_what_they_need_and_no_more(network: dict[str, EmbeddedPostgres]):
    publisher, other = network["postgres"], network["replica"]
    owner = f"owner_{uuid.uuid4().hex[:8]}"
    execute(other.url, f"CREATE ROLE {owner} LOGIN PASSWORD 'of-owner'")
    execute(other.url, f"GRANT pg_create_subscription TO {owner}")
    execute(other.url, f"CREATE DATABASE owned OWNER {owner}")
    target = over_tcp(other, owner, "of-owner", "owned")
    reach = over_tcp(publisher, "replication", "for-replicas", "datastore")
    # Who may not create roles is told which are missing, and what to do.
    with pytest.raises(ReplicationError, match="CREATE ROLE datastore_request NOLOGIN"):
        replicas.add(publisher.url, target, publisher_url=reach)
    execute(other.url, "CREATE ROLE datastore_request NOLOGIN")
    execute(other.url, "CREATE ROLE datastore_analyst NOLOGIN")
    with pytest.raises(ReplicationError, match="may not assume the role datastore_request"):
        replicas.add(publisher.url, target, publisher_url=reach)
    execute(other.url, f"GRANT datastore_request TO {owner}")
    made = add_replica(publisher.url, target, publisher_url=reach)
    assert "of-owner" not in made.target
    assert one(publisher.url, "SELECT target FROM replicas") == made.target
    make_history(publisher.url, 5)
    query = "SELECT count(*) FROM executions"
    eventually(lambda: one(target, query) == 15)
    # Without the password the replica's side cannot be asked; with it, all is equal.
    with pytest.raises(ReplicationError, match="Cannot connect"):
        replicas.remove(publisher.url, made.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", "of-owner")
        assert differences(publisher.url, made.name) == {}
    # The role of the replica reads what is published and nothing else.
    for secret in (
        "SELECT hash FROM tokens",
        "SELECT connection_info FROM kernels",
        "SELECT value FROM input_requests",
        "SELECT target FROM replicas",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            execute(reach, secret)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        execute(reach, "UPDATE kernels SET name = 'x'")
    assert replicas.remove(publisher.url, made.name, target=target) == []
    execute(other.url, "DROP DATABASE owned WITH (FORCE)")


def test_the_reader_of_dashboards_sees_all_and_writes_nothing(network: dict[str, EmbeddedPostgres]):
    publisher, other = network["postgres"], network["replica"]
    target = over_tcp(other, "reader", "for-dashboards", "datastore")
    reach = over_tcp(publisher, "replication", "for-replicas", "datastore")
    made = add_replica(publisher.url, other.url, publisher_url=reach)
    assert differences(publisher.url, made.name) == {}
    assert one(target, "SELECT count(*) FROM execution_history") > 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        execute(target, "DELETE FROM outputs")
    replicas.remove(publisher.url, made.name)


@pytest.mark.parametrize("attributes", ["LOGIN", "LOGIN REPLICATION", "LOGIN BYPASSRLS"])
def test_a_role_that_would_copy_too_little_is_refused(
    network: dict[str, EmbeddedPostgres], attributes: str
):
    publisher, other = network["postgres"], network["replica"]
    execute(publisher.url, f"CREATE ROLE weak {attributes} PASSWORD 'p'")
    execute(other.url, "CREATE DATABASE weak")
    target = other.url.replace("/datastore?", "/weak?")
    with pytest.raises(ReplicationError, match="REPLICATION BYPASSRLS"):
        replicas.add(
            publisher.url, target, publisher_url=over_tcp(publisher, "weak", "p", "datastore")
        )
    with pytest.raises(ReplicationError, match="no role 'nobody'"):
        replicas.add(
            publisher.url, target, publisher_url=over_tcp(publisher, "nobody", "p", "datastore")
        )
    execute(publisher.url, "DROP ROLE weak")
    execute(other.url, "DROP DATABASE weak")
    assert one(publisher.url, "SELECT count(*) FROM pg_replication_slots") == 0
