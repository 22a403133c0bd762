"""docker/: what can be checked without an engine, and the whole where one answers."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml
from click.testing import CliRunner
from traitlets.config import Config

from app.cli import main
from app.settings import Settings
from tests.conftest import _docker_answers
from tests.test_packaging import instructions

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
COMPOSE = (DOCKER / "compose.yaml").read_text("utf-8")
OWN_IMAGE = "jupyter-datastore"


def filled(text: str, **environment: str) -> str:
    """The text with `${NAME:-default}` as compose fills it."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda m: environment.get(m[1], m[2]), text)


def services(**environment: str) -> dict[str, dict[str, Any]]:
    return yaml.safe_load(filled(COMPOSE, **environment))["services"]


def services_unfilled() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(COMPOSE)["services"]


def by_image(image: str) -> list[str]:
    return [name for name, service in services().items() if service["image"] == image]


def interpolated(environment: dict[str, str]) -> set[str]:
    """The names of what the environment of a service takes from whoever starts it."""
    return {name for value in environment.values() for name in re.findall(r"\$\{(\w+)", value)}


def test_the_compose_file_is_one_by_the_specification():
    merged = yaml.safe_load(filled(COMPOSE))  # with the anchors' keys merged, as compose reads it
    parsed = compose_spec.PyCompose.from_json(json.dumps(merged))
    assert set(parsed.service_names()) == set(services())
    with pytest.raises(ValueError, match="mistyped"):
        compose_spec.PyCompose.from_json('{"services": {"x": {"image": "y", "mistyped": 1}}}')


def test_every_password_can_be_set():
    names = set(re.findall(r"\$\{(\w+)", COMPOSE))
    passwords = dict.fromkeys(names, "changed")
    for name, service in services(**passwords).items():
        text = json.dumps(service)
        for default in (":datastore@", ":replication@", '"reader"'):
            assert default not in text, name


def test_what_depends_on_what():
    found = services()
    assert {"postgres", "migrate", "server", "replica", "subscribe", "hub", "grafana"} <= set(found)
    assert "wal_level=logical" in found["postgres"]["command"]
    assert any(word.startswith("max_slot_wal_keep_size=") for word in found["postgres"]["command"])
    # The replica before or after the publisher, as each migration asks.
    assert found["migrate"]["command"] == ["db", "upgrade", "--with-replicas"]
    assert found["migrate"]["depends_on"]["replica"] == {"condition": "service_healthy"}
    for name in ("server", "hub-server", "subscribe"):
        waits = found[name]["depends_on"]["migrate"]
        assert waits == {"condition": "service_completed_successfully"}, name
    for name, service in found.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in found
            if how["condition"] == "service_healthy":
                assert "healthcheck" in found[other], (name, other)
    # A kernel's host is known by its name: a new container must have the old one's, so that what a
    # killed server left behind is settled.
    hosts = [found[name]["hostname"] for name in ("server", "hub-server")]
    assert len(set(hosts)) == 2


@pytest.mark.parametrize("name", by_image(OWN_IMAGE))
def test_a_command_of_ours_is_one_that_there_is(name: str):
    found = {word: words for word, *words in instructions()}
    command = services()[name].get("command") or yaml.safe_load(" ".join(found["CMD"]))
    done = CliRunner().invoke(main, [*command, "--help"])
    assert done.exit_code == 0, done.output
    assert "Usage:" in done.output
    # A misspelt option is found before --help is heeded.
    assert CliRunner().invoke(main, [*command, "--no-such-option", "--help"]).exit_code == 2


@pytest.mark.parametrize("name", by_image(OWN_IMAGE))
def test_environment_of_ours_is_read(name: str):
    known = {f"DATASTORE_{field.upper()}" for field in Settings.model_fields}
    for variable in services()[name].get("environment", {}):
        if variable.startswith("DATASTORE_"):
            assert variable in known
        elif variable == "PGPASSWORD":  # libpq's
            # Kernels inherit a server's environment.
            command = services()[name].get("command", ["serve"])
            assert command[0] in ("db", "replica")
        else:
            assert variable.startswith("JUPYTERHUB_")


def test_an_image_is_built_once_and_before_whoever_runs_it():
    """Services that each build it make images of other ids, and the next `up` starts them anew."""
    found = services()
    ours = by_image(OWN_IMAGE)
    (builder,) = [name for name in ours if "build" in found[name]]
    for name in set(ours) - {builder}:
        assert builder in found[name]["depends_on"], name
        assert found[name]["pull_policy"] == "never", name


