"""`jupyter-datastore run`: run a notebook on a running server, and follow it.

The run is the server's: this command asks for it, shows what the server records, and may come and
go. How a run looks is in `follow`, how the server is reached in `connection`.
"""

import contextlib
import json
import os
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

import click
from click.core import ParameterSource
from pydantic import BaseModel
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.connection import (
    CommandError,
    Connection,
    Execution,
    RefusedError,
    ServerInfo,
    choose_server,
    path_below,
    quoted,
    running_servers,
)
from app.cli.follow import Asker, Display, clean_text, duration, first_line

_POLL_SECONDS = 20
_POLL_SECONDS_ASKING = 2  # an answer that came from elsewhere does not end a poll
_PAGE = 1000
_COLOURS = {
    "ok": "green",
    "error": "red",
    "aborted": "yellow",
    "cancelled": "yellow",
    "interrupted": "magenta",
}


class _Notebook(BaseModel):
    type: str
    content: Any


class _Kernel(BaseModel):
    id: str
    name: str


class _Session(BaseModel):
    id: str
    kernel: _Kernel


class _Executions(BaseModel):
    executions: list[Execution]
    next: int | str | None = None


class _Outputs(BaseModel):
    outputs: list[dict[str, Any]]
    cursor: str
    execution: Execution


@dataclass
class _Job:
    """What the command line asks for, and what is known of it so far."""

    notebook: str
    url: str | None
    token: str | None
    retry_seconds: float
    kernel: str | None
    cells: tuple[str, ...]
    restart: bool
    allow_errors: bool
    attach: bool
    bar: bool
    as_json: bool
    again: str  # the command that attaches
    under_way: bool = False  # a run may go on at the server


