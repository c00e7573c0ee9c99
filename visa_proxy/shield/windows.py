"""Cutting an answer into windows while it streams: parts that can be rewritten each by itself, and verbatim parts.

A cut is decided only when no further text could move it, so the windows depend on the text alone, not on the pieces it came in.
Nothing here looks further than HORIZON characters from the start of the window that is open.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from visa_proxy.shield.markdown import (
    OPENERS,
    STOPS,
    Block,
    Line,
    read_line,
)
from visa_proxy.shield.outline import Outline

GOALS: Final = (40, 120, 200, 280)
"""Characters from which on the first, second, … prose window may close; the last one holds for all that follow."""
MAX_WINDOW: Final = 2_000
"""Characters of the longest window."""
HORIZON: Final = 2_500
"""Characters held back at most."""
MAX_WHOLE: Final = 20_000
"""Characters of the longest text that is rewritten whole: measuring more would hold up everybody else's."""
JSON_PIECE: Final = 500

_JSON: Final = re.compile(r'\s*+(?:\{[\s"}]|\[(?:\]|\s*[{"\[]|\s*-?\d[\d.eE+-]{0,40}\s*,))')
_JSON_SO_FAR: Final = re.compile(r"\s*+(?:\{|\[\s*(?:-|-?\d[\d.eE+-]{0,40}\s*)?)?\Z")
_PLAIN: Final = re.compile(f"[^{re.escape(STOPS + OPENERS)}|\n]+")
_BLOCKS: Final = ("fence", "table", "maths")


def looks_like_json(text: str) -> bool:
    """Whether a text begins as JSON does: an object, or an array of more than one lone number ("[1] says" is a citation)."""
    return bool(_JSON.match(text))


def _is_json(text: str, final: bool) -> bool | None:
    found = looks_like_json(text)
    return None if not found and not final and _JSON_SO_FAR.match(text) else found


@dataclass(frozen=True)
class Window:
    """A part of an answer; the texts of all windows in order are the answer."""

    text: str
    verbatim: bool = False
    """Code, a table, display maths, JSON or white space: leaves as it came."""


class Splitter(Protocol):
    """Takes a text in pieces and gives it back in windows."""

    def feed(self, text: str) -> list[Window]:
        """The windows that this piece closed."""
        ...

    def end(self) -> list[Window]:
        """The rest. Then another text may be fed."""
        ...