def test_no_image_needs_a_registry_for_its_builder():
    for dockerfile in DOCKER.rglob("Dockerfile"):
        assert "syntax=" not in dockerfile.read_text("utf-8")


def test_a_volume_hides_nothing_that_the_image_brings():
    """A named volume is filled from the image once, and then hides what a newer image has there."""
    found = services()
    for name, dockerfile in (("server", ""), ("hub-server", ""), ("hub", "hub")):
        held = {volume.split(":")[1] for volume in found[name]["volumes"]}
        for words in instructions(DOCKER / dockerfile / "Dockerfile"):
            if words[0] == "COPY" and "AS" not in words:
                for folder in held:
                    assert not Path(words[-1]).is_relative_to(folder), (name, words)


def test_what_is_written_outside_of_the_volumes_is_temporary():
    """With HOME on the volume, the image runs on a read-only file system with a /tmp."""
    found = {word: words for word, *words in instructions()}
    image = dict(word.split("=", 1) for word in found["ENV"])
    volumes = yaml.safe_load(" ".join(found["VOLUME"]))
    for variable in ("HOME", "DATASTORE_DATA_DIR", "DATASTORE_ROOT_DIR"):
        assert any(Path(image[variable]).is_relative_to(volume) for volume in volumes), variable


def test_files_folders_and_volumes_exist():
    compose = yaml.safe_load(filled(COMPOSE))
    named = set()
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DOCKER / source).exists(), source
            else:
                named.add(source)
        if build := service.get("build"):
            context = (DOCKER / build["context"]).resolve()
            assert context == ROOT
            assert (context / build["dockerfile"]).is_file()
    assert named == set(compose["volumes"])


@pytest.mark.parametrize(
    "dockerfile", sorted(DOCKER.rglob("Dockerfile")), ids=lambda path: path.parent.name
)
def test_an_image_is_not_run_by_root_and_says_whether_it_is_well(dockerfile: Path):
    found = instructions(dockerfile)
    names = [words[0] for words in found]
    assert [words for words in found if words[0] == "USER"][-1][1] not in ("root", "0")
    assert "HEALTHCHECK" in names
    for words in found:
        if words[0] == "COPY" and not any(word.startswith("--from") for word in words):
            for source in words[1:-1]:
                assert (ROOT / source).exists(), source


def test_what_the_images_are_built_from_is_let_through():
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    let_through = {line[1:] for line in ignored if line.startswith("!")}
    for words in instructions():
        if words[0] == "COPY" and not any(word.startswith("--from") for word in words):
            assert set(words[1:-1]) <= let_through


def test_the_images_entry_point_serves_and_ends_in_order(tmp_path: Path, short_tmp: Path):
    """ENTRYPOINT, CMD, ENV, HEALTHCHECK and STOPSIGNAL as they stand, in folders of the test."""
    found = {name: words for name, *words in instructions()}
    command = yaml.safe_load(" ".join(found["ENTRYPOINT"])) + yaml.safe_load(" ".join(found["CMD"]))
    image = dict(word.split("=", 1) for word in found["ENV"])
    scripts = sysconfig.get_path("scripts")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {
        **image,
        "PATH": f"{scripts}:{image['PATH']}",
        "HOME": str(tmp_path),
        "DATASTORE_DATA_DIR": str(short_tmp / "image"),
        "DATASTORE_ROOT_DIR": str(tmp_path),
        "DATASTORE_PORT": port,
        "DATASTORE_BASE_URL": "/base",
    }
    line = " ".join(found["HEALTHCHECK"])
    health = json.loads(line[line.index("CMD") + 3 :])
    health[0] = sys.executable

    def is_well() -> bool:
        return subprocess.run(health, env=environment, capture_output=True).returncode == 0

    assert not is_well()
    server = subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        deadline = time.monotonic() + 90
        while not is_well():
            assert server.poll() is None, server.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        server.send_signal(getattr(signal, found["STOPSIGNAL"][0]))
        assert server.wait(60) == 0
    finally:
        if server.poll() is None:
            server.kill()
        server.stdout.close()
        server.wait()
    assert not is_well()


