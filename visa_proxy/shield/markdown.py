"""The Markdown that must stay whole: its patterns, and readers that also say when more text could still change the answer."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Final, Literal

from visa_proxy.encoder.sentences import ABBREVIATIONS

MAX_ROW: Final = 2_000
"""Characters of a table row that may open a table."""
MAX_HEADER: Final = 400
"""Characters of a table header that does not begin with a pipe."""
_MAX_INFO: Final = 300
"""Characters of a line that opens a fence."""

FENCED: Final = (
    r"^[ \t>]*(?P<fence>(?:`{3,}+(?=[^`\n]*\n)|~{3,}+))[^\n]*\n"
    r"(?:.*?^[ \t>]*(?P=fence)[`~]*[ \t\r]*$|.*\Z)"  # or open to the end
)
INLINE_CODE: Final = r"(?<!`)(?P<ticks>`+)(?!`)[^\n]{1,1000}?(?<!`)(?P=ticks)(?!`)"
DISPLAY_MATHS: Final = r"\$\$.{1,1000}?\$\$|\\\[.{1,1000}?\\\]"
BRACKET_MATHS: Final = r"\\\(.{1,1000}?\\\)"
DOLLAR_MATHS: Final = r"(?<![\\$])\$(?![\s$])(?:[^$\\\n]|\\.|\n(?!\s*\n)){1,200}(?<!\s)\$(?!\d)"  # pandoc's rule: no "$5 and $10"
QUOTE: Final = re.compile(r"\"[^\"\n]{1,400}\"|“[^”\n]{1,400}”|«[^»\n]{1,400}»")
TABLE: Final = re.compile(r"(?:^[ \t>]*\|[^\n]*\|[ \t\r]*(?:\n|\Z))+", re.MULTILINE)

_LINE_END: Final = re.compile("\n")


@dataclass(frozen=True)
class _Span:
    """How one kind of span is found: `pattern` at its first character, at most `bound` characters, none beyond `stop`."""

    pattern: re.Pattern[str]
    bound: int
    stop: re.Pattern[str] | None = _LINE_END
    opaque: bool = False
    """Nothing opens inside it."""

    def end(self, text: str, at: int, final: bool) -> int | None:
        """Where the span that opens at `at` ends; `at` if it is none; None while more text could tell."""
        match = self.pattern.match(text, at)
        if match:
            return match.end() if final or match.end() < len(text) else None
        if final or len(text) > at + self.bound or (self.stop and self.stop.search(text, at + 1)):
            return at
        return None


_CODE_SPAN: Final = _Span(re.compile(INLINE_CODE), 1_100, opaque=True)
_DISPLAY_SPAN: Final = _Span(re.compile(DISPLAY_MATHS, re.DOTALL), 1_005, None, opaque=True)
_BRACKET_SPAN: Final = _Span(re.compile(BRACKET_MATHS, re.DOTALL), 1_005, None, opaque=True)
_DOLLAR_SPAN: Final = _Span(re.compile(DOLLAR_MATHS, re.DOTALL), 405, re.compile(r"(?<!\\)\$|\n\s*\n"), opaque=True)
_QUOTE_SPAN: Final = _Span(QUOTE, 402)
_BOLD_SPAN: Final = _Span(re.compile(r"\*\*(?=[^\s*])[^\n]{0,400}?[^\s*]\*\*"), 405)
_LINK_TEXT: Final = _Span(re.compile(r"\[(?:[^\[\]\n]|\[[^\[\]\n]{0,200}\]){0,400}\]"), 600)
_LINK_TARGET: Final = _Span(re.compile(r"\((?:[^()\n]|\([^()\n]{0,200}\)){0,1000}\)"), 1_200)
_TICKS: Final = re.compile("`+")


@dataclass(frozen=True)
class Inline:
    """What stands at an opening character: a span up to `end`, or none when `end` is where it began; `skip`: where to read on."""

    end: int
    skip: int


def read_inline(text: str, at: int, final: bool) -> Inline | None:
    """What opens at `at`, which holds one of OPENERS; None while more text could tell (never when `final`)."""
    opener = text[at : at + 2]
    if opener in ("`", "``", "$", "\\", "*") and len(text) == at + len(opener) and not final:
        return None
    length = 1
    if opener[0] == "`":
        length = len(_TICKS.match(text, at)[0])  # type: ignore[index]
        if at + length == len(text) and not final:
            return None
    elif opener == "$$" or opener in (r"\$", r"\*"):
        length = 2
    span = _span(opener)
    end = at if span is None else _link_end(text, at, final) if span is _LINK_TEXT else span.end(text, at, final)
    if end is None or span is None:
        return None if end is None else Inline(at, at + length)
    return Inline(end, end if span.opaque and end > at else at + length)


OPENERS: Final = '`$\\*["“«'


def _span(opener: str) -> _Span | None:
    pairs = {"$$": _DISPLAY_SPAN, r"\[": _DISPLAY_SPAN, r"\(": _BRACKET_SPAN, "**": _BOLD_SPAN}
    single = {"`": _CODE_SPAN, "$": _DOLLAR_SPAN, "[": _LINK_TEXT, '"': _QUOTE_SPAN, "“": _QUOTE_SPAN, "«": _QUOTE_SPAN}
    return pairs.get(opener) or single.get(opener[0])


def _link_end(text: str, at: int, final: bool) -> int | None:
    middle = _LINK_TEXT.end(text, at, final)
    if middle is None or middle == at or text[middle : middle + 1] != "(":
        return None if middle is None else at
    end = _LINK_TARGET.end(text, middle, final)
    return at if end == middle else end


LineKind = Literal["blank", "text", "item", "heading", "rule", "fence", "table", "maths"]


@dataclass(frozen=True)
class Line:
    """A line as far as its beginning tells."""

    kind: LineKind
    content: int
    """Where its text begins, behind indentation and markers."""
    indent: int = 0
    """Columns before the text or the list marker; a tab counts as four."""
    end: int = 0
    """Behind the line end of a fence's first line, of a rule, of a blank line, and of the last line of display maths."""
    fence: str = ""
    quoted: bool = False
    loose: bool = False
    """A table some of whose rows begin without a pipe."""
    first: bool = True
    """A list marker that may interrupt a paragraph."""