class Whole:
    """One window per text, or even ones of a text that is longer than a rewriter takes at once."""

    def __init__(self, reach: int = MAX_WHOLE, *, verbatim: bool = True) -> None:
        """`reach`: characters that a rewriter takes at once; texts beyond MAX_WHOLE are never cut. `verbatim`: see Cutter."""
        self._pieces: list[str] = []
        self._reach = reach
        self._verbatim = verbatim

    def feed(self, text: str) -> list[Window]:
        """Nothing yet."""
        self._pieces.append(text)
        return []

    def end(self) -> list[Window]:
        """Everything that was fed; no window if that is nothing."""
        text = "".join(self._pieces)
        self._pieces = []
        if not self._reach < len(text) <= MAX_WHOLE:
            return [Window(text)] if text else []
        cutter = Cutter(verbatim=self._verbatim, goals=(min(self._reach, MAX_WINDOW) * 2 // 3,))
        return cutter.feed(text) + cutter.end()


class Cutter:
    """Closes a window at the first sentence or paragraph end behind its goal that lies in no construct.

    With `verbatim`, code, tables and display maths leave as windows of their own, line by line; without it they belong to the
    prose around them, uncut up to MAX_WINDOW. JSON leaves verbatim either way. `goals`: see GOALS.
    """

    def __init__(self, *, verbatim: bool = True, goals: Sequence[int] = GOALS) -> None:
        self._verbatim = verbatim
        self._goals = goals
        self._closed = 0
        self._goal = goals[0]
        self._out: list[Window] = []
        self._reset()

    def _reset(self) -> None:
        self._buffer = ""
        self._json: bool | None = None
        self._outline = Outline()
        self._block: Block | None = None
        self._line_start = True
        self._released = False
        """The window before was verbatim."""

    def feed(self, text: str) -> list[Window]:
        """The windows that this piece closed."""
        at = 0
        while at < len(text):
            room = HORIZON - len(self._buffer)
            self._buffer += text[at : at + room]
            at += room
            self._scan(final=False)
        taken, self._out = self._out, []
        return taken

    def end(self) -> list[Window]:
        """The rest. Another text may be fed then; the goals go on where they were."""
        self._scan(final=True)
        if self._buffer:
            self._emit(len(self._buffer))
        self._reset()
        taken, self._out = self._out, []
        return taken

    def _emit(self, end: int, *, verbatim: bool = False) -> None:
        text, self._buffer = self._buffer[:end], self._buffer[end:]
        verbatim = verbatim or not text.strip()
        self._out.append(Window(text, verbatim))
        self._released = verbatim
        self._closed += not verbatim
        self._goal = self._goals[min(self._closed, len(self._goals) - 1)]
        self._outline.close()
        self._line_start = text.endswith("\n")

    def _scan(self, *, final: bool) -> None:
        if self._json is None and self._buffer:
            self._json = _is_json(self._buffer, final or len(self._buffer) == HORIZON)
        if self._json:
            self._scan_json(final)
        while self._buffer and self._json is False:
            if self._outline.marks.position > MAX_WINDOW:
                end, inside = self._outline.force(self._buffer, MAX_WINDOW)
                self._block = self._block if inside else None
                self._emit(end)
            elif self._outline.marks.position >= len(self._buffer):
                return
            elif not self._step(final):
                if len(self._buffer) < HORIZON:
                    return
                self._outline.marks.span(self._outline.marks.position, HORIZON + 1)
                self._outline.marks.position = HORIZON

    def _scan_json(self, final: bool) -> None:
        while self._buffer:
            end = self._buffer.find("\n", 0, JSON_PIECE) + 1
            if not end and len(self._buffer) < JSON_PIECE and not final:
                return
            self._emit(end or JSON_PIECE, verbatim=True)

    def _step(self, final: bool) -> bool:
        """Read on; False when more text is needed for that."""
        if self._block:
            return self._read_block(self._block, final)
        return self._read_line(final) if self._line_start else self._read_inline(final)

    def _read_block(self, block: Block, final: bool) -> bool:
        marks, start = self._outline.marks, self._outline.marks.position
        end = self._buffer.find("\n", start) + 1 or (len(self._buffer) if final else 0)
        if self._line_start and not block.opening:
            inside = block.continues(self._buffer, start, end)
            if inside is None:
                return False
            if not inside:
                self._close_block()
                return True
        if not end or end - start > MAX_WINDOW:
            end = start + MAX_WINDOW
            if len(self._buffer) < end:
                return False
        closing = self._line_start and not block.opening and block.closes(self._buffer[start:end])
        block.opening = False
        if self._verbatim:
            self._emit(end, verbatim=True)
        else:
            marks.position = end
            self._line_start = self._buffer.endswith("\n", start, end)
            if end <= MAX_WINDOW:
                marks.block_line = end
        if closing:
            self._close_block()
        return True

    def _close_block(self) -> None:
        if not self._verbatim:
            self._outline.marks.span(self._outline.marks.block_start, self._outline.marks.position)
        self._block = None
        self._outline.marks.block_start = self._outline.marks.block_line = 0
        self._outline.ended = True

    def _open_block(self, line: Line, start: int) -> None:
        """A block begins at `start`, the beginning of a line."""
        if self._verbatim:
            if start:
                self._emit(start)
            self._outline.heading = False
        else:
            self._outline.marks.block_start = self._outline.unit(start)
        self._outline.after_text = False
        if line.kind != "maths":
            self._block = Block(line.fence, line.quoted, line.loose)
        elif self._verbatim:
            self._emit(line.end - start, verbatim=True)
        else:
            self._outline.marks.span(start, line.end)
            self._outline.marks.position = line.end
            self._outline.marks.block_start = 0
        self._line_start = True
        self._outline.ended = line.kind == "maths"

    def _read_line(self, final: bool) -> bool:
        start = self._outline.marks.position
        line = read_line(self._buffer, start, final)
        if line is None:
            return False
        if line.kind == "blank":
            self._read_blank(line)
            return True
        self._outline.arrive(line)
        if line.kind in _BLOCKS and self._verbatim:
            self._open_block(line, start)
        elif start >= self._goal and self._outline.may_cut_before(line, start, self._buffer[line.content : line.content + 1]):
            self._emit(start)
        elif line.kind in _BLOCKS:
            self._open_block(line, start)
        else:
            self._outline.enter(line, start)
            self._line_start = line.kind == "rule"
        return True

    def _read_blank(self, line: Line) -> None:
        if self._released and not self._outline.marks.position:
            self._emit(line.end, verbatim=True)
        else:
            self._outline.marks.position = line.end
        self._outline.blank = True
        self._outline.after_text = False

    def _read_inline(self, final: bool) -> bool:
        marks, buffer = self._outline.marks, self._buffer
        if marks.candidate and marks.position >= marks.candidate:
            at = marks.candidate
            if self._outline.settle(at) and self._goal <= at <= MAX_WINDOW:
                self._emit(at)
            return True
        plain = _PLAIN.match(buffer, marks.position, marks.candidate or len(buffer))
        if plain:
            marks.position = plain.end()
            return True
        character = buffer[marks.position]
        if character == "\n":
            marks.position += 1
            self._line_start = True
            self._outline.after_text = self._outline.in_text
            return True
        if character == "|":
            return self._read_pipe(final)
        outline = self._outline
        return outline.read_stop(buffer, final) if character in STOPS else outline.read_opener(buffer, final)

    def _read_pipe(self, final: bool) -> bool:
        outline = self._outline
        table = outline.opens_table(self._buffer, final)
        if table:
            start = outline.marks.position = outline.marks.line
            outline.marks.candidate = 0
            self._open_block(Line("table", start, loose=True), start)
        elif table is False:
            outline.piped = True
            outline.marks.position += 1
        return table is not None
