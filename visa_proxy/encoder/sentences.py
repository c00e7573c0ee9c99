"""Cutting a text into sentences."""

from __future__ import annotations

import re
from typing import Final

ABBREVIATIONS: Final = r"e\.g|i\.e|etc|vs|cf|approx|Mr|Mrs|Ms|Dr|Prof|St|No|Inc|Ltd|Jr|Sr|Fig|al|[ap]\.m|[A-Z]"
"""A pattern of what a dot may follow without ending a sentence: abbreviations, and initials."""
_ABBREVIATION: Final = re.compile(rf"\b(?:{ABBREVIATIONS})\.\Z")
_LONGEST: Final = 12
"""Characters in which an abbreviation fits: the rest of a line is not searched again at every dot."""
_END: Final = re.compile(r"(?<=[.!?…])[\"'”’)\]*_]*\s+(?=[^\s.,;:!?])")
_FENCE: Final = re.compile(r"^[ \t]*+(`{3,}+|~{3,}+)[^\n]*+\n(?:.*?^[ \t]*\1[ \t]*$|.*\Z)", re.MULTILINE | re.DOTALL)
"""Possessive, so that a long run of backticks is looked at once."""
_MARKER: Final = re.compile(r"^[ \t]*(?:[-*•+>]|#{1,6}|\d{1,3}[.)])[ \t]+")


def split_sentences(text: str) -> list[str]:
    """The sentences of `text` in order, stripped, without list markers; a line end always ends a sentence.

    Fenced code is left out: it carries neither values nor prose, and placeholders guard it. Texts without any punctuation give
    one sentence a line.
    """
    sentences: list[str] = []
    for line in _FENCE.sub("\n", text).split("\n"):
        sentences += _split_line(_MARKER.sub("", line).strip())
    return sentences


def _split_line(line: str) -> list[str]:
    pieces: list[str] = []
    start = 0
    for match in _END.finditer(line):
        short = _ABBREVIATION.search(line, max(start, match.start() - _LONGEST), match.start())
        if short or line[match.end()].islower():
            continue
        pieces.append(line[start : match.end()].strip())
        start = match.end()
    pieces.append(line[start:].strip())
    return [piece for piece in pieces if any(character.isalnum() for character in piece)]