class Detached(BaseException):
    """A signal asked this command to leave. No Exception, so that nothing on the way handles it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.status = 128 + signal_number


class _Signals:
    """Raises Detached for the signals that end a command, until it has been caught.

    One that is ignored (nohup, a background job) stays ignored.
    """

    caught = False

    def __enter__(self) -> Self:
        wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        heard = [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._raise) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _raise(self, number: int, _frame: FrameType | None) -> None:
        if not self.caught:
            raise Detached(number)


class _Console(Console):
    """A rich console that raises BrokenPipeError instead of ending the process."""

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - called while the BrokenPipeError is being handled


@click.command(
    epilog="Exit status: 0 when all cells are ok; 1 when a cell failed or did not get to its end; "
    "2 for wrong usage or no way to the server; 128 + the signal's number (130 after Ctrl-C) when "
    "detached, while the run goes on."
)
@click.argument("notebook")
@click.option("--url", envvar="DATASTORE_URL", help="The server. [default: one on this machine]")
@click.option("--token", envvar="DATASTORE_TOKEN", help="The token to show to the server.")
@click.option("--kernel", help="The kernel to start. [default: what the notebook names]")
@click.option("--cell", "cells", multiple=True, metavar="ID", help="Run this cell; repeatable.")
@click.option("--restart", is_flag=True, help="Restart the kernel first.")
@click.option("--allow-errors", is_flag=True, help="Go on after a cell that fails.")
@click.option("--attach", is_flag=True, help="Follow the notebook's latest run, start nothing.")
@click.option("--no-progress", is_flag=True, help="Show no bar.")
@click.option("--json", "as_json", is_flag=True, help="End with JSON; outputs go to stderr.")
@click.option(
    "--retry-seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="How long to look for a server that stopped answering.",
)
@click.pass_context
def run(ctx: click.Context, /, *, no_progress: bool, **options: Any) -> None:
    """Run NOTEBOOK's code cells on a running server and follow them.

    NOTEBOOK is a file below the root folder of a server on this machine, or a path on the server.

    The run is the server's, and so are its outputs: Ctrl-C, a closed terminal or SIGTERM detach
    this command and the run goes on. --attach comes back to it.
    """
    words = ["jupyter-datastore", "run", "--attach"]
    if ctx.get_parameter_source("url") is ParameterSource.COMMANDLINE:
        words += ["--url", options["url"].partition("?")[0]]  # a token stays out of sight
    again = shlex.join([*words, options["notebook"]])
    job = _Job(**options, bar=not no_progress, again=again)
    if job.attach and (job.kernel or job.cells or job.restart or job.allow_errors):
        raise click.UsageError("--attach starts nothing: leave out what is for starting a run.")
    with _Signals() as signals:
        try:
            status = _run(job)
        except Detached as signalled:
            signals.caught = True
            status = signalled.status
        except BrokenPipeError:
            _silence_stdout()
            signals.caught = True
            status = 128 + signal.SIGPIPE
        except CommandError as error:
            if job.under_way:
                hint = f"If the run goes on, come back to it with:\n  {job.again}"
                raise CommandError(f"{error.message}\n{hint}") from error
            raise
        except OSError as error:  # the terminal is gone; all else is handled where it happens
            if not job.under_way:
                raise CommandError(f"{error}.") from error
            status = 128 + signal.SIGHUP
        if status > 128:
            _say_detached(job)
    ctx.exit(status)


def _run(job: _Job) -> int:
    """Start or find the run, follow it to its end, report; returns the exit status."""
    url, token, server = choose_server(job.url, job.token, job.notebook)
    path = _api_path(job, server)
    console = _Console(stderr=job.as_json, highlight=False)
    bar = job.bar and console.file.isatty() and not console.is_dumb_terminal
    with Connection(
        url, token, retry_seconds=job.retry_seconds, refind=lambda: _same_server(job, server)
    ) as connection:
        notes = _Console(stderr=True, highlight=False)
        display = Display(console, notes, bar=bar, now=connection.now)
        connection.note = display.note
        asker = Asker(
            display,
            connection.answer_input,
            lambda execution: _how_to_answer(job, connection, execution),
            terminal=sys.stdin.isatty() and console.file.isatty(),
        )
        executions = _latest(connection, path) if job.attach else _start(connection, job, path)
        job.under_way = True
        try:
            display.begin(executions)
            _follow(connection, display, asker, executions)
        finally:
            asker.close()
            display.close()
    try:
        if job.as_json:
            click.echo(json.dumps(_as_json(connection.url, path, executions), indent=2))
        else:
            _print_table(console, executions)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough; the run is over
        _silence_stdout()
    return 0 if all(execution.status == "ok" for execution in executions) else 1


def _api_path(job: _Job, server: ServerInfo | None) -> str:
    """The notebook's path on the server.

    With --url a name that is no file below the server's root is taken as it is given. Without it
    a file elsewhere is an error: the root may hold another notebook under that name.
    """
    if server is None:
        return job.notebook
    below = path_below(job.notebook, server.root_dir)
    file = Path(job.notebook).expanduser()
    if job.url is not None:
        return below if below is not None and file.exists() else job.notebook
    if below is None and (file.is_absolute() or file.exists()):
        raise CommandError(
            f"{job.notebook} does not lie below {server.root_dir}, which the server at "
            f"{server.url} serves."
        )
    return below or job.notebook


def _same_server(job: _Job, server: ServerInfo | None) -> tuple[str, str | None] | None:
    """Where the server listens that has the folders of `server`, and the token to show to it."""
    for other in running_servers() if server is not None else ():
        if server and (other.root_dir, other.data_dir) == (server.root_dir, server.data_dir):
            return other.url.rstrip("/") + "/", job.token or other.token
    return None


def _start(connection: Connection, job: _Job, path: str) -> list[Execution]:
    """Ask for the run; returns its executions in order."""
    try:
        found = connection.fetch(_Notebook, "GET", f"api/contents/{quoted(path)}", content=1)
    except RefusedError as error:
        if error.status != 404:
            raise
        raise CommandError(f"There is no notebook {path} at {connection.url}.") from error
    if found.type != "notebook":
        raise CommandError(f"{path} is a {found.type}, not a notebook.")
    kernel = job.kernel or _named_kernel(found.content)
    session = connection.fetch(
        _Session,
        "POST",
        "api/sessions",
        json={
            "path": path,
            "name": Path(path).name,
            "type": "notebook",
            "kernel": {"name": kernel} if kernel else {},
        },
    )
    if job.kernel and session.kernel.name != job.kernel:
        raise CommandError(
            f"{path} has a session with the kernel {session.kernel.name}: "
            f"shut that down before you run it with {job.kernel}."
        )
    if job.restart:
        connection.request("POST", f"api/kernels/{session.kernel.id}/restart")
    body = {
        "cells": list(job.cells) or "all",
        "stop_on_error": not job.allow_errors,
        "allow_stdin": True,
    }
    job.under_way = True
    request = f"api/sessions/{session.id}/run"
    try:
        started = connection.fetch(_Executions, "POST", request, json=body, repeatable=False)
    except RefusedError:
        job.under_way = False
        raise
    return started.executions


def _named_kernel(content: Any) -> str | None:
    """`metadata.kernelspec.name` of a notebook, which anyone may have written."""
    with contextlib.suppress(KeyError, TypeError):
        name = content["metadata"]["kernelspec"]["name"]
        return name if isinstance(name, str) else None
    return None


def _latest(connection: Connection, path: str) -> list[Execution]:
    """The executions of the notebook's unfinished runs, or else of its newest, in order.

    The executions of one run are queued in one transaction, hence at exactly the same time.
    """
    found: list[Execution] = []
    wanted: set[tuple[object, ...]] = set()
    cursor: int | str | None = None
    while True:
        more = {} if cursor is None else {"cursor": cursor}
        page = connection.fetch(
            _Executions, "GET", "api/executions", path=path.strip("/"), limit=_PAGE, **more
        )
        found += page.executions
        wanted |= {_batch(execution) for execution in page.executions if not execution.finished_at}
        if not wanted:
            wanted |= {_batch(execution) for execution in found[:1]}
        cursor = page.next
        if cursor is None or not page.executions or _batch(page.executions[-1]) not in wanted:
            break
    if not found:
        raise CommandError(f"Nothing has been run of {path} at {connection.url}.")
    return sorted((e for e in found if _batch(e) in wanted), key=lambda execution: execution.seq)


def _batch(execution: Execution) -> tuple[object, ...]:
    return execution.session_id, execution.queued_at


def _follow(
    connection: Connection, display: Display, asker: Asker, executions: list[Execution]
) -> None:
    """Show outputs until all have finished; keeps `executions` up to date.

    Of those that had finished before only the failed are shown.
    """
    for index, execution in enumerate(executions):
        if execution.finished_at is not None and execution.status != "error":
            continue
        display.begin_cell(index)
        more: dict[str, str] = {}
        while True:
            news = connection.fetch(
                _Outputs,
                "GET",
                f"api/executions/{execution.id}/outputs",
                wait=_POLL_SECONDS_ASKING if asker.asking else _POLL_SECONDS,
                **more,
            )
            executions[index], more = news.execution, {"cursor": news.cursor}
            display.outputs(news.outputs)
            asker.update(news.execution)
            # A finished execution may have more pieces than one answer holds.
            if news.execution.finished_at is not None and not news.outputs:
                break
        display.end_cell()


def _how_to_answer(job: _Job, connection: Connection, execution: Execution) -> str:
    prompt = execution.input_request.prompt if execution.input_request else ""
    return (
        f"Execution {execution.id} waits for input: {prompt.strip() or '(no prompt)'}\n"
        f"  Answer in a terminal: {job.again}\n"
        "  or: curl -X POST -H 'Authorization: token TOKEN' -H 'Content-Type: application/json' "
        f'-d \'{{"value": "ANSWER"}}\' {connection.url}api/executions/{execution.id}/input'
    )


def _say_detached(job: _Job) -> None:
    message = "Stopped before anything was run."
    if job.under_way:
        message = f"Detached: the run goes on at the server.\nCome back to it with:\n  {job.again}"
    with contextlib.suppress(OSError):
        click.echo(message, err=True)


def _silence_stdout() -> None:
    """Let what is still buffered go nowhere: Python would fail on it at exit, with status 120."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


