"""Our supervisor of one embedded PostgreSQL: start, recover, stop, and where to connect.

Synchronous: `start` is called from the main thread, before the event loop runs or while it may be
blocked. The main thread, because Linux sends the parent death signal when the *thread* that started
PostgreSQL ends (prctl(2)).
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self
from urllib.parse import quote_from_bytes

import platformdirs
import psycopg

from app.db.embedded.account import Account, account_for
from app.db.embedded.cluster import (
    PID_FILE,
    SUPERUSER,
    check_cluster,
    failed_start,
    make_cluster,
    make_data_dir,
    read_pid_file,
    remove_unfinished,
)
from app.db.embedded.errors import EmbeddedPostgresError, explained
from app.db.embedded.lock import DataDirLock
from app.db.embedded.processes import POLL_SECONDS, end, wait_for_end
from app.db.embedded.programs import FOLDERS, reachable_binaries
from app.db.embedded.sockets import is_listening, make_socket_dir, remove_socket_dir

logger = logging.getLogger(__name__)

DATABASE = "datastore"
# Recovery after a crash of a large database takes its time; PostgreSQL is alive and working on it.
START_SECONDS = 600.0
STOP_SECONDS = 30.0
KILL_SECONDS = 10.0
LOG_LIMIT_BYTES = 10_000_000
# SIGINT asks PostgreSQL for a fast shutdown: open transactions roll back, a checkpoint is written
# and the next start needs no recovery. SIGQUIT, the immediate one, would leave that to every start
# after a killed server; the next start falls back on it when the fast shutdown takes too long.
DEATH_SIGNAL = signal.SIGINT
SHUTDOWN_STEPS = (
    (signal.SIGINT, STOP_SECONDS),
    (signal.SIGQUIT, KILL_SECONDS),
    (signal.SIGKILL, KILL_SECONDS),
)
SURVIVOR_STEPS = ((signal.SIGQUIT, 5.0), (signal.SIGKILL, KILL_SECONDS))
DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        "listen_addresses": "",
        "port": "5432",
        "wal_level": "logical",
        # A replica that stays away must not fill the disk of those who work.
        "max_slot_wal_keep_size": "4GB",
        "max_connections": "200",
        "log_line_prefix": "%m [%p] ",
    }
)


class EmbeddedPostgres:
    """A PostgreSQL that lives in `data_dir` and ends with this process, however that ends.

    `settings` are PostgreSQL settings, which win over ours and over postgresql.conf; where the
    socket lies is not among them. PostgreSQL has a session of its own, so that Ctrl-C in a terminal
    reaches the server alone, which then stops PostgreSQL in order.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        major: int = 18,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.data_dir = data_dir.expanduser().resolve()
        self.major = major
        self._settings = {**DEFAULTS, **settings}
        self._pgdata = self.data_dir / f"postgres-{major}"
        self._port = int(self._settings["port"])
        self._lock: DataDirLock | None = None
        self._account: Account | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._watch: int | None = None
        self._socket_dir: Path | None = None
        self._owner = os.getpid()

    def start(self) -> None:
        """Makes the cluster when new, recovers when needed, returns when it accepts connections.

        Also brings PostgreSQL back after it crashed; does nothing while it runs. Raises
        EmbeddedPostgresError, and then nothing is left running or locked.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("EmbeddedPostgres.start must be called from the main thread")
        if self.is_running():
            return
        self._owner = os.getpid()
        try:
            self._account = account = account_for(self._pgdata)
            make_data_dir(self.data_dir, account)
            if self._lock is None:
                self._lock = DataDirLock(self.data_dir)
            self._close_watch()
            self._recover(account, self._lock)
            remove_unfinished(self.data_dir)
            programs = reachable_binaries(self.major, account, self.data_dir)
            if not check_cluster(self._pgdata, self.major):
                make_cluster(self._pgdata, self.major, programs, account)
            self._socket_dir = make_socket_dir(self.data_dir, account, self._port)
            self._launch(programs, account, self._lock)
            self._make_database()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Shuts PostgreSQL down, harder if it does not end in time, and waits. May be repeated.

        In a fork of the process that started it, it does nothing.
        """
        if os.getpid() != self._owner:
            return
        try:
            if self._child is not None:
                self._shut_down(self._child)
        finally:
            self._child = None
            self._socket_dir = None
            self._close_watch()
            if self._lock is not None:
                if self._account is not None:
                    remove_socket_dir(self.data_dir, self._account)
                self._lock.release()
                self._lock = None

    def is_running(self) -> bool:
        """Whether PostgreSQL runs as a child of this object."""
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id of the postmaster while it runs."""
        return self._child.pid if self._child is not None and self.is_running() else None

    @property
    def url(self) -> str:
        """The libpq URI of the database `datastore`; needs a `start` that was not stopped."""
        if self._socket_dir is None:
            raise EmbeddedPostgresError(
                f"PostgreSQL does not run on {self.data_dir}: start the server first."
            )
        return _url(self._socket_dir, self._port)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _shut_down(self, child: subprocess.Popen[bytes]) -> None:
        for number, timeout_seconds in SHUTDOWN_STEPS:
            if child.poll() is None:
                child.send_signal(number)
            try:
                child.wait(timeout_seconds)
                break
            except subprocess.TimeoutExpired:
                logger.warning("PostgreSQL %d did not heed %s", child.pid, number.name)
        # A PostgreSQL that ended in order removed its pid file, after the last of its processes.
        if self._account is not None and (self._pgdata / PID_FILE).exists():
            self._end_survivors(self._account)

    def _recover(self, account: Account, lock: DataDirLock) -> None:
        """Ends what is left of a PostgreSQL whose server is gone, and removes a stale pid file."""
        pid_file = self._pgdata / PID_FILE
        with explained("read the data directory", self._pgdata):
            if not pid_file.exists():
                return
            noted = read_pid_file(self._pgdata)
        living = account.postgres_processes(self._pgdata)
        postmaster = [process for process in living if noted and process[0] == noted.pid]
        if noted and postmaster:
            # The lock is free, so its server is gone: the shutdown has begun or is overdue.
            if noted.pid != lock.previous_postmaster and noted.status != "stopping":
                raise EmbeddedPostgresError(
                    f"PostgreSQL already runs on {self._pgdata} as process {noted.pid}, and no "
                    f"Jupyter Datastore started it: stop it with 'kill -INT {noted.pid}', or "
                    "choose another place with --data-dir."
                )
            logger.info("waiting for PostgreSQL %d of an ended server to stop", noted.pid)
            end(postmaster, SHUTDOWN_STEPS)
        self._end_survivors(account)
        # PostgreSQL trusts any living process of its account that the file names, and stops at a
        # file that it cannot read. With none of its processes left, such a file is stale.
        with explained("remove the stale pid file", pid_file):
            if pid_file.exists() and (noted is None or _exists(noted.pid)):
                pid_file.unlink()

    def _end_survivors(self, account: Account) -> None:
        """Ends backends that outlived their postmaster: they hold the cluster's shared memory."""
        survivors = account.postgres_processes(self._pgdata)
        # Most notice the postmaster's death by themselves, at once.
        survivors = wait_for_end(survivors, 1.0)
        if not survivors:
            return
        pids = ", ".join(str(pid) for pid, _ in survivors)
        logger.warning("ending PostgreSQL processes without a postmaster: %s", pids)
        if end(survivors, SURVIVOR_STEPS):
            raise EmbeddedPostgresError(
                f"PostgreSQL processes of an earlier server still use {self._pgdata} and cannot be "
                f"ended (processes {pids}): end them, or restart the machine."
            )

    def _launch(self, programs: Path, account: Account, lock: DataDirLock) -> None:
        assert self._socket_dir is not None
        quoted = os.fspath(self._socket_dir).replace('"', '""')
        settings = {
            **self._settings,
            "unix_socket_directories": f'"{quoted}"',
            "unix_socket_permissions": "0700",
        }
        argv = [os.fspath(programs / "postgres"), "-D", os.fspath(self._pgdata)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        watched = -1
        if sys.platform != "linux":
            watched, self._watch = os.pipe()
        log_path = self.data_dir / "postgres.log"
        with explained("start PostgreSQL in", self.data_dir):
            log = _open_log(log_path)
            try:
                offset = os.fstat(log).st_size
                self._child = subprocess.Popen(
                    account.command(
                        argv, parent=os.getpid(), death_signal=DEATH_SIGNAL, watch=watched
                    ),
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[watched] if watched != -1 else [],
                    start_new_session=True,
                )
            finally:
                os.close(log)
                if watched != -1:
                    os.close(watched)
            lock.record(self._child.pid)
        self._wait_until_ready(self._child, log_path, offset)

    def _wait_until_ready(self, child: subprocess.Popen[bytes], log: Path, offset: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            if child.poll() is not None:
                raise failed_start(self._pgdata, log, offset)
            noted = read_pid_file(self._pgdata)
            if noted and noted.pid == child.pid and noted.status == "ready":
                return
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"PostgreSQL did not accept connections within {START_SECONDS:.0f} seconds: "
                    f"look into {log}."
                )
            time.sleep(POLL_SECONDS)

    def _make_database(self) -> None:
        host = str(self._socket_dir)
        try:
            with psycopg.connect(
                host=host, port=self._port, user=SUPERUSER, dbname="postgres", autocommit=True
            ) as connection:
                query = "SELECT 1 FROM pg_database WHERE datname = %s"
                if connection.execute(query, [DATABASE]).fetchone() is None:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.Error as error:
            raise EmbeddedPostgresError(
                f"PostgreSQL on {self._pgdata} started but cannot be used ({error}): look into "
                f"{self.data_dir / 'postgres.log'}."
            ) from error

    def _close_watch(self) -> None:
        if self._watch is not None:
            os.close(self._watch)
            self._watch = None


def default_data_dir() -> Path:
    """Where the data lives unless the person says otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/jupyter-datastore")
    return Path(platformdirs.user_data_dir("jupyter-datastore", appauthor=False))


def read_url(data_dir: Path) -> str | None:
    """The libpq URI of what runs on `data_dir`, for any process; None if nothing runs."""
    directory = data_dir.expanduser().resolve()
    try:
        # By name: a folder that may be entered but not listed looks empty to a glob.
        for major in sorted(FOLDERS, reverse=True):
            noted = read_pid_file(directory / f"postgres-{major}")
            if noted and is_listening(noted.socket_dir, noted.port):
                return _url(noted.socket_dir, noted.port)
    except PermissionError as error:
        raise EmbeddedPostgresError(
            f"No permission to look into {error.filename or directory}: run this as the user who "
            "runs the server."
        ) from error
    return None


def _url(socket_dir: Path, port: int) -> str:
    host = quote_from_bytes(os.fsencode(socket_dir), safe="")
    return f"postgresql://{SUPERUSER}@/{DATABASE}?host={host}&port={port}"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OverflowError, PermissionError):
        return True
    return True


def _open_log(path: Path) -> int:
    """Opens the log for appending; a long one is put aside as `postgres.log.1` first."""
    if path.is_file() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    return os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
