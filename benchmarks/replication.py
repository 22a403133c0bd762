"""`python -m benchmarks.replication`: what replicas cost writers, and how far behind they are.

Real clusters on this machine, durable (fsync on), so a replica's own work takes from the same
processors as the writers: with replicas elsewhere the price is lower. Writers write as the recorder
does: an execution is queued, runs, says something, and ends, in three transactions.
"""

import contextlib
import shutil
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import click
import psycopg
from rich.console import Console
from rich.table import Table

from app.db import migrations
from app.db.embedded import EmbeddedPostgres
from app.replication import replicas
from app.replication.addresses import connect
from app.replication.publisher import Replica, current_lsn, has_confirmed
from models.base import uuid7

_TEXT = "a line that a cell printed, with some numbers 0123456789\n" * 8


@click.command()
@click.option("--seconds", default=20.0, show_default=True, help="For each number of replicas.")
@click.option("--writers", default=4, show_default=True, help="Kernels that write at once.")
@click.option("--outputs", default=5, show_default=True, help="Of each execution.")
@click.option("--replicas", "most", default=2, show_default=True, help="Measure 0 up to so many.")
@click.option("--rounds", default=2, show_default=True, help="Times that all are measured.")
def main(seconds: float, writers: int, outputs: int, most: int, rounds: int) -> None:
    """Measure writing with none, one and two replicas, and the replicas' lag meanwhile."""
    rates: dict[int, list[float]] = {count: [] for count in range(most + 1)}
    lags: dict[int, list[float]] = {count: [] for count in range(most + 1)}
    with _clusters(most + 1) as (publisher, *targets):
        migrations.upgrade(publisher.url)
        kernels = [_kernel(publisher.url) for _ in range(writers)]
        _measure(publisher.url, kernels, outputs, min(seconds, 3), [])  # to warm up
        for turn in range(rounds):
            # The order turns, so that a busy moment of the machine does not meet one of them only.
            counts = list(range(most + 1))
            for count in counts if turn % 2 == 0 else reversed(counts):
                added = [_add(publisher.url, target.url) for target in targets[:count]]
                slots = [replica.slot for replica in added]
                rate, lag = _measure(publisher.url, kernels, outputs, seconds, slots)
                rates[count].append(rate)
                lags[count] += lag
                for replica in added:
                    replicas.remove(publisher.url, replica.name)
        bytes_each = _bytes_per_execution(publisher.url)
    Console().print(_report(rates, lags))
    Console().print(f"{bytes_each / 1000:.1f} kB on disk for each execution with its outputs")


@contextlib.contextmanager
def _clusters(count: int) -> Iterator[list[EmbeddedPostgres]]:
    folder = Path(tempfile.mkdtemp(prefix="jds-bench-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        with ExitStack() as stack:
            yield [
                stack.enter_context(EmbeddedPostgres(folder / str(index))) for index in range(count)
            ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _kernel(url: str) -> tuple[str, uuid.UUID]:
    kernel, user = uuid.uuid4().hex, uuid.uuid4()
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO users (id, name) VALUES (%s, %s)", [user, str(user)])
        connection.execute(
            "INSERT INTO kernels (id, name, owner_id) VALUES (%s, 'python3', %s)", [kernel, user]
        )
    return kernel, user


def _add(url: str, target: str) -> Replica:
    made = replicas.add(url, target, copy_again=True)
    for _ in replicas.follow_copy(target, made):
        pass
    return made


def _measure(
    url: str,
    kernels: list[tuple[str, uuid.UUID]],
    outputs: int,
    seconds: float,
    slots: list[str],
) -> tuple[float, list[float]]:
    """Return executions a second, and samples of the lag of all replicas in seconds."""
    ended = threading.Event()
    counts = [0] * len(kernels)

    def write(index: int) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not ended.is_set():
                _execution(connection, *kernels[index], outputs)
                counts[index] += 1

    threads = [threading.Thread(target=write, args=(index,)) for index in range(len(kernels))]
    lags: list[float] = []
    watchers = [threading.Thread(target=_watch, args=(url, slot, ended, lags)) for slot in slots]
    began = time.monotonic()
    for thread in threads + watchers:
        thread.start()
    time.sleep(seconds)
    ended.set()
    for thread in threads + watchers:
        thread.join()
    return sum(counts) / (time.monotonic() - began), lags


def _execution(connection: psycopg.Connection, kernel: str, user: uuid.UUID, outputs: int) -> None:
    execution = uuid7()
    connection.execute(
        "INSERT INTO executions (id, kernel_id, incarnation, actor_id, run_as_id, client, msg_id,"
        " code, source_hash) VALUES (%s, %s, 1, %s, %s, 'api', %s, 'f(x)', 'hash')",
        [execution, kernel, user, user, str(execution)],
    )
    with connection.transaction():
        connection.execute(
            "UPDATE executions SET status = 'running', started_at = now() WHERE id = %s",
            [execution],
        )
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO outputs (execution_id, partition_id, seq, kernel_id, output_type,"
                " name, text) VALUES (%s, %s, %s, %s, 'stream', 'stdout', %s)",
                [(execution, execution, seq, kernel, _TEXT) for seq in range(outputs)],
            )
    with connection.transaction():
        connection.execute(
            "UPDATE executions SET status = 'ok', finished_at = now() WHERE id = %s", [execution]
        )
        connection.execute(
            "UPDATE kernels SET recorded_batch = recorded_batch + 1, last_activity = now()"
            " WHERE id = %s",
            [kernel],
        )


def _watch(url: str, slot: str, ended: threading.Event, lags: list[float]) -> None:
    """Sample how long it takes until a replica has what is committed now."""
    with contextlib.closing(connect(url)) as connection:
        while not ended.is_set():
            lsn = current_lsn(connection)
            committed = time.monotonic()
            while not has_confirmed(connection, slot, lsn):
                time.sleep(0.001)
            lags.append(time.monotonic() - committed)
            time.sleep(0.02)


def _bytes_per_execution(url: str) -> float:
    with contextlib.closing(connect(url)) as connection:
        row = connection.execute(
            "SELECT sum(pg_total_relation_size(inhrelid))"
            " / (SELECT count(*) FROM executions) AS bytes FROM pg_inherits"
            " WHERE inhparent IN ('executions'::regclass, 'outputs'::regclass)"
        ).fetchone()
    return float(row["bytes"]) if row else 0.0


def _report(rates: dict[int, list[float]], lags: dict[int, list[float]]) -> Table:
    table = Table()
    for heading in ("Replicas", "Executions/s", "of none", "Lag p50", "Lag p99", "Samples"):
        table.add_column(heading, justify="right")
    none = statistics.median(rates[0])
    for count, found in rates.items():
        rate = statistics.median(found)
        samples = sorted(lags[count])
        p50, p99 = (
            (
                f"{samples[len(samples) // 2] * 1000:.0f} ms",
                f"{samples[int(len(samples) * 0.99)] * 1000:.0f} ms",
            )
            if samples
            else ("", "")
        )
        row = (str(count), f"{rate:.0f}", f"{rate / none:.2f}", p50, p99, str(len(samples)))
        table.add_row(*row)
    return table


if __name__ == "__main__":
    main()
