"""`serve` with certificates and on unix sockets, and options of other names."""

import json
import socket
import stat
import subprocess
import sys
from pathlib import Path

import click
import httpx
import pytest
import trustme

from app.cli.connection import CommandError, choose_server, running_servers
from app.cli.http import http_client
from app.cli.listen import check_certificate, unix_socket, unix_url
from app.cli.serve import _bind, normal_base_url
from app.settings import Settings
from tests.kernels import write_notebook
from tests.servers import TOKEN, serving_process, wait_for


def run(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", "run", "--url", url, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def serve_fails(*options: str) -> str:
    command = [sys.executable, "-m", "app", "serve", "--no-browser", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr


def test_answers_do_not_wait_for_each_other():
    """asyncio turns Nagle's algorithm off, which costs 40 ms, on what says that it is TCP."""
    bound = _bind("localhost", 0)
    try:
        assert {listener.proto for listener in bound} == {socket.IPPROTO_TCP}
    finally:
        for listener in bound:
            listener.close()


@pytest.fixture
def runtime_dir(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    return tmp_path / "runtime"


def test_a_server_on_a_unix_socket(root_dir, database_url, tmp_path, short_tmp, runtime_dir):
    path = short_tmp / "a server.sock"
    left_behind = socket.socket(socket.AF_UNIX)  # as after kill -9
    left_behind.bind(str(path))
    left_behind.close()
    options = ("--database-url", database_url, "--sock", str(path), "--base-url", "x")
    with serving_process(root_dir, tmp_path / "data", *options) as server:
        wait_for(lambda: "?token=" in server.log or server.process.poll() is not None)
        url = unix_url(path, "/x/")
        assert f"{url}lab?token={TOKEN}" in server.log
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        (known,) = running_servers()
        assert (known.sock, known.url) == (path, url)
        with http_client(url, timeout=10) as client:
            assert client.get("api").status_code == 200
            assert client.get("api/kernels").status_code == 403
        write_notebook(root_dir / "a.ipynb", "6*7")
        done = run(f"{url}?token={TOKEN}", str(root_dir / "a.ipynb"), "--json")
        assert done.returncode == 0, done.stderr + server.log
        assert json.loads(done.stdout)
        assert choose_server(None, None, str(root_dir / "a.ipynb"))[0] == url
        said = serve_fails("--sock", str(path), "--database-url", database_url)
        assert "A server listens on" in said
        assert server.stop() == 0
    assert not path.exists()


def test_a_server_with_a_certificate(root_dir, database_url, tmp_path, runtime_dir):
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    options = ("--certfile", str(certificate), "--keyfile", str(key), "--ip", "127.0.0.1")
    with serving_process(
        root_dir, tmp_path / "data", "--database-url", database_url, *options
    ) as server:
        server.wait_until_up().close()
        assert server.url.startswith("https://127.0.0.1:")
        context = httpx.create_ssl_context()
        authority.configure_trust(context)
        with httpx.Client(
            base_url=server.url.replace("127.0.0.1", "localhost"), verify=context
        ) as c:
            page = c.get("/login")
            assert "Secure" in page.headers["set-cookie"]
        with pytest.raises(httpx.ConnectError), httpx.Client() as c:
            c.get(server.url)
        write_notebook(root_dir / "a.ipynb", "6*7")
        # No name on it is 127.0.0.1, but the server's file says that it is this certificate.
        done = run(f"{server.url}?token={TOKEN}", str(root_dir / "a.ipynb"))
        assert done.returncode == 0, done.stderr
        assert server.stop() == 0


def test_sockets_that_cannot_be(short_tmp):
    path = short_tmp / "other.sock"
    path.write_text("somebody's file")
    with pytest.raises(click.ClickException, match="not a socket"), unix_socket(path, 0o600):
        pass
    assert path.read_text() == "somebody's file"
    path.unlink()
    with (
        pytest.raises(click.ClickException, match="too long"),
        unix_socket(short_tmp / ("x" * 200), 0),
    ):
        pass
    with pytest.raises(click.ClickException, match="No such file"), unix_socket(path / "none", 0):
        pass
    with unix_socket(path, 0o660):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        path.unlink()
        path.write_text("another's by now")
    assert path.read_text() == "another's by now"
    path.unlink()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ServerApp.port=1"], "use --port"),
        (["--ServerApp.ip", "*"], "use --host"),
        (["--IdentityProvider.token=x"], "use --token"),
        (["--MappingKernelManager.cull_idle_timeout=3"], "DATASTORE_"),
    ],
)
def test_traitlets_flags_are_told_their_names(options, said):
    from click.testing import CliRunner

    from app.cli.serve import serve

    result = CliRunner().invoke(serve, options)
    assert result.exit_code == 2
    assert said in result.stderr


def test_certificates_that_cannot_be_used(tmp_path):
    issued, other = trustme.CA().issue_cert("localhost"), trustme.CA().issue_cert("localhost")
    certificate, key, both = tmp_path / "c.pem", tmp_path / "k.pem", tmp_path / "both.pem"
    issued.cert_chain_pems[0].write_to_path(certificate)
    other.private_key_pem.write_to_path(key)
    issued.private_key_and_cert_chain_pem.write_to_path(both)
    check_certificate(Settings())
    check_certificate(Settings(certfile=both))
    for settings, said in (
        (Settings(keyfile=key), "needs --certfile"),
        (Settings(certfile=tmp_path / "none"), "cannot be read"),
        (Settings(certfile=certificate, keyfile=key), "cannot be used"),
        (Settings(certfile=certificate), "cannot be used"),
    ):
        with pytest.raises(click.ClickException, match=said):
            check_certificate(settings)


def test_base_urls_have_one_form():
    for given in ("/a@b/", "a@b", "/a%40b", "//a%40b//"):
        assert normal_base_url(given) == "/a%40b/"
    assert normal_base_url("") == normal_base_url("/") == "/"
    assert normal_base_url("user/ada") == "/user/ada/"


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("/lab?token=t", "/"),
        ("/lab/tree/folder/a.ipynb", "/"),
        ("/user/lab/lab/workspaces/w/tree/lab", "/user/lab/"),
        ("/user/lab/", "/user/lab/"),
        ("/x/tree/lab/", "/x/"),
        ("/x/notebooks/a.ipynb", "/x/"),
        ("/labs/", "/labs/"),
    ],
)
def test_the_address_of_a_page_is_its_servers(runtime_dir, given, base):
    url, token, _ = choose_server(f"http://elsewhere:8888{given}", None, "a.ipynb")
    assert url == f"http://elsewhere:8888{base}"
    assert token == ("t" if "token" in given else None)


def test_a_url_of_another_kind_is_refused():
    with pytest.raises(CommandError, match="not a URL"):
        choose_server("ftp://localhost/", None, "a.ipynb")
