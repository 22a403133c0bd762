r"""A stream's text as a terminal shows it, piece by piece.

`\r` goes to the start of the line, `\b` one character back, and what follows overwrites; `\n`
goes on after the line's end. Only the unfinished last line is kept, so that a piece costs what it
says, not what was said before. Text never shrinks: overwriting keeps a line's length, so a change
to the text in a document is at most one replacement within its last line and one addition.
"""

import re
from typing import NamedTuple

_CONTROL = re.compile("([\r\b])")


class Splice(NamedTuple):
    """Replace `deleted` bytes of UTF-8 at byte `offset` with `text`."""

    offset: int
    deleted: int
    text: str


class StreamText:
    """The text of one stream output.

    `text` is what the document holds so far, `cursor` the place in its last line where the next
    character goes (its end by default). `feed` takes raw pieces; `take` returns what is to be
    changed in the document since the last `take`, to be applied in that order.
    """

    def __init__(self, text: str = "", cursor: int | None = None) -> None:
        line = text[text.rfind("\n") + 1 :]
        self._total = len(text.encode())
        self._line_start = self._total - len(line.encode())
        # Pieces of the last line while nothing in it was overwritten ...
        self._pieces: list[str] = [line] if line else []
        self._stored_pieces = len(self._pieces)
        # ... and its characters, and those the document has, once something was.
        self._characters: list[str] | None = None
        self._stored: list[str] = []
        self._cursor = 0
        self._low = self._high = 0
        self._patch: Splice | None = None
        self._added: list[str] = []
        if cursor is not None and cursor < len(line):
            self._overwrite_mode()
            self._cursor = cursor

    @property
    def pending(self) -> bool:
        """Whether `take` would return anything."""
        if self._added or self._patch:
            return True
        if self._characters is None:
            return len(self._pieces) > self._stored_pieces
        return len(self._characters) > len(self._stored) or self._low < self._high

    def feed(self, piece: str) -> None:
        """Take the next raw text."""
        piece = piece.replace("\r\n", "\n")
        if "\r" not in piece and "\b" not in piece:
            head, newline, last = piece.rpartition("\n")
            if newline:
                first, more, rest = head.partition("\n")
                self._write(first)
                self._end_line()
                if more:
                    self._added.append(rest + "\n")
            self._write(last)
            return
        first_line, *lines = piece.split("\n")
        self._line(first_line)
        for line in lines:
            self._end_line()
            self._line(line)

    def take(self) -> list[Splice]:
        """Return the changes since the last call, and take them as made."""
        splices = []
        if self._characters is None:
            new = self._pieces[self._stored_pieces :]
            self._stored_pieces = len(self._pieces)
        else:
            self._keep_patch()
            new = self._characters[len(self._stored) :]
            self._stored.extend(new)
        last = "".join(new)
        added = "".join(self._added) + last
        if added:
            splices.append(Splice(self._total, 0, added))
            if self._added:
                self._line_start = self._total + len(added.encode()) - len(last.encode())
            self._total += len(added.encode())
        if self._patch:
            splices.append(self._patch)
            change = len(self._patch.text.encode()) - self._patch.deleted
            self._total += change
            if self._added:
                self._line_start += change
        self._added = []
        self._patch = None
        return splices

    def _line(self, text: str) -> None:
        if "\r" not in text and "\b" not in text:
            self._write(text)
            return
        for part in _CONTROL.split(text):
            if part == "\r":
                self._overwrite_mode()
                self._cursor = 0
            elif part == "\b":
                self._overwrite_mode()
                self._cursor = max(0, self._cursor - 1)
            else:
                self._write(part)

    def _overwrite_mode(self) -> None:
        if self._characters is None:
            self._characters = list("".join(self._pieces))
            self._stored = list("".join(self._pieces[: self._stored_pieces]))
            self._cursor = len(self._characters)

    def _write(self, text: str) -> None:
        if not text:
            return
        if self._characters is None:
            self._pieces.append(text)
            return
        end = self._cursor + len(text)
        if self._cursor < len(self._stored):
            self._low = min(self._low, self._cursor) if self._low < self._high else self._cursor
            self._high = max(self._high, min(end, len(self._stored)))
        self._characters[self._cursor : end] = text
        self._cursor = end

    def _end_line(self) -> None:
        if self._characters is None:
            self._added.extend(self._pieces[self._stored_pieces :])
        else:
            self._keep_patch()
            self._added.append("".join(self._characters[len(self._stored) :]))
        self._added.append("\n")
        self._pieces = []
        self._stored_pieces = 0
        self._characters = None
        self._stored = []

    def _keep_patch(self) -> None:
        """Remember what is to be replaced within the part of the line that the document has."""
        if self._low >= self._high or self._characters is None:
            return
        new = "".join(self._characters[self._low : self._high])
        old = "".join(self._stored[self._low : self._high])
        if new != old:
            before = len("".join(self._stored[: self._low]).encode())
            self._patch = Splice(self._line_start + before, len(old.encode()), new)
            self._stored[self._low : self._high] = new
        self._low = self._high = 0


def render(text: str) -> str:
    """Return a whole stream's text with its controls applied."""
    if "\r" not in text and "\b" not in text:
        return text
    stream = StreamText()
    stream.feed(text)
    return "".join(splice.text for splice in stream.take())


def cursor_after(last_line: str) -> int:
    """Return where the next character goes after the raw text of a line."""
    cursor = 0
    for part in _CONTROL.split(last_line):
        if part == "\r":
            cursor = 0
        elif part == "\b":
            cursor = max(0, cursor - 1)
        else:
            cursor += len(part)
    return cursor