_UNSURE: Final = re.compile(r"[ \t\r>]*(?:[-*_=][-*_= \t\r]*|(?:[+•]|#{1,6}|\d{1,9}[.)]?)\r?|`{1,2}|~{1,2}|[$\\])?")
_HEAD: Final = re.compile(r"(?P<quote>(?:[ \t]*>)*)(?P<indent>[ \t]*)")
_MARKER: Final = re.compile(r"(?:[-*+•]|(?P<number>\d{1,9})[.)])(?=[ \t]|\r?\Z)[ \t]*")
_HEADING: Final = re.compile(r"#{1,6}(?=[ \t\r]|\Z)")
_REST: Final = re.compile(r"[ \t\r]*")
_RULE: Final = re.compile(r"(?:([-*_])(?:[ \t]*\1){2,}|={2,}|--)[ \t\r]*\Z")
_FENCE: Final = re.compile(r"`{3,}(?=[^`]*\Z)|~{3,}")
_FENCE_SO_FAR: Final = re.compile(r"(?:`{1,2}|`{3,}[^`]*|~{1,2}|~{3,}.*)\Z")
_DELIMITER: Final = re.compile(r"[ \t>]*(?=[^\n]*\|)\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t\r]*\Z")
_DELIMITER_SO_FAR: Final = re.compile(r"[ \t>|:\r-]*\Z")


def read_line(text: str, at: int, final: bool) -> Line | None:
    """The line that begins at `at`; None while more text could tell (never when `final`)."""
    end = text.find("\n", at)
    whole = final or end >= 0
    after = end + 1 if end >= 0 else len(text)
    end = end if end >= 0 else len(text)
    if not whole and _UNSURE.fullmatch(text, at, end):
        return None
    head = _HEAD.match(text, at, end)
    assert head is not None  # it matches the empty text
    quoted, content = bool(head["quote"]), head.end()
    indent = max(0, len(head["indent"].expandtabs(4)) - quoted)
    if not text[content:end].strip():
        return Line("blank", content, indent, after) if whole else None
    if _RULE.match(text, content, end):
        return Line("rule", content, indent, after)
    marker = _MARKER.match(text, content, end)
    inner = marker.end() if marker else content
    if text[inner:end][:1] in ("`", "~") or (marker and inner == end and not whole):
        if not whole and end - inner <= _MAX_INFO and (inner == end or _FENCE_SO_FAR.match(text, inner, end)):
            return None
        fence = _FENCE.match(text, inner, end) if whole and end - inner <= _MAX_INFO else None
        if fence:
            return Line("fence", inner, indent, after, fence[0], quoted)
    if marker:
        return Line("item", inner, indent, first=marker["number"] in (None, "1") and inner < end)
    if _HEADING.match(text, content, end):
        return Line("heading", content, indent)
    if text[content] == "|" and end - content <= MAX_ROW:
        return _table(text, content, end, final, Line("text", content, indent)) if whole else None
    if text.startswith(("$$", "\\["), content):
        return _maths(text, content, final, Line("text", content, indent))
    return Line("text", content, indent)