# --- the report ----------------------------------------------------------------------------------


def _total_seconds(executions: Sequence[Execution]) -> float | None:
    """From the first start to the last end."""
    starts = [e.started_at for e in executions if e.started_at is not None]
    ends = [e.finished_at for e in executions if e.finished_at is not None]
    return (max(ends) - min(starts)).total_seconds() if starts and ends else None


def _problems(executions: Sequence[Execution]) -> list[str]:
    """What went wrong, one line each; cells that fell with another share its reason."""
    lines: dict[str, str] = {}
    for number, execution in enumerate(executions, 1):
        if execution.ename:
            why = f"{execution.ename}: {execution.evalue or ''}"
            lines[f"{number}"] = f"Cell {number}: {why}"
        elif execution.status != "ok" and execution.reason:
            why = f"{execution.status}: {execution.reason}"
            lines.setdefault(why, f"Cell {number}: {why}")
    return list(lines.values())


def _print_table(console: Console, executions: Sequence[Execution]) -> None:
    if not executions:
        console.print("There are no code cells to run.")
        return
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    table.add_column("#", justify="right", no_wrap=True)
    widest = max(10, console.width - len(str(len(executions))) - 28)
    table.add_column("Cell", no_wrap=True, overflow="ellipsis", max_width=widest)
    table.add_column("State", no_wrap=True)
    table.add_column("Time", justify="right", no_wrap=True)
    for number, execution in enumerate(executions, 1):
        state = Text(execution.status, style=_COLOURS.get(execution.status, ""))
        source = Text(first_line(execution.code))
        table.add_row(str(number), source, state, duration(execution.seconds))
    console.print()
    console.print(table)
    states = Counter(execution.status for execution in executions)
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    total = duration(_total_seconds(executions))
    console.print(f"\nTotal: {counts}" + (f" in {total}" if total else ""), soft_wrap=True)
    for line in _problems(executions):
        console.print(Text(clean_text(line), style="red"), soft_wrap=True)


def _as_json(url: str, path: str, executions: Sequence[Execution]) -> dict[str, Any]:
    cells = [
        {
            "number": number,
            "cell_id": execution.cell_id,
            "execution_id": execution.id,
            "source": first_line(execution.code),
            "state": execution.status,
            "reason": execution.reason,
            "execution_count": execution.execution_count,
            "started_at": execution.started_at and execution.started_at.isoformat(),
            "finished_at": execution.finished_at and execution.finished_at.isoformat(),
            "seconds": execution.seconds,
            "ename": execution.ename,
            "evalue": execution.evalue,
        }
        for number, execution in enumerate(executions, 1)
    ]
    ok = all(execution.status == "ok" for execution in executions)
    seconds = _total_seconds(executions)
    return {"url": url, "path": path, "ok": ok, "seconds": seconds, "cells": cells}
