"""A run in a terminal: its outputs, the bar below them, and the questions that its code asks.

What a notebook prints is written by whoever wrote the notebook: of its control sequences only
colours reach the terminal. Nothing here makes requests, except through the callable that an
`Asker` is given to send an answer.
"""

import contextlib
import os
import re
import select
import sys
import termios
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from rich.ansi import AnsiDecoder
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from app.cli.connection import CommandError, Execution, InputRequest

# ECMA-48: colours (SGR), then what is dropped: other CSI, strings (OSC, DCS, ...: titles, links,
# clipboard), other escapes, and the control characters that move the cursor or ring.
_CONTROLS = re.compile(
    r"(?P<colour>\x1b\[[0-9;:]{0,64}m)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_k]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)
_TAIL_CHARACTERS = 4096  # of an unfinished line; more does not fit below the outputs
_TAIL_LINES = 3
_OPEN = {"asking", "sending", "failed"}  # states of a question that wants more than a slow poll


def clean_line(line: str, *, colours: bool = False) -> str:
    """One line as a terminal shows it, safe to write to one.

    A carriage return starts the line anew, a backspace takes a character back. Of the control
    sequences only colours stay, and those only if asked for.
    """
    line = line.rstrip("\r").rpartition("\r")[2]
    if "\b" in line:
        kept: list[str] = []
        for character in line:
            if character != "\b":
                kept.append(character)
            elif kept:
                kept.pop()
        line = "".join(kept)
    line = _CONTROLS.sub(lambda match: (match["colour"] or "") if colours else "", line)
    return line.encode("utf-8", "replace").decode("utf-8")  # lone surrogates


def clean_text(text: str) -> str:
    """Several lines, each as `clean_line` without colours."""
    return "\n".join(clean_line(line) for line in text.split("\n"))


def first_line(code: str) -> str:
    """The first line of a cell that says something."""
    lines = (clean_line(line).strip() for line in code.splitlines())
    return next((line for line in lines if line), "")


def clock(seconds: float) -> str:
    """Minutes and seconds, for times that run."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration(seconds: float | None) -> str:
    """How long something took, as precise as a person cares for."""
    if seconds is None:
        return ""
    if seconds >= 60:
        return clock(seconds)
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"


class StreamLines:
    """Whole lines out of a stream's pieces, which end anywhere, also within an escape sequence."""

    def __init__(self, style: str) -> None:
        self.decoder = AnsiDecoder()  # carries a colour on to the next line
        self.style = style
        self._pieces: list[str] = []

    def feed(self, text: str) -> list[str]:
        """The lines that `text` completes, raw."""
        head, *others = text.split("\n")
        self._append(head)
        lines = []
        for line in others:
            lines.append("".join(self._pieces))
            self._pieces = []
            self._append(line)
        return lines

    def rest(self) -> str:
        """The unfinished line, raw, which is thereby over."""
        rest, self._pieces = "".join(self._pieces), []
        return rest

    def tail(self) -> str:
        """The end of the unfinished line, raw; it stays."""
        tail = ""
        for piece in reversed(self._pieces[:]):
            if len(tail) > _TAIL_CHARACTERS:
                break
            tail = piece + tail
        return tail[-_TAIL_CHARACTERS:]

    def _append(self, text: str) -> None:
        """Add to the unfinished line, letting go of what a carriage return overwrites."""
        if not text:
            return
        if self._pieces and self._pieces[-1].endswith("\r") and text.strip("\r"):
            self._pieces = []
        start = text.rstrip("\r").rfind("\r") + 1
        if start:
            self._pieces = []
        self._pieces.append(text[start:])


class Display:
    """Outputs as they come, and below them a bar while the run goes on (if `bar`).

    `now` gives the time by the server's clock. May be used from several threads.
    """

    def __init__(
        self, console: Console, notes: Console, *, bar: bool, now: Callable[[], datetime]
    ) -> None:
        self.console = console
        self._notes = notes
        self._bar = bar
        self._now = now
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._executions: Sequence[Execution] = ()
        self._current = 0
        self._streams: dict[str, StreamLines] = {}
        self._lines: list[Text] = []
        self._question: str | None = None

    def begin(self, executions: Sequence[Execution]) -> None:
        """Show the bar; it reads `executions`, which the caller keeps up to date."""
        with self._lock:
            self._executions = executions
            self._show_bar()

    def begin_cell(self, index: int) -> None:
        """Outputs are of this execution from now on."""
        with self._lock:
            self._current = index
            self._streams = {
                "stdout": StreamLines(""),
                "stderr": StreamLines("red"),
            }

    def outputs(self, pieces: Sequence[dict[str, Any]]) -> None:
        """Show output pieces (nbformat's outputs)."""
        with self._lock:
            for piece in pieces:
                self._take(piece)
            self._write()

    def end_cell(self) -> None:
        """Show lines that were left without an end."""
        with self._lock:
            self._end_lines()
            self._write()

    def note(self, message: str) -> None:
        """Say something that is not an output: above the bar, or else on stderr."""
        with self._lock:
            if self._live is not None or self._question is not None:
                self._lines.append(Text(clean_text(message), style="yellow"))
                self._write()
            else:
                self._notes.print(Text(clean_text(message), style="yellow"), soft_wrap=True)

    def ask(self, prompt: str) -> None:
        """Show a question in place of the bar, with the cursor after it."""
        with self._lock:
            self._end_lines()
            self._write()
            self._hide_bar()
            self._question = clean_text(prompt)
            self.console.print(Text(self._question, style="bold"), end="", soft_wrap=True)

    def end_question(self, *, typed: bool) -> None:
        """Bring the bar back; `typed` says that the cursor is on a new line already."""
        with self._lock:
            if self._question is None:
                return
            self._question = None
            if not typed:
                self.console.print()
            self._show_bar()

    def close(self) -> None:
        """Take the bar away."""
        with self._lock:
            self._bar = False
            self._hide_bar()

    # --- outputs

    def _take(self, piece: dict[str, Any]) -> None:
        kind = piece.get("output_type")
        if kind == "stream":
            stream = self._streams.get(str(piece.get("name")), self._streams["stdout"])
            for line in stream.feed(_joined(piece.get("text"))):
                self._line(line, stream)
            return
        self._end_lines()
        if kind == "error":
            text = "\n".join(str(line) for line in piece.get("traceback") or [])
            self._block(text or f"{piece.get('ename')}: {piece.get('evalue')}")
        else:
            self._block(_shown(piece.get("data") or {}))

    def _block(self, text: str) -> None:
        lines = StreamLines("")
        for line in text.removesuffix("\n").split("\n"):
            self._line(line, lines)

    def _line(self, raw: str, stream: StreamLines) -> None:
        if not self.console.is_terminal:
            self._lines.append(Text(clean_line(raw)))
            return
        line = stream.decoder.decode_line(clean_line(raw, colours=True))
        line.style = stream.style
        self._lines.append(line)

    def _end_lines(self) -> None:
        for stream in self._streams.values():
            if rest := stream.rest():
                self._line(rest, stream)

    def _write(self) -> None:
        """Write the lines gathered, in one go: each print draws the bar again."""
        lines, self._lines = self._lines, []
        if not lines:
            if self._live is not None:
                self._live.refresh()
            return
        if self._question is not None:
            self.console.print()
        if self.console.is_terminal:
            self.console.print(Text("\n").join(lines), soft_wrap=True)
        else:  # not through rich, which turns tabs into spaces
            text = "".join(line.plain + "\n" for line in lines)
            encoding = self.console.encoding
            self.console.file.write(text.encode(encoding, "replace").decode(encoding))
            self.console.file.flush()
        if self._question is not None:
            self.console.print(Text(self._question, style="bold"), end="", soft_wrap=True)

    # --- the bar

    def _show_bar(self) -> None:
        if self._bar and self._live is None and self._executions:
            self._live = Live(
                console=self.console,
                get_renderable=self._picture,
                refresh_per_second=8,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start(refresh=True)

    def _hide_bar(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _picture(self) -> RenderableType:
        """Unfinished lines, the current cell with its time, the bar with the run's."""
        executions, now = self._executions, self._now()
        cell = executions[self._current]
        done = sum(execution.finished_at is not None for execution in executions)
        begun = min((e.started_at for e in executions if e.started_at is not None), default=None)
        if cell.input_request is not None:
            state = "asks"
        elif cell.started_at is None:
            state = "queued"
        else:
            state = clock(((cell.finished_at or now) - cell.started_at).total_seconds())
        source = Text(first_line(cell.code), no_wrap=True, overflow="ellipsis")
        rows = Table.grid(padding=(0, 1))
        rows.width = max(10, self.console.width - 3)  # a terminal's ^C must not start a line
        rows.add_column(no_wrap=True)
        rows.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        rows.add_column(justify="right", no_wrap=True)
        rows.add_row(f"Cell {self._current + 1}", source, state)
        rows.add_row(
            f"{done}/{len(executions)}",
            ProgressBar(total=len(executions), completed=done),
            "" if begun is None else clock((now - begun).total_seconds()),
        )
        return Group(*self._unfinished(), rows)

    def _unfinished(self) -> list[Text]:
        """What was printed without a line's end: a progress display, most often."""
        shown = []
        for stream in self._streams.values():
            if tail := stream.tail():
                text = AnsiDecoder().decode_line(clean_line(tail, colours=True))
                text.style = stream.style
                text.expand_tabs(8)
                shown.append(text[-_TAIL_LINES * self.console.width :])
        return shown


def _joined(value: Any) -> str:
    """Text that nbformat lets be a list of lines."""
    return "".join(map(str, value)) if isinstance(value, list) else str(value or "")


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _shown(data: dict[str, Any]) -> str:
    """A mime bundle in a terminal: its plain text, and a line for each picture."""
    parts = [_joined(data["text/plain"])] if "text/plain" in data else []
    for mime, value in data.items():
        if mime.startswith("image/") or "text/plain" not in data:
            text = _joined(value) if isinstance(value, str | list) else ""
            encoded = mime.startswith("image/") and not mime.startswith("image/svg")
            count = len(text.strip()) * 3 // 4 if encoded else len(text.encode("utf-8", "replace"))
            parts.append(f"[{mime}, {_size(count)}]" if count else f"[{mime}]")
    return "\n".join(parts)


class Asker:
    """Puts an execution's questions to the person at the terminal, while following goes on.

    `send(execution_id, value)` returns False when another had answered. Where no one can be asked
    (`terminal` false), `how(execution)` is said instead.
    """

    def __init__(
        self,
        display: Display,
        send: Callable[[str, str], bool],
        how: Callable[[Execution], str],
        *,
        terminal: bool,
    ) -> None:
        self._display = display
        self._send = send
        self._how = how
        self._terminal = terminal
        self._question: _Question | None = None
        self._said: str | None = None

    @property
    def asking(self) -> bool:
        """Whether a person is being asked, or is to be asked again."""
        return self._question is not None and self._question.state in _OPEN

    def update(self, execution: Execution) -> None:
        """Ask what this execution asks now, or stop asking what it asks no longer."""
        request, open_ = execution.input_request, self._question
        if execution.finished_at is not None:
            request = None
        if open_ is not None and (request is None or request.id != open_.request.id):
            if open_.stop():
                over = execution.finished_at is not None
                self._display.note(
                    "No answer is needed any more." if over else "It was answered elsewhere."
                )
            self._question = open_ = None
        if request is None or (open_ is not None and open_.state != "failed"):
            return
        if self._terminal and _in_foreground():
            self._question = _Question(execution, request, self._display, self._send, self._how)
        elif self._said != request.id:
            self._said = request.id
            self._display.note(self._how(execution))

    def close(self) -> None:
        """Stop asking; the terminal is as it was."""
        if self._question is not None:
            self._question.stop()
            self._question = None


class _Question:
    """One input request, read from the terminal by a thread that can be told to stop.

    `state` goes from asking to sending to sent, or to failed (to be asked again); to left when the
    person ended the input, to stopped when someone else took the question away.
    """

    def __init__(
        self,
        execution: Execution,
        request: InputRequest,
        display: Display,
        send: Callable[[str, str], bool],
        how: Callable[[Execution], str],
    ) -> None:
        self.request = request
        self.state = "asking"
        self._execution = execution
        self._display, self._send, self._how = display, send, how
        self._lock = threading.Lock()
        self._terminal = sys.stdin.fileno()
        self._saved = termios.tcgetattr(self._terminal)
        self._wake, self._waker = os.pipe()
        display.ask(request.prompt)
        if request.password:
            silent = termios.tcgetattr(self._terminal)
            silent[3] &= ~termios.ECHO
            termios.tcsetattr(self._terminal, termios.TCSAFLUSH, silent)
        self._thread = threading.Thread(target=self._ask, name="question", daemon=True)
        self._thread.start()

    def stop(self) -> bool:
        """End the question; True when it was still being asked (half an answer is let go).

        Does not wait for an answer that is being sent.
        """
        with self._lock:
            asked = self.state == "asking"
            if asked:
                self.state = "stopped"
        os.close(self._waker)
        if asked:
            self._thread.join()
            self._restore(termios.TCSAFLUSH)
            self._display.end_question(typed=False)
        os.close(self._wake)
        return asked

    def _ask(self) -> None:
        line = self._read_line()
        with self._lock:
            if self.state != "asking" or line is None:
                return
            self.state = "sending" if line else "left"
        self._restore(termios.TCSADRAIN)
        self._display.end_question(typed=line.endswith("\n") and not self.request.password)
        if not line:
            self._display.note(self._how(self._execution))
            return
        try:
            if not self._send(self._execution.id, line.removesuffix("\n")):
                self._display.note("It was answered elsewhere before.")
            self.state = "sent"
        except CommandError as error:
            self._display.note(f"The answer was not taken. {error.message}")
            self.state = "failed"

    def _read_line(self) -> str | None:
        """The line typed with its end, what was typed before Ctrl-D, or None when told to stop."""
        typed = b""
        while not typed.endswith(b"\n"):
            ready, _, _ = select.select([self._terminal, self._wake], [], [])
            if self._wake in ready:
                return None
            try:
                more = os.read(self._terminal, 65536)
            except OSError:  # the terminal is gone; SIGHUP ends the command
                return None
            if not more:
                break
            typed += more
        return typed.decode("utf-8", "replace")

    def _restore(self, when: int) -> None:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._terminal, when, self._saved)


def _in_foreground() -> bool:
    """Whether reading the terminal is ours to do: a job in the background would be stopped."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        return False