def test_the_hub_knows_the_service_that_compose_runs(monkeypatch: pytest.MonkeyPatch):
    config = Config()
    source = (DOCKER / "hub" / "jupyterhub_config.py").read_text("utf-8")
    code = compile(source, "jupyterhub_config.py", "exec")
    needed = {"DATASTORE_HUB_API_TOKEN": "a-token", "HUB_PASSWORD": "a-password"}
    assert set(needed) <= interpolated(services_unfilled()["hub"]["environment"])
    for name, value in needed.items():
        monkeypatch.setenv(name, "")  # as compose does
        for other in set(needed) - {name}:
            monkeypatch.setenv(other, needed[other])
        with pytest.raises(SystemExit, match=name):
            exec(code, {"get_config": Config})
        monkeypatch.setenv(name, value)
    exec(code, {"get_config": lambda: config})
    assert config.DummyAuthenticator.password == "a-password"
    (service,) = config.JupyterHub.services
    found = services(DATASTORE_HUB_API_TOKEN="a-token")
    server = found["hub-server"]["environment"]
    assert service["name"] == server["JUPYTERHUB_SERVICE_NAME"]
    assert service["api_token"] == server["JUPYTERHUB_API_TOKEN"] == "a-token"
    assert service["url"] == "http://hub-server:8888"
    prefix = f"/services/{service['name']}/"
    assert prefix == server["JUPYTERHUB_SERVICE_PREFIX"] == server["DATASTORE_BASE_URL"]
    assert config.JupyterHub.default_url == prefix
    assert config.JupyterHub.hub_connect_url + "/hub/api" == server["JUPYTERHUB_API_URL"]
    for name in re.findall(r"environ(?:\.get\(|\[)\"(\w+)", source):
        assert name in found["hub"]["environment"]
    words = {word: words for word, *words in instructions(DOCKER / "hub" / "Dockerfile")}
    command = yaml.safe_load(" ".join(words["CMD"]))
    assert command[command.index("--config") + 1] == words["COPY"][-1]


def test_grafana_reads_the_replica():
    (source,) = yaml.safe_load(
        (DOCKER / "grafana" / "datasources" / "datastore.yaml").read_text("utf-8")
    )["datasources"]
    found = services()
    host = source["url"].split(":")[0]
    assert host in found
    assert host == "replica"
    assert source["jsonData"]["database"] == found[host]["environment"]["POSTGRES_DB"]
    variable = source["secureJsonData"]["password"].removeprefix("$")
    assert found["grafana"]["environment"][variable] == found[host]["environment"][variable]
    script = (DOCKER / "postgres" / "reader.sh").read_text("utf-8")
    assert f"CREATE ROLE {source['user']} " in script


def compose(environment: dict[str, str], *words: str) -> str:
    """What compose says to the words, in a project of the test's own."""
    done = subprocess.run(
        ["docker", "compose", "-f", str(DOCKER / "compose.yaml"), *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.skipif(not _docker_answers(), reason="no Docker engine answers")
def test_compose_brings_up_server_and_replica():
    port = free_port()
    environment = {
        # Not the file's: that may be somebody's who works with it, and this one ends with its data.
        "COMPOSE_PROJECT_NAME": f"jds-test-{port}",
        "DATASTORE_PORT": str(port),
        "DATASTORE_TOKEN": "a-token",
        "POSTGRES_PASSWORD": "a1",
        "REPLICATION_PASSWORD": "b2",
    }
    address = f"http://127.0.0.1:{port}/api"

    def containers() -> set[str]:
        return set(compose(environment, "ps", "-q", "postgres", "replica", "server").split())

    def on_replica(query: str) -> str:
        psql = ("psql", "-U", "datastore", "-d", "datastore", "-Atc", query)
        return compose(environment, "exec", "-T", "replica", *psql).strip()

    try:
        compose(environment, "up", "--build", "--detach")
        deadline = time.monotonic() + 300
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(1)
        before = containers()
        assert len(before) == 3
        # Waits for its predecessors, so the first copy is there.
        said = compose(environment, "run", "--rm", "-T", "subscribe", "replica", "status")
        assert "following" in said or "copying" in said
        request = urllib.request.Request(
            f"{address}/kernels", data=b"{}", headers={"Authorization": "token a-token"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            kernel = json.load(response)["id"]
        while on_replica(f"SELECT count(*) FROM kernels WHERE id = '{kernel}'") != "1":
            assert time.monotonic() < deadline
            time.sleep(1)
        compose(environment, "up", "--build", "--detach")
        assert containers() == before, "nothing changed, so nothing is started anew"
    finally:
        compose(environment, "down", "--volumes")


def test_scripts_are_run_by_the_image():
    for script in (DOCKER / "postgres").iterdir():
        assert os.access(script, os.X_OK)
        assert script.name in COMPOSE
