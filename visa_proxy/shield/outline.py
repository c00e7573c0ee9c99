"""What a cutter knows of the window that is open: where it may close, and what it must not tear apart."""

from __future__ import annotations

from dataclasses import dataclass, field

from visa_proxy.shield.markdown import MAX_HEADER, Line, last_gap, read_delimiter, read_inline, read_stop


@dataclass
class Marks:
    """What is known of the window that is open; offsets into the buffer, 0 where there is none."""

    position: int = 0
    guard: int = 0
    """Where the furthest span found so far ends."""
    kinds: dict[str, int] = field(default_factory=dict)
    """The same by opening character: a closing quotation mark opens nothing."""
    spans: list[tuple[int, int]] = field(default_factory=list)
    candidate: int = 0
    """Behind a sentence end that is still to be checked against spans."""
    line: int = 0
    """The last line's beginning, as all below."""
    heading: int = 0
    list_start: int = 0
    """With the heading above it, as `block_start`."""
    item: int = 0
    """The last item at the top level of the list that is open."""
    item_sentence: int = 0
    """The last sentence inside a list."""
    block_start: int = 0
    block_line: int = 0
    """The last line of the block that is open."""

    def span(self, start: int, end: int) -> None:
        """Note that no cut may fall between the two."""
        self.spans.append((start, end))
        self.guard = max(self.guard, end)


@dataclass
class Outline:
    """The structure around the position; it lasts longer than the marks of one window."""

    marks: Marks = field(default_factory=Marks)
    blank: bool = True
    """The line before was blank."""
    ended: bool = False
    """The line before ended with a sentence, or a block."""
    after_text: bool = False
    """The line before was a paragraph's."""
    heading: bool = False
    """A heading waits for what follows it."""
    in_heading: bool = False
    in_text: bool = False
    """In a paragraph's line."""
    piped: bool = False
    """In a line known to open no table."""
    list_indent: int | None = None
    """Columns before the markers of the list that is open."""

    def close(self) -> None:
        """A window was closed; offsets begin anew behind it."""
        self.marks = Marks()
        self.blank = self.ended = False

    def arrive(self, line: Line) -> None:
        """A line that is not blank begins: it may end the list that is open."""
        if self._leaves_list(line):
            self.list_indent = None

    def _leaves_list(self, line: Line) -> bool:
        if line.kind == "item" or self.list_indent is None:
            return False
        if self.blank:
            return line.indent < 2 and line.indent <= self.list_indent
        return line.kind in ("heading", "rule") and line.indent <= self.list_indent

    def may_cut_before(self, line: Line, start: int, following: str) -> bool:
        """Whether a window may end where `line` begins; `following`: the first character of its text."""
        if self.heading or self.list_indent is not None or self.marks.guard > start:
            return False
        if self.blank or line.kind == "heading":
            return True
        return self.ended and line.kind != "rule" and not following.islower()

    def enter(self, line: Line, start: int) -> None:
        """Read on behind the beginning of a line that is no block."""
        marks = self.marks
        unit = self.unit(start)
        underline = line.kind == "rule" and self.after_text and not self.blank
        if line.kind == "heading" or underline:
            marks.heading = marks.line if underline and not self.heading else unit
            self.heading = True
        elif self.heading:
            marks.span(marks.heading, start + 1)
            self.heading = False
        if line.kind == "item" and self.list_indent is not None:
            marks.item = start if line.indent <= self.list_indent else marks.item
        elif line.kind == "item" and (line.first or not self.after_text):
            self.list_indent, marks.list_start = line.indent, unit
        marks.line = start
        marks.position = line.end if line.kind == "rule" else line.content
        self.in_heading = line.kind == "heading"
        self.in_text = line.kind == "text"
        self.blank = self.ended = self.after_text = self.piped = False

    def unit(self, start: int) -> int:
        """Where what begins at `start` begins together with the heading above it."""
        return self.marks.heading if self.heading else start

    def read_stop(self, text: str, final: bool) -> bool:
        """Read on behind the punctuation at the position; False when more of `text` is needed for that."""
        stop = read_stop(text, self.marks.position, final)
        if stop is None:
            return False
        self.ended = self.ended or stop.line
        self.marks.candidate = stop.end or self.marks.candidate
        self.marks.position = stop.skip
        return True

    def read_opener(self, text: str, final: bool) -> bool:
        """Read on behind the character of OPENERS at the position; False when more of `text` is needed for that."""
        marks, at = self.marks, self.marks.position
        if marks.kinds.get(text[at], 0) > at:
            marks.position += 1
            return True
        found = read_inline(text, at, final)
        if found is None:
            return False
        if found.end > at:
            marks.span(at, found.end)
            marks.kinds[text[at]] = found.end
        marks.position = found.skip
        return True

    def opens_table(self, text: str, final: bool) -> bool | None:
        """Whether the line with the pipe at the position is the header of a table; None while more of `text` could tell."""
        marks = self.marks
        if self.piped or not self.in_text:
            return False
        end = text.find("\n", marks.position)
        if end < 0:
            return False if final or len(text) - marks.line > MAX_HEADER else None
        return end <= marks.line + MAX_HEADER and read_delimiter(text, end + 1, final)

    def settle(self, at: int) -> bool:
        """A sentence ends before `at`, and all spans up to there are known: whether it is an allowed cut."""
        self.marks.candidate = 0
        if self.marks.guard > at or self.in_heading:
            return False
        if self.list_indent is not None:
            self.marks.item_sentence = at
        return self.list_indent is None

    def force(self, text: str, limit: int) -> tuple[int, bool]:
        """Where a window closes that has no allowed cut up to `limit`, and whether the block that is open goes on behind it."""
        marks = self.marks
        self.in_heading = self.heading = False
        if self.list_indent is not None:
            sentence = marks.item_sentence
            if marks.list_start:
                self.list_indent = None
                return marks.list_start, False
            if marks.item:
                return marks.item, False
        else:
            sentence = 0
        if marks.block_start:
            return marks.block_start, False
        return marks.block_line or sentence or last_gap(text, limit, marks.spans), True