def _table(text: str, content: int, end: int, final: bool, plain: Line) -> Line | None:
    row = text[content:end].rstrip()
    if len(row) > 1 and row.endswith("|"):
        return replace(plain, kind="table")
    delimiter = read_delimiter(text, end + 1, final)
    return None if delimiter is None else replace(plain, kind="table", loose=True) if delimiter else plain


def _maths(text: str, content: int, final: bool, plain: Line) -> Line | None:
    close = _DISPLAY_SPAN.end(text, content, final)
    if close is None or close == content:
        return None if close is None else plain
    rest = _REST.search(text, close)  # it matches the empty text
    after = close if rest is None else rest.end()
    if after == len(text):
        return replace(plain, kind="maths", end=after) if final else None
    return replace(plain, kind="maths", end=after + 1) if text[after] == "\n" else plain


def read_delimiter(text: str, at: int, final: bool) -> bool | None:
    """Whether the line that begins at `at` is the second line of a table; None while more text could tell."""
    end = text.find("\n", at)
    if end < 0 and not final:
        return None if at >= len(text) or _DELIMITER_SO_FAR.match(text, at) else False
    return bool(_DELIMITER.match(text, at, end if end >= 0 else len(text)))


@dataclass
class Block:
    """Lines that belong together: fenced code, or a table when `fence` is empty."""

    fence: str = ""
    quoted: bool = False
    loose: bool = False
    opening: bool = True
    """Its first line is still to be read."""

    def continues(self, text: str, start: int, end: int) -> bool | None:
        """Whether the line at `start` belongs to the block; `end`: where it ends, 0 as long as it has none. None: open."""
        if self.fence and not self.quoted:
            return True
        line = text[start : end or len(text)]
        if self.loose:
            return None if not end and len(line) <= MAX_ROW else "|" in line and 0 < end <= start + MAX_ROW
        begin = line.lstrip(" \t" if self.fence else "> \t")
        if not begin and not end and len(line) < MAX_ROW:
            return None
        return begin.startswith(">" if self.fence else "|")

    def closes(self, line: str) -> bool:
        """Whether `line`, not the first, is the last line of fenced code."""
        marker = line.lstrip("> \t").rstrip()
        return bool(self.fence) and len(marker) >= len(self.fence) and not marker.strip(self.fence[0])


STOPS: Final = ".!?…؟۔।。！？"
_WIDE: Final = frozenset("。！？")
_END: Final = re.compile(rf"(?P<stop>[{STOPS}]+)[\"'”’»」』）)\]*_]*(?P<space>[^\S\n]*)")
_ABBREVIATION: Final = re.compile(rf"\b(?:{ABBREVIATIONS}|ca|Nr|Eq|Vol|pp)\.\Z")


@dataclass(frozen=True)
class Stop:
    """Punctuation that may end a sentence."""

    skip: int
    """Behind it."""
    end: int = 0
    """Where the next sentence begins on the same line, if one does."""
    line: bool = False
    """The sentence ends with the line."""


def read_stop(text: str, at: int, final: bool) -> Stop | None:
    """The punctuation at `at`, one of STOPS; None while more text could tell (never when `final`)."""
    match = _END.match(text, at)
    assert match is not None  # there is a stop at the position
    end = match.end()
    if end == len(text):
        return Stop(match.end("stop")) if final else None
    if match["stop"] == "." and _ABBREVIATION.search(text, max(0, at - 12), at + 1):
        return Stop(match.end("stop"))
    following = text[end]
    if following == "\n":
        return Stop(match.end("stop"), line=True)
    parted = match["space"] or match["stop"][-1] in _WIDE
    return Stop(match.end("stop"), end if parted and not (following.islower() or following in ".,;:!?…)") else 0)


_SPACE: Final = re.compile(r"\s(?=\S)")


def last_gap(text: str, limit: int, spans: list[tuple[int, int]]) -> int:
    """The last white space up to `limit` that is in no span, or in any, or else where no character is torn apart."""
    gaps = [match.end() for match in _SPACE.finditer(text, 0, limit + 1) if match.end() <= limit]
    for gap in reversed(gaps):
        if not any(start < gap < end for start, end in spans):
            return gap
    if gaps:
        return gaps[-1]
    for end in range(limit, limit - 50, -1):
        if not _joined(text[end - 1], text[end]):
            return end
    return limit


def _joined(left: str, right: str) -> bool:
    """Whether a cut between the two would tear a character apart: combining marks, joiners, skin tones, flags, CR LF."""
    marks = unicodedata.category(right).startswith("M") or right == "\u200d" or left == "\u200d"
    emoji = "\U0001f3fb" <= right <= "\U0001f3ff" or (
        "\U0001f1e6" <= right <= "\U0001f1ff" and "\U0001f1e6" <= left <= "\U0001f1ff"
    )
    return marks or emoji or left + right == "\r\n"
